import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from runs import current_folder
from tagmill.models.ram import config as configs
from tagmill.models.ram import store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.training.datasets import open_dataset
from tagmill.models.training.examples import RangeReader
from tagmill.runners import cli
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import Sample

CLASSES = ("red", "green square", "Blue", "violet")
"""`violet` is no tag of the dataset."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A RAM++ of random weights."""
    torch.manual_seed(0)
    config = RamConfig(
        image_size=32,
        encoder=EncoderConfig(
            name="resnet18",
            arguments={"layers": (1, 1, 1, 1), "channels": (4, 8, 12, 16)},
            stages=(3,),
            width=16,
        ),
        dimension=8,
        head=HeadConfig(hidden=16, heads=2, inner=32, dropout=0.0),
        classes=CLASSES,
        descriptions=2,
    )
    ram = RamPlus(config)
    ram.set_labels(torch.nn.functional.normalize(torch.randn(8, 8), dim=1))
    folder = tmp_path_factory.mktemp("model")
    store.save(ram, folder)
    return folder


@pytest.fixture(scope="module")
def shards(finished):
    return current_folder(finished / "run", "shards")


def samples(shards, split):
    dataset = open_dataset(str(shards), split)
    reader = RangeReader()
    for shard, end in enumerate(dataset.ends):
        for place in dataset.places[end - dataset.counts[shard] : end]:
            start, size = int(place["record"]), int(place["record_size"])
            (data,) = reader.read([(dataset.shard_uri(shard), start, start + size)])
            yield Sample.model_validate_json(data)


def tagmill(*arguments):
    """Run a command in this process, where torch is loaded already; gives what it prints."""
    found = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if found.exception is not None:
        raise found.exception
    return found.output


def evaluated(folder, *arguments):
    tagmill("models", "eval", *arguments, "--out", folder)
    rows = pq.read_table(folder / "tags.parquet").to_pylist()
    return {row["tag"]: row for row in rows}, json.loads((folder / "summary.json").read_text())


def test_shards_are_measured_by_their_own_tags(model, shards, tmp_path):
    tags, summary = evaluated(tmp_path / "out", model, "--shards", shards, "--split", "train")
    expected = list(samples(shards, "train"))
    assert summary["images"] == len(expected) == 14
    assert tags["violet"]["images"] == 0
    assert summary["all"]["tags"] == 3
    red = [[tag.verdict for tag in sample.tags if tag.tag == "red"] for sample in expected]
    assert tags["red"]["positives"] == red.count(["kept"])
    assert tags["red"]["images"] == 14 - red.count(["uncertain"])
    assert tags["red"]["kind"] == "object"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<polyline" in page
    assert "red: AP" in page


def test_a_truth_a_list_and_a_folder_give_the_same(model, shards, tmp_path, finished):
    dataset = [*samples(shards, "train"), *samples(shards, "val")]
    rng = np.random.default_rng(0)
    shown = [[name for name in CLASSES[:2] if rng.random() < 0.5] for _ in dataset]
    truth, annots, tags = tmp_path / "truth.parquet", tmp_path / "annots.txt", tmp_path / "tags.txt"
    keys = [sample.key.partition("/")[2] for sample in dataset]
    pq.write_table(pa.table({"key": keys, "tags": shown}), truth)
    annots.write_text("\n".join(",".join([key, *names]) for key, names in zip(keys, shown, strict=True)))
    tags.write_text("red\ngreen square\n")
    both = "--shards", shards, "--split", "train", "--split", "val"
    by_truth, _ = evaluated(tmp_path / "1", model, *both, "--truth", truth, "--taglist", tags)
    by_list, summary = evaluated(tmp_path / "2", model, *both, "--annots", annots, "--taglist", tags)
    assert by_truth == by_list
    assert summary["images"] == len(dataset)
    (tmp_path / "images").mkdir()
    extract(shards, tmp_path / "images")
    by_folder, summary = evaluated(
        tmp_path / "3", model, "--images", tmp_path / "images", "--annots", annots, "--taglist", tags
    )
    assert summary["images"] == len(dataset)
    assert {name: row["ap"] for name, row in by_folder.items()} == pytest.approx(
        {name: row["ap"] for name, row in by_list.items()}
    )


def extract(shards, folder):
    import tarfile

    from tagmill.tag_system.shard_contract import unescape

    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.name.endswith(".json"):
                    name, _, extension = member.name.rpartition(".")
                    target = folder / (unescape(name).partition("/")[2] + "." + extension)
                    target.write_bytes(tar.extractfile(member).read())


def test_tags_of_a_list_are_scored_as_among_all(model, shards, tmp_path):
    every, _ = evaluated(tmp_path / "1", model, "--shards", shards)
    (tmp_path / "tags.txt").write_text("Blue\nred\n")
    some, _ = evaluated(tmp_path / "2", model, "--shards", shards, "--taglist", tmp_path / "tags.txt")
    assert list(some) == ["Blue", "red"]
    for name in some:
        np.testing.assert_allclose(some[name]["threshold_at"], every[name]["threshold_at"], rtol=1e-5)


