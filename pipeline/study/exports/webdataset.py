"""Webdataset: shards as the engine writes them (docs/shards.md), of the chosen examples and another size."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tagmill.pipeline.study.exports.base import ALL_VERDICTS, Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.decisions import VERDICTS
from tagmill.tag_system.sample_counts import SampleCounts
from tagmill.transforms.dataset_files import dataset_files
from tagmill.transforms.shards import ShardsConfig, ShardWriter


class WebdatasetExport(Export):
    """The format `webdataset`; an image stays as it is stored, and its sample says how it is turned."""

    takes = frozenset({"verdicts", "size"})
    defaults = ALL_VERDICTS

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._size = self.options.size or ShardsConfig().size
        self._filters = self.options.verdicts != VERDICTS
        self._shards: list[contract.ManifestShard] = []
        self._counts = SampleCounts()
        self._writer: ShardWriter | None = None
        self._stack = ExitStack()

    def write(self, one: ChosenExample) -> None:
        """Add an example to its split's shard; the splits come one after the other."""
        writer = self._writer
        if writer and (writer.counts.examples == self._size or writer.split != one.sample.split):
            self._end_shard()
        if self._writer is None:
            number = sum(shard.split == one.sample.split for shard in self._shards)
            name = contract.shard_name(one.sample.split, number)
            header = {"stage": "export", "split": one.sample.split}
            self._writer = self._stack.enter_context(ShardWriter(str(self.folder), name, header))
        self._writer.add(self._record(one), one.stored)

    def _record(self, one: ChosenExample) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(one.record)
        if self._filters:
            chosen = self.options.verdicts or ()
            record["tags"] = [tag for tag in record["tags"] if tag["verdict"] in chosen]
        return record

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._shards.append(self._writer.close())
            self._counts.update(vars(self._writer.counts))
            self._writer = None
            self._stack.close()

    def close(self) -> None:
        """Write the files around the shards; the manifest says of what this is an export."""
        self._end_shard()
        before = self.context.manifest
        told: dict[str, Any] = {
            "of": value_digest(before.model_dump(mode="json")),
            "where": self.options.where,
        }
        told |= {"splits": list(self.options.splits), "verdicts": list(self.options.verdicts or ())}
        examples = {
            split: sum(shard.examples for shard in self._shards if shard.split == split)
            for split in dict.fromkeys(shard.split for shard in self._shards)
        }
        made_by = {**before.made_by, "export": told}
        update = {
            "date": self.context.date,
            "shards": self._shards,
            "examples": examples,
            **self._counts.told(),
            "inputs": {
                name: one.model_copy(update={"examples": self._counts.inputs[name]})
                for name, one in before.inputs.items()
            },
            "made_by": made_by,
        }
        manifest = before.model_copy(update=update)
        for name, data in dataset_files(manifest, self.vocabulary).items():
            (self.folder / name).write_bytes(data)

    def stop(self) -> None:
        """Close the shard that is being written."""
        self._stack.close()
