"""Reads Visual Genome: its JSON files of objects, attributes, region descriptions and images, by image.

The input's file is any of the four; `objects`, `attributes`, `regions` and `image_data` name the others.
Objects and their attributes are labels with boxes of stored pixels, by the first of their names; phrases of
regions are captions, and with their boxes `regions` in meta. An image lies where its url says, such as
VG_100K/1.jpg, else it is `ID.jpg`. The key is the id.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.image_files import check_path, loader
from tagmill.transforms.formats.json_stream import json_items
from tagmill.transforms.formats.packed import open_text
from tagmill.transforms.formats.several import SeveralFiles
from tagmill.transforms.formats.spill import Spill
from tagmill.transforms.formats.streams import HashingStream

_LISTS = ("objects", "attributes", "regions")
_NOTED = ("width", "height", "url", "image_url", "coco_id", "flickr_id")


class VisualGenome(SeveralFiles):
    """The format `visual-genome`."""

    images_apart = True
    pattern = "*.json"

    def __init__(
        self,
        objects: str | None = None,
        attributes: str | None = None,
        regions: str | None = None,
        image_data: str | None = None,
    ) -> None:
        super().__init__(
            {"objects": objects, "attributes": attributes, "regions": regions, "image_data": image_data}
        )

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of all files, an image each, in the order of the first; see `Format`."""
        number = 0
        with Spill() as spill:
            for one in self.streams(stream):
                for item in json_items(open_text(one, source, config), limits, source.path):
                    number += 1
                    try:
                        image, said = _said(item.value, f"{source.path}: item {item.number}", source, config)
                    except DataError as error:
                        key = f"{source.path}#{number}"
                        yield SourceExample.failing(key, error.reason, error.detail)
                    else:
                        spill.add(image, number, json.dumps(said))
            with closing(spill.groups(limits.max_record_bytes)) as groups:
                for image, texts in groups:
                    yield _example(image, texts, source, config, limits)


def _said(value: Any, where: str, source: Source, config: InputConfig) -> tuple[str, dict[str, Any]]:
    """Give an item's image and what it says of that. Raises DataError, ConfigError for another JSON."""
    if isinstance(value, DataError):
        raise value
    if not isinstance(value, dict):
        raise DataError(Reason.RECORD_INVALID, f"{where}: expected a JSON object")
    image = value.get("image_id", value.get("id"))
    if not isinstance(image, int) or not any(name in value for name in (*_LISTS, *_NOTED)):
        raise ConfigError(
            f"input {config.name}: {where} of {source.uri} is none of Visual Genome's: saw "
            f"{', '.join(map(str, list(value)[:30]))}; expected image_id with objects, attributes or regions"
        )
    said = {name: value[name] for name in (*_LISTS, *_NOTED) if name in value}
    for name in _LISTS:
        items = said.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise DataError(Reason.RECORD_INVALID, f"{where}: `{name}` is no list of objects")
    return str(image), said


def _example(
    image: str, texts: list[str] | None, source: Source, config: InputConfig, limits: Limits
) -> SourceExample:
    if texts is None:
        detail = f"{source.path}: what is said of {image} is longer than {limits.max_record_bytes} characters"
        return SourceExample.failing(image, Reason.RECORD_TOO_LARGE, f"{detail} (ingest.max_record_bytes)")
    fields: dict[str, Any] = {}
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in _LISTS}
    for said in map(json.loads, texts):
        for name in _LISTS:
            lists[name] += said.pop(name, [])
        fields |= said
    try:
        path = check_path(_path(image, fields), source.path)
    except DataError as error:
        return SourceExample.failing(image, error.reason, error.detail)
    labels = _labels([*lists["objects"], *lists["attributes"]])
    if config.labels is not None and labels:
        fields[config.labels] = labels
    captions: list[Any] = []
    if lists["regions"]:
        fields["regions"] = [{"phrase": one.get("phrase"), "bbox": _bbox(one)} for one in lists["regions"]]
        if config.captions is None or "phrase" in config.captions:
            captions = [one.get("phrase") for one in lists["regions"]]
    used = ("phrase",) if captions else ()
    load = loader(path, captions, fields, source, limits, config.links, used, used)
    return SourceExample(image, load)


def _path(image: str, fields: dict[str, Any]) -> str:
    url = fields.get("url") or fields.get("image_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else f"{image}.jpg"


def _bbox(item: dict[str, Any]) -> list[Any]:
    """Give x, y, width and height, which objects write short and regions long."""
    return [item.get("x"), item.get("y"), item.get("w", item.get("width")), item.get("h", item.get("height"))]


def _labels(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give objects and their attributes as labels; what two files say of one object counts once."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        names = item.get("names")
        attributes = item.get("attributes")
        first = names[:1] if isinstance(names, list) else [names or item.get("name")]
        for name in [*first, *(attributes if isinstance(attributes, list) else [])]:
            label = {"name": name, "bbox": _bbox(item)}
            found.setdefault(json.dumps(label, sort_keys=True), label)
    return list(found.values())
