"""What `verify` finds: any changed bit, any missing file, any that does not belong, edits made by hand."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runs import current_folder, current_record, damaged, drive, latest_note, squares_config
from sources import members, write_tar
from tagmill.pipeline.current import current_records
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.records import root_digest
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.verify import check_root
from tagmill.tag_system.core import notes
from tagmill.tag_system.core.errors import DamageError

FLIPS = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run with all kinds of files: dead letters, arrays, a second generation, a report."""
    folder = tmp_path_factory.mktemp("whole")
    contents = [item for i in range(6) for item in members(f"{i:06d}", i).items()]
    contents += [("broken.png", b"not an image"), ("broken.txt", b"a red square")]
    write_tar(folder / "data" / "a.tar", contents)
    features = {"model": "square_models:SquareTeacher"}
    config = squares_config(folder, {}, max_dead_fraction=0.5, features=features)
    drive(config, "tag.score_floor=0.2")
    drive(config)
    assert damaged(folder / "run") == []
    return folder / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy, which a test may damage; records name their tables by the folder that they lie in."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def covered(run: Path) -> list[Path]:
    return [path for path in sorted(run.rglob("*")) if path.is_file() and path.parent.name != "tokens"]


def test_a_run_is_sound_wherever_it_lies(run):
    assert damaged(run) == []


def test_any_flipped_bit_is_found_and_its_file_named(run):
    dice = random.Random(7)
    paths = covered(run)
    assert {path.suffix for path in paths} == {".parquet", ".json", ".yaml", ".tar", ".tsv", ".md", ".npy"}
    for _ in range(FLIPS):
        path = dice.choice(paths)
        before = path.read_bytes()
        place = dice.randrange(len(before))
        path.write_bytes(
            before[:place] + bytes([before[place] ^ 1 << dice.randrange(8)]) + before[place + 1 :]
        )
        found = damaged(run)
        assert any(path.name in problem or path.parent.name in problem for problem in found), (path, place)
        path.write_bytes(before)
    assert damaged(run) == []


def test_any_missing_file_is_named(run):
    history = {uri for uri, _ in garbage(RunFolder(str(run)))}  # which nobody misses
    for path in covered(run):
        if path.name == "run.yaml" or any(str(path).startswith(uri) for uri in history):
            continue
        path.rename(run.parent / "aside")
        found = damaged(run)
        assert any(path.name in problem or path.parent.parent.name in problem for problem in found), path
        (run.parent / "aside").rename(path)


