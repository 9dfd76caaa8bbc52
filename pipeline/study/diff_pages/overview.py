"""The overview of a comparison: how much moved and why, which images, which verdicts, which tags."""

from collections.abc import Iterator
from typing import Any

from tagmill.pipeline.study.diff import DiffFindings, Rights, TagMoves, flips
from tagmill.pipeline.study.diff_pages.base import INDEX, ShownDiff, direction
from tagmill.pipeline.study.diff_pages.drawing import became, both_ways
from tagmill.pipeline.study.diff_pages.matrix import matrix
from tagmill.pipeline.study.moved import verdict_of
from tagmill.pipeline.study.site.base import Sheet

FOLDED = 12
"""Causes that are shown at once; more of them are folded."""


def sheet(comparison: ShownDiff) -> Sheet:
    """Make the page."""
    found = comparison.found
    moved = sum(count for _, count in flips(found))
    values: dict[str, Any] = {
        "comparison": comparison,
        "found": found,
        "images": found.images,
        "headline": headline(found),
        "truth": found.rights and preferred(found.rights),
        "judged": found.rights and found.rights.said(),
        "causes": list(found.causes.items()),
        "folded": FOLDED,
        "total": found.cells.total(),
        "moved": moved,
        "turned": sum(count for (a, b), count in flips(found) if verdict_of(a) != verdict_of(b)),
        "close": sum(found.close.values()),
        "all_tags": found.all_tags,
        "all_p": chance(found.all_tags),
        "bar": became(found),
        "matrix": matrix(found, comparison.pages),
        "changes": [
            {"cell": cell, "count": count, "close": found.close[cell], "direction": direction(cell)}
            for cell, count in flips(found)
        ],
        "tags": list(_tags(found)),
    }
    return Sheet(INDEX, "What changed", "changed.html", values)


def headline(found: DiffFindings) -> str:
    """Say in a sentence how many tags moved, and where to."""
    images = f"{found.images.common:,} {'image' if found.images.common == 1 else 'images'}"
    if not found.images.common:
        return "The two have no image in common: there is nothing to compare."
    total, moved = found.cells.total(), sum(count for _, count in flips(found))
    if not moved:
        return f"None of the {total:,} tags of {images} moved: both decide alike."
    every = found.all_tags
    verb = "is" if moved == 1 else "are"
    kept = f"{every.lost:,} {'is' if every.lost == 1 else 'are'} kept in A alone, {every.won:,} in B alone"
    if not every.lost + every.won:
        kept = "none is kept by one side alone"
    return f"Of {total:,} tags of {images} that both have, {moved:,} {verb} decided otherwise: {kept}."


def preferred(rights: Rights) -> str:
    """Say in a sentence which side the truth prefers."""
    if not rights.a + rights.b:
        return "The truth knows none of the tags that one side alone keeps."
    if rights.is_noise:
        return "The truth prefers neither: the difference is within the noise."
    return f"The truth prefers {'A' if rights.a > rights.b else 'B'}."


def _tags(found: DiffFindings) -> Iterator[dict[str, Any]]:
    """Give the tags that one side alone keeps somewhere, those that moved most first."""
    moved = [(tag, moves) for tag, moves in found.by_moves() if moves.lost or moves.won]
    most = max((max(moves.lost, moves.won) for _, moves in moved), default=1)
    for tag, moves in moved:
        bar = both_ways(moves.lost, moves.won, most)
        yield {"tag": tag, "moves": moves, "bar": bar, "p": chance(moves)}


def chance(moves: TagMoves) -> str:
    """Write a p value as a plain number, which sorts as it reads."""
    return "< 0.0001" if moves.p < 0.0001 else f"{moves.p:.4f}"
