"""Checks what a source gives beside an image: captions, and labels with boxes in upright pixels."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.pixels import turned_box, turned_size
from tagmill.tag_system.shard_contract import Split
from tagmill.transforms.formats.base import InputConfig, Record
from tagmill.transforms.formats.fields import USUAL_CAPTIONS
from tagmill.transforms.images import ImageInfo

SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "restval"),
    "test": ("test",),
    "val": ("val", "dev"),
}
"""How each split's name begins in sources."""


@dataclass(frozen=True)
class Caps:
    """How much one example may say: captions, characters of one, labels, and bytes of all else as JSON."""

    captions: int
    caption_characters: int
    labels: int
    meta_bytes: int


@dataclass(frozen=True)
class Given:
    """What a source gives beside an image, of bounded size.

    `captions` are checked, see `check_captions`, and `lost` are their errors by index; boxes of `labels` are
    as they are given, and `label_loss` is the share of them that is lost, 0..1; `meta` is JSON; `noted` are
    the fields width and height, and `split` the field split. `odd` are the errors of fields: labels, the
    split, or what is in meta.
    """

    captions: list[str | None]
    lost: dict[int, DataError]
    labels: list[dict[str, Any]]
    meta: str
    noted: tuple[Any, Any]
    split: Split | None
    odd: list[DataError]
    label_loss: float


def given(record: Record, config: InputConfig, caps: Caps) -> Given:
    """Check what a source gives beside an image. Raises DataError, also for more than fits."""
    fields = record.fields
    captions, lost = check_captions(record.captions, caps.caption_characters, caps.captions)
    value = fields.get(config.labels) if config.labels else None
    labels, bad = parse_labels(value, caps.labels)
    odd = [*record.odd, *([_label_error(bad, value)] if bad else [])]
    used = {*(USUAL_CAPTIONS if config.captions is None else config.captions), *record.used, config.labels}
    split: Split | None = None
    if "split" in fields and "split" not in used:
        split = _split(fields["split"], odd)
    meta = _meta({name: value for name, value in fields.items() if name not in used}, caps.meta_bytes, odd)
    noted = fields.get("width"), fields.get("height")
    return Given(captions, lost, labels, meta, noted, split, odd, len(bad) / max(1, len(labels) + len(bad)))


def _label_error(bad: list[str], value: Any) -> DataError:
    count = f"{len(bad)} of {len(value)} labels: " if isinstance(value, list) else ""
    return DataError(Reason.LABEL_INVALID, f"{count}{bad[0]}")


def _split(value: Any, odd: list[DataError]) -> Split | None:
    """Read a source's own split: train2017, restval -> train; validation, dev -> val; test2015 -> test.

    None if it is empty. What is none of them counts as val: drawn, it could train on an image of a test.
    """
    text = value.strip().lower() if isinstance(value, str) else ("" if value is None else "?")
    if not text:
        return None
    for split, words in SPLITS.items():
        if text.startswith(words):
            return split
    detail = f"split {str(value)[:80]!a} is not train, val or test; the example is in val"
    odd.append(DataError(Reason.SPLIT_INVALID, detail))
    return "val"


def _meta(fields: Mapping[str, Any], max_bytes: int, odd: list[DataError]) -> str:
    """Write what else is said as JSON, without what is none. Raises DataError for more than fits."""
    text = _dumped(fields)
    if text is None:
        kept = {name: value for name, value in fields.items() if _dumped(value) is not None}
        names = ", ".join(f"{name[:80]!a}" for name in fields if name not in kept)
        odd.append(DataError(Reason.META_INVALID, f"a number that is no JSON in the field {names}"))
        text = _dumped(kept) or "{}"
    if len(text) > max_bytes:
        detail = f"{len(text)} bytes of meta; the limit is {max_bytes} (ingest.max_meta_bytes)"
        raise DataError(Reason.RECORD_TOO_LARGE, detail)
    return text


def _dumped(value: Any) -> str | None:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except ValueError:
        return None


def check_captions(
    captions: Sequence[Any], max_characters: int, most: int = sys.maxsize
) -> tuple[list[str | None], dict[int, DataError]]:
    """Clean an example's captions: surrounding space and repetitions go, a bad one leaves a hole.

    Returns the captions, None for a bad one, so that an index means the same everywhere; and the errors by
    index. Those after the first `most` leave one hole together, whose error says how many they are.
    """
    kept: list[str | None] = []
    seen: set[str] = set()
    lost: dict[int, DataError] = {}
    for caption in captions[:most]:
        try:
            text = _caption(caption, max_characters)
        except DataError as error:
            lost[len(kept)] = error
            kept.append(None)
        else:
            if text not in seen:
                seen.add(text)
                kept.append(text)
    if len(captions) > most:
        detail = f"{len(captions)} captions; those after the first {most} are cut"
        lost[len(kept)] = DataError(Reason.CAPTIONS_TOO_MANY, f"{detail} (ingest.max_captions)")
        kept.append(None)
    return kept, lost


