"""`tagmill predict`: the tags of images, without a run; with boxes if a localizer is named."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console

from tagmill.runners.commands import taggers
from tagmill.runners.commands.terminal import Terminal, complain
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import dump_json, shown
from tagmill.tag_system.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tagmill.pipeline.study.prediction import Prediction
    from tagmill.tag_system.parser import CaptionParser

BATCH = 8
"""Images in one call of a model."""


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="JPEG, PNG or WebP files")],
    model: Annotated[str, typer.Option(help=taggers.MODEL)],
    options: taggers.Options = None,
    taglist: Annotated[
        Path | None, typer.Option(help="the only tags to give, one a line; default: all of the model's")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="one score for all tags; default: the model's own, or 0.5")
    ] = None,
    captioner: Annotated[
        Path | None, typer.Option(help="folder of a Tag2Text: caption, and take tags from that too")
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="find the objects among the tags")] = False,
    localizer: Annotated[str | None, typer.Option(help="Grounding DINO: a folder or owner/name")] = None,
    box_threshold: Annotated[float, typer.Option(min=0, max=0.99, help="a box's least score")] = 0.25,
    output: Annotated[
        Path | None, typer.Option(help="draw each image into this folder, as NAME.tags.png")
    ] = None,
    vocabulary: Annotated[str | None, typer.Option(help="vocabulary file; default: the built-in")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object an image")] = False,
    device: taggers.Device = None,
) -> None:
    """Print the tags of images, with scores, and draw their boxes."""
    from tagmill.pipeline.study import prediction
    from tagmill.pipeline.study.asking import TagList

    _check(threshold)
    pictures = _pictures(files, output)
    known = Vocabulary.load(vocabulary)
    tagger = taggers.construct(model, options, device=device)
    asked = None if taglist is None else TagList.read(taglist, tagger.classes, known)
    for line in asked.remarks() if asked else ():
        complain(line)
    device = device or "auto"
    finder = _localizer(localizer, box_threshold, device) if boxes or localizer else None
    tagger.load()
    write = _captioner(captioner, known, device)
    console = Terminal()
    failed = 0
    for batch in prediction.batches(files, BATCH):
        with taggers.named(model):
            prediction.tag(batch, tagger, known, threshold, asked)
        if write is not None:
            prediction.caption(batch, *write, known, asked)
        if finder is not None:
            prediction.find(batch, finder, known)
        failed += len(batch.errors)
        for path, why in batch.errors.items():
            complain(f"{path}: {why}")
        for one in batch.images:
            if as_json:
                console.file.write(dump_json(_record(one)) + "\n")
            else:
                _show(console, one)
            if output is not None:
                _save(prediction.draw(one), pictures[one.path])
        batch.images.clear()  # the next ones need their room
    if failed:
        raise ConfigError(f"{failed} of {len(files)} images could not be read or tagged")


def _check(threshold: float | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold must be from 0 to 1, got {threshold}")


def _pictures(files: Sequence[Path], output: Path | None) -> dict[Path, Path]:
    """Say into which file each image is drawn. Raises ConfigError if two would share one."""
    if output is None:
        return {}
    targets = {path: output / f"{path.stem}.tags.png" for path in dict.fromkeys(files)}
    if len(set(targets.values())) < len(targets):
        raise ConfigError("two images have the same name: draw them in two calls with another --output")
    return targets


def _localizer(path: str | None, threshold: float, device: str) -> Any:
    from tagmill.models.base import create

    if path is None:
        raise ConfigError("name a localizer by --localizer, such as IDEA-Research/grounding-dino-base")
    found = create("grounding-dino", {"path": path, "box_floor": threshold, "device": device, "pad_to": 64})
    found.load()
    return found


def _captioner(
    folder: Path | None, vocabulary: Vocabulary, device: str
) -> "tuple[Any, CaptionParser] | None":
    from tagmill.models.base import create
    from tagmill.tag_system.parser import CaptionParser

    if folder is None:
        return None
    writer = create("tag2text", {"path": str(folder), "device": device})
    writer.load()
    return writer, CaptionParser(vocabulary)


def _record(one: "Prediction") -> dict[str, Any]:
    height, width, _ = one.pixels.shape
    said = {} if one.caption is None else {"caption": one.caption}
    return {"image": str(one.path), "width": width, "height": height, **said, "tags": one.tags}


def _show(console: Console, one: "Prediction") -> None:
    console.print(str(one.path), markup=False, highlight=False, style="bold")
    if one.caption is not None:
        console.print(f"  caption: {one.caption}", markup=False, highlight=False)
    width = max((cell_len(shown(tag["tag"])) for tag in one.tags), default=0)
    for tag in one.tags:
        words = [
            f"{shown(tag['tag']):<{width}}",
            "   -" if tag["score"] is None else f"{tag['score']:.2f}",
            ", ".join(tag["sources"]),
            *_boxes_in_words(tag["boxes"]),
            tag["chinese"],
        ]
        console.print("  " + "  ".join(filter(None, words)), markup=False, highlight=False)
    if not one.tags:
        console.print("  no tag over its threshold", markup=False, highlight=False)


def _boxes_in_words(boxes: list[dict[str, float]] | None) -> Iterator[str]:
    if boxes is not None:
        count = f"{len(boxes)} box{'' if len(boxes) == 1 else 'es'}"
        yield f"{count}, best {boxes[0]['score']:.2f}" if boxes else "no box"


def _save(picture: Any, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from error
