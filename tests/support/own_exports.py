"""A user's own export: how many images have each tag."""

import json
from collections import Counter
from pathlib import Path

from tagmill.pipeline.study.exports.base import Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample


class TagCounts(Export):
    takes = frozenset({"verdicts"})
    reads_images = False
    cannot_say = ("captions", "boxes", "scores")

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._counts: Counter[str] = Counter()

    def write(self, one: ChosenExample) -> None:
        self._counts.update(tag.name for tag in one.tags)

    def close(self) -> None:
        (self.folder / "counts.json").write_text(json.dumps(self._counts))