def _caption(caption: Any, max_characters: int) -> str:
    if not isinstance(caption, str):
        raise DataError(Reason.CAPTION_NOT_TEXT, f"{type(caption).__name__} {str(caption)[:80]!a}")
    text = caption.strip()
    if not text:
        raise DataError(Reason.CAPTION_EMPTY, "the caption is empty")
    if len(text) > max_characters:
        detail = f"{len(text)} characters; the limit is {max_characters} (ingest.max_caption_characters)"
        raise DataError(Reason.CAPTION_TOO_LONG, f"{detail}: {text[:80]!a}")
    if not _is_whole(text):
        raise DataError(Reason.CAPTION_NOT_TEXT, f"half a character (a lone surrogate): {text[:80]!a}")
    return text


def _is_whole(text: str) -> bool:
    """Tell whether a text has no half characters (lone surrogates), which no file can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def upright_labels(given: Given, info: ImageInfo, config: InputConfig) -> tuple[list[dict[str, Any]], bool]:
    """Give an example's labels with their boxes in upright pixels.

    Also tells whether it had to be taken on trust that the boxes are of stored pixels.
    """
    labels = given.labels
    boxed = [label for label in labels if label["box"]]
    upright = info.width, info.height
    stored = turned_size(*upright, info.orientation)
    pixels = config.boxes if config.boxes != "auto" else _pixels_of(given.noted, upright, stored)
    for label in labels:
        if label.pop("shares", False):
            width, height = upright if pixels == "upright" else stored
            x1, y1, x2, y2 = label["box"]
            label["box"] = [x1 * width, y1 * height, x2 * width, y2 * height]
    if not boxed or info.orientation == 1:
        return labels, False
    if pixels != "upright":
        for label in boxed:
            label["box"] = list(turned_box(label["box"], info.orientation, *stored))
    return labels, pixels is None


def _pixels_of(
    noted: tuple[Any, Any], upright: tuple[int, int], stored: tuple[int, int]
) -> Literal["stored", "upright"] | None:
    """Tell by the size that a source noted which pixels it saw; None where that fits both or neither."""
    if upright == stored or noted not in (upright, stored):
        return None
    return "upright" if noted == upright else "stored"


def parse_labels(value: Any, most: int = sys.maxsize) -> tuple[list[dict[str, Any]], list[str]]:
    """Read given labels: names, or objects with a name and perhaps a box.

    An object's name is its `name`, `category`, `label` or `tag`; its box is `box` (x1, y1, x2, y2) or
    COCO's `bbox` (x, y, width, height), in pixels, or `shares` (x1, y1, x2, y2) of the image's sides. Also
    says what is wrong with each that is none. Raises DataError for more than `most`.
    """
    if value is None:
        return [], []
    if not isinstance(value, list):
        return [], [f"labels must be a list, got {str(value)[:80]!a}"]
    if len(value) > most:
        detail = f"{len(value)} labels; the limit is {most} (ingest.max_labels)"
        raise DataError(Reason.RECORD_TOO_LARGE, detail)
    labels, bad = [], []
    for item in value:
        try:
            labels.append(_label(item))
        except ValueError as error:
            bad.append(str(error))
    return labels, bad


def _label(item: Any) -> dict[str, Any]:
    """Read one label. Raises ValueError for what is none."""
    if isinstance(item, str) and _is_whole(item):
        return {"name": item, "box": None}
    if isinstance(item, dict):
        values = [item.get(name) for name in ("name", "category", "label", "tag")]
        names = [value for value in values if isinstance(value, str) and _is_whole(value)]
        if names:
            if shares := item.get("shares"):
                return {"name": names[0], "box": _box({"box": shares}), "shares": True}
            return {"name": names[0], "box": _box(item)}
    raise ValueError(f"not a label: {str(item)[:80]!a}")


def _box(label: dict[str, Any]) -> list[float] | None:
    corners, sized = label.get("box"), label.get("bbox")
    box = corners or sized
    if not box:
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_coordinate, box))):
        raise ValueError(f"not a box: {str(box)[:80]!a}")
    x, y, a, b = map(float, box)
    return [x, y, a, b] if corners else [x, y, x + a, y + b]


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**31
