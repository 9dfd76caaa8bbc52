"""FiftyOne: `samples.json`, `metadata.json` and `data/` of its FiftyOneDataset.

A sample has a field of Classifications for each verdict, with the tagger's score as confidence, the field
`boxes` of Detections in shares of the image, with the localizer's, and the labels of the source in `given`
and `given_boxes`. Its split is a tag of the sample. The metadata names no version of FiftyOne: any version
then takes the fields from the samples themselves.
"""

from pathlib import Path
from typing import Any

from tagmill.pipeline.study.exports.base import ALL_VERDICTS, Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample, ChosenTag
from tagmill.pipeline.study.exports.json_files import JsonItems, write_object
from tagmill.pipeline.study.exports.pictures import ImageFolder


class FiftyOneExport(Export):
    """The format `fiftyone`."""

    defaults = ALL_VERDICTS
    cannot_say = ("mentions", "sources", "evidence", "implied")

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._images = ImageFolder(folder / "data", self.lost)
        self._samples = JsonItems(folder / "samples.json", "samples")

    def write(self, one: ChosenExample) -> None:
        """Write the image and its sample."""
        sample = one.sample
        boxed = [label for label in sample.labels if label.box is not None]
        said: dict[str, Any] = {
            "filepath": f"data/{self._images.write(one)}",
            "tags": [sample.split],
            "metadata": None,
            "key": sample.key,
            "captions": one.captions,
            "meta": sample.meta,
            "boxes": _detections(
                [
                    _label("Detection", tag) | _place(one, box[:4]) | {"confidence": box[4]}
                    for tag in one.tags
                    for box in tag.boxes
                ]
            ),
            "given": _classifications([_given("Classification", label.name) for label in sample.labels]),
            "given_boxes": _detections(
                [_given("Detection", label.name) | _place(one, label.box or ()) for label in boxed]
            ),
        }
        for verdict in self.options.verdicts or ():
            tags = [tag for tag in one.tags if tag.record.verdict == verdict]
            said[verdict] = _classifications(
                [_label("Classification", tag) | {"confidence": tag.score} for tag in tags]
            )
        self._samples.add(said)

    def close(self) -> None:
        """End the samples, and write what the dataset is."""
        self._samples.finish()
        info = {
            "classes": [tag.name for tag in self.vocabulary],
            "vocabulary": self.context.manifest.vocabulary,
        }
        write_object(self.folder / "metadata.json", {"media_type": "image", "info": info})

    def stop(self) -> None:
        """Close the samples."""
        self._samples.stop()


def _label(kind: str, tag: ChosenTag) -> dict[str, Any]:
    record = tag.record
    about = {"kind": record.kind, "verdict": record.verdict, "rule": record.rule, "basis": record.basis}
    return _given(kind, tag.name) | about


def _given(kind: str, name: str) -> dict[str, Any]:
    return {"_cls": kind, "tags": [], "label": name}


def _place(one: ChosenExample, box: tuple[float, ...] | list[float]) -> dict[str, Any]:
    """Give a box as FiftyOne has it: left, top, width and height, in shares of the image."""
    x1, y1, x2, y2 = box
    width, height = one.sample.width, one.sample.height
    return {"bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]}


def _classifications(labels: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Classifications", "classifications": labels}


def _detections(labels: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Detections", "detections": labels}
