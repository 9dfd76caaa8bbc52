"""A table that lies in a folder of images and speaks of them, as Hugging Face's imagefolder has.

It is metadata.jsonl or metadata.csv; a field such as `file_name` names the image of each line, in the folder
that the table lies in.
"""

import json
import posixpath
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.csv_tables import CsvTable
from tagmill.transforms.formats.fields import image_name, no_image
from tagmill.transforms.formats.image_files import check_path
from tagmill.transforms.formats.jsonl import JsonLines
from tagmill.transforms.formats.packed import open_text
from tagmill.transforms.formats.spill import Spill
from tagmill.transforms.formats.text_tables import merged_fields

TABLES = {"metadata.jsonl": JsonLines, "metadata.csv": CsvTable}
"""Names of tables, the first that is there counts, and the formats that they are of."""


def lone_table(config: InputConfig, name: str) -> str:
    """Say what to do with a table in a folder that has no images itself: it speaks of folders below."""
    format_ = name.rpartition(".")[2]
    path = files.join(config.only_path, name)
    return (
        f"input {config.name}: {path} speaks of images in folders below: use format {format_}, path {path}; "
        "or leave it out by `options: {metadata: ignore}`"
    )


class FolderTable:
    """The lines of a table by image, on disk; open it as a context."""

    def __init__(self, source: Source, name: str, config: InputConfig, limits: Limits) -> None:
        self._source = source
        self._where = posixpath.normpath(posixpath.join(source.path, name))
        self._name = name
        self._config = config
        self._limits = limits
        self._spill = Spill()
        self._used: set[str] = set()

    def __enter__(self) -> "FolderTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._spill.__exit__(None, None, None)

    def fill(self, body: Any) -> Iterator[SourceExample]:
        """Read the table; lines that name no image are failing examples."""
        format_ = TABLES[self._name]()
        text = open_text(body, self._source, self._config)
        for entry in format_.entries(text, self._source, self._config, self._limits):
            where = f"{self._where}:{entry.number}"
            try:
                if isinstance(entry.fields, DataError):
                    raise entry.fields
                name = image_name(entry.fields, self._config)
                if name is None:
                    raise no_image(entry.fields, self._config, where)
                path = posixpath.normpath(check_path(entry.fields[name], where))
                left = {key: value for key, value in entry.fields.items() if key != name}
            except DataError as error:
                yield SourceExample.failing(f"{self._where}#{entry.number}", error.reason, error.detail)
            else:
                self._spill.add(path, entry.number, json.dumps(left))

    def fields(self, image: str, odd: list[DataError]) -> dict[str, Any]:
        """Give what the table says of an image; more than fits is odd."""
        self._used.add(image)
        texts = self._spill.texts(image, self._limits.max_record_bytes)
        if texts is None:
            most = self._limits.max_record_bytes
            detail = f"{self._where}: more than {most} characters of one image (ingest.max_record_bytes)"
            odd.append(DataError(Reason.META_INVALID, detail))
        lines = [json.loads(text) for text in texts or ()]
        return merged_fields(lines, self._config) if lines else {}

    def unused(self) -> Iterator[SourceExample]:
        """Give a failing example for each image that the table names and the folder does not have."""
        with closing(self._spill.groups(0)) as groups:
            for path, _ in groups:
                if path not in self._used:
                    detail = f"{self._where} names {path}, which is not in its folder"
                    if "/" in path:
                        format_ = self._name.rpartition(".")[2]
                        detail += f": use format {format_} with the table as its path"
                    key = posixpath.normpath(posixpath.join(self._source.path, path))
                    yield SourceExample.failing(f"{self._where}#{key}", Reason.IMAGE_MISSING, detail)
