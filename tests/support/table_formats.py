"""A format of somebody's own: tables with an image and its caption a line."""

import csv
import io
from collections.abc import Iterator

from tagmill.tag_system.core.errors import DataError
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.streams import HashingStream


class Table(FileFormat):
    images_apart = True
    pattern = "*.csv"

    def __init__(self, delimiter: str = ",") -> None:
        if len(delimiter) != 1:
            raise ValueError(f"delimiter is one character, got {delimiter!r}")
        self._delimiter = delimiter

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        text = io.TextIOWrapper(io.BufferedReader(stream), "utf-8", newline="")
        for number, row in enumerate(csv.DictReader(text, delimiter=self._delimiter), start=1):
            try:
                path = check_path(row["image"], f"{source.path}:{number}")
            except DataError as error:
                yield SourceExample.failing(f"{source.path}#{number}", error.reason, error.detail)
            else:
                fields = {"caption": row["caption"]}
                yield SourceExample(key_of(path), loader(path, [row["caption"]], fields, source, limits))
