"""What `tagmill models eval` writes: a table of the tags, the summary, and a page with PR curves.

OUT/tags.parquet   a row a tag: counts, AP, precision, recall, F1, and its curve at 101 recalls
OUT/summary.json   all metrics as fractions, over all tags and by kind
OUT/report.html    the same to look at, with curves; needs nothing from elsewhere
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import numpy as np
from rich.console import Console

from tagmill.models.training.metrics import RECALLS, Metrics, Summary, TagMetrics
from tagmill.models.training.tag_table import TAGS, write_tags
from tagmill.runners.commands.fitted import FittedTable, columns_of
from tagmill.tag_system.core import files
from tagmill.tag_system.core.text import shown

NAMES = {
    "map": "mAP",
    "map_present": "mAP of tags with positives",
    "cp": "CP",
    "cr": "CR",
    "cf1": "CF1",
    "op": "OP",
    "or_": "OR",
    "of1": "OF1",
}

SHOWN = 12
"""Tags in each group of small curves."""

SIDE = 240
"""Pixels of a plot's side."""

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right}td:first-child,th:first-child"
    "{text-align:left}tr:nth-child(even){background:#f4f4f4}.plots{display:flex;flex-wrap:wrap;gap:1rem}"
    "figure{margin:0}figcaption{font-size:13px;color:#555}svg{background:#fafafa;border:1px solid #ddd}"
)


def write(out: str, found: Metrics, images: int, model: str) -> None:
    """Write the three files into a folder, which is made. Raises ConfigError if that cannot be done."""
    summary = {
        "model": model,
        "images": images,
        "all": asdict(found.summary()),
        **{kind: asdict(found.summary(kind)) for kind in _kinds(found)},
    }
    write_tags(files.join(out, TAGS), found.tags)
    with files.replacing(files.join(out, "summary.json")) as partial:
        partial.write_text(json.dumps(summary, indent=1).replace('"or_"', '"or"') + "\n")
    with files.replacing(files.join(out, "report.html")) as partial:
        partial.write_text(_page(found, images, model), encoding="utf-8")


def show(console: Console, found: Metrics, images: int) -> None:
    """Print the summary, and by kind if there are several."""
    summaries = _summaries(found)
    console.print(f"{images:,} images; metrics in %", style="bold", highlight=False)
    table = FittedTable(columns_of(("metric",), list(summaries)))
    table.add_row("tags", *[f"{summary.tags:,}" for summary in summaries.values()])
    for field, name in NAMES.items():
        table.add_row(name, *[f"{100 * getattr(summary, field):.2f}" for summary in summaries.values()])
    console.print(table)
    if found.summary().without:
        console.print(
            f"{found.summary().without:,} tags have no positive and count as AP 0 in mAP, as officially",
            highlight=False,
        )


def _summaries(found: Metrics) -> dict[str, Summary]:
    kinds = _kinds(found)
    return {
        "all": found.summary(),
        **({kind: found.summary(kind) for kind in kinds} if len(kinds) > 1 else {}),
    }


def _kinds(found: Metrics) -> list[str]:
    return sorted({tag.kind for tag in found.tags if tag.kind})


def _html(text: str) -> str:
    """Write a text into a page; what is invisible or turns the direction of reading is shown as an escape."""
    return escape(shown(text))


def _page(found: Metrics, images: int, model: str) -> str:
    summaries = _summaries(found)
    head = "".join(f"<th>{_html(name)}" for name in summaries)
    rows = [("tags", [f"{summary.tags:,}" for summary in summaries.values()])] + [
        (name, [f"{100 * getattr(summary, field):.2f}" for summary in summaries.values()])
        for field, name in NAMES.items()
    ]
    table = "".join(f"<tr><td>{name}" + "".join(f"<td>{value}" for value in values) for name, values in rows)
    micro = found.micro_curve()
    plots = _plot("all decisions by one threshold", *micro) + _plot(
        "mean of the tags that have positives", RECALLS, found.macro_curve()
    )
    body = (
        f"<h1>Tags of {_html(model)}</h1><p>{images:,} images. All numbers in percent.</p>"
        f"<table><tr><th>{head}{table}</table>"
        f"<h2>Precision over recall</h2><div class=plots>{plots}</div>{_groups(found)}"
    )
    return f"<!doctype html><meta charset=utf-8><title>{_html(model)}</title><style>{STYLE}</style>{body}\n"


def _groups(found: Metrics) -> str:
    """Plot the tags that one looks for first; the table has all."""
    present = sorted((tag for tag in found.tags if tag.positives), key=lambda tag: tag.ap)
    frequent = sorted(present, key=lambda tag: -tag.positives)
    groups = {"Lowest AP": present, "Highest AP": present[::-1], "Most positives": frequent}
    return "".join(
        f"<h2>{title}</h2><div class=plots>{''.join(map(_tag_plot, tags[:SHOWN]))}</div>"
        for title, tags in groups.items()
    )


def _tag_plot(tag: TagMetrics) -> str:
    said = f"{tag.tag}: AP {100 * tag.ap:.1f}, {tag.positives:,} positives"
    return _plot(said, RECALLS, tag.precision_at, (tag.recall, tag.precision))


def _plot(
    title: str, recall: Iterable[Any], precision: Iterable[Any], mark: Sequence[float] | None = None
) -> str:
    """Draw a curve, recall to the right and precision up, both 0 to 1; `mark` is the threshold's place."""
    pairs = [pair for pair in zip(recall, precision, strict=True) if not np.isnan(pair).any()]
    points = " ".join(f"{SIDE * x:.1f},{SIDE * (1 - y):.1f}" for x, y in pairs)
    grid = "".join(
        f"<path d='M0 {at} H{SIDE} M{at} 0 V{SIDE}' stroke='#e4e4e4'/>"
        for at in (SIDE // 4, SIDE // 2, 3 * SIDE // 4)
    )
    dot = (
        f"<circle cx='{SIDE * mark[0]:.1f}' cy='{SIDE * (1 - mark[1]):.1f}' r='4' fill='#c33'/>"
        if mark
        else ""
    )
    return (
        f"<figure><svg width='{SIDE}' height='{SIDE}'>{grid}"
        f"<polyline points='{points}' fill='none' stroke='#247' stroke-width='2'/>{dot}</svg>"
        f"<figcaption>{_html(title)}</figcaption></figure>"
    )
