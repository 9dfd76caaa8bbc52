"""`tagmill models`: folders of RAM, RAM++ and Tag2Text, made from published checkpoints and looked into.

`eval` and `calibrate` are in evaluate.py.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tagmill.runners.commands import export
from tagmill.runners.commands.places import READ
from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core import files
from tagmill.tag_system.core import text as texts
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tagmill.models.ram.config import RamConfig

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Convert, measure, calibrate and export models."
)

app.command()(export.export)

OFFICIAL_LISTS = (
    "ram_tag_list.txt (RAM, RAM++) or tag2text_ori_tag_list.txt (Tag2Text), "
    "in ram/data of github.com/xinyu1205/recognize-anything"
)


@app.command()
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="published .pth, or its weights as .safetensors", **READ)
    ],
    out: Annotated[Path, typer.Argument(help="the folder to write, which must not exist yet")],
    classes: Annotated[Path | None, typer.Option(help="names of the classes, one a line", **READ)] = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="a score for each class, one a line", **READ)
    ] = None,
    vocab: Annotated[Path | None, typer.Option(help="BERT's vocab.txt, for a text side", **READ)] = None,
    vocabulary: Annotated[
        str | None, typer.Option(help="vocabulary that the classes come from; its digest is kept")
    ] = None,
    dtype: Annotated[str, typer.Option(help="of stored numbers: float32, bfloat16, float16")] = "float32",
    image_size: Annotated[int | None, typer.Option(min=1, help="default: the checkpoint's own")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="of Swin; default: the checkpoint's own")] = None,
    head_heads: Annotated[int, typer.Option(min=1, help="attention heads of the tagging head")] = 4,
    text_heads: Annotated[int, typer.Option(min=1, help="attention heads of the text side")] = 12,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="how keys that are not of the model begin; may be repeated")
    ] = None,
) -> None:
    """Turn a published checkpoint of RAM, RAM++ or Tag2Text into a model's folder."""
    import torch

    from tagmill.models.pretrained import check_dtype
    from tagmill.models.ram import convert as conversion

    check_dtype(dtype)
    if classes is None:
        raise ConfigError(f"name the list of classes by --classes: {OFFICIAL_LISTS}")
    names = read_lines(classes, f"a list of classes; the official one is {OFFICIAL_LISTS}")
    limits = None if thresholds is None else read_numbers(thresholds)
    done = conversion.convert(
        checkpoint,
        out,
        classes=names,
        thresholds=limits,
        vocab=vocab,
        vocabulary=None if vocabulary is None else Vocabulary.load(vocabulary),
        image_size=image_size,
        window=window,
        head_heads=head_heads,
        text_heads=text_heads,
        leave_out=leave_out or (),
        dtype=getattr(torch, dtype),
    )
    console = Terminal()
    _say(console, f"{out}: {done.config.kind}, {_classes(done.config)}, {dtype}")
    if done.guessed:
        size = f"{done.config.image_size} x {done.config.image_size}"
        _say(console, f"images of {size} are a guess, for the checkpoint does not say: give --image-size")
    for reason, count in Counter(done.dropped.values()).items():
        if not reason.startswith("the same as"):
            _say(console, f"left out {count} tensors: {reason}")


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(help="a folder with config.json and model.safetensors", **READ)],
) -> None:
    """Say what a model's folder holds."""
    from tagmill.models.ram import convert as conversion
    from tagmill.models.ram.config import WEIGHTS
    from tagmill.models.ram.description import described

    found = conversion.info(folder)
    size = {"size": f"{found.parameters:,} parameters, {found.bytes:,} bytes"}
    parts = described(found.config) | {"classes": _classes(found.config)}
    lines = {"kind": parts.pop("kind")} | size | parts | {"sha256": files.sha256(str(folder / WEIGHTS))}
    console = Terminal()
    for name, said in lines.items():
        _say(console, f"{name + ':':<15}{said}")


@app.command()
def relabel(
    folder: Annotated[Path, typer.Argument(help="folder of a RAM or RAM++", **READ)],
    out: Annotated[Path, typer.Argument(help="the folder to write, which must not exist yet")],
    labels: Annotated[Path, typer.Option(help="what `tagmill vocab embed` wrote", **READ)],
) -> None:
    """Copy a model with other classes: open-set tagging, by their label embeddings alone."""
    from tagmill.models.ram import labels as embeddings

    config = embeddings.relabel(folder, embeddings.load(labels), out)
    _say(Terminal(), f"{out}: {config.kind}, {_classes(config)}, no thresholds")


def read_lines(path: Path, what: str) -> list[str]:
    """Read a list, one entry a line. Raises ConfigError that says what is wanted, or which line is empty."""
    try:
        lines = [line.strip() for line in texts.lines(path.read_text(encoding="utf-8-sig"))]
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}): it should be {what}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: it should be {what}") from error
    if "" in lines:
        raise ConfigError(f"{path}:{lines.index('') + 1} is empty: it should be {what}")
    return lines


def read_numbers(path: Path) -> list[float]:
    """Read a list of thresholds, one a line. Raises ConfigError that names the line."""
    numbers = []
    for place, line in enumerate(read_lines(path, "a list of thresholds"), 1):
        try:
            numbers.append(float(line))
        except ValueError as error:
            raise ConfigError(f"{path}:{place}: {line!r} is not a number") from error
    return numbers


def _classes(config: "RamConfig") -> str:
    from tagmill.models.ram.description import classes_counted

    return f"{classes_counted(config)}, {', '.join(config.classes[:3])}, ..."


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
