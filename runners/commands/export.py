"""`tagmill models export`: a model's folder as one file for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from tagmill.runners.commands.terminal import Terminal


def export(
    folder: Annotated[Path, typer.Argument(help="a folder with config.json and model.safetensors")],
    out: Annotated[Path, typer.Argument(help="the file to write: .pth, .safetensors, .onnx or .pt2")],
) -> None:
    """Write a model as an official checkpoint, ONNX or torch.export; the file's ending says which."""
    from tagmill.models.ram import export as exporting
    from tagmill.models.ram import store

    exporting.check(out)
    model = store.load(folder)
    done = exporting.export(model, out)
    console = Terminal()
    said = f"{out}: {model.config.kind}, {len(model.config.classes):,} classes, float32"
    if done.difference is not None:
        said += f"; logits differ by at most {done.difference:.1g} at batches of other sizes"
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
