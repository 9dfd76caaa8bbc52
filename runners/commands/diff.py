"""`tagmill diff`: two runs, generations or datasets, compared by image and by tag."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from tagmill.pipeline.study.decided import Decided, open_decided
from tagmill.pipeline.study.diff import DiffFindings, TagMoves, differences, flips
from tagmill.pipeline.study.diff_pages.base import A_CELL
from tagmill.pipeline.study.diff_pages.writing import RULE, write_pages
from tagmill.pipeline.study.evaluation import read_truth
from tagmill.pipeline.study.moved import CLOSE
from tagmill.pipeline.study.site.folder import SiteMade
from tagmill.runners.commands.fitted import Column, FittedTable, columns_of
from tagmill.runners.commands.pages_made import say_made
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import dump_json

MOST_CELLS = 30
MOST_TAGS = 20
"""Kinds of change, and tags, that the tables list."""

SHORT_VALUE = 40
"""Characters that are shown of a fingerprint or a setting."""


@dataclass(frozen=True)
class DiffRequest:
    """What is compared, and how it is shown."""

    a: str
    b: str
    examples: int
    truth: str | None
    as_json: bool
    pages: str | None = None
    private: bool = False


def show_diff(console: Console, request: DiffRequest) -> bool:
    """Print what differs between two sides; gives whether nothing does.

    Raises ConfigError for what cannot be compared, and for a truth that is none.
    """
    if request.private and not request.pages:
        raise ConfigError("--private is for pages: name their folder with --pages")
    a, b = open_decided(request.a), open_decided(request.b)
    if request.pages:
        RULE.target(request.pages)  # before the images are compared, which may take long
    truth = read_truth(request.truth, b.vocabulary()) if request.truth else None
    most = max(request.examples, A_CELL if request.pages else 0)
    found = differences(a, b, examples=most, truth=truth)
    made = _write_pages(a, b, found, request)
    _show(console, a, b, found.shortened(request.examples), request, made)
    return found.is_same


def _write_pages(a: Decided, b: Decided, found: DiffFindings, request: DiffRequest) -> SiteMade | None:
    if request.pages is None:
        return None
    return write_pages(a, b, found.shortened(A_CELL), request.pages, private=request.private)


def _show(
    console: Console,
    a: Decided,
    b: Decided,
    found: DiffFindings,
    request: DiffRequest,
    made: SiteMade | None,
) -> None:
    if request.as_json:
        _say(console, json.dumps(_summary(a, b, found) | ({"pages": asdict(made)} if made else {})))
        return
    _say(console, f"A  {a.title}")
    _say(console, f"B  {b.title}")
    _show_causes(console, found)
    if unknown := sorted(a.unknown | b.unknown):
        _say(console, f"not known of an older generation: how {', '.join(unknown)} took examples out then")
    _show_images(console, found)
    _show_cells(console, found)
    _show_tags(console, found)
    if found.rights:
        _say(console, "")
        _say(console, f"truth: {found.rights.said()}")
    if request.pages and made:
        _say(console, "")
        say_made(console, request.pages, made)


def _show_causes(console: Console, found: DiffFindings) -> None:
    _say(console, "")
    if not found.causes:
        _say(console, "made in the same way: settings, models, vocabulary, versions and libraries are equal")
        return
    _head(console, "Made otherwise")
    for name, (was, now) in found.causes.items():
        _say(console, f"  {name}  {_value(was)} -> {_value(now)}")


def _show_images(console: Console, found: DiffFindings) -> None:
    images = found.images
    _say(console, "")
    _say(
        console,
        f"images: {images.a:,} in A, {images.b:,} in B; {images.common:,} common, {images.came:,} came, "
        f"{images.went:,} went, {images.changed:,} changed under their key",
    )
    for name, keys in images.keys.items():
        if keys:
            _say(console, f"  {name}: {', '.join(keys)}")
    if images.repeated:
        _say(console, f"  {images.repeated:,} are left out: another image of their side has their key")


def _show_cells(console: Console, found: DiffFindings) -> None:
    moved = list(flips(found))
    total, count = found.cells.total(), sum(count for _, count in moved)
    _say(console, "")
    _say(console, f"tags of common images: {total:,}, {count:,} of them with another verdict or rule")
    if not moved:
        return
    table = FittedTable(columns_of(("A", "B"), ("tags", "close"), cut=("A", "B")))
    for cell, number in moved[:MOST_CELLS]:
        table.add_row(*cell, f"{number:,}", f"{found.close[cell]:,}")
    console.print(table)
    for cell, _ in moved[:MOST_CELLS]:
        if shown := found.examples.get(cell):
            _say(console, f"  {cell[0]} -> {cell[1]}: {', '.join(f'{one.key} {one.tag}' for one in shown)}")
    if len(moved) > MOST_CELLS:
        _say(console, f"and {len(moved) - MOST_CELLS} more kinds of change; --json lists all")
    _say(
        console,
        f"close: the verdict differs, and a score that decided lies within {CLOSE:g} of its threshold",
    )


def _show_tags(console: Console, found: DiffFindings) -> None:
    moved = [(tag, moves) for tag, moves in found.by_moves() if moves.lost or moves.won]
    if not moved:
        return
    _say(console, "")
    _head(console, "Tags that moved most, by images")
    numbers_of = ("kept in A", "kept in B", "in A alone", "in B alone", "p")
    table = FittedTable([*columns_of(("tag",), numbers_of, cut=("tag",)), Column("")])
    for tag, moves in [*moved[:MOST_TAGS], ("all tags", found.all_tags)]:
        numbers = (moves.a, moves.b, moves.lost, moves.won)
        table.add_row(
            tag, *(f"{n:,}" for n in numbers), f"{moves.p:.2g}", "within the noise" if moves.is_noise else ""
        )
    console.print(table)
    if len(moved) > MOST_TAGS:
        _say(console, f"and {len(moved) - MOST_TAGS} more tags; --json lists all")


def _summary(a: Decided, b: Decided, found: DiffFindings) -> dict[str, Any]:
    """Give everything for a machine."""
    rights = found.rights
    return {
        "a": a.title,
        "b": b.title,
        "same": found.is_same,
        "unknown_stages": sorted(a.unknown | b.unknown),
        "made_otherwise": {name: list(values) for name, values in found.causes.items()},
        "images": asdict(found.images),
        "verdicts": [
            {
                "a": cell[0],
                "b": cell[1],
                "tags": count,
                "close": found.close[cell],
                "examples": [{"key": one.key, "tag": one.tag} for one in found.examples.get(cell, ())],
            }
            for cell, count in sorted(found.cells.items())
        ],
        "tags": {tag: _moves(moves) for tag, moves in found.by_moves()},
        "all_tags": _moves(found.all_tags),
        "truth": rights and asdict(rights) | {"p": rights.p, "noise": rights.is_noise},
    }


def _moves(moves: TagMoves) -> dict[str, Any]:
    return asdict(moves) | {"p": moves.p, "noise": moves.is_noise}


def _value(value: object) -> str:
    text = value if isinstance(value, str) else dump_json(value)
    return text if len(text) <= SHORT_VALUE else text[: SHORT_VALUE - 1] + "…"


def _head(console: Console, line: str) -> None:
    console.print(line, style="bold", markup=False, highlight=False)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
