"""Guesses how data that lies somewhere is read: by reading its first examples in every way that may fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tagmill.pipeline.study.preview import InputPreview, preview
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.label_names import LabelNames
from tagmill.transforms.formats.base import IMAGE_EXTENSIONS, InputConfig, format_of
from tagmill.transforms.ingest import Ingest

ENDINGS: dict[str, tuple[str, ...]] = {
    ".tar": ("webdataset",),
    ".parquet": ("parquet",),
    ".jsonl": ("jsonl",),
    ".ndjson": ("jsonl",),
    ".json": ("coco", "ram", "visual-genome", "json", "jsonl"),
    ".csv": ("open-images", "csv"),
    ".tsv": ("tsv",),
    ".txt": ("tsv", "csv"),
    ".yaml": ("yolo",),
}
"""Formats that a file may be of, by how its name ends, the more special before the more common ones."""

PACKED = (".gz", ".zst")
MAX_FOLDERS = 6
"""Folders in which images are looked for that lie apart."""


@dataclass(frozen=True)
class Guess:
    """A way to read data, and the first examples as they are read in it."""

    config: InputConfig
    preview: InputPreview

    @property
    def worth(self) -> tuple[int, bool]:
        """Say how good it is: by how many examples live, and whether anything is said of one."""
        examples = self.preview.examples
        return len(examples), any(one["captions"] or one["labels"] for one in examples)


def guess(
    path: str, name: str, stage: Ingest, labels: LabelNames, count: int, *, is_labelled: bool = False
) -> Guess:
    """Find the way of reading in which most of the first `count` examples live.

    Args:
        path: A file, a pattern or a folder.
        name: Name of the input.
        stage: Reads the examples.
        labels: What labels stand for.
        count: How many examples are looked at.
        is_labelled: Whether names of folders are labels, where there are no others.

    Raises:
        ConfigError: Nothing there can be read; the message is that of the most likely way.
    """
    best: Guess | None = None
    refused: ConfigError | None = None
    ways = list(_ways(path))
    if is_labelled and files.is_folder(path):
        ways.append({"format": "folder", "path": path, "options": {"labels": "folders"}})
    for values in ways:
        try:
            config = InputConfig(name=name, **values)
            (found,) = preview([config], stage, labels, count)
        except ConfigError as error:
            refused = refused or error
            continue
        one = Guess(config, found)
        if best is None or one.worth > best.worth:
            best = one
        if one.worth == (count, True):
            break
    if best is None or not best.preview.examples:
        letters = best.preview.dead if best else []
        if best and letters:
            refused = ConfigError(
                f"{path}: as {best.config.format}, {letters[0]['reason']}: {letters[0]['detail']}"
            )
        raise refused or ConfigError(f"{path}: there is no file that any format reads; see docs/inputs.md")
    return best


def _ways(path: str) -> Iterator[dict[str, Any]]:
    """Give ways to read what lies at a path, the most likely first."""
    if not files.is_folder(path):
        yield from _of_file(path, path)
        return
    listed = files.list_names(path)
    if "data.yaml" in listed:
        yield {"format": "yolo", "path": path}
    for ending in (".tar", ".parquet"):
        for pattern in (f"*{ending}", f"*/*{ending}"):
            if files.expand(files.join(path, pattern)):
                yield from _of_file(files.join(path, pattern), path)
                break
    tables = [name for name in listed if _ending(name) in ENDINGS and not name.startswith("metadata.")]
    for name in tables[:MAX_FOLDERS]:
        if _ending(name) not in (".tar", ".parquet", ".yaml", ".txt"):
            yield from _of_file(files.join(path, name), path)
    yield {"format": "folder", "path": path}


def _of_file(path: str, folder: str) -> Iterator[dict[str, Any]]:
    """Give ways to read files, in which images may lie in several folders."""
    folder = folder if files.is_folder(folder) else folder.rpartition("/")[0] or "."
    for name in ENDINGS.get(_ending(path), ("jsonl", "csv")):
        plain = {"format": name, "path": path}
        yield plain
        if format_of(InputConfig(name="it", **plain)).images_apart:
            for images in _image_folders(folder):
                yield plain | {"images": images}


def _image_folders(folder: str) -> Iterator[str]:
    """Give folders in which the images of a table may lie: those near it, and in them."""
    above = folder.rpartition("/")[0]
    near = [folder, *([above] if above else [])]
    inner = [files.join(one, name) for one in near for name in files.list_folders(one)]
    with_images = [one for one in inner if any(map(_is_image, files.list_names(one)))]
    yield from islice(dict.fromkeys([*with_images, *near, *inner]), MAX_FOLDERS)


def _ending(path: str) -> str:
    name = path.rpartition("/")[2]
    for packed in PACKED:
        name = name.removesuffix(packed)
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
