"""Small charts of moves, as SVG that is part of a page."""

from markupsafe import Markup

from tagmill.pipeline.study.diff import DiffFindings
from tagmill.pipeline.study.diff_pages.base import direction
from tagmill.pipeline.study.site.charts import Slice, stacked

HALF, HEIGHT = 70, 14
"""Pixels of one side of a bar of two, and of its height."""


def became(found: DiffFindings) -> Markup:
    """Draw what became of all tags of common images, as one bar."""
    counts = dict.fromkeys(("same", "lost", "won", "moved"), 0)
    for cell, count in found.cells.items():
        counts[direction(cell)] += count
    names = {"same": "as before", "lost": "in A alone", "won": "in B alone", "moved": "otherwise decided"}
    slices = [Slice(names[name], count, f"turn-{name}", "#verdicts") for name, count in counts.items()]
    return stacked(slices, title="Tags of common images, by what became of them")


def both_ways(lost: int, won: int, most: int) -> Markup:
    """Draw what A alone keeps to the left and what B alone keeps to the right; `most` is a whole side."""
    left, right = (HALF * count / max(most, 1) for count in (lost, won))
    return Markup(
        '<svg class="ways" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">'
        '<rect class="turn-lost" x="{3:.1f}" y="1" width="{4:.1f}" height="{5}"/>'
        '<rect class="turn-won" x="{6}" y="1" width="{7:.1f}" height="{5}"/>'
        '<line class="axis" x1="{6}" x2="{6}" y1="0" y2="{1}"/></svg>'
    ).format(
        2 * HALF,
        HEIGHT,
        f"{lost:,} in A alone, {won:,} in B alone",
        HALF - left,
        left,
        HEIGHT - 2,
        HALF,
        right,
    )
