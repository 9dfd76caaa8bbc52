"""Writes a config for data that lies somewhere: `tagmill init`."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tagmill.pipeline.config import load_config
from tagmill.pipeline.study.guess import Guess, guess
from tagmill.runners.commands.preview_view import preview_lines
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.label_names import LabelNames
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.ingest import Ingest, IngestConfig
from tagmill.transforms.stage import Shared

EXAMPLES = 20
"""Examples that are looked at of each path."""

HEAD = """\
# Written by `tagmill init` from what lies there; docs/config.md has every key.
#   tagmill plan {output} --examples 10    # how the first examples are read
#   tagmill run {output} --limit 100       # try it
#   tagmill run {output}
"""

MODELS = """
# Models, once their weights are here; docs/examples/official.yaml says how:
# tag: {model: ram, options: {path: weights/ram_plus_swin_large_14m}}
# localize: {model: grounding-dino, options: {path: IDEA-Research/grounding-dino-base}}
# embed: {model: open-clip, options: {model: ViT-B-16, pretrained: openai}}
"""

LABELLED = """
# The labels are trusted as they are given, and no captions are parsed.
parse: null
clean: {policy: {trust_given: true}}
"""


def write_config(console: Console, paths: Sequence[str], output: str, *, labels: bool) -> None:
    """Write a config that reads these paths, and show the first examples as it reads them.

    With `labels`, the data is labelled already: labels are trusted, and captions are not parsed.

    Raises ConfigError if the file exists, and for a path at which nothing can be read.
    """
    if Path(output).exists():
        raise ConfigError(f"{output} exists; name another file with --output")
    config = IngestConfig()
    stage = Ingest(config, Shared(EXAMPLES, 1, config.max_pixels))
    names = LabelNames(Vocabulary.load())
    found = [guess(path, name, stage, names, EXAMPLES, is_labelled=labels) for path, name in _named(paths)]
    if labels and not any(example["labels"] for one in found for example in one.preview.examples):
        raise ConfigError(
            "--labels: none of the examples has a label; name their field with `labels` of the input"
        )
    with files.replacing(str(Path(output).absolute())) as place:
        place.write_text(_text(found, output, labels=labels), encoding="utf-8")
    load_config(output)
    for one in found:
        for line in preview_lines(one.preview):
            console.print(line, highlight=False, markup=False)
    console.print(f"wrote {output}; `tagmill run {output} --limit 100` tries it", highlight=False)


def _named(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair each path with a name for its input, which no other has."""
    used: set[str] = set()
    for path in paths:
        last = re.sub(r"[*?\[\]{},]", "", path.rstrip("/")).rstrip("/.").rpartition("/")[2]
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", last.partition(".")[0]).strip("-") or "data"
        name = plain if plain not in used else f"{plain}-{len(used) + 1}"
        used.add(name)
        yield path, name


def _text(found: Sequence[Guess], output: str, *, labels: bool) -> str:
    """Write the config as YAML with comments."""
    lines = [HEAD.format(output=output), f"run: runs/{Path(output).stem}", "", "inputs:"]
    for one in found:
        lines += [f"  # {line}" for line in _about(one)]
        values = {name: value for name, value in one.config.changed().items() if name != "name"}
        text = yaml.safe_dump([{"name": one.config.name} | values], sort_keys=False, allow_unicode=True)
        lines += [f"  {line}" for line in text.splitlines()]
    return "\n".join(lines) + "\n" + (LABELLED if labels else "") + MODELS


def _about(one: Guess) -> Iterator[str]:
    """Say what was seen in the first examples of an input."""
    seen, count = one.preview.seen, one.preview.count
    yield f"of the first {count} examples, {len(one.preview.examples)} can be read"
    if seen:
        yield "fields: " + ", ".join(f"{_shown(name)} {n}" for name, n in sorted(seen.items()))
    used = ", ".join(map(_shown, sorted(one.preview.used))) or "none; `captions: [FIELD]` names the field"
    yield f"captions are in: {used}"
    if not any(example["labels"] for example in one.preview.examples):
        yield "labels: none; `labels: FIELD` names the field"


def _shown(name: Any) -> str:
    return name if str(name).isprintable() else json.dumps(name)
