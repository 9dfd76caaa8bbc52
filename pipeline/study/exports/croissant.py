"""Croissant: `croissant.json` beside the tables of `parquet`, which describes these and the shards."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from tagmill.pipeline.study.exports.base import ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.pipeline.study.exports.tables import ParquetExport
from tagmill.tag_system.core import files
from tagmill.tag_system.licences import UNKNOWN
from tagmill.tag_system.shard_contract import CROISSANT
from tagmill.transforms.croissant import PARQUET, TAR, dump, file_object, record_set


class CroissantExport(ParquetExport):
    """The format `croissant`."""

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._licences: Counter[str] = Counter()
        self._inputs: Counter[str] = Counter()

    def write(self, one: ChosenExample) -> None:
        """Add the rows of an example."""
        super().write(one)
        self._licences[one.sample.license or UNKNOWN] += 1
        self._inputs[one.sample.key.partition("/")[0]] += 1

    def close(self) -> None:
        """End the tables, and describe them."""
        super().close()
        manifest = self.context.manifest
        inputs = {
            name: told.model_copy(update={"examples": self._inputs[name]})
            for name, told in manifest.inputs.items()
        }
        chosen = {
            "date": self.context.date,
            "licenses": dict(sorted(self._licences.items())),
            "inputs": inputs,
        }
        text = dump(
            manifest.model_copy(update=chosen), [*self._tables(), *self._shards()], self._record_sets()
        )
        (self.folder / CROISSANT).write_text(text, encoding="utf-8")

    def _record_sets(self) -> list[dict[str, Any]]:
        found = {
            name: record_set(name, table.schema, {"fileObject": {"@id": f"{name}.parquet"}})
            for name, table in self.tables.items()
        }
        found["examples"]["key"] = {"@id": "examples/key"}
        return list(found.values())

    def _tables(self) -> list[dict[str, Any]]:
        """Describe the files of the tables."""
        paths = [self.folder / f"{name}.parquet" for name in self.tables]
        return [
            file_object(path.name, path.name, PARQUET, files.sha256(str(path)), path.stat().st_size)
            for path in paths
        ]

    def _shards(self) -> list[dict[str, Any]]:
        """Describe the shards in which the images lie, relative to the destination if both are local."""
        folder = self.context.folder
        if files.is_local(folder):
            folder = os.path.relpath(files.filesystem(folder)[1], self.context.destination)
        return [
            file_object(f"{s.name}.tar", files.join(folder, f"{s.name}.tar"), TAR, s.sha256, s.bytes)
            for s in self.context.manifest.shards
            if s.split in self.options.splits
        ]
