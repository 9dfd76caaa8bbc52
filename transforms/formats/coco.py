"""Reads COCO's annotation files: captions, instances with their boxes, panoptic segments.

One file, or several of one image set, which are joined by image id: the options `captions`, `instances` and
`panoptic` name what belongs to the input's file. Annotations come after images, and files of gigabytes are
usual: what is kept of them goes through a table on disk. Categories become labels. A region that is a crowd
is no box of one thing: its label goes without, and its box into meta, as `crowds`. So do labels of stuff,
such as sky, go without, and what an image as a whole has as `tags`, each with a `category_id`. Segmentations,
areas and keypoints are left out.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.fields import caption_names, captions_of, check_object, image_name, no_image
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.json_list import check_json
from tagmill.transforms.formats.json_stream import Item, json_items
from tagmill.transforms.formats.packed import BLANK, HEAD_BYTES, Ahead, open_text, wrong_format
from tagmill.transforms.formats.several import SeveralFiles
from tagmill.transforms.formats.spill import Spill
from tagmill.transforms.formats.streams import HashingStream

AFTER_IMAGES = 1 << 40
"""Place of the first annotation in the table on disk, behind all images."""

MAX_CATEGORIES = 100_000
"""Categories, and licences, that are held in memory."""


LEFT_OUT = ("segmentation", "keypoints")
"""Fields of an annotation that become nothing; a preview says how many images have them."""


class Coco(SeveralFiles):
    """The format `coco`."""

    version = 2
    images_apart = True
    pattern = "*.json"

    def __init__(
        self, captions: str | None = None, instances: str | None = None, panoptic: str | None = None
    ) -> None:
        super().__init__({"captions": captions, "instances": instances, "panoptic": panoptic})

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a file, an image each, in the order of its images; see `Format`."""
        with Spill() as spill:
            dataset = _ImageSet(source, config, spill)
            for one in self.streams(stream):
                text = open_text(one, source, config)
                _check_object(text, source, config)
                for item in json_items(text, limits, source.path):
                    try:
                        dataset.add(item)
                    except DataError as error:
                        key = f"{source.path}#{item.name}-{item.number}"
                        yield SourceExample.failing(key, error.reason, error.detail)
            if not dataset.images:
                raise DataError(
                    Reason.SOURCE_UNREADABLE, f"{source.path} has no list `images`, as COCO's files have"
                )
            with closing(spill.groups(limits.max_record_bytes)) as groups:
                for group, texts in groups:
                    yield dataset.example(group, texts, limits)


def _check_object(text: Ahead, source: Source, config: InputConfig) -> None:
    """Raise ConfigError for a list, whose items are examples or results, and for other formats."""
    if text.peek(HEAD_BYTES).lstrip(BLANK).startswith(b"["):
        raise wrong_format(source, config, "a JSON list, not COCO's object: use format json, or ram")
    check_json(text, source, config)


