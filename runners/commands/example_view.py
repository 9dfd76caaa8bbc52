"""Shows one example of a run: why each of its tags was kept or dropped, as a table and as a picture."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import Example, find_example, read_pixels
from tagmill.pipeline.study.further_boxes import FurtherBoxes, further_boxes
from tagmill.pipeline.study.mentions import split_mentions
from tagmill.pipeline.study.picture import draw_example
from tagmill.pipeline.study.site.site import example_page
from tagmill.runners.commands.fitted import Column, FittedTable
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError
from tagmill.tag_system.core.text import shown
from tagmill.tag_system.reasons import NO_CLASS
from tagmill.transforms.near_duplicates import NEAR_DUPLICATE

STYLES = {"kept": "green", "uncertain": "yellow", "dropped": "red"}

COLUMNS = (
    "tag",
    "kind",
    "verdict",
    "rule",
    "basis",
    "sources",
    "tagger",
    "box",
    "own tag",
    "other tag",
    "rank",
    "other boxes",
)
NUMBERS = ("tagger", "box", "own tag", "other tag", "rank")
SECOND = "sources"
"""What begins the second line of a decision where it takes two."""

EXPLAINED = (
    "basis: what the verdict rests on; tagger: score on the whole image, 0 under its floor, "
    f"{NO_CLASS} where it has no class for the tag; box: score of the best box; own tag, other tag: how "
    "alike the box and the name are (cosine); rank: share of the tag's boxes that look more typical; other "
    "boxes: what each would have decided, had it been the best one"
)


def show_example(
    console: Console, run: RunFolder, key: str, output: str | None, html: str | None = None
) -> None:
    """Print what a run knows of an example, and draw it and write its page if a file is named.

    Raises ConfigError for an unknown key, an example without an image, and a file that cannot be written.
    """
    example = find_example(run, key)
    console.print(f"{example.key}: part {example.part}, row {example.row}", markup=False, highlight=False)
    _print_captions(console, example)
    for letter in example.dead:
        if letter["unit"] == "example":
            said = f"dead at {letter['stage']}: {letter['reason']}, {letter['detail']}"
            console.print(shown(said), style="red", markup=False, highlight=False)
        elif letter["unit"] == "field":
            said = f"lost: {letter['reason']}, {letter['detail']}"
            console.print(shown(said), markup=False, highlight=False)
    if example.duplicate_of:
        how = "looks the same" if (example.dropped or "").endswith(NEAR_DUPLICATE) else "is the same"
        console.print(f"dropped: {example.duplicate_of} {how}", markup=False, highlight=False)
    elif example.dropped:
        console.print(f"dropped by {shown(example.dropped)}", markup=False, highlight=False)
    if example.decisions:
        _print_decisions(console, run, example)
    elif not example.dead and not example.dropped:
        console.print("no tags: nothing proposed one, or the stage clean was not run yet", highlight=False)
    if output is not None:
        draw(run, example, output)
        console.print(f"drawn: {output}", markup=False, highlight=False)
    if html is not None:
        files.replace_bytes(html, example_page(run, example))
        console.print(f"page: {html}", markup=False, highlight=False)


def draw(run: RunFolder, example: Example, output: str) -> None:
    """Draw an example into a file whose extension says the format. Raises ConfigError if that fails."""
    (further,) = further_boxes(run, [example])
    try:
        picture = draw_example(example, read_pixels(run, example), further)
    except DataError as error:
        raise ConfigError(f"{example.key} cannot be drawn: {error}") from error
    try:
        with files.replacing(output) as partial:
            picture.save(partial)
    except ValueError as error:
        raise ConfigError(f"cannot write {output} ({error}); name a .png file") from error


def _print_decisions(console: Console, run: RunFolder, example: Example) -> None:
    (further,) = further_boxes(run, [example])
    console.print(decision_table(example, further))
    console.print(EXPLAINED, style="dim", highlight=False)
    for tag, boxes in further.items():
        if boxes.outdone:
            console.print(f"{tag}: {boxes.said()}", markup=False, highlight=False)


def _print_captions(console: Console, example: Example) -> None:
    died = {letter["caption_index"]: letter for letter in example.dead if letter["unit"] == "caption"}
    mentions = {record["caption_index"]: record["mentions"] for record in example.parsed}
    for index, caption in enumerate(example.ingested["captions"] if example.ingested else []):
        if index in died and caption is None:
            said = shown(f"dead letter: {died[index]['reason']}, {died[index]['detail']}")
            console.print(f"caption {index}: {said}", style="red", markup=False, highlight=False)
            continue
        text = Text(f"caption {index}: ") + _underlined(caption, mentions.get(index, []))
        console.print(text, highlight=False)
    if example.generated is not None:
        text = Text("generated: ") + _underlined(example.generated, example.generated_mentions)
        console.print(text, highlight=False)


def _underlined(caption: str, mentions: list[dict[str, Any]]) -> Text:
    """Mark in a caption what the parser took for a tag."""
    text = Text()
    for words, mention in split_mentions(caption, mentions):
        text.append(shown(words), "underline" if mention else None)
    return text


def decision_table(example: Example, further: Mapping[str, FurtherBoxes]) -> FittedTable:
    """Tabulate the decisions on an example's tags: kept, uncertain, dropped, and never proposed last.

    `further` is what their other boxes would have said, by tag.
    """
    table = FittedTable([Column(name, name in NUMBERS, begins_line=name == SECOND) for name in COLUMNS])
    for verdict, style in STYLES.items():
        for decision in example.decided(verdict):
            table.add_row(*_cells(decision, further.get(decision["tag"])), style=style)
    for decision in example.not_proposed():
        table.add_row(*_cells(decision, None), style="dim")
    return table


def _cells(decision: dict[str, Any], further: FurtherBoxes | None) -> list[str]:
    sources = [f"{name} {decision[name]}" for name in ("given", "parsed", "generated") if decision[name]]
    other = _number(decision["other_score"])
    return [
        decision["tag"],
        decision["kind"],
        decision["verdict"],
        decision["rule"],
        decision["basis"],
        ", ".join(sources) or "tagger",
        _number(decision["tagger"]) or NO_CLASS,
        _number(decision["box_score"]) or ("none" if decision["asked"] else ""),
        _number(decision["own_score"]),
        f"{other} {decision['other_tag']}" if other else "",
        _number(decision["distance_rank"]),
        ", ".join(f"{count} {verdict}" for verdict, count in further.counts().items()) if further else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
