"""The page of one kind of change: examples with pictures, and both sides' reasons."""

from collections.abc import Iterator, Sequence
from typing import Any

from tagmill.pipeline.study.diff_pages.base import ShownDiff, direction
from tagmill.pipeline.study.moved import Cell, MovedTag, is_kept, verdict_of
from tagmill.pipeline.study.site.base import Sheet
from tagmill.tag_system.reasons import why


def sheets(comparison: ShownDiff) -> Iterator[Sheet]:
    """Make a page for each kind of change; it leads to the next larger and smaller one."""
    cells = list(comparison.pages)
    for place, cell in enumerate(cells):
        values: dict[str, Any] = {
            "states": [_state(state) for state in cell],
            "count": comparison.found.cells[cell],
            "close": comparison.found.close[cell],
            "direction": direction(cell),
            "before": _link(comparison, cells[:place][-1:]),
            "after": _link(comparison, cells[place + 1 : place + 2]),
            "place": place + 1,
            "places": len(cells),
            "cards": [_card(comparison, cell, one) for one in comparison.examples(cell)],
            "right": _right(cell, comparison.examples(cell)),
        }
        yield Sheet(comparison.pages[cell], " → ".join(cell), "cell.html", values)


def _right(cell: Cell, some: Sequence[MovedTag]) -> tuple[int, ...]:
    """Count of how many examples the truth knows, and about how many of them A and B are right."""
    known = [one.is_true for one in some if one.is_true is not None]
    return (len(known), *(sum(is_kept(state) == is_true for is_true in known) for state in cell))


def _link(comparison: ShownDiff, some: Sequence[Cell]) -> dict[str, Any] | None:
    return {"path": comparison.pages[some[0]], "cell": some[0]} if some else None


def _state(state: str) -> dict[str, str]:
    verdict, _, rule = state.partition("/")
    return {"verdict": verdict, "rule": rule}


def _card(comparison: ShownDiff, cell: Cell, moved: MovedTag) -> dict[str, Any]:
    box_side = comparison.box_sides.get((moved.key, moved.tag), 1)
    sides = zip(cell, comparison.sides, moved.decisions, strict=True)
    return {
        "key": moved.key,
        "tag": moved.tag,
        "shown": comparison.shown[moved.key],
        "box_verdict": verdict_of(cell[box_side]),
        "is_close": moved.is_close,
        "reasons": [
            {
                "verdict": verdict_of(state),
                "why": why(decision, side.policy) if decision else "nobody names it",
                "is_right": None if moved.is_true is None else is_kept(state) == moved.is_true,
            }
            for state, side, decision in sides
        ],
    }