@pytest.mark.parametrize(
    "place",
    [
        "shards/*/stray.tar",
        "shards/*/train-000009.index.parquet",
        "tag/*/stray.parquet",
        "tag/*/dead/stray.parquet",
        "features/*/stray.npy",
        "ingest/*/sources/stray.json",
        "ingest/*/records/stray.json",
        "clean/stray.json",
        "report/stray.parquet",
        "clean/*/deep/er/stray",
    ],
)
def test_a_file_that_does_not_belong_is_named(run, place):
    stage, _, rest = place.partition("/")
    folder = current_folder(run, stage) if rest.startswith("*/") else run / stage
    path = folder / rest.removeprefix("*/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"anything")
    assert damaged(run) == [f"{path} does not belong there"]


def table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite a table as somebody would who knows Parquet, its header kept."""
    before = pq.read_table(path)
    pq.write_table(change(before).replace_schema_metadata(before.schema.metadata), path)


def with_column(name: str, change: Callable[[list], list]) -> Callable[[pa.Table], pa.Table]:
    def changed(found: pa.Table) -> pa.Table:
        place = found.schema.get_field_index(name)
        values = pa.array(change(found[name].to_pylist()), found.schema.field(name).type)
        return found.set_column(place, found.schema.field(name), values)

    return changed


def edited_index(run: Path) -> Path:
    path = next(current_folder(run, "shards").glob("*.index.parquet"))
    table(path, with_column("offset", lambda offsets: [offsets[1], offsets[0], *offsets[2:]]))
    return path


def edited_keys(run: Path) -> Path:
    path = next(current_folder(run, "shards").glob("*.index.parquet"))
    table(path, with_column("key", lambda keys: [keys[-1], *keys[1:]]))
    return path


def edited_letters(run: Path) -> Path:
    path = next((current_folder(run, "ingest") / "dead").glob("*.parquet"))
    table(path, with_column("detail", lambda details: ["nothing to see here"] * len(details)))
    return path


def edited_header(run: Path) -> Path:
    path = next(current_folder(run, "tag").glob("*.parquet"))
    found = pq.read_table(path)
    metadata = found.schema.metadata.items()
    header = {key: value.replace(b"SquareTagger", b"BetterTagger") for key, value in metadata}
    pq.write_table(found.replace_schema_metadata(header), path)
    return path


def edited_verdicts(run: Path) -> Path:
    path = next(current_folder(run, "clean").glob("*.parquet"))
    table(path, with_column("verdict", lambda verdicts: ["kept"] * len(verdicts)))
    return path


def edited_text(name: str) -> Callable[[Path], Path]:
    def edit(run: Path) -> Path:
        path = current_folder(run, "shards") / name
        path.write_text(path.read_text().replace("a", "b", 1))
        return path

    return edit


def edited_record(run: Path) -> Path:
    path = latest_note(current_folder(run, "ingest") / "records")
    path.write_text(re.sub(r'"dead": {"\w+": 1}', '"dead": {}', path.read_text()))
    return path


def shortened_record(run: Path) -> Path:
    path = latest_note(current_folder(run, "tag") / "records")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]))
    return path


def older_pointer(run: Path) -> Path:
    path = latest_note(run / "tag")
    path.unlink()
    return path.parent


def dropped_stage(run: Path) -> Path:
    shutil.rmtree(run / "tag")
    return run / "tag"


def dropped_last_stage(run: Path) -> Path:
    shutil.rmtree(run / "features")
    return run / "features"


def dropped_generation(run: Path) -> Path:
    folder = current_folder(run, "localize")
    shutil.rmtree(folder)
    return folder


EDITS = [
    edited_index,
    edited_keys,
    edited_letters,
    edited_header,
    edited_verdicts,
    edited_text("manifest.json"),
    edited_text("README.md"),
    edited_text("vocabulary.tsv"),
    edited_record,
    shortened_record,
    older_pointer,
    dropped_stage,
    dropped_last_stage,
    dropped_generation,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__qualname__.split(".")[0])
def test_an_edit_is_found(run, edit):
    path = edit(run)
    assert any(str(path) in problem for problem in damaged(run))


def test_records_and_files_that_were_changed_together_are_told_by_a_digest_that_was_kept(run):
    folder = RunFolder(str(run))
    root = root_digest(current_records(folder))
    assert [problems for *_, problems in check_root(folder, root)] == [[]]
    path = latest_note(current_folder(run, "ingest") / "records")
    record = notes.read(str(path))
    record["more"]["sources"] = [*record["more"]["sources"]]
    for part in record["parts"]:
        part["counts"]["dead"] = {}
    path.write_bytes(notes.dump(record))
    assert damaged(run) == []
    ((_, _, (problem,)),) = check_root(folder, root)
    assert "records and files were changed together" in problem
    assert current_record(run, "ingest").count("example", "dead") == 0


def test_json_that_people_edit_by_hand_is_refused_by_the_next_run_too(whole, tmp_path):
    shutil.copytree(whole.parent, tmp_path / "it")
    run = tmp_path / "it" / "run"
    path = edited_record(run)
    config = tmp_path / "it" / "config.yaml"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"run": str(run)}))
    with pytest.raises(DamageError, match=f"{path.name} is damaged .it was changed since it was written"):
        drive(config)
    assert path.exists()
