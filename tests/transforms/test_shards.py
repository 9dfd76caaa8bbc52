import hashlib
import io
import json
import tarfile
import warnings
from pathlib import Path

import apache_beam as beam
import pytest
from PIL import Image

from sources import encode, square_image, write_tar
from stage_runs import Bench, as_json, example, ingest_part, part
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError, InputChangedError
from tagmill.tag_system.shard_contract import INDEX_SCHEMA, Sample, unescape
from tagmill.transforms import caption, parquet, parse, parts
from tagmill.transforms.clean import Clean, CleanConfig
from tagmill.transforms.duplicates import Duplicates, DuplicatesConfig
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.parse import Parse, ParseConfig
from tagmill.transforms.shards import (
    Shards,
    ShardsConfig,
    ShardTask,
    ShardWorker,
    index_uri,
    make_sample,
    tar_uri,
    write_shard,
)
from tagmill.transforms.worker import Deal


def saved(number, format_):
    sink = io.BytesIO()
    square_image(["red", "blue"], number).save(sink, format_)
    return sink.getvalue()


def digest(uri):
    return hashlib.sha256(files.read_bytes(uri)).hexdigest()


KEYS = ["plain", "folder.a/with space", "漢字/ключ😀", "k" * 380, "percent%2F", "last"]
FORMATS = ["PNG", "JPEG", "WEBP"]


def source(path):
    contents = []
    for number, key in enumerate(KEYS):
        format_ = FORMATS[number % 3]
        extension = {"PNG": "png", "JPEG": "JPG", "WEBP": "webp"}[format_]
        fields = {
            "captions": ["a red square", "", "größer 😀"] if number != 4 else [],
            "labels": [{"name": "red", "box": [0.1, 2, 3, 16777217]}],
            "url": "http://example.org/ü",
            "split": "val" if number == 2 else "train",
        }
        contents.append((f"{key}.{extension}", saved(number, format_)))
        contents.append((f"{key}.json", as_json(fields)))
    return write_tar(path, contents)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return made(folder, source(folder / "data" / "a.tar"))


def made(folder, path, part_size=2):
    bench = Bench(folder / "run", part_size=part_size)
    bench.ingest(path)
    bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
    bench.candidates()
    bench.run(Localize(LocalizeConfig(model="square_models:SquareLocalizer"), bench.shared))
    bench.run(Clean(CleanConfig(), bench.shared))
    return bench


def task(bench, stage, split="train"):
    return ShardTask(f"{split}-000000", split, "made-by", bench.tasks(stage))


@pytest.fixture
def stage(bench):
    return Shards(ShardsConfig(), bench.shared)


@pytest.fixture
def shard(bench, stage, tmp_path):
    """The folder of a written shard of the split `train`."""
    write_shard(stage, str(tmp_path / "shards"), task(bench, stage))
    return str(tmp_path / "shards")


def in_split(bench, split):
    found = [r for name in bench.names for r in bench.part("ingest", name).records]
    return [r for r in found if r["split"] == split]


def read(shard, name="train-000000"):
    with tarfile.open(tar_uri(shard, name)) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive]


def test_a_shard_holds_the_original_bytes_of_its_split_in_order(shard, bench):
    expected = in_split(bench, "train")
    members = read(shard)
    images = [(unescape(m.name.split(".")[0]), data) for m, data in members if not m.name.endswith(".json")]
    assert (
        [key for key, _ in images]
        == [r["key"] for r in expected]
        == [f"squares/{k}" for k in KEYS if k != KEYS[2]]
    )
    assert [hashlib.sha256(data).hexdigest() for _, data in images] == [r["sha256"] for r in expected]
    assert [m.name.split(".")[1] for m, _ in members] == [
        "png",
        "json",
        "jpg",
        "json",
        "png",
        "json",
        "jpg",
        "json",
        "webp",
        "json",
    ]


