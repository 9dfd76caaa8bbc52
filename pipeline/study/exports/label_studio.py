"""Label Studio: `tasks.json` with predictions, `labeling_config.xml` for the project, and `images/`.

Boxes are in percent. There is a prediction for each verdict, whose name is its `model_version`.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from tagmill.pipeline.study.exports.base import Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample, ChosenTag
from tagmill.pipeline.study.exports.json_files import JsonItems
from tagmill.pipeline.study.exports.pictures import ImageFolder

LOCAL_FILES = "/data/local-files/?d="
"""How tasks name files below the root that Label Studio serves."""


class LabelStudioExport(Export):
    """The format `label-studio`."""

    cannot_say = ("mentions", "labels", "label boxes", "reasons", "sources", "evidence", "implied")

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._images = ImageFolder(folder / "images", self.lost)
        self._tasks = JsonItems(folder / "tasks.json")
        self._used: set[str] = set()

    def write(self, one: ChosenExample) -> None:
        """Write the image and its task."""
        sample = one.sample
        data = {
            "image": LOCAL_FILES + quote(f"images/{self._images.write(one)}"),
            "key": sample.key,
            "split": sample.split,
            "captions": "\n".join(one.captions),
            "meta": sample.meta,
        }
        by_verdict: dict[str, list[ChosenTag]] = defaultdict(list)
        for tag in one.tags:
            by_verdict[tag.record.verdict].append(tag)
            self._used.add(tag.name)
        predictions = [_prediction(one, verdict, tags) for verdict, tags in by_verdict.items()]
        self._tasks.add({"data": data, "predictions": predictions})

    def close(self) -> None:
        """End the tasks, and write the interface with the tags that they use."""
        self._tasks.finish()
        used = [tag.name for tag in self.vocabulary if tag.name in self._used]
        text = _interface(used)
        (self.folder / "labeling_config.xml").write_text(text, encoding="utf-8")

    def stop(self) -> None:
        """Close the tasks."""
        self._tasks.stop()


def _prediction(one: ChosenExample, verdict: str, tags: list[ChosenTag]) -> dict[str, Any]:
    """Give all tags of a verdict as choices, and their boxes as regions; the score is the boxes' mean."""
    width, height = one.sample.width, one.sample.height
    on_image = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    choices = {"choices": [tag.name for tag in tags]}
    result: list[dict[str, Any]] = [
        {"id": f"{verdict}-tags", "from_name": "tags", "type": "choices", "value": choices} | on_image
    ]
    boxes = [(tag.name, box) for tag in tags for box in tag.boxes]
    for place, (name, (x1, y1, x2, y2, score)) in enumerate(boxes):
        value = {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [name],
        }
        region = {"id": f"{verdict}-{place}", "from_name": "boxes", "type": "rectanglelabels", "score": score}
        result.append(region | {"value": value} | on_image)
    prediction: dict[str, Any] = {"model_version": verdict, "result": result}
    if boxes:
        prediction["score"] = sum(box[4] for _, box in boxes) / len(boxes)
    return prediction


def _interface(tags: list[str]) -> str:
    labels = "".join(f"    <Label value={quoteattr(tag)}/>\n" for tag in tags)
    choices = "".join(f"    <Choice value={quoteattr(tag)}/>\n" for tag in tags)
    return (
        "<View>\n"
        '  <Image name="image" value="$image"/>\n'
        '  <Text name="captions" value="$captions"/>\n'
        f'  <RectangleLabels name="boxes" toName="image">\n{labels}  </RectangleLabels>\n'
        f'  <Choices name="tags" toName="image" choice="multiple">\n{choices}  </Choices>\n'
        "</View>\n"
    )