@dataclass
class _ImageSet:
    """What is read of an image set: its categories and licences here, all else in the table on disk."""

    source: Source
    config: InputConfig
    spill: Spill
    categories: dict[str, dict[str, Any]] = field(default_factory=dict)
    licenses: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: int = 0
    annotations: int = 0

    def add(self, item: Item) -> None:
        """Take an item of one of the lists. Raises DataError for what cannot be of any image."""
        if item.name not in ("images", "annotations", "categories", "licenses"):
            return
        where = f"{self.source.path}: item {item.number} of {item.name}"
        if isinstance(item.value, DataError):
            raise item.value
        if not isinstance(item.value, dict):
            raise DataError(Reason.RECORD_INVALID, f"{where}: expected a JSON object")
        if item.name == "annotations":
            self._add_annotation(item.value, where)
        elif item.name == "images":
            check_object(item.value, where)
            self.images += 1
            self._add_tags(item.value, where)
            self.spill.add(_id(item.value, "id", where), self.images, json.dumps(["image", item.value]))
        else:
            known = self.categories if item.name == "categories" else self.licenses
            if len(known) < MAX_CATEGORIES:
                known[_id(item.value, "id", where)] = item.value

    def _add_annotation(self, value: dict[str, Any], where: str) -> None:
        group = _id(value, "image_id", where)
        said: list[Any] = []
        if names := caption_names(value, self.config):
            said.append(["captions", [captions_of(value, self.config), names]])
        segments = value.get("segments_info", [value] if "category_id" in value else [])
        for one in segments if isinstance(segments, list) else []:
            found = one if isinstance(one, dict) else {"category_id": one}
            crowd = bool(found.get("iscrowd"))
            left = [name for name in LEFT_OUT if found.get(name)]
            said.append(["label", [found.get("category_id"), found.get("bbox"), crowd, left]])
        for one in said:
            self.annotations += 1
            self.spill.add(group, AFTER_IMAGES + self.annotations, json.dumps(one))

    def _add_tags(self, image: dict[str, Any], where: str) -> None:
        """Take the categories that an image as a whole has out of its field `tags`, if that lists such."""
        tags = image.get("tags")
        if isinstance(tags, list) and all(isinstance(tag, dict) and "category_id" in tag for tag in tags):
            del image["tags"]
            self._add_annotation({"image_id": image.get("id"), "segments_info": tags}, where)

    def example(self, group: str, texts: list[str] | None, limits: Limits) -> SourceExample:
        """Make the example of an image of all that is said of it."""
        where = f"{self.source.path}: image {group}"
        key = f"{self.source.path}#image-{group}"
        try:
            if texts is None:
                most = limits.max_record_bytes
                detail = f"{where}: annotations longer than {most} characters (ingest.max_record_bytes)"
                raise DataError(Reason.RECORD_TOO_LARGE, detail)
            said: dict[str, list[Any]] = {"image": [], "captions": [], "label": []}
            for kind, value in map(json.loads, texts):
                said[kind].append(value)
            return self._example(said, where, limits)
        except DataError as error:
            return SourceExample.failing(key, error.reason, error.detail)

    def _example(self, said: dict[str, list[Any]], where: str, limits: Limits) -> SourceExample:
        if not said["image"]:
            detail = f"{where}: annotations of an image that no list `images` has"
            raise DataError(Reason.RECORD_INVALID, detail)
        fields: dict[str, Any] = {}
        for one in reversed(said["image"]):  # the first says what counts
            fields |= one
        path, name = self._path(said["image"], where)
        fields.pop(name, None)
        fields["image_id"] = fields.pop("id")
        license_ = self.licenses.get(json.dumps(fields.get("license")))
        if license_ is not None:
            fields["license"] = license_
        labels, crowds = self._labels(said["label"])
        if self.config.labels is not None and labels:
            fields[self.config.labels] = labels
        if crowds:
            fields["crowds"] = crowds
        captions = [text for texts, _ in said["captions"] for text in texts]
        used = tuple(dict.fromkeys(name for _, names in said["captions"] for name in names))
        left = dict.fromkeys(f"{one} (left out)" for *_, names in said["label"] for one in names)
        seen = (name, *used, *left)
        load = loader(path, captions, fields, self.source, limits, self.config.links, used, seen=seen)
        return SourceExample(key_of(path), load)

    def _path(self, images: list[dict[str, Any]], where: str) -> tuple[str, str]:
        """Give the path of an image and the field that names it. Raises DataError where two are named."""
        found = {}
        for image in images:
            name = image_name(image, self.config)
            path = image[name] if name else _path_of_url(image.get("coco_url"))
            if path is None:
                raise no_image(image, self.config, where)
            found[check_path(path, where, self.source.images)] = name or "coco_url"
        if len(found) > 1:
            detail = f"{where}: one id for {' and '.join(found)}"
            raise DataError(Reason.RECORD_INVALID, detail)
        return next(iter(found.items()))

    def _labels(self, said: list[Any]) -> tuple[list[Any], list[Any]]:
        """Give the labels of an image, by the names of their categories, and the boxes of crowds."""
        labels: list[Any] = []
        crowds: list[Any] = []
        for category_id, box, crowd, _ in said:
            category = self.categories.get(json.dumps(category_id), {})
            label = {"name": category.get("name"), "category_id": category_id, "bbox": box}
            if crowd:
                crowds.append(label)
            if crowd or not category.get("isthing", 1):
                label = {name: value for name, value in label.items() if name != "bbox"}
            labels.append(label)
        return labels, crowds


def _id(value: dict[str, Any], name: str, where: str) -> str:
    """Give an id as a text that differs where it does: it is a number or a text. Raises DataError."""
    found = value.get(name)
    if not isinstance(found, (int, str)) or isinstance(found, bool):
        raise DataError(Reason.RECORD_INVALID, f"{where}: no number or text in the field `{name}`")
    return json.dumps(found)


def _path_of_url(url: Any) -> str | None:
    """Give folder and name at the end of COCO's own url: LVIS names its images by nothing else."""
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else None
