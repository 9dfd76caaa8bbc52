"""YOLO: `images/SPLIT/` beside `labels/SPLIT/`, a text an image, and `data.yaml` with the classes' names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tagmill.pipeline.study.exports.base import Export, ExportContext, ExportOptions
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.pipeline.study.exports.classes import Classes
from tagmill.pipeline.study.exports.pictures import ImageFolder, file_stem

BOX_SCORE = 0.3
"""A box that scores less is none, unless somebody says otherwise: the format cannot say how sure it is."""


class YoloExport(Export):
    """The format `yolo`."""

    takes = frozenset({"verdicts", "box_score", "classes"})
    defaults = ExportOptions(verdicts=("kept",), box_score=BOX_SCORE)
    cannot_say = (
        *("unboxed tags", "captions", "mentions", "scores", "verdicts", "labels", "label boxes"),
        *("reasons", "sources", "evidence", "implied", "meta"),
    )

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._classes = Classes(self.vocabulary, self.options.classes, self.lost)
        self._images = ImageFolder(folder / "images", self.lost)
        self._splits: set[str] = set()

    def write(self, one: ChosenExample) -> None:
        """Write the image and the text of its boxes; that of an image without any is empty."""
        split = one.sample.split
        labels = self.folder / "labels" / split
        if split not in self._splits:
            self._splits.add(split)
            labels.mkdir(parents=True)
        self._images.write(one)
        text = "".join(self._lines(one))
        (labels / f"{file_stem(one.sample.key)}.txt").write_text(text, encoding="ascii")

    def _lines(self, one: ChosenExample) -> Iterator[str]:
        width, height = one.sample.width, one.sample.height
        for tag in one.tags:
            number = self._classes.number(tag.name) if tag.boxes else None
            for x1, y1, x2, y2, _ in tag.boxes if number is not None else ():
                shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
                sizes = ((x2 - x1) / width, (y2 - y1) / height)
                yield f"{number} {' '.join(f'{share:.8g}' for share in (*shares, *sizes))}\n"

    def close(self) -> None:
        """Write data.yaml; without `path`, the folders are those beside it."""
        said: dict[str, Any] = {
            split: f"images/{split}" for split in self.options.splits if split in self._splits
        }
        said["names"] = dict(enumerate(self._classes.names))
        text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
        (self.folder / "data.yaml").write_text(text, encoding="utf-8")
