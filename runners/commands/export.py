"""`tagmill models export`: a model's folder for other programs, or to run without torch."""

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tagmill.models.base import Image
    from tagmill.models.ram.int8 import Agreement

CARD_ENDING = ".md"
"""Of a file's card, behind the file's whole name: several files of a folder have each their own."""

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")

SCENES = 64
"""Most images that `--int8` is tried on."""


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
    int8: Annotated[
        bool, typer.Option("--int8", help="weights of 8 bits in a tagger's .onnx; says what that changes")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="folder of images that --int8 is tried on; default: drawn scenes")
    ] = None,
) -> None:
    """Write a model as an official checkpoint, ONNX or torch.export; the file's ending says which."""
    from tagmill.models import open_clip
    from tagmill.models.grounding_dino import family_of

    tagger = not (folder / open_clip.CONFIG).is_file() and family_of(folder) is None
    if (open_set or int8) and not tagger:
        raise ConfigError("--open-set and --int8 are for taggers: leave them out")
    if images is not None and not int8:
        raise ConfigError("--images are what --int8 is tried on: give both or none")
    if tagger:
        _export_tagger(folder, out, open_set=open_set, int8=int8, images=images)
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


def _export_tagger(folder: Path, out: Path, *, open_set: bool, int8: bool, images: Path | None) -> None:
    from tagmill.models.ram import export as exporting
    from tagmill.models.ram import model_card, store

    exporting.check(out, open_set=open_set, int8=int8)
    tried = sample_images(images) if int8 else None
    model = store.load(folder)
    done = exporting.export(model, out, open_set=open_set, int8=tried)
    console = Terminal()
    said = (
        f"{out}: {model.config.kind}, {len(model.config.classes):,} classes, {'int8' if int8 else 'float32'}"
    )
    if done.difference is not None:
        of = "; before that logits" if int8 else "; logits"
        said += f"{of} differ by at most {done.difference:.1g} at batches of other sizes"
        said += "; with the option labels it takes other classes" if open_set else ""
    else:
        said += f", {done.tensors:,} tensors under the official names"
    console.print(said, markup=False, highlight=False)
    if done.agreement is not None:
        for line in _agreement(done.agreement):
            console.print(line, markup=False, highlight=False)
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
    card = out.with_name(out.name + CARD_ENDING)
    text = model_card.card_of_file(
        folder, model.config, out.name, open_set=open_set, agreement=done.agreement
    )
    said = "its card" if model_card.write(card, text) else model_card.KEPT
    console.print(f"{card}: {said}", markup=False, highlight=False)


def sample_images(folder: Path | None) -> "list[Image]":
    """Read the images of a folder, or else scenes of the demo. Raises ConfigError for one that is none."""
    from tagmill.runners.commands.demo import embedded  # it imports Beam
    from tagmill.transforms.images import decode
    from tagmill.transforms.ingest import IngestConfig

    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"--images: {folder} is not a folder")
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
        held = [(str(path), path.read_bytes()) for path in paths[:SCENES]]
    else:
        with tarfile.open(next(iter(sorted(embedded().glob("scenes-*.tar"))))) as archive:
            members = [one for one in archive if Path(one.name).suffix in ENDINGS][:SCENES]
            held = [(one.name, archive.extractfile(one).read()) for one in members]  # type: ignore[union-attr]
    if not held:
        raise ConfigError(f"--images: {folder} has no {', '.join(ENDINGS)}")
    found = []
    for name, data in held:
        try:
            found.append(decode(data, IngestConfig().max_pixels))
        except DataError as error:
            raise ConfigError(f"--images: {name}: {error}") from error
    return found


def _agreement(found: "Agreement") -> list[str]:
    before, after = found.bytes
    plain, quantised = found.seconds
    return [
        f"against float32, {found.in_words()}",
        f"{before:,} bytes become {after:,}; it takes {quantised / plain:.2f} of the CPU time",
    ]
