"""What the demo prints when its run is made: scores against the truth, and what to look at next."""

import os
import shutil
import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding

from tagmill.pipeline.run_folder import REPORT, RunFolder
from tagmill.pipeline.study.evaluation import Truth, read_truth, score_run
from tagmill.pipeline.study.example import decided_examples, find_example
from tagmill.pipeline.study.report import SITE
from tagmill.pipeline.study.site.base import SiteOptions
from tagmill.pipeline.study.site.site import write_site
from tagmill.runners.commands.example_view import draw
from tagmill.runners.commands.fitted import FittedTable, columns_of
from tagmill.runners.commands.score import remarks, score_table
from tagmill.tag_system.core import files
from tagmill.transforms import parquet

SHOWN_TAGS = 5

SITE_SAMPLES = 2
"""Images that the site shows of each tag, verdict and rule: the demo is to be quick."""

MOST_DROPPED = f"SELECT tag, proposed, kept, dropped FROM tags ORDER BY dropped DESC, tag LIMIT {SHOWN_TAGS}"


def show(console: Console, run: RunFolder, config: str, truth_file: Path | None) -> None:
    """Print the report of a finished run with this config file; without a truth nothing is scored."""
    truth = read_truth(str(truth_file)) if truth_file else None
    if truth:
        _show_scores(console, run, truth)
    key = choose_example(run, truth)
    console.print()
    console.print("What to look at next", style="bold")
    _show_dataset(console, run, key)
    _show_tables(console, run)
    if key:
        _show_example(console, run, key)
    _show_site(console, run, truth)
    console.print()
    console.print("What would another policy cost? No model runs again:")
    _show_command(console, f"{command()} plan {config} --set clean.policy.rule=paper")


def _show_scores(console: Console, run: RunFolder, truth: Truth) -> None:
    scores = score_run(run, truth)
    console.print()
    console.print("Tags against the truth", style="bold")
    console.print(score_table(scores, truth))
    for line in remarks(scores["clean"]):
        console.print(line, style="dim", highlight=False)


def choose_example(run: RunFolder, truth: Truth | None = None) -> str | None:
    """Choose the example that shows most: a wrong tag that went and right ones that stayed, with boxes.

    Returns its key; the first of equals, None if no example lives.
    """
    best: tuple[int, str] | None = None
    for example, decisions in decided_examples(run):
        true = truth.of(example) if truth else None
        worth = _worth(decisions, true)
        if best is None or worth > best[0]:
            best = worth, example["key"]
    return best[1] if best else None


def _worth(decisions: Sequence[dict[str, Any]], true: AbstractSet[str] | None) -> int:
    """Weigh how much of the engine's work shows in one example."""
    kept = [d for d in decisions if d["verdict"] == "kept"]
    dropped = [d for d in decisions if d["verdict"] == "dropped" and d["rule"] != "not_proposed"]
    worth = 4 * bool(kept and dropped)
    worth += any(d["boxes"] for d in kept) + any(d["boxes"] for d in dropped)
    worth += any(d["parsed"] for d in dropped) + any(not d["parsed"] for d in kept) + (2 <= len(kept) <= 5)
    if true is not None:
        worth += 4 * ({d["tag"] for d in kept} == true and not true & {d["tag"] for d in dropped})
    return worth


def _show_dataset(console: Console, run: RunFolder, key: str | None) -> None:
    folder = run.generation("shards", run.current("shards") or "")
    console.print()
    console.print(
        "The dataset: webdataset tars, an index of each, a manifest and a data card", highlight=False
    )
    console.print(f"  {_short(folder)}", highlight=False, markup=False)
    found = _members(folder, key) if key else None
    if found:
        tar, member = found
        console.print("One sample of it, with every tag's evidence:", highlight=False)
        _show_command(console, f"tar -xOf {_short(tar)} {member} | python3 -m json.tool | less")


def _members(folder: str, key: str) -> tuple[str, str] | None:
    """Find the tar and the member that hold an example's JSON."""
    for name in files.list_names(folder, ".index.parquet"):
        rows = parquet.read_table(files.join(folder, name), ["key", "member"]).to_pylist()
        for row in rows:
            if row["key"] == key and row["member"].endswith(".json"):
                return files.join(folder, name.removesuffix(".index.parquet") + ".tar"), row["member"]
    return None


def _show_tables(console: Console, run: RunFolder) -> None:
    path = run.path("report", "tags.parquet")
    console.print()
    console.print("A table of all tags and one of all stages. Which did cleaning drop of most images?")
    _show_command(console, f'{command()} sql {_short(run.root)} "{MOST_DROPPED}"')
    table = FittedTable(columns_of(("tag",), ("proposed", "kept", "dropped"), cut=("tag",)), "dim")
    for row in most_dropped(path):
        table.add_row(*map(str, row))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))


def most_dropped(path: str) -> list[tuple[str, int, int, int]]:
    """Answer `MOST_DROPPED` without DuckDB."""
    rows = parquet.read_table(path, ["tag", "proposed", "kept", "dropped"]).to_pylist()
    found = [(row["tag"], row["proposed"], row["kept"], row["dropped"]) for row in rows]
    return sorted(found, key=lambda row: (-row[3], row[0]))[:SHOWN_TAGS]


def _show_example(console: Console, run: RunFolder, key: str) -> None:
    picture = run.path("report", "example.png")
    draw(run, find_example(run, key), picture)
    console.print()
    console.print("Why does an image have its tags, and why did others go? This one is drawn already:")
    console.print(f"  {_short(picture)}", highlight=False, markup=False)
    _show_command(console, f"{command()} inspect {_short(run.root)} {key} --output {_short(picture)}")


def _show_site(console: Console, run: RunFolder, truth: Truth | None) -> None:
    folder = run.path(REPORT, SITE)
    write_site(run, folder, SiteOptions(samples=SITE_SAMPLES), truth)
    console.print()
    console.print(
        "The whole run as pages, without a server: every tag, the weakest decisions, what was lost."
    )
    console.print(f"  {_short(folder)}/index.html", highlight=False, markup=False)


def _show_command(console: Console, line: str) -> None:
    console.print(f"  {line}", style="cyan", highlight=False, markup=False)


def command() -> str:
    """Say how this program was called, so that what is printed can be pasted."""
    called = os.path.abspath(sys.argv[0])
    is_on_path = shutil.which("tagmill") == called
    return "tagmill" if is_on_path or os.path.basename(called) != "tagmill" else _short(called)


def _short(path: str) -> str:
    """Write a path relative to the working directory, if it lies below it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
