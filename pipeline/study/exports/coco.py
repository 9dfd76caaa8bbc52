"""COCO: `annotations/instances_SPLIT.json` and `captions_SPLIT.json` beside `images/SPLIT/`.

Ids count from 1 in the order of the sorted keys, split by split, so the same dataset gets the same ids,
however its shards are cut. A category is a tag of the vocabulary, its id one more than the tag's, its
supercategory the kind. Tags without a box are the field `tags` of their image: `category_id`, `name`,
`verdict`, and `score`.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tagmill.pipeline.study.exports.base import Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample, ChosenTag
from tagmill.pipeline.study.exports.json_files import dump, write_object
from tagmill.pipeline.study.exports.pictures import ImageFolder
from tagmill.tag_system.shard_contract import Box
from tagmill.transforms.formats.spill import Spill


class CocoExport(Export):
    """The format `coco`. Images wait on disk until they can be put in order."""

    cannot_say = ("mentions", "labels", "label boxes", "reasons", "sources", "evidence", "implied", "meta")

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._images = ImageFolder(folder / "images", self.lost)
        self._spills: dict[str, Spill] = {}
        self._stack = ExitStack()

    def write(self, one: ChosenExample) -> None:
        """Write the image, and keep what is said of it for `close`."""
        split = one.sample.split
        if split not in self._spills:
            self._spills[split] = self._stack.enter_context(Spill())
        path = self._images.write(one)
        self._spills[split].add(one.sample.key, 0, dump(self._said(one, path.partition("/")[2])))

    def _said(self, one: ChosenExample, name: str) -> dict[str, Any]:
        sample = one.sample
        image = {"file_name": name, "width": sample.width, "height": sample.height, "key": sample.key}
        image["tags"] = [self._tag(tag) for tag in one.tags if not tag.boxes]
        boxes = [self._box(tag, box) for tag in one.tags for box in tag.boxes]
        return {"image": image, "boxes": boxes, "captions": one.captions}

    def _tag(self, tag: ChosenTag) -> dict[str, Any]:
        said = {"category_id": self.tag_id(tag.name) + 1, "name": tag.name, "verdict": tag.record.verdict}
        return said if tag.score is None else said | {"score": tag.score}

    def _box(self, tag: ChosenTag, box: Box) -> dict[str, Any]:
        x1, y1, x2, y2, score = box
        return {
            "category_id": self.tag_id(tag.name) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "segmentation": [],
            "score": score,
            "verdict": tag.record.verdict,
        }

    def close(self) -> None:
        """Write the annotations of each split."""
        images = boxes = captions = 1
        categories = [
            {"id": tag.id + 1, "name": tag.name, "supercategory": tag.kind} for tag in self.vocabulary
        ]
        info = {"description": "tagmill export", "version": self.context.manifest.vocabulary}
        for split, spill in self._spills.items():
            lists = _Lists(spill, images, boxes, captions)
            for name, annotations in (("instances", lists.boxes()), ("captions", lists.captions())):
                members = {
                    "info": info,
                    "licenses": [],
                    "images": lists.images(with_tags=name == "instances"),
                }
                members |= {"annotations": annotations}
                members |= {"categories": categories} if name == "instances" else {}
                write_object(self.folder / "annotations" / f"{name}_{split}.json", members)
            images, boxes, captions = lists.ends

    def stop(self) -> None:
        """Remove the tables on disk."""
        self._stack.close()


class _Lists:
    """The lists of one split, with ids from those that are given on; `ends` are the ids of the next split."""

    def __init__(self, spill: Spill, images: int, boxes: int, captions: int) -> None:
        self._spill, self._images, self._boxes, self._captions = spill, images, boxes, captions
        self.ends = (images, boxes, captions)

    def _said(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with closing(self._spill.sorted_texts()) as texts:
            yield from enumerate(map(json.loads, texts), self._images)

    def images(self, *, with_tags: bool) -> Iterator[dict[str, Any]]:
        for image_id, said in self._said():
            image = {"id": image_id} | said["image"]
            if not with_tags:
                del image["tags"]
            yield image
            self.ends = (image_id + 1, *self.ends[1:])

    def boxes(self) -> Iterator[dict[str, Any]]:
        found = ((image_id, box) for image_id, said in self._said() for box in said["boxes"])
        for box_id, (image_id, box) in enumerate(found, self._boxes):
            yield {"id": box_id, "image_id": image_id} | box
            self.ends = (self.ends[0], box_id + 1, self.ends[2])

    def captions(self) -> Iterator[dict[str, Any]]:
        found = ((image_id, text) for image_id, said in self._said() for text in said["captions"])
        for caption_id, (image_id, text) in enumerate(found, self._captions):
            yield {"id": caption_id, "image_id": image_id, "caption": text}
            self.ends = (*self.ends[:2], caption_id + 1)