def test_every_record_is_a_sample_of_the_contract(shard, bench):
    rows = {r["key"]: r for r in in_split(bench, "train")}
    for member, data in read(shard):
        if member.name.endswith(".json"):
            sample = Sample.model_validate_json(data)
            row = rows[sample.key]
            assert (sample.width, sample.height, sample.format, sample.sha256) == (
                row["width"],
                row["height"],
                row["format"],
                row["sha256"],
            )
            assert sample.meta == row["meta"]
            assert json.loads(sample.meta) == {"url": "http://example.org/ü", "split": "train"}
            assert [(label.name, label.box) for label in sample.labels] == [("red", [0.1, 2, 3, 16777216])]
            assert [c.text for c in sample.captions] == [c for c in row["captions"] if c is not None]
            (red,) = [t for t in sample.tags if t.tag == "red"]
            assert (red.verdict, red.rule, red.basis) == ("kept", "given", "given")
            (localized,) = red.evidence
            assert (localized.model, localized.boxes[0][4]) == ("localize", 0.9)


def test_captions_keep_their_own_mentions_after_a_hole(shard):
    sample = next(Sample.model_validate_json(d) for m, d in read(shard) if m.name.endswith(".json"))
    assert [(c.text, [m.tag for m in c.mentions]) for c in sample.captions] == [
        ("a red square", ["red"]),
        ("größer 😀", []),
    ]


def test_generated_captions_stand_after_the_given_and_have_their_own_mentions():
    def parsed(source, index, *tags):
        mentions = [{"tag": t, "kind": "object", "surface": t, "start": 2, "end": 2 + len(t)} for t in tags]
        return {"row": 0, "source": source, "caption_index": index, "mentions": mentions}

    captions = [parsed("given", 0, "red"), parsed("given", 2), parsed("generated", 0, "blue", "green")]
    read = {
        "ingest": ingest_part(example(0, captions=["a red one", None, "nothing"])),
        "caption": part("caption", caption.SCHEMA, [{"row": 0, "caption": "a blue one"}]),
        "parse": part("parse", parse.SCHEMA, captions),
    }
    found = make_sample(parts.Inputs("p", read, {}, ""), 0)["captions"]
    assert [(c["text"], c["source"], [m["tag"] for m in c["mentions"]]) for c in found] == [
        ("a red one", "given", ["red"]),
        ("nothing", "given", []),
        ("a blue one", "generated", ["blue", "green"]),
    ]
    assert found[0]["mentions"] == [{"tag": "red", "kind": "object", "start": 2, "end": 5}]


def test_offsets_of_the_index_point_at_the_exact_bytes(shard):
    table = parquet.read_table(index_uri(shard, "train-000000"))
    assert table.schema.remove_metadata().equals(INDEX_SCHEMA)
    data = files.read_bytes(tar_uri(shard, "train-000000"))
    index = table.to_pylist()
    assert [(r["member"], data[r["offset"] :][: r["size"]]) for r in index] == [
        (m.name, content) for m, content in read(shard)
    ]
    assert all(unescape(r["member"].split(".")[0]) == r["key"] for r in index)
    header = json.loads(table.schema.metadata[parquet.METADATA_KEY])
    assert header["sha256"] == hashlib.sha256(data).hexdigest()
    assert (header["bytes"], header["examples"], header["split"]) == (len(data), 5, "train")


def test_the_same_bytes_whatever_the_retry_the_machine_or_the_clock(shard, bench, stage, tmp_path):
    first = digest(tar_uri(shard, "train-000000"))
    files.remove(tar_uri(shard, "train-000000"))
    files.remove(index_uri(shard, "train-000000"))
    write_shard(stage, shard, task(bench, stage))
    assert digest(tar_uri(shard, "train-000000")) == first
    other = made(tmp_path / "elsewhere", source(tmp_path / "elsewhere" / "b" / "a.tar"))
    write_shard(Shards(ShardsConfig(), other.shared), str(tmp_path / "s"), task(other, stage))
    assert digest(tar_uri(str(tmp_path / "s"), "train-000000")) == first
    for member, _ in read(shard):
        assert (member.uid, member.gid, member.mtime, member.uname, member.gname) == (0, 0, 0, "", "")
    assert str(tmp_path).encode() not in files.read_bytes(tar_uri(shard, "train-000000"))


