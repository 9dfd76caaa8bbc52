"""`tagmill models export`: a model's folder for other programs, or to run without torch."""

from pathlib import Path
from typing import Annotated

import typer

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core.errors import ConfigError


def export(
    folder: Annotated[Path, typer.Argument(help="of a RAM, RAM++, Tag2Text, open_clip or Grounding DINO")],
    out: Annotated[
        Path,
        typer.Argument(
            help="a new file .pth, .safetensors, .onnx or .pt2 of the first kinds, a new folder of the others"
        ),
    ],
    open_set: Annotated[
        bool, typer.Option("--open-set", help="the .onnx of a RAM or RAM++ takes labels of other classes")
    ] = False,
) -> None:
    """Write a model as an official checkpoint, ONNX or torch.export; the file's ending says which."""
    from tagmill.models import open_clip
    from tagmill.models.grounding_dino import family_of

    tagger = not (folder / open_clip.CONFIG).is_file() and family_of(folder) is None
    if open_set and not tagger:
        raise ConfigError("--open-set is for a RAM or RAM++: leave it out")
    if tagger:
        _export_tagger(folder, out, open_set=open_set)
    elif (folder / open_clip.CONFIG).is_file():
        from tagmill.models import clip_export

        _check_folder(out)
        difference = clip_export.export(folder, out)
        _say_folder(out, "clip", "onnx-clip", f"features differ by at most {difference:.1g}")
    else:
        from tagmill.models import grounding_dino_export

        _check_folder(out)
        difference = grounding_dino_export.export(folder, out)
        said = f"scores and boxes differ by at most {difference:.1g}"
        _say_folder(out, "grounding-dino", "onnx-grounding-dino", said)


def _check_folder(out: Path) -> None:
    if out.suffix in (".onnx", ".pth", ".pt2", ".safetensors"):
        raise ConfigError(
            f"{out}: such a model becomes a folder, with its tokenizer; name one without an ending"
        )
    if out.exists():
        raise ConfigError(f"{out} exists already: name a new folder")


def _say_folder(out: Path, kind: str, model: str, differs: str) -> None:
    said = f"{out}: {kind} as ONNX, float32; {differs}; it runs as the model {model}, with the option path"
    Terminal().print(said, markup=False, highlight=False)


def _export_tagger(folder: Path, out: Path, *, open_set: bool) -> None:
    from tagmill.models.ram import export as exporting
    from tagmill.models.ram import store

    exporting.check(out, open_set=open_set)
    model = store.load(folder)
    done = exporting.export(model, out, open_set=open_set)
    console = Terminal()
    said = f"{out}: {model.config.kind}, {len(model.config.classes):,} classes, float32"
    if done.difference is not None:
        said += f"; logits differ by at most {done.difference:.1g} at batches of other sizes"
        said += "; with the option labels it takes other classes" if open_set else ""
    else:
        said += f", {done.tensors:,} tensors under the official names"
    console.print(said, markup=False, highlight=False)
    if done.tensors is not None and model.config.kind == "ram" and model.config.text is None:
        console.print(
            "the folder has no text side, so the official RAM loads this only with strict=False: convert "
            "with --vocab to keep it",
            highlight=False,
        )
    if done.tensors is not None and model.config.alignment is not None:
        console.print(
            "left out: the image-text alignment branch, which the official code does not have",
            highlight=False,
        )