def test_other_tags_are_scored_by_their_embeddings(model, shards, tmp_path):
    labels = store.load(model).label_embed.detach()
    (tmp_path / "tags.txt").write_text("red\ngreen square\n")
    save_file({"labels": labels[:4].contiguous()}, tmp_path / "labels.safetensors")
    torch.save(labels[:4].clone(), tmp_path / "labels.pth")
    listed = model, "--shards", shards, "--taglist", tmp_path / "tags.txt"
    expected, _ = evaluated(tmp_path / "1", *listed)
    for name in ("labels.safetensors", "labels.pth"):
        found, _ = evaluated(tmp_path / name[-3:], *listed, "--embeddings", tmp_path / name)
        for tag in found:
            np.testing.assert_allclose(found[tag]["threshold_at"], expected[tag]["threshold_at"], rtol=1e-5)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.ones(4, 3), r"is \(4, 3\): for 2 tags it should be \[tags x descriptions, 8\]"),
        (torch.ones(0, 8), r"is \(0, 8\): for 2 tags it should be"),
        (torch.full((4, 8), torch.nan), "has numbers that are not finite"),
    ],
)
def test_embeddings_that_fit_no_tags_are_refused(model, shards, embeddings, message, tmp_path):
    (tmp_path / "tags.txt").write_text("red\ngreen square\n")
    save_file({"labels": embeddings}, tmp_path / "labels.safetensors")
    asked = "--taglist", tmp_path / "tags.txt", "--embeddings", tmp_path / "labels.safetensors"
    with pytest.raises(ConfigError, match=message):
        tagmill("models", "eval", model, "--shards", shards, *asked, "--out", tmp_path)


def test_thresholds_are_chosen_checked_and_put_to_use(model, shards, tmp_path):
    import shutil

    copy = Path(shutil.copytree(model, tmp_path / "model"))
    out = tagmill(
        *("models", "calibrate", copy, "--shards", shards, "--split", "train", "--split", "val"),
        *("--min-positives", 4, "--hold-out", 0.4, "--apply", "--out", tmp_path / "out"),
    )
    assert "of 4 tags have a threshold of their own" in out
    chosen = [float(line) for line in (tmp_path / "out" / "thresholds.txt").read_text().splitlines()]
    assert configs.read(copy).thresholds == tuple(chosen)
    rows = pq.read_table(tmp_path / "out" / "calibration.parquet").to_pylist()
    assert [row["threshold"] for row in rows] == chosen
    assert {row["tag"]: row["fallback"] for row in rows}["violet"] == "few_positives"
    by_file, _ = evaluated(
        tmp_path / "1", model, "--shards", shards, "--thresholds", tmp_path / "out" / "thresholds.txt"
    )
    by_model, _ = evaluated(tmp_path / "2", copy, "--shards", shards)
    assert str(by_file) == str(by_model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the images by --shards, or those of --annots by --images"),
        (("--images", "x"), "--images needs their labels"),
        (("--shards", "x", "--annots", "a"), "--annots needs the list of its tags, --taglist"),
        (("--shards", "x", "--split", "dev"), "--split dev: a split is one of train, val, test"),
        (("--shards", "x", "--dtype", "int8"), "dtype must be one of"),
        (("--shards", "x", "--threshold", 0.5, "--thresholds", "t"), "give one of them"),
        (("--shards", "x"), "x has no manifest.json"),
    ],
)
def test_bad_usage_is_one_line(model, arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as raised:
        tagmill("models", "eval", model, *arguments, "--out", tmp_path)
    assert "\n" not in str(raised.value)


def test_a_dataset_that_is_named_twice_is_refused(model, shards, tmp_path):
    (tmp_path / "link").symlink_to(shards)
    twice = "--shards", shards, "--shards", tmp_path / "link"
    with pytest.raises(ConfigError, match=r"--shards .*link: this dataset is named twice"):
        tagmill("models", "eval", model, *twice, "--out", tmp_path)


@pytest.mark.parametrize("bad", ["nan", "5", "-0.1"])
def test_thresholds_that_are_no_scores_are_refused(model, shards, bad, tmp_path):
    (tmp_path / "thresholds.txt").write_text(f"0.5\n{bad}\n1\n0\n")
    limits = "--thresholds", tmp_path / "thresholds.txt"
    with pytest.raises(ConfigError, match=rf"thresholds\.txt:2: {bad} is not a threshold from 0 to 1"):
        tagmill("models", "eval", model, "--shards", shards, *limits, "--out", tmp_path)


def test_labels_of_other_images_are_refused(model, shards, tmp_path):
    pq.write_table(pa.table({"key": ["nobody"], "tags": [["red"]]}), tmp_path / "truth.parquet")
    arguments = "--shards", shards, "--truth", tmp_path / "truth.parquet", "--out", tmp_path
    with pytest.raises(ConfigError, match="none of 8 images has labels"):
        tagmill("models", "eval", model, *arguments)
    keys = ["other/" + sample.key.rpartition("/")[2] for sample in samples(shards, "val")]
    pq.write_table(pa.table({"key": keys, "tags": [["red"]] * len(keys)}), tmp_path / "truth.parquet")
    with pytest.raises(ConfigError, match="none of 8 images has labels"):
        tagmill("models", "eval", model, *arguments)