def test_a_tar_without_an_index_is_taken_over(shard, bench, stage):
    expected = digest(index_uri(shard, "train-000000"))
    files.remove(index_uri(shard, "train-000000"))
    write_shard(stage, shard, task(bench, stage))
    assert digest(index_uri(shard, "train-000000")) == expected


def test_another_tar_in_its_place_is_damage(shard, bench, stage):
    files.remove(index_uri(shard, "train-000000"))
    files.replace_bytes(tar_uri(shard, "train-000000"), b"half a tar")
    with pytest.raises(DamageError, match="train-000000"):
        write_shard(stage, shard, task(bench, stage))


@pytest.mark.parametrize("runner", ["FnApiRunner", "BundleBasedDirectRunner"])
def test_the_beam_job_writes_the_same_bytes(shard, bench, stage, tmp_path, runner):
    folder = str(tmp_path / runner)
    tasks = [task(bench, stage, split) for split in ("train", "val")]
    for _ in range(2):  # the second time there is nothing left to do
        with beam.Pipeline(runner=runner) as pipeline:
            pipeline | beam.Create(tasks) | Deal(ShardWorker(stage, folder))
    assert digest(tar_uri(folder, "train-000000")) == digest(tar_uri(shard, "train-000000"))
    assert [unescape(m.name.split(".")[0]) for m, _ in read(folder, "val-000000")] == [
        f"squares/{KEYS[2]}"
    ] * 2
    assert len(list(Path(folder).glob("*.*"))) == 4


def test_webdataset_reads_a_shard(shard, bench):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        found = list(webdataset.WebDataset(tar_uri(shard, "train-000000"), shardshuffle=False).decode("pil"))
    assert [sample["json"]["key"] for sample in found] == [r["key"] for r in in_split(bench, "train")]
    for sample in found:
        (image,) = [value for value in sample.values() if isinstance(value, Image.Image)]
        assert image.size == (sample["json"]["width"], sample["json"]["height"])


def test_an_image_that_changed_since_ingest_stops_the_run(stage, tmp_path):
    path = source(tmp_path / "a.tar")
    bench = made(tmp_path, path)
    place = bench.part("ingest").records[0]["image"]
    data = bytearray(path.read_bytes())
    data[place["offset"] + place["size"] // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputChangedError, match="squares/plain"):
        write_shard(stage, str(tmp_path / "shards"), task(bench, stage))
    assert files.list_names(str(tmp_path / "shards")) == []


def test_losers_and_dead_are_not_in_a_shard(tmp_path):
    image = encode(square_image(["red"], 1))
    contents = [
        ("a.png", image),
        ("b.png", image),
        ("c.png", b"broken"),
        ("d.png", encode(square_image(["blue"], 2))),
    ]
    bench = made(tmp_path, write_tar(tmp_path / "a.tar", contents))
    stage = Shards(ShardsConfig(), bench.shared)
    write_shard(stage, str(tmp_path / "s"), task(bench, stage))
    members = [unescape(m.name.split(".")[0]) for m, _ in read(str(tmp_path / "s"))]
    assert members == ["squares/a", "squares/a", "squares/d", "squares/d"]


@pytest.mark.parametrize(
    "fields",
    [
        b'{"x": "\\ud83d", "\\udc00": ["\\udfff"]}',
        b'{"x": "\\u0000\\u2028</script>"}',
        b'{"x": NaN, "big": 123456789012345678901234567890}',
    ],
    ids=["half characters", "control characters", "numbers"],
)
def test_odd_meta_is_written_as_strict_json(tmp_path, fields):
    path = write_tar(tmp_path / "a.tar", [("a.png", encode(square_image(["red"], 1))), ("a.json", fields)])
    bench = made(tmp_path, path)
    stage = Shards(ShardsConfig(), bench.shared)
    write_shard(stage, str(tmp_path / "s"), task(bench, stage))
    (_, _), (_, data) = read(str(tmp_path / "s"))
    expected = json.loads(fields, parse_constant=lambda _: None)
    meta = json.loads(data.decode(), parse_constant=pytest.fail)["meta"]
    assert json.loads(meta, parse_constant=pytest.fail) == expected
