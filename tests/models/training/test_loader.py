import os
import pickle
import re
import warnings
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from batches import ids, same
from runs import samples
from tagmill.models.ram.preprocess import prepare
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.ranges import RangeReader
from tagmill.models.training.views import PlainView
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import Sample, unescape

DOCUMENT = Path(__file__).parents[3] / "docs" / "shards.md"


def by_key(finished):
    return {sample["key"]: Sample.model_validate(sample) for sample in samples(finished / "run")}


def test_a_batch_has_what_a_model_learns_from(finished, shards, loader_of):
    loader = loader_of(shards, batch_size=14, name="squares")
    (batch,) = loader
    known = by_key(finished)
    assert (batch.images.shape, batch.images.dtype) == ((14, 3, 32, 32), torch.float32)
    assert len(batch) == 14
    assert bool(batch.valid.all())
    assert sorted(ids([batch])) == sorted(("squares", k) for k, s in known.items() if s.split == "train")
    for (_, key), target, mask, mentioned, text in zip(
        batch.ids, batch.targets, batch.known, batch.mentioned, batch.captions, strict=True
    ):
        kept = {tag.tag for tag in known[key].tags if tag.verdict == "kept"}
        open_ = {tag.tag for tag in known[key].tags if tag.verdict == "uncertain"}
        names = ["violet", "red", "green", "blue", "yellow", "tidy"]
        assert target.tolist() == [float(name in kept) for name in names]
        assert mask.tolist() == [float(name not in open_ and name != "violet") for name in names]
        (caption,) = [caption for caption in known[key].captions if caption.text == text][:1]
        said = {mention.tag for mention in caption.mentions}
        assert mentioned.tolist() == [name in said for name in names]
    purple = sum(tag.tag == "purple" for s in known.values() for tag in s.tags if s.split == "train")
    assert loader.unmapped == Counter(purple=purple)


def test_workers_do_not_change_a_bit(shards, loader_of):
    alone, helped = loader_of(shards), loader_of(shards, workers=2)
    for _ in range(2):
        assert all(same(*pair) for pair in zip(alone, helped, strict=True))


def test_padding_teaches_nothing(shards, loader_of):
    *_, last = loader_of(shards, "val", batch_size=5)
    assert last.valid.tolist() == [True] * 3 + [False] * 2
    assert not last.known[3:].any()
    assert not last.images[3:].any()
    assert last.ids[3:] == (("", ""),) * 2
    assert not last.skipped


def test_validation_is_the_same_every_time(shards, loader_of):
    loader = loader_of(shards, "val")
    first, second = list(loader), list(loader)
    assert all(same(*pair) for pair in zip(first, second, strict=True))


def test_epochs_differ_in_order_in_pixels_and_in_captions(finished, shards, loader_of):
    loader = loader_of(shards, batch_size=14)
    epochs = [batch for _ in range(6) for batch in loader]
    assert len({epoch.ids for epoch in epochs}) == 6
    images, captions = {}, {}
    for epoch in epochs:
        for row, name in enumerate(epoch.ids):
            images.setdefault(name, set()).add(epoch.images[row].numpy().tobytes())
            captions.setdefault(name, set()).add(epoch.captions[row])
    assert {len(views) for views in images.values()} == {6}
    known = by_key(finished)
    for (_, key), drawn in captions.items():
        assert drawn <= {caption.text for caption in known[key].captions if caption.text.strip()}
    assert max(map(len, captions.values())) > 1


def test_chance_elsewhere_is_left_alone(shards, loader_of):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(loader_of(shards))
    assert torch.equal(torch.rand(2), expected)


def test_webdataset_reads_the_same_shards_and_sees_the_same_images(shards, loader_of, ram_config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset as wds

        urls = [str(shards / f"{name}.tar") for name in ("val-000000",)]
        theirs = {
            unescape(sample["__key__"]): sample
            for sample in wds.WebDataset(urls, shardshuffle=False).decode("pil")
        }
    (batch,) = loader_of(shards, "val", batch_size=8)
    assert [key for _, key in batch.ids] == list(theirs)
    for (_, key), image in zip(batch.ids, batch.images, strict=True):
        pixels = np.asarray(theirs[key]["png"].convert("RGB"))
        assert torch.equal(image, torch.from_numpy(prepare(pixels, ram_config())))
        assert theirs[key]["json"]["key"] == key


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not beside the tests")
def test_webdataset_gives_the_same_samples_as_the_document_reads_them(
    shards, loader_of, ram_config, monkeypatch
):
    monkeypatch.chdir(shards)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "import webdataset" in block]
    exec(compile(block, str(DOCUMENT), "exec"), names := {})
    theirs = {key: sample for key, *sample in names["dataset"]}
    model = ram_config(classes=("red", "blue", "green", "yellow"))
    (batch,) = loader_of(shards, batch_size=14, model=model, view=PlainView(model))
    assert {key for _, key in batch.ids} == set(theirs)
    for (_, key), pixels, target, text in zip(
        batch.ids, batch.images, batch.targets, batch.captions, strict=True
    ):
        image, kept, captions = theirs[key]
        assert torch.equal(pixels, torch.from_numpy(prepare(np.asarray(image), model)))
        assert target.tolist() == [name in kept for name in model.classes]
        assert text in captions


