"""Reads datasets of YOLO: a data.yaml, images, and beside them labels of classes with boxes.

Each split that the yaml names is a source, `data.yaml#train`: what it passes through is a JSON line for each
of its images, with its labels. The labels of `.../images/a.jpg` are in `.../labels/a.txt`, a line each: the
number of a class, then centre and size of a box, or the corners of an outline, in shares of the image. An
image without labels is one of nothing. The key is the image's path without its extension.
"""

import hashlib
import io
import json
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import yaml

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.tag_system.core.text import lines
from tagmill.transforms.formats.base import (
    IMAGE_EXTENSIONS,
    Format,
    InputConfig,
    Limits,
    Source,
    SourceExample,
)
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.streams import HashingStream, PieceStream
from tagmill.transforms.formats.text_lines import bounded_lines

SPLITS = ("train", "val", "test")

MAX_LABEL_BYTES = 4 << 20
"""A longer file of labels is none."""


class Yolo(Format):
    """The format `yolo`."""

    version = 1
    images_apart = True

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """Name the splits of the one data.yaml; see `Format`."""
        path = config.only_path
        if files.is_folder(path):
            path = files.join(path, "data.yaml")
        try:
            dataset = _YoloDataset(path)
            found = [split for split in SPLITS if dataset.images(split)]
        except (OSError, ValueError) as error:
            raise ConfigError(f"input {config.name}: {path} is not a data.yaml of YOLO: {error}") from error
        if not found:
            raise ConfigError(
                f"input {config.name}: {path} names no folder with images as train, val or test; write, in "
                "it, train: images/train"
            )
        folder, _, name = files.absolute(path).rpartition("/")
        return folder, [f"{name}#{split}" for split in found]

    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Tell the bytes of the labels of a split, and what changes when these or its images do."""
        dataset, split = _opened(uri)
        told = [files.size_and_stamp(dataset.path), *dataset.listed(split)]
        return sum(size for size, _ in told), hashlib.sha256(repr(told).encode()).hexdigest()

    @contextmanager
    def open_read(self, uri: str) -> Iterator[IO[bytes]]:
        """Open a split as JSON lines, one an image."""
        dataset, split = _opened(uri)
        yield io.BufferedReader(PieceStream(dataset.examples(split)))

    def image_folder(self, root: str, uri: str) -> str:
        """Images lie where the yaml says; see `Format`."""
        return _opened(uri)[0].root

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a split; see `Format`."""
        for line in bounded_lines(stream, 64 * MAX_LABEL_BYTES):
            fields = json.loads(line or b"{}")
            path = fields.pop("image")
            try:
                check_path(path, source.path)
                if fields.pop("error", None):
                    raise DataError(Reason.RECORD_TOO_LARGE, f"the labels of {path} are no text, or too long")
            except DataError as error:
                yield SourceExample.failing(key_of(path), error.reason, error.detail)
                continue
            labels = fields.pop("labels")
            if config.labels is not None:
                fields[config.labels] = labels
            yield SourceExample(key_of(path), loader(path, [], fields, source, limits, config.links))


def _opened(uri: str) -> tuple["_YoloDataset", str]:
    path, _, split = uri.rpartition("#")
    try:
        return _YoloDataset(path), split
    except ValueError as error:
        raise OSError(f"{path}: {error}") from error


class _YoloDataset:
    """What a data.yaml says. Raises OSError, and ValueError for what is none."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            said = yaml.safe_load(files.read_bytes(path))
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error
        if not isinstance(said, dict) or not isinstance(said.get("names"), list | dict):
            raise ValueError("it has no `names` of classes")
        names = said["names"]
        pairs = enumerate(names) if isinstance(names, list) else names.items()
        self._names = {str(number): str(name) for number, name in pairs}
        self._said = said
        folder = files.absolute(path).rpartition("/")[0]
        root = str(said.get("path") or ".")
        self.root = root if root.startswith("/") or "://" in root else posixpath.normpath(f"{folder}/{root}")

    def images(self, split: str) -> list[str]:
        """List the paths of a split's images, relative to the root."""
        entries = self._said.get(split) or []
        found: list[str] = []
        for entry in entries if isinstance(entries, list) else [entries]:
            entry = self._relative(str(entry))
            uri = files.join(self.root, entry)
            if files.is_folder(uri):
                found += [posixpath.join(entry, name) for name in files.walk(uri) if _is_image(name)]
            elif entry.endswith(".txt") and files.exists(uri):
                folder = entry.rpartition("/")[0]
                listed = files.read_bytes(uri).decode(errors="replace").split("\n")
                found += [self._listed(line.strip(), folder) for line in listed if line.strip()]
        return list(dict.fromkeys(found))

    def _relative(self, path: str) -> str:
        path = path.removeprefix(self.root.rstrip("/") + "/")
        # Downloads of Roboflow name folders by `../`, though they lie beside the yaml.
        found = posixpath.normpath(path)
        inside = found.removeprefix("../")
        return inside if found != inside and files.exists(files.join(self.root, inside)) else found

    def _listed(self, line: str, folder: str) -> str:
        return (
            posixpath.normpath(posixpath.join(folder, line))
            if line.startswith("./")
            else self._relative(line)
        )

    def listed(self, split: str) -> Iterator[tuple[int, str]]:
        """Tell size and stamp of each file of labels, and the name of each image."""
        for image in self.images(split):
            try:
                yield files.size_and_stamp(self._labels_uri(image))
            except FileNotFoundError:
                yield 0, image

    def examples(self, split: str) -> Iterator[bytes]:
        """Give a JSON line for each image."""
        for image in self.images(split):
            said: dict[str, Any] = {"image": image, "split": split}
            try:
                with files.opened(self._labels_uri(image)) as labels:
                    data = labels.stream.read(MAX_LABEL_BYTES + 1)
                if len(data) > MAX_LABEL_BYTES:
                    raise ValueError("too long")
                said["labels"] = [
                    self._label(line) for line in lines(data.decode("utf-8-sig")) if line.strip()
                ]
            except FileNotFoundError:
                said["labels"] = []
            except ValueError:
                said["error"] = True
            yield json.dumps(said).encode() + b"\n"

    def _labels_uri(self, image: str) -> str:
        before, mark, after = f"/{image}".rpartition("/images/")
        path = f"{before}/labels/{after}" if mark else f"/{image}"
        return files.join(self.root, path[1:].rpartition(".")[0] + ".txt")

    def _label(self, line: str) -> dict[str, Any]:
        """Read a line of labels; one that is none gives a label without a name, to be refused."""
        number, *cells = line.split()
        name = self._names.get(number)
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            return {"line": line[:200]}
        if name is None or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
            return {"line": line[:200]}
        if len(values) == 4:
            x, y, wide, high = values
            return {"name": name, "shares": [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]}
        across, down = values[::2], values[1::2]
        return {"name": name, "shares": [min(across), min(down), max(across), max(down)]}


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
