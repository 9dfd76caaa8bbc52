"""`tagmill export`: a run's dataset in the format of another program."""

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core.errors import ConfigError

if TYPE_CHECKING:
    from tagmill.pipeline.study.exports.exporting import ExportSummary

ChoiceT = TypeVar("ChoiceT", bound=str)


def export(
    source: Annotated[str, typer.Argument(metavar="RUN", help="the run's folder, or that of a dataset")],
    folder: Annotated[str, typer.Argument(metavar="DEST", help="a new or empty folder of this machine")],
    to: Annotated[
        str,
        typer.Option(
            help="coco, croissant, fiftyone, hf, label-studio, parquet, ram, webdataset, yolo, or your own "
            "class as package.module:Class"
        ),
    ],
    where: Annotated[
        str | None, typer.Option(help="take the examples of which this holds: license = 'CC0-1.0'")
    ] = None,
    verdicts: Annotated[
        str | None, typer.Option(help="take tags with these verdicts: kept,uncertain,dropped")
    ] = None,
    split: Annotated[str | None, typer.Option(help="take these splits: train,val,test")] = None,
    box_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="take boxes that score at least this")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="a file with a tag a line, whose numbers are used (ram, yolo)")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="examples that a file holds at most (hf, webdataset)")
    ] = None,
) -> None:
    """Write the dataset in the format of another program; LOST.md there tells what that cannot say."""
    from tagmill.pipeline.study.exports.base import ExportOptions
    from tagmill.pipeline.study.exports.exporting import export as write
    from tagmill.tag_system.decisions import VERDICTS
    from tagmill.tag_system.shard_contract import SPLITS

    options = ExportOptions(
        splits=_listed("--split", split, SPLITS) or SPLITS,
        where=where,
        verdicts=_listed("--verdicts", verdicts, VERDICTS),
        box_score=box_score,
        classes=classes,
        size=size,
    )
    _show(Terminal(), to, write(source, to, folder, options))


def _listed(option: str, text: str | None, known: tuple[ChoiceT, ...]) -> tuple[ChoiceT, ...] | None:
    """Read names between commas, in the order of `known`. Raises ConfigError for one that is not known."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: {name!r} is not one of {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _show(console: Console, to: str, done: "ExportSummary") -> None:
    splits = ", ".join(f"{split} {count:,}" for split, count in done.examples.items())
    said = f"{done.folder}: {to}, {done.examples.total():,} examples ({splits})"
    if done.left_out:
        said += f"; {done.left_out:,} are left out by --where"
    console.print(said, markup=False, highlight=False)
    for sentence, count in done.lost.items():
        console.print(f"  not in it: {count:,} {sentence}", markup=False, highlight=False)
    console.print(f"  {done.folder}/LOST.md tells this, too", markup=False, highlight=False)
