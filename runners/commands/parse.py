"""`tagmill parse`: the tags that captions state, where they state them, and why other words give none."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.plugins import hidden
from tagmill.tag_system.core.text import dump_json, shown
from tagmill.tag_system.kinds import Kind
from tagmill.tag_system.parser import DEFAULT_SPACY_MODEL, CaptionParser, Mode, TagMention, Unmatched
from tagmill.tag_system.spacy_reader import unused_modules
from tagmill.tag_system.vocabulary import Vocabulary

STYLES: dict[Kind, str] = {"object": "green", "scene": "blue", "attribute": "yellow", "action": "magenta"}


def parse(
    captions: Annotated[
        list[str] | None, typer.Argument(help="captions; default: the lines of stdin")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="a text file, a caption a line")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="vocabulary file; default: the built-in")] = None,
    mode: Annotated[Mode, typer.Option(help="default, or fast: by a lexicon, without spaCy")] = "default",
    spacy_model: Annotated[str, typer.Option(help="an installed spaCy pipeline")] = DEFAULT_SPACY_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object a caption")] = False,
) -> None:
    """Print captions with their tags marked, and why other words give none."""
    parser = CaptionParser(Vocabulary.load(vocabulary), spacy_model, mode)
    with hidden(unused_modules(spacy_model)):
        parser.load()
    console = Terminal()
    for caption in _captions(captions, file):
        mentions, unmatched = parser.explain(caption)
        if as_json:
            console.file.write(dump_json(_record(caption, mentions, unmatched)) + "\n")
        else:
            _show(console, caption, mentions, unmatched)


def _captions(captions: list[str] | None, file: Path | None) -> Iterator[str]:
    if captions and file:
        raise ConfigError("give captions or --file, not both")
    if captions:
        yield from captions
        return
    try:
        text = file.read_text(encoding="utf-8-sig") if file else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the captions {file or 'of stdin'}: {exc}; give UTF-8 text") from exc
    yield from (line for line in text.split("\n") if line.strip())


def _record(caption: str, mentions: list[TagMention], unmatched: list[Unmatched]) -> dict[str, object]:
    return {
        "caption": caption,
        "mentions": [dataclasses.asdict(mention) for mention in mentions],
        "unmatched": [word._asdict() for word in unmatched],
    }


def _show(console: Console, caption: str, mentions: list[TagMention], unmatched: list[Unmatched]) -> None:
    line, position = Text(), 0
    for mention in mentions:
        line.append(shown(caption[position : mention.start]))
        line.append(f"[{shown(mention.surface)}]", style=f"bold {STYLES[mention.kind]}")
        position = mention.end
    console.print(line.append(shown(caption[position:])))
    for mention in mentions:
        console.print(
            Text(shown(f"  {mention.surface}: {mention.tag}, {mention.kind}"), style=STYLES[mention.kind])
        )
    for word in unmatched:
        console.print(Text(shown(f"  {word.surface}: no tag, {word.reason}"), style="dim"))