def test_a_mix_shows_each_dataset_by_its_weight(shards, copied, ram_config):
    data = DataConfig.model_validate(
        {
            "datasets": [
                {"path": str(shards), "name": "often", "weight": 2, "tags": "parsed"},
                {"path": str(copied), "name": "seldom", "weight": 0.5},
            ],
            "batch_size": 7,
            "workers": 0,
        }
    )
    loader = open_loader(data, ram_config(), "train")
    assert [loader.steps(epoch) for epoch in (0, 1)] == [5, 5]
    first, second = Counter(ids(loader)), Counter(ids(loader))
    assert {count for (name, _), count in first.items() if name == "often"} == {2}
    seldom = [name for name in [*first, *second] if name[0] == "seldom"]
    assert len(seldom) == len(set(seldom)) == 14


def test_two_showings_in_one_epoch_are_two_views(shards, loader_of):
    (batch,) = loader_of(shards, batch_size=28, weight=2)
    views = {}
    for name, image in zip(batch.ids, batch.images, strict=True):
        views.setdefault(name, set()).add(image.numpy().tobytes())
    assert {len(found) for found in views.values()} == {2}


class Newer:
    """Decisions that call everything tidy, on the images whose key has an even number."""

    @staticmethod
    def has(key):
        return key[-1:].isdigit() and int(key[-1]) % 2 == 0

    def check(self, dataset, vocabulary, keys):
        assert all(key.startswith("squares/") for key in keys)

    def tags_of(self, sample):
        from tagmill.models.training.targets import NewerTag
        from tagmill.tag_system.decisions import Evidence

        if not self.has(sample.key):
            return None
        return [NewerTag("tidy", "kept", "given", "given", Evidence(given=1))]


@pytest.mark.parametrize(("tags", "workers"), [("stored", 1), ("adaptive", 0)])
def test_newer_decisions_are_laid_over_those_of_the_shards(shards, loader_of, tags, workers):
    (plain,) = loader_of(shards, "val", batch_size=8)
    (newer,) = loader_of(shards, "val", batch_size=8, decisions=Newer(), tags=tags, workers=workers)
    changed = [Newer().has(key) for _, key in plain.ids]
    assert 0 < sum(changed) < 8
    for row, is_newer in enumerate(changed):
        expected = torch.tensor([0.0, 0, 0, 0, 0, 1]) if is_newer else plain.targets[row]
        assert torch.equal(newer.targets[row], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 15}, "samples of an epoch do not fill one step of 15"),
        ({"batch_size": 8, "world": 2}, "lower batch_size"),
    ],
)
def test_a_batch_that_cannot_be_filled_is_refused(shards, loader_of, settings, message):
    with pytest.raises(ConfigError, match=message):
        loader_of(shards, **settings)


def test_classes_and_names_that_cannot_work_are_refused(shards, copied, loader_of, ram_config):
    with pytest.raises(ConfigError, match="none of the model's 1 classes"):
        loader_of(shards, model=ram_config(classes=("zebra",)))
    twice = DataConfig.model_validate({"datasets": [{"path": str(shards)}] * 2, "batch_size": 1})
    with pytest.raises(ConfigError, match="give each a `name`"):
        open_loader(twice, ram_config(), "train")
    with pytest.raises(ConfigError, match="no dataset has examples in the split test: leave it out, or"):
        loader_of(shards, "test")


def test_datasets_without_the_split_are_left_out_of_validation(shards, copied, ram_config):
    manifest = (copied / "manifest.json").read_text().replace('"split": "val"', '"split": "test"')
    (copied / "manifest.json").write_text(manifest.replace('"val": 8', '"test": 8'))
    data = {"datasets": [{"path": str(shards)}, {"path": str(copied)}], "batch_size": 8, "workers": 0}
    (batch,) = open_loader(DataConfig.model_validate(data), ram_config(), "val")
    assert {name for name, _ in batch.ids} == {shards.name}


def test_remote_shards_give_the_same_batches(shards, loader_of):
    fs = fsspec.filesystem("memory")
    fs.put(f"{shards}/", "/far/squares/", recursive=True)
    try:
        far = loader_of("memory://far/squares", name="squares", verify=True)
        assert all(same(*pair) for pair in zip(far, loader_of(shards, name="squares"), strict=True))
    finally:
        fs.rm("/far", recursive=True)


def test_the_loaders_parts_travel_to_workers_that_do_not_fork(shards, loader_of):
    loader = loader_of(shards)
    examples, collate = pickle.loads(pickle.dumps((loader._batches.dataset, loader._batches.collate_fn)))
    found = collate(examples.__getitems__(next(iter(loader._place))))
    assert same(found, next(iter(loader)))


def test_few_files_stay_open(tmp_path, monkeypatch):
    from tagmill.models.training import ranges

    monkeypatch.setattr(ranges, "OPEN_FILES", 3)
    for number in range(10):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 4)
    reader = RangeReader()
    wanted = [(str(tmp_path / str(number % 10)), 1, 3) for number in range(30)]
    before = len(os.listdir("/proc/self/fd"))
    assert reader.read(wanted) == [bytes([number % 10]) * 2 for number in range(30)]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
