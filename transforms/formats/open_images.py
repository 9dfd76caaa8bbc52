"""Reads Open Images: labels of images, boxes and names of classes, CSV files beside a folder of images.

The input's file is one of image labels or of boxes; `boxes` or `labels` names the other, `classes` the file
of class descriptions. Lines are brought together by image on disk. A label that people found absent
(confidence 0) is none, and is kept as `absent` in meta. The box of a group is no box of one thing: its label
goes without. Images are `ID.jpg`; the key is the id.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.tag_system.core.text import lines
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.image_files import check_path, loader
from tagmill.transforms.formats.packed import open_text
from tagmill.transforms.formats.several import SeveralFiles
from tagmill.transforms.formats.spill import Spill
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.text_lines import bounded_lines

MAX_LINE_BYTES = 1 << 16

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_NEEDED = ("ImageID", "LabelName")


class OpenImages(SeveralFiles):
    """The format `open-images`."""

    images_apart = True
    pattern = "*.csv"

    def __init__(
        self, classes: str | None = None, boxes: str | None = None, labels: str | None = None
    ) -> None:
        super().__init__({"boxes": boxes, "labels": labels, "classes": classes})

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """List the one file; see `Format`. Raises ConfigError without the names of classes."""
        if "classes" not in self.others:
            raise ConfigError(
                f"input {config.name}: labels are codes such as /m/0bt9lr; give the file of their names: "
                "options: {classes: class-descriptions.csv}"
            )
        return super().find_sources(config)

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of an image set, in the order of its first file; see `Format`."""
        names = _class_names(self.others["classes"])
        number = 0
        with Spill() as spill:
            *tables, _ = self.others
            for one, _ in zip(self.streams(stream), (source.path, *tables), strict=False):
                for row in _rows(one, source, config):
                    number += 1
                    if isinstance(row, DataError):
                        yield SourceExample.failing(f"{source.path}#{number}", row.reason, row.detail)
                    else:
                        spill.add(row.pop("ImageID"), number, json.dumps(row))
            with closing(spill.groups(limits.max_record_bytes)) as groups:
                for image, texts in groups:
                    yield _example(image, texts, names, source, config, limits)


def _class_names(uri: str) -> dict[str, str]:
    text = files.read_bytes(uri).decode("utf-8-sig", errors="replace")
    return {row[0]: row[1] for row in csv.reader(lines(text)) if len(row) >= 2}


def _rows(stream: Any, source: Source, config: InputConfig) -> Iterator[dict[str, str] | DataError]:
    """Give the lines of a table by column. Raises ConfigError for another table."""
    header: list[str] | None = None
    for line in bounded_lines(open_text(stream, source, config), MAX_LINE_BYTES):
        try:
            cells = next(csv.reader([(line or b"\xff").decode("utf-8-sig").rstrip("\r")]), [])
        except (csv.Error, UnicodeDecodeError) as error:
            yield DataError(
                Reason.RECORD_INVALID, f"{source.path}: a line that is no CSV, or too long: {error}"
            )
            continue
        if header is None:
            header = cells
            if missing := [name for name in _NEEDED if name not in header]:
                raise ConfigError(
                    f"input {config.name}: a table of {source.uri} has no column {' and '.join(missing)}; "
                    f"saw {', '.join(header[:30])}; tables of Open Images have ImageID, LabelName and "
                    "Confidence, or the corners of boxes"
                )
        elif cells:
            row = dict(zip(header, cells, strict=False))
            if not all(row.get(name) for name in _NEEDED):
                yield DataError(Reason.RECORD_INVALID, f"{source.path}: a line without an image or a label")
            else:
                kept = (*_NEEDED, "Confidence", "IsGroupOf", *_CORNERS)
                yield {name: row[name] for name in kept if name in row}


def _example(
    image: str,
    texts: list[str] | None,
    names: dict[str, str],
    source: Source,
    config: InputConfig,
    limits: Limits,
) -> SourceExample:
    try:
        if texts is None:
            detail = (
                f"{source.path}: the lines of {image[:80]} are longer than {limits.max_record_bytes} bytes"
            )
            raise DataError(Reason.RECORD_TOO_LARGE, f"{detail} (ingest.max_record_bytes)")
        path = check_path(f"{image}.jpg", source.path)
        labels: dict[str, dict[str, Any]] = {}
        boxed: list[dict[str, Any]] = []
        absent: list[str] = []
        for row in map(json.loads, texts):
            name = names.get(row["LabelName"], row["LabelName"])
            if _number(row.get("Confidence", "1"), "Confidence", source) == 0:
                absent.append(name)
            elif "XMin" in row and row.get("IsGroupOf") != "1":
                corners = [_number(row.get(corner), corner, source) for corner in _CORNERS]
                boxed.append({"name": name, "shares": corners})
            else:
                labels[name] = {"name": name}
    except DataError as error:
        return SourceExample.failing(image, error.reason, error.detail)
    with_box = {label["name"] for label in boxed}
    fields: dict[str, Any] = {"absent": sorted(set(absent))} if absent else {}
    if config.labels is not None:
        fields[config.labels] = [*boxed, *(label for name, label in labels.items() if name not in with_box)]
    return SourceExample(image, loader(path, [], fields, source, limits, config.links))


def _number(cell: str | None, name: str, source: Source) -> float:
    try:
        return float(cell or "")
    except ValueError as error:
        raise DataError(
            Reason.RECORD_INVALID, f"{source.path}: {name} is no number: {str(cell)[:40]!a}"
        ) from error
