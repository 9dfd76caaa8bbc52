"""What commands print at a terminal of 80 columns: all of it, in lines that are no longer."""

import json
import re
from pathlib import Path

import pytest

from commands import call
from runs import current_folder
from tagmill.runners.commands.fitted import shortened
from tagmill.transforms import parquet

LONG = "a name of a tag that nobody would give to any thing whatsoever, for it is long"

NUMBER = re.compile(r"(?<![\w.…])\d[\d,.]*(?![\w.…])")


@pytest.fixture(scope="module")
def truth(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A truth that is wrong about some."""
    rows = []
    for path in sorted(current_folder(finished / "run", "ingest").glob("*.parquet")):
        keys = parquet.read_table(str(path), ["key"])["key"].to_pylist()
        rows += [{"key": key, "tags": ["red", "blue"]} for key in keys]
    path = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines_at(columns: int, monkeypatch: pytest.MonkeyPatch, *arguments: object, code: int = 0) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    out, _ = call(*arguments, code=code)
    return out.splitlines()


def test_every_table_fits_a_terminal(finished, truth, monkeypatch):
    run = finished / "run"
    vocabulary = str(finished / "vocabulary.tsv")
    many = f"SELECT '{LONG}' AS named, * FROM tags"
    for arguments in [
        ("status", run),
        ("plan", finished / "config.yaml", "--set", "clean.policy.adaptive.weak_box=0.9"),
        ("score", run, "--truth", truth, "--per-tag"),
        ("tune", run, "--truth", truth),
        ("inspect", run, "squares/000001"),
        ("sql", run, f"SELECT '{LONG}' AS one, tag, '{LONG}' AS other, images FROM tags"),
        ("sql", run, "SELECT * EXCLUDE (spec, libraries, dead, seconds) FROM stages"),
        ("sql", run, many),
        ("vocab", "show", "red", "--vocabulary", vocabulary),
        ("verify", run),
        ("gc", run, "--dry-run"),
    ]:
        wide = lines_at(1_000, monkeypatch, *arguments)
        narrow = lines_at(80, monkeypatch, *arguments)
        prose = {line for line in wide if ": " in line}  # the terminal folds it
        assert [line for line in narrow if len(line) > 80 and line not in prose] == []
        said = [sorted(NUMBER.findall("\n".join(lines))) for lines in (wide, narrow)]
        assert said[0] == said[1], arguments
    shown = lines_at(80, monkeypatch, "sql", run, f"SELECT '{LONG}' AS one, tag, images FROM tags")
    assert all("a name of" in line and "it is long" in line and len(line) <= 80 for line in shown[1:])


def test_two_runs_are_compared_within_a_terminal(finished, tmp_path, monkeypatch):
    ours = [finished / "run", finished / "run"]
    assert all(len(line) <= 80 or ": " in line for line in lines_at(80, monkeypatch, "diff", *ours))


@pytest.mark.parametrize("text", [LONG, "絵" * 40, "a" * 90, "short"])
@pytest.mark.parametrize("width", [4, 16, 33])
def test_a_name_is_cut_in_the_middle(text, width):
    from rich.cells import cell_len

    found = shortened(text, width)
    assert cell_len(found) <= width
    assert found == text or (found.count("…") == 1 and text.startswith(found.partition("…")[0]))
    assert text.endswith(found.partition("…")[2])
