"""Hugging Face: Parquet with the images in it, `data/SPLIT-00000-of-00001.parquet`, and a card, README.md.

The schema notes the features, so `load_dataset(FOLDER)` gives images. That library reads shards too, a column
for each extension of images, with all evidence; here is one column of upright images, beside what was chosen.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tagmill.pipeline.study.exports.base import Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.pipeline.study.exports.pictures import file_stem, upright
from tagmill.tag_system.core import files
from tagmill.tag_system.hub import HUB_SPLITS, hub_licence
from tagmill.tag_system.licence_table import licences_told
from tagmill.tag_system.licences import UNKNOWN
from tagmill.transforms.data_card import UNCHECKED

FILE_BYTES = 400 << 20
"""Bytes of images after which a new file begins, unless a number of examples is asked for."""

GROUP_ROWS, GROUP_BYTES = 100, 32 << 20
"""The most of a row group: viewers and streams read it whole."""

_TEXT = {"dtype": "string", "_type": "Value"}
_FLOAT = {"dtype": "float32", "_type": "Value"}


def _list(feature: Any) -> dict[str, Any]:
    return {"feature": feature, "_type": "Sequence"}  # versions before 4 know no other name of it


_BOXES = {"bbox": _list(_list(_FLOAT)), "tag": _list(_TEXT), "score": _list(_FLOAT)}

FEATURES: dict[str, tuple[pa.DataType, Any]] = {
    "image": (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}),
    "key": (pa.string(), _TEXT),
    "width": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "height": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "tags": (pa.list_(pa.string()), _list(_TEXT)),
    "captions": (pa.list_(pa.string()), _list(_TEXT)),
    "labels": (pa.list_(pa.string()), _list(_TEXT)),
    "objects": (
        pa.struct(
            [
                ("bbox", pa.list_(pa.list_(pa.float32()))),
                ("tag", pa.list_(pa.string())),
                ("score", pa.list_(pa.float32())),
            ]
        ),
        _BOXES,
    ),
    "meta": (pa.string(), _TEXT),
}
"""Columns: their types, and what the library calls these. Boxes are left, top, width, height in pixels."""

SCHEMA = pa.schema([(name, kind) for name, (kind, _) in FEATURES.items()]).with_metadata(
    {"huggingface": json.dumps({"info": {"features": {name: told for name, (_, told) in FEATURES.items()}}})}
)


class HuggingFaceExport(Export):
    """The format `hf`."""

    takes = frozenset({"verdicts", "box_score", "size"})
    cannot_say = ("verdicts", "mentions", "label boxes", "reasons", "sources", "evidence", "implied")

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        (folder / "data").mkdir()
        self._files: dict[str, _SplitFiles] = {}
        self._licences: Counter[str] = Counter()
        self._has_boxes = self._has_captions = False

    def write(self, one: ChosenExample) -> None:
        """Add the row of an example."""
        sample = one.sample
        if sample.split not in self._files:
            name = HUB_SPLITS.get(sample.split, sample.split)
            self._files[sample.split] = _SplitFiles(self.folder / "data", name, self.options.size)
        data, extension = upright(one, self.lost)
        boxes = [(tag.name, box) for tag in one.tags for box in tag.boxes]
        row = {
            "image": {"bytes": data, "path": f"{file_stem(sample.key)}.{extension}"},
            **{name: getattr(sample, name) for name in ("key", "width", "height", "meta")},
            "tags": [tag.name for tag in one.tags],
            "captions": one.captions,
            "labels": [label.name for label in sample.labels],
            "objects": {
                "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2, _) in boxes],
                "tag": [name for name, _ in boxes],
                "score": [box[4] for _, box in boxes],
            },
        }
        self._files[sample.split].add(row, len(data))
        self._licences[sample.license or UNKNOWN] += 1
        self._has_boxes |= bool(boxes)
        self._has_captions |= bool(one.captions)

    def close(self) -> None:
        """Number the files, and write the card."""
        for split in self._files.values():
            split.finish()
        (self.folder / "README.md").write_text(self._card(), encoding="utf-8")

    def stop(self) -> None:
        """Close the files."""
        for split in self._files.values():
            split.stop()

    def _card(self) -> str:
        counts = {found.split: found.rows for found in self._files.values()}
        tasks = ["image-classification", "object-detection"][: 1 + self._has_boxes]
        front: dict[str, Any] = {
            **hub_licence(self._licences),
            "task_categories": tasks + ["image-to-text"] * self._has_captions,
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": name, "path": f"data/{name}-*.parquet"} for name in counts],
                }
            ],
        }
        rows = "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
        return f"""---
{yaml.safe_dump(front, sort_keys=False)}---
# Image-tag dataset

Made by tagmill, {self.context.date}; `LOST.md` tells what is not in it. `tags` are those with
the verdict {", ".join(self.options.verdicts or ())}, `objects` their boxes: left, top, width and height in
pixels, with the score of the localizer. All images are stored upright. `meta` is JSON of the source, in one
string.

| split | examples |
|---|---|
{rows}

{UNCHECKED}

{licences_told(self._licences)}

```python
from datasets import load_dataset

dataset = load_dataset("this folder", split="{next(iter(counts))}")
print(dataset[0]["tags"])
```
"""


class _SplitFiles:
    """The files of one split, which get their numbers once all are there; `rows` counts their rows.

    `split` is Hugging Face's name of it.
    """

    def __init__(self, folder: Path, split: str, size: int | None) -> None:
        self._folder, self.split, self._size = folder, split, size
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = self._file_bytes = self._file_rows = self.rows = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """Add a row whose image has so many bytes."""
        if self._is_full():
            self.stop()
        self._waiting.append(row)
        self._waiting_bytes += size
        self._file_bytes += size
        self._file_rows += 1
        self.rows += 1
        if len(self._waiting) >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._flush()

    def _is_full(self) -> bool:
        return self._file_bytes >= FILE_BYTES if self._size is None else self._file_rows >= self._size

    def _flush(self) -> None:
        if self._writer is None:
            self._paths.append(self._folder / f"{self.split}-{len(self._paths):05d}")
            self._writer = pq.ParquetWriter(self._paths[-1], SCHEMA, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._waiting, SCHEMA))
        self._waiting.clear()
        self._waiting_bytes = 0

    def stop(self) -> None:
        """End the file that is being written."""
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._file_bytes, self._file_rows = None, 0, 0

    def finish(self) -> None:
        """End the last file, and name all by their number."""
        self.stop()
        for path in self._paths:
            files.move(str(path), f"{path}-of-{len(self._paths):05d}.parquet")
