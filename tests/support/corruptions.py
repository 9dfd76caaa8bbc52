"""Damage that is done to a finished run, by hand or by a disk: a table of what `verify` has to name.

Each leaves a run that looks like one: files are rewritten as somebody would who knows their format.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runs import current_folder, drive, latest_note, squares_config
from sources import members, write_squares, write_tar

Plant = Callable[[Path], Path]
"""Does damage to the run in a folder, and gives what `verify` has to name. Beside it lies `other`, a run of
other images."""


@dataclass(frozen=True)
class Corruption:
    """Damage, and what the next run does: `unseen`, for it opens no file that a record covers; `repaired`;
    or `refused` with one line. It is whole again in any case once what `verify` named is removed."""

    name: str
    plant: Plant
    then: str = "unseen"


def make_runs(folder: Path) -> Path:
    """Make a run with all kinds of files, and beside it `other`; gives its config.

    There are dead letters, arrays, a second generation of most stages, a report.
    """
    for name, first in (("it", 0), ("other", 40)):
        contents = [item for i in range(first, first + 11) for item in members(f"{i:06d}", i).items()]
        contents += [(f"broken{first}.png", b"not an image"), (f"broken{first}.txt", b"a red square")]
        write_tar(folder / name / "data" / "a.tar", contents)
        write_squares(folder / name / "data" / "b.tar", 8, first + 20)
        config = squares_config(
            folder / name,
            {},
            run=str(folder / "runs" / {"it": "run"}.get(name, name)),
            max_dead_fraction=0.5,
            features={"model": "square_models:SquareTeacher"},
            parse={"mode": "fast"},
            caption={"model": "square_models:SquareCaptioner"},
        )
        if name == "it":
            drive(config, "tag.score_floor=0.2")
        drive(config)
    return folder / "it" / "config.yaml"


def _part(stage: str, number: int = 0) -> Plant:
    return lambda run: sorted(current_folder(run, stage).glob("*-0000?.parquet"))[number]


def _within(stage: str, name: str) -> Plant:
    return lambda run: sorted(current_folder(run, stage).glob(name))[0]


def _record(stage: str) -> Plant:
    return lambda run: latest_note(current_folder(run, stage) / "records")


def _pointer(stage: str) -> Plant:
    return lambda run: latest_note(run / stage)


def _beneath(name: str) -> Plant:
    return lambda run: run / name


DEAD = _within("ingest", "dead/*.parquet")
SOURCE = _within("ingest", "sources/*.json")
INDEX = _within("shards", "*.index.parquet")
TAR = _within("shards", "*.tar")
MANIFEST = _within("shards", "manifest.json")
CLUSTERS = _within("cluster", "clusters.parquet")


def _rows(stage: str) -> Plant:
    return _within(stage, "records/rows*")


def _removed(find: Plant) -> Plant:
    def plant(run: Path) -> Path:
        path = find(run)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return path

    return plant


def _stray(stage: str, name: str, find: Plant | None = None) -> Plant:
    """Put a file where none belongs: a copy of another, or any bytes; * is the current generation."""

    def plant(run: Path) -> Path:
        folder = current_folder(run, stage) if name.startswith("*/") else run / stage
        path = folder / name.removeprefix("*/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(find(run).read_bytes() if find else b"anything")
        return path

    return plant


def _bytes(find: Plant, change: Callable[[bytes], bytes]) -> Plant:
    def plant(run: Path) -> Path:
        path = find(run)
        before = path.read_bytes()
        after = change(before)
        assert after != before, f"{path} is as it was"
        path.write_bytes(after)
        return path

    return plant


def _cut(find: Plant, count: int = 20) -> Plant:
    return _bytes(find, lambda data: data[:-count])


def _text(find: Plant, pattern: str, new: str) -> Plant:
    return _bytes(find, lambda data: re.sub(pattern.encode(), new.encode(), data, count=1))


def _swapped(one: Plant, other: Plant) -> Plant:
    def plant(run: Path) -> Path:
        first, second = one(run), other(run)
        data = first.read_bytes()
        assert data != second.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
        return first

    return plant


def _taken(find: Plant, source: Plant | None = None) -> Plant:
    """Put in its place what lies there in the other run, or what `source` finds in this one."""

    def plant(run: Path) -> Path:
        path = find(run)
        data = (source(run) if source else find(run.parent / "other")).read_bytes()
        assert data != path.read_bytes()
        path.write_bytes(data)
        return path

    return plant


def _older(stage: str) -> Plant:
    def find(run: Path) -> Path:
        current = current_folder(run, stage)
        (other,) = (f for f in (run / stage).iterdir() if f.is_dir() and f != current)
        return sorted(other.glob("*.parquet"))[0]

    return find


def _table(find: Plant, change: Callable[[pa.Table], pa.Table]) -> Plant:
    """Rewrite a table, its header kept."""

    def plant(run: Path) -> Path:
        path = find(run)
        before = pq.read_table(path)
        after = change(before)
        pq.write_table(after.replace_schema_metadata(before.schema.metadata), path)
        return path

    return plant


def _column(find: Plant, name: str, change: Callable[[list[Any]], Sequence[Any]]) -> Plant:
    def changed(found: pa.Table) -> pa.Table:
        field = found.schema.field(name)
        before = found[name].to_pylist()
        after = list(change(before))
        assert after != before, f"{name} is as it was"
        return found.set_column(found.schema.get_field_index(name), field, pa.array(after, field.type))

    return _table(find, changed)


def _header(find: Plant, old: bytes, new: bytes) -> Plant:
    def changed(run: Path) -> Path:
        path = find(run)
        table = pq.read_table(path)
        header = {key: value.replace(old, new) for key, value in table.schema.metadata.items()}
        assert header != table.schema.metadata
        pq.write_table(table.replace_schema_metadata(header), path)
        return path

    return changed


def _with_first(change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [change(values[0]), *values[1:]]


def _exchanged(values: list[Any]) -> list[Any]:
    """Swap the first value with the last one that differs from it."""
    place = max(n for n, value in enumerate(values) if value != values[0])
    return [values[place], *values[1:place], values[0], *values[place + 1 :]]


def _renamed_generation(run: Path) -> Path:
    folder = current_folder(run, "embed")
    folder.rename(folder.with_name("0123456789ab"))
    return folder


def _dangling(find: Plant) -> Plant:
    def plant(run: Path) -> Path:
        path = find(run)
        path.unlink()
        path.symlink_to("nowhere")
        return path

    return plant


def _pointers(stage: str) -> Plant:
    def plant(run: Path) -> Path:
        for path in (run / stage).glob("_STAGE*"):
            path.unlink()
        return run / stage

    return plant


def _folder_of(find: Plant) -> Plant:
    return lambda run: find(run).parent


def _then_folder(plant: Plant) -> Plant:
    """Name the folder of what was damaged: that of a file which nobody can name any more."""

    def planted(run: Path) -> Path:
        return plant(run).parent

    return planted


def _named(plant: Plant, find: Plant) -> Plant:
    """Name another file than that which is damaged: that which vouches for it."""

    def planted(run: Path) -> Path:
        plant(run)
        return find(run)

    return planted


def _nudge(number: float) -> float:
    return number + 0.25


PARTS = [
    Corruption("a part cut short", _cut(_part("tag"))),
    Corruption("a part emptied", _bytes(_part("parse"), lambda data: b"")),
    Corruption("a part with more behind it", _bytes(_part("caption"), lambda data: data + b"\0")),
    Corruption(
        "a byte in the midst of a part", _bytes(_part("embed", 1), lambda d: d[:99] + b"!!" + d[101:])
    ),
    Corruption("a part removed", _removed(_part("clean")), "repaired"),
    Corruption("a part that is a link to nowhere", _dangling(_part("candidates")), "refused"),
    Corruption("two parts swapped", _swapped(_part("embed"), _part("embed", 1))),
    Corruption("parts of two stages swapped", _swapped(_part("tag"), _part("parse"))),
    Corruption("a part of the older generation", _taken(_part("tag"), _older("tag"))),
    Corruption("a part of another run", _taken(_part("caption"))),
    Corruption("a part compressed anew", _table(_part("localize"), lambda table: table)),
    Corruption("a row taken out", _table(_part("localize"), lambda table: table.slice(1))),
    Corruption("a row repeated", _table(_part("clean"), lambda t: pa.concat_tables([t, t.slice(0, 1)]))),
    Corruption("rows in another order", _table(_part("tag"), lambda t: t.take(list(range(len(t)))[::-1]))),
    Corruption("a stray part", _stray("tag", "*/stray-00000.parquet", _part("tag")), "repaired"),
    Corruption("a stray file", _stray("clean", "*/deep/er/stray")),
    Corruption("a stray array", _stray("features", "*/stray.npy")),
    Corruption("caption edited", _column(_part("ingest"), "captions", _with_first(lambda c: ["a dog"]))),
    Corruption("key edited", _column(_part("ingest"), "key", _with_first(lambda key: key + "x"))),
    Corruption("split edited", _column(_part("ingest"), "split", _with_first(lambda s: "test"))),
    Corruption("meta edited", _column(_part("ingest"), "meta", _with_first(lambda m: "{}"))),
    Corruption("labels edited", _column(_part("ingest"), "labels", _with_first(lambda found: []))),
    Corruption(
        "digest of an image edited", _column(_part("ingest"), "sha256", _with_first(lambda s: "0" * 64))
    ),
    Corruption(
        "reference of an image edited",
        _column(_part("ingest"), "image", _with_first(lambda i: i | {"offset": i["offset"] + 512})),
    ),
    Corruption("mentions taken out", _column(_part("parse"), "mentions", _with_first(lambda found: []))),
    Corruption("generated caption edited", _column(_part("caption"), "caption", _with_first(str.upper))),
    Corruption("score of the tagger edited", _column(_part("tag"), "score", _with_first(_nudge))),
    Corruption("name of a class edited", _column(_part("tag"), "name", _exchanged)),
    Corruption("candidates exchanged", _column(_part("candidates"), "tag", _exchanged)),
    Corruption("prompt edited", _column(_part("candidates"), "prompts", _with_first(lambda p: ["dog"]))),
    Corruption("box edited", _column(_part("localize"), "x1", _with_first(_nudge))),
    Corruption("score of a box edited", _column(_part("localize"), "score", lambda s: [1.0] * len(s))),
    Corruption("score of a region edited", _column(_part("embed"), "own_score", _with_first(_nudge))),
    Corruption("embedding edited", _column(_part("embed"), "embedding", _exchanged)),
    Corruption("verdicts edited", _column(_part("clean"), "verdict", lambda v: ["dropped"] * len(v))),
    Corruption("rule edited", _column(_part("clean"), "rule", _with_first(lambda rule: "other"))),
    Corruption("basis edited", _column(_part("clean"), "basis", _with_first(lambda b: "reviewed"))),
    Corruption("header with another model", _header(_part("tag"), b"SquareTagger", b"BetterTagger")),
    Corruption("header with another version", _header(_part("parse"), b'"version": ', b'"version": 1')),
    Corruption("header of another stage", _header(_part("embed"), b'"embed"', b'"tag"')),
]

NOTES = [
    Corruption("dead letter edited", _column(DEAD, "detail", lambda texts: ["nothing"] * len(texts))),
    Corruption("reason edited", _column(DEAD, "reason", lambda reasons: ["image_missing"] * len(reasons))),
    Corruption("dead letter taken out", _table(DEAD, lambda table: table.slice(1))),
    Corruption("dead letters cut short", _cut(DEAD)),
    Corruption("dead letters removed", _removed(DEAD), "repaired"),
    Corruption("dead letters of another run", _taken(DEAD)),
    Corruption("stray dead letters", _stray("tag", "*/dead/stray.parquet", DEAD)),
    Corruption("digest of a source edited", _text(SOURCE, '"examples": ', '"examples": 1'), "refused"),
    Corruption("record of a source removed", _removed(SOURCE), "repaired"),
    Corruption("record of a source of another run", _taken(SOURCE), "refused"),
    Corruption("stray record of a source", _stray("ingest", "*/sources/stray.json", SOURCE)),
    Corruption("counts edited", _text(_record("ingest"), r'"dead": {"\w+": 1}', '"dead": {}'), "refused"),
    Corruption("a part taken out of a record", _text(_record("tag"), r"\n{[^\n]*},\n", "\n"), "refused"),
    Corruption("seal edited", _text(_record("localize"), '"seal": "..', '"seal": "00'), "refused"),
    Corruption(
        "generation edited",
        _text(_record("cluster"), '"generation": ".', '"generation": "_'),
        "refused",
    ),
    Corruption("a record that is none", _bytes(_record("clean"), lambda data: b"{garbage"), "refused"),
    Corruption("a record that is no text", _bytes(_record("parse"), lambda data: b"\xff\xfe: ["), "refused"),
    Corruption("a record emptied", _bytes(_record("embed"), lambda data: b""), "refused"),
    Corruption("a record cut short", _cut(_record("features")), "refused"),
    Corruption(
        "a record of another run",
        _then_folder(_then_folder(_taken(_record("candidates")))),
        "refused",
    ),
    Corruption(
        "a record of another stage",
        _then_folder(_then_folder(_taken(_record("caption"), _record("parse")))),
        "repaired",
    ),
    Corruption("a record removed", _then_folder(_then_folder(_removed(_record("caption")))), "repaired"),
    Corruption("all records removed", _then_folder(_removed(_folder_of(_record("duplicates")))), "repaired"),
    Corruption("bitmaps cut short", _named(_cut(_rows("tag")), _record("tag")), "refused"),
    Corruption("bitmaps removed", _named(_removed(_rows("embed")), _record("embed")), "refused"),
    Corruption(
        "bitmaps edited",
        _named(_column(_rows("clean"), "came", _with_first(lambda b: b"")), _record("clean")),
        "refused",
    ),
    Corruption("bitmaps swapped", _named(_swapped(_rows("tag"), _rows("ingest")), _record("tag")), "refused"),
    Corruption("stray record", _stray("ingest", "*/records/stray.json", _record("ingest"))),
    Corruption("pointer removed", _then_folder(_removed(_pointer("tag"))), "repaired"),
    Corruption("pointers removed", _pointers("clean"), "repaired"),
    Corruption("pointer edited", _text(_pointer("embed"), '"generation": ".', '"generation": "_'), "refused"),
    Corruption(
        "pointer of another stage",
        _then_folder(_taken(_pointer("localize"), _pointer("tag"))),
        "repaired",
    ),
    Corruption("pointer that is none", _bytes(_pointer("shards"), lambda data: b"{garbage"), "refused"),
    Corruption("pointer cut short", _cut(_pointer("features"), 5), "refused"),
    Corruption("stray file beside pointers", _stray("clean", "stray.json", _pointer("clean"))),
    Corruption("a stage removed", _removed(_beneath("tag")), "repaired"),
    Corruption("the last stage removed", _removed(_beneath("features")), "repaired"),
    Corruption("a generation removed", _removed(lambda run: current_folder(run, "localize")), "repaired"),
    Corruption("a generation renamed", _renamed_generation, "repaired"),
    Corruption("run.yaml with another threshold", _text(_beneath("run.yaml"), "0.45", "0.35"), "repaired"),
    Corruption(
        "run.yaml finished otherwise",
        _text(_beneath("run.yaml"), "finished:\n", "finished: {}\n"),
        "refused",
    ),
    Corruption("run.yaml without its digest", _text(_beneath("run.yaml"), "# sha256: ", "# "), "repaired"),
    Corruption(
        "run.yaml with a line more",
        _bytes(_beneath("run.yaml"), lambda d: d + b"more: 1\n"),
        "repaired",
    ),
]

OUTPUTS = [
    Corruption("clusters cut short", _cut(CLUSTERS), "refused"),
    Corruption("clusters edited", _column(CLUSTERS, "spread", _with_first(_nudge)), "repaired"),
    Corruption("clusters exchanged", _column(CLUSTERS, "centroids", _exchanged), "repaired"),
    Corruption("clusters removed", _removed(CLUSTERS), "repaired"),
    Corruption("offsets swapped", _column(INDEX, "offset", _exchanged)),
    Corruption("sizes edited", _column(INDEX, "size", _with_first(lambda size: size - 1))),
    Corruption("keys swapped", _column(INDEX, "key", _exchanged)),
    Corruption("member taken out", _table(INDEX, lambda table: table.slice(1))),
    Corruption("header of an index edited", _header(INDEX, b'"examples": ', b'"examples": 1'), "refused"),
    Corruption("index removed", _removed(INDEX), "repaired"),
    Corruption(
        "indexes swapped",
        _swapped(INDEX, _within("shards", "train-000001.index.parquet")),
        "repaired",
    ),
    Corruption("verdict edited in a shard", _text(TAR, '"verdict":"kept"', '"verdict":"KEPT"')),
    Corruption("byte of an image edited", _text(TAR, "IDAT", "IDAU")),
    Corruption("tar cut short", _cut(TAR, 512)),
    Corruption("tar with zeros behind it", _bytes(TAR, lambda data: data + bytes(512))),
    Corruption("tars swapped", _swapped(TAR, _within("shards", "train-000001.tar"))),
    Corruption("tar removed", _removed(TAR), "repaired"),
    Corruption("tar of another run", _taken(TAR)),
    Corruption("stray tar", _stray("shards", "*/train-000009.tar", TAR)),
    Corruption("stray index", _stray("shards", "*/train-000009.index.parquet", INDEX)),
    Corruption("counts of the manifest edited", _text(MANIFEST, '"train": ', '"train": 1'), "repaired"),
    Corruption("manifest of another run", _taken(MANIFEST), "repaired"),
    Corruption("manifest that is none", _bytes(MANIFEST, lambda d: b"{}"), "repaired"),
    Corruption("data card edited", _text(_within("shards", "README.md"), "a", "b"), "repaired"),
    Corruption("vocabulary edited", _text(_within("shards", "vocabulary.tsv"), "red", "rot"), "repaired"),
    Corruption("vocabulary removed", _removed(_within("shards", "vocabulary.tsv")), "repaired"),
    Corruption("cut edited", _text(_within("shards", "cut.json"), "train-000001", "train-000002"), "refused"),
    Corruption("cut removed", _removed(_within("shards", "cut.json")), "repaired"),
    Corruption("features edited", _bytes(_within("features", "*.npy"), lambda d: d[:-2] + b"\x00\x3c")),
    Corruption("features cut short", _cut(_within("features", "*.npy"), 8)),
    Corruption("features removed", _removed(_within("features", "*.npy")), "repaired"),
    Corruption(
        "features of two shards swapped",
        _swapped(_within("features", "*0.npy"), _within("features", "*1.npy")),
    ),
    Corruption(
        "features of another shard", _header(_within("features", "*.parquet"), b'"shard": "', b'"shard": "0')
    ),
    Corruption(
        "length of features edited", _column(_within("features", "*.parquet"), "length", _with_first(_nudge))
    ),
    Corruption(
        "report edited",
        _column(_beneath("report/stages.parquet"), "examples_out", _with_first(lambda n: n + 1)),
        "repaired",
    ),
    Corruption("report cut short", _cut(_beneath("report/tags.parquet")), "repaired"),
    Corruption("table of the report removed", _removed(_beneath("report/tags.parquet")), "repaired"),
    Corruption(
        "tables of the report swapped",
        _swapped(_beneath("report/tags.parquet"), _beneath("report/stages.parquet")),
        "repaired",
    ),
    Corruption(
        "stray table of the report", _stray("report", "stray.parquet", _beneath("report/tags.parquet"))
    ),
    Corruption(
        "seals edited",
        _text(_beneath("report/seals.json"), '"tags.parquet": "..', '"tags.parquet": "00'),
        "repaired",
    ),
    Corruption("seals removed", _removed(_beneath("report/seals.json")), "repaired"),
    Corruption("seals that are none", _bytes(_beneath("report/seals.json"), lambda data: b"[]"), "repaired"),
]

ALL = [*PARTS, *NOTES, *OUTPUTS]
