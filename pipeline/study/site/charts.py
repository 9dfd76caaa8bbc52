"""Charts as SVG that is part of a page: no script draws them, and the theme colours them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from markupsafe import Markup

NONE = Markup("")


@dataclass(frozen=True)
class Slice:
    """A piece of a bar: what it is, how many, its class in the style sheet, and where it leads."""

    name: str
    count: int
    style: str
    href: str = ""


def stacked(slices: Sequence[Slice], *, title: str, height: int = 26, width: int = 960) -> Markup:
    """Draw a bar of pieces whose lengths are their counts."""
    total = sum(one.count for one in slices)
    if not total:
        return NONE
    place, pieces = 0.0, []
    for one in filter(lambda one: one.count, slices):
        length = width * one.count / total
        piece = Markup(
            '<rect class="{}" x="{:.1f}" y="0" width="{:.1f}" height="{}"><title>{}</title></rect>'
        ).format(
            one.style, place, max(length, 0.5), height, f"{one.name}: {one.count:,} ({one.count / total:.1%})"
        )
        pieces.append(Markup('<a href="{}">{}</a>').format(one.href, piece) if one.href else piece)
        place += length
    return Markup(
        '<svg class="bar" viewBox="0 0 {} {}" preserveAspectRatio="none" role="{}" aria-label="{}">{}</svg>'
    ).format(
        width, height, "group" if any(one.href for one in slices) else "img", title, Markup("").join(pieces)
    )


def histogram(
    counts: Sequence[Sequence[int]],
    styles: Sequence[str],
    lines: Sequence[tuple[float, str]],
    *,
    title: str,
) -> Markup:
    """Draw counts [series, bins] of scores from 0 to 1 as columns that stand on each other.

    `lines` are constants with their names, drawn across.
    """
    width, height, floor = 320, 120, 18
    top = 16 * max(1, len(lines)) + 4  # a row for the name of each constant, as they may lie close together
    bins = len(counts[0]) if counts else 0
    totals = [sum(series[place] for series in counts) for place in range(bins)]
    most = max(totals, default=0)
    if not most:
        return NONE
    step = width / bins
    columns = []
    for place in range(bins):
        y = float(top + height)
        for series, style in zip(counts, styles, strict=True):
            if series[place]:
                tall = height * series[place] / most
                y -= tall
                columns.append(
                    Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                        style, place * step + 0.5, y, step - 1, tall
                    )
                )
    marks = [
        Markup(
            '<line class="limit" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text class="limit" x="{4:.1f}" y="{3}" text-anchor="{5}">{6}</text>'
        ).format(
            value * width,
            16 * row + 4,
            top + height,
            16 * row + 14,
            value * width + (-4 if value > 0.6 else 4),
            "end" if value > 0.6 else "start",
            f"{name} {value:g}",
        )
        for row, (value, name) in enumerate(lines)
    ]
    axis = Markup("").join(
        Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="{}">{:g}</text>').format(
            value * width, top + height + 13, anchor, value
        )
        for value, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    base = Markup('<line class="base" x1="0" x2="{}" y1="{}" y2="{}"/>').format(
        width, top + height, top + height
    )
    return Markup(
        '<svg class="histogram" viewBox="-4 0 {} {}" role="img" aria-label="{}">{}{}{}{}</svg>'
    ).format(
        width + 8, top + height + floor, title, Markup("").join(columns), base, Markup("").join(marks), axis
    )


def sparkline(counts: Sequence[int], *, title: str) -> Markup:
    """Draw counts as a small area."""
    most = max(counts, default=0)
    if not most:
        return NONE
    width, height = 5 * len(counts), 20
    tops = [f"{height - height * count / most:.1f}" for count in counts]
    points = " ".join(f"{place * 5},{top} {place * 5 + 5},{top}" for place, top in enumerate(tops))
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">'
        '<polygon points="0,{1} {3} {0},{1}"/></svg>'
    ).format(width, height, title, points)


def columns(counts: Sequence[tuple[str, int]], *, title: str) -> Markup:
    """Draw counts of a few things as columns with their names under them."""
    most = max((count for _, count in counts), default=0)
    if not most:
        return NONE
    step, height, top = 48, 120, 18
    drawn = []
    for place, (name, count) in enumerate(counts):
        tall = height * count / most
        x = place * step
        drawn.append(
            Markup(
                '<rect class="plain" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>'
                '<text class="value" x="{}" y="{:.1f}" text-anchor="middle">{}</text>'
                '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
            ).format(
                x + 4,
                top + height - tall,
                step - 8,
                tall,
                x + step // 2,
                top + height - tall - 4,
                short(count),
                x + step // 2,
                top + height + 14,
                name,
            )
        )
    return Markup('<svg class="columns" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        step * len(counts), top + height + 20, title, Markup("").join(drawn)
    )


def short(count: int) -> str:
    """Write a number in few letters: 1,234 as 1.2k."""
    if count < 1_000:
        return str(count)
    power = min(3, int(log10(count)) // 3)
    found = f"{count / 1_000**power:.3g}"
    return found + "_kMG"[power]


def percent(value: float) -> str:
    """Write a share; one that is neither nothing nor everything is not written as such."""
    if 0 < value < 0.005:
        return "under 1 %"
    if 0.995 <= value < 1:
        return "over 99 %"
    return f"{value:.0%}".replace("%", " %")


@dataclass(frozen=True)
class Loss:
    """What a flow loses at a step: the reason, how many, and where they are shown."""

    name: str
    count: int
    href: str
    style: str = "lost"


def losses_of(name: str, count: int, href: str) -> tuple[Loss, ...]:
    """Give a loss, or none where nothing is lost."""
    return (Loss(name, count, href),) if count else ()


@dataclass(frozen=True)
class Step:
    """A step of a flow: what it is called, how many are there, and what is lost on the way to the next."""

    name: str
    count: int
    losses: tuple[Loss, ...] = ()


LAST = 120
"""Pixels that the name of the last step takes."""

SHOWN_LOSSES = 4
"""Losses that a step names; what else there is of them stands in one."""


def flow(steps: Sequence[Step], *, title: str) -> Markup:
    """Draw how many come from step to step, as a band that narrows, and what falls out of it as links."""
    most = max((step.count for step in steps), default=0)
    if not most or len(steps) < 2:
        return NONE
    width, band, top = 960, 90, 40
    gap = (width - LAST) / (len(steps) - 1)
    lines = max((min(len(step.losses), SHOWN_LOSSES + 1) for step in steps), default=0)
    drawn = []
    for place, step in enumerate(steps):
        x, tall = place * gap, band * step.count / most
        if place + 1 < len(steps):
            drawn += _band(x, gap, top, tall, band * steps[place + 1].count / most)
            drawn += _losses(step, x + gap * 0.5, top + band + 18)
        drawn.append(
            Markup('<rect class="node" x="{:.1f}" y="{}" width="4" height="{:.1f}"/>').format(
                x, top, max(tall, 1)
            )
        )
        drawn.append(
            Markup(
                '<text class="count" x="{0:.1f}" y="{1}">{2}</text>'
                '<text class="name" x="{0:.1f}" y="{3}">{4}</text>'
            ).format(x, top - 20, f"{step.count:,}", top - 6, step.name)
        )
    return Markup('<svg class="flow" viewBox="0 0 {} {}" role="group" aria-label="{}">{}</svg>').format(
        width, top + band + 18 + 18 * lines, title, Markup("").join(drawn)
    )


def _band(x: float, gap: float, top: float, tall: float, rest: float) -> list[Markup]:
    """Draw what goes on, and under it what does not, falling."""
    bend = gap * 0.45
    on = f"M{x + 4:.1f},{top} H{x + gap:.1f} V{top + rest:.1f} H{x + 4:.1f} Z"
    found = [Markup('<path class="on" d="{}"/>').format(on)]
    lost = tall - rest
    if lost > 0:
        low = top + 100.0
        down = (
            f"M{x + 4:.1f},{top + rest:.1f} C{x + bend:.1f},{top + rest:.1f} {x + bend:.1f},{low - 10:.1f} "
            f"{x + bend:.1f},{low:.1f} H{x + bend - min(lost, bend * 0.8):.1f} "
            f"C{x + bend - min(lost, bend * 0.8):.1f},{top + tall:.1f} {x + 4:.1f},{top + tall:.1f} "
            f"{x + 4:.1f},{top + tall:.1f} Z"
        )
        found.append(Markup('<path class="off" d="{}"/>').format(down))
    return found


def _losses(step: Step, x: float, y: float) -> list[Markup]:
    shown = list(step.losses[:SHOWN_LOSSES])
    others = step.losses[SHOWN_LOSSES:]
    if others:
        shown.append(Loss("others", sum(one.count for one in others), others[0].href))
    return [
        Markup(
            '<a href="{}"><text class="{}" x="{:.1f}" y="{}" text-anchor="middle">&minus; {} {}</text></a>'
        ).format(one.href, one.style, x, y + 18 * place, f"{one.count:,}", one.name)
        for place, one in enumerate(shown)
    ]
