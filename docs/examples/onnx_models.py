"""Models of one's own as plug-ins: three small ONNX networks that run on the CPU.

A plug-in is a class of the shape that `tagmill.models.base` describes; there is nothing to inherit and
nothing to register. A config names it as `module:Class`, and the engine calls it so:

    constructor     with the options from the config, on every machine; cheap, names what is wrong
    fingerprint()   before anything runs: a change of it makes the model's results again
    classes         a tagger's or localizer's names; before `load`, without the weights
    size_of(w, h)   how large an image will be once prepared; before `load`
    load()          once in each process that predicts
    prepare(image)  with one image: uint8, RGB, (height, width, 3), any size; in threads
    predict(...)    with batches of what `prepare` gave

The networks are YOLOX-Nano (80 COCO classes) and MobileNetV2 (1000 ImageNet classes).
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image

from tagmill.models.base import Boxes, Floats, Image
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.files import sha256
from tagmill.tag_system.vocabulary import normalize_name

_COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
)

COCO = tuple(_COCO_NAMES.split(","))
"""The classes of the detector, in the order of its outputs."""

GREY = 114
"""What the detector was trained to see beside an image that is not square."""

VERSION = 1
"""Raised when this code finds something else in the same files: the engine cannot see that by itself."""

SQUARE = 416
"""Height and width, in pixels, of what the detector takes."""

SIDE = 224
"""Height and width, in pixels, at which the classifier was trained."""


@dataclass(frozen=True)
class Letter:
    """An image for the detector: float32 (1, 3, SQUARE, SQUARE), and the width and height that it had."""

    pixels: Floats
    width: int
    height: int

    @property
    def scale(self) -> float:
        """The detector's pixels in one of the image."""
        return SQUARE / max(self.width, self.height)


class YoloxLocalizer:
    """YOLOX-Nano (arXiv 2107.08430); fits `Localizer` with a closed list of classes.

    `weights`: ONNX file, input (1, 3, 416, 416), output (1, cells, 5 + classes) not decoded.
    `score_floor`: boxes under this score, 0..1, are not returned. `nms_iou`: of two boxes of one class that
    overlap by more than this, the better one stays.

    Raises FileNotFoundError without the weights and ValueError for options out of range.
    """

    classes = COCO

    def __init__(self, weights: str, score_floor: float = 0.1, nms_iou: float = 0.45) -> None:
        _check_files(weights)
        for name, value in (("score_floor", score_floor), ("nms_iou", nms_iou)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        self._weights, self._score_floor, self._nms_iou = weights, score_floor, nms_iou
        self._session: Any = None

    def fingerprint(self) -> str:
        """Hash the weights and name the options that change what is found."""
        return _fingerprint([self._weights], score_floor=self._score_floor, nms_iou=self._nms_iou)

    def load(self) -> None:
        """Read the weights."""
        self._session = _session(self._weights)
        if self._session.get_inputs()[0].shape[2:] != [SQUARE, SQUARE]:
            raise ConfigError(f"{self._weights} takes no images of {SQUARE} pixels: is it YOLOX-Nano?")
        self._cells, self._strides = _grid(SQUARE)

    def prepare(self, image: Image) -> Letter:
        """Resize one image to the top left of a grey square, as BGR in 0..255."""
        height, width = image.shape[:2]
        scale = SQUARE / max(height, width)
        high, wide = (max(1, round(length * scale)) for length in (height, width))
        square = np.full((SQUARE, SQUARE, 3), GREY, dtype=np.float32)
        square[:high, :wide] = _resized(image, wide, high)
        return Letter(np.ascontiguousarray(square[:, :, ::-1].transpose(2, 0, 1)[None]), width, height)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of every prepared image."""
        return SQUARE, SQUARE

    def predict(self, batch: Sequence[Letter], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        """Find the classes that each image is asked for; boxes are x1, y1, x2, y2 in its own pixels."""
        return [self._find(letter, prompt) for letter, prompt in zip(batch, prompts, strict=True)]

    def _find(self, letter: Letter, prompt: Sequence[str]) -> Boxes:
        (raw,) = self._session.run(None, {"images": letter.pixels})
        centres = (raw[0, :, :2] + self._cells) * self._strides
        sizes = np.exp(raw[0, :, 2:4]) * self._strides
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1) / letter.scale
        corners = corners.clip(0, [letter.width, letter.height] * 2).astype(np.float32)
        scores = raw[0, :, 4:5] * raw[0, :, 5:]
        found = [(tag, cell) for tag, name in enumerate(prompt) for cell in self._best(corners, scores, name)]
        tags, cells = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return Boxes(tags, corners[cells], scores[cells, [COCO.index(prompt[tag]) for tag in tags]])

    def _best(self, corners: Floats, scores: Floats, name: str) -> Iterator[int]:
        """Give the cells of one class that stay after non-maximum suppression, best first."""
        own = scores[:, COCO.index(name)]
        cells = np.flatnonzero(own >= self._score_floor)
        cells = cells[np.argsort(-own[cells], kind="stable")]
        while cells.size:
            best, cells = int(cells[0]), cells[1:]
            yield best
            cells = cells[_iou(corners[best], corners[cells]) <= self._nms_iou]


class _MobileNet:
    """What the two uses of MobileNetV2 share: its files, its names, its session and its preprocessing.

    `weights`: ONNX file with outputs `features` (n, 1280) and `logits` (n, classes). `labels`: TSV file,
    under a head line one line for each class: index, WordNet id, names between commas, anything else.
    `skip`: names to pass over, because they mean something else in the vocabulary.
    """

    def __init__(self, weights: str, labels: str, skip: Sequence[str] = ()) -> None:
        _check_files(weights, labels)
        self._weights, self._labels, self._skip = weights, labels, frozenset(skip)
        self._session: Any = None
        lines = Path(labels).read_text(encoding="utf-8").splitlines()[1:]
        lists = [line.split("\t")[2].split(", ") for line in lines]
        pairs = [(name, index) for index, names in enumerate(lists) for name in names]
        # A name and the index of its class, which has one name or more.
        self._names = [(name, index) for name, index in pairs if name not in self._skip]

    def fingerprint(self) -> str:
        """Hash both files and name the option."""
        return _fingerprint([self._weights, self._labels], skip=sorted(self._skip))

    def load(self) -> None:
        """Read the weights."""
        self._session = _session(self._weights)

    def prepare(self, image: Image) -> Floats:
        """Squash one image to a square: of a tag or region, nothing is cut off."""
        return _resized(image, SIDE, SIDE)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of every prepared image."""
        return SIDE, SIDE

    def _run(self, output: str, batch: Sequence[Floats]) -> Floats:
        """Run squares as one batch."""
        pixels = np.array(batch, dtype=np.float32).reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2)
        (rows,) = self._session.run([output], {"images": np.ascontiguousarray(pixels / 127.5 - 1)})
        return np.asarray(rows, dtype=np.float32)


class MobileNetTagger(_MobileNet):
    """MobileNetV2 as a classifier; fits `Tagger`.

    A vocabulary knows only some of a class's names, and not always the first: so each name is listed as a
    class, with the score of the network's class that it belongs to.

    Raises FileNotFoundError without weights or labels.
    """

    def __init__(self, weights: str, labels: str, skip: Sequence[str] = ()) -> None:
        super().__init__(weights, labels, skip)
        self.classes = [name for name, _ in self._names]
        self._outputs = np.array([index for _, index in self._names])

    def predict(self, batch: Sequence[Floats]) -> list[Floats]:
        """Score every name on each image: softmax over the network's classes, float32 (len(classes),)."""
        logits = self._run("logits", batch)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = odds / odds.sum(axis=1, keepdims=True)
        return [row[self._outputs] for row in scores]


class MobileNetEmbedder(_MobileNet):
    """MobileNetV2 as an embedder; fits `Embedder`.

    Images are embedded by the features before the last layer, names of classes by the rows of that layer's
    weights: a class is the direction that its row points in. Other names have no vector.

    Raises FileNotFoundError without weights or labels.
    """

    def load(self) -> None:
        """Read the weights, and the class vectors out of them."""
        super().load()
        vectors = _unit(_last_layer(self._weights))
        rows: dict[str, list[int]] = {}
        for name, index in self._names:
            rows.setdefault(normalize_name(name), []).append(index)
        # A few names, such as crane, belong to two classes and stand for both.
        self._vectors = {name: _unit(vectors[indices].sum(axis=0)) for name, indices in rows.items()}

    def predict(self, batch: Sequence[Floats]) -> Floats:
        """Embed each image: float32 (len(batch), 1280), rows of length 1."""
        return _unit(self._run("features", batch))

    def text(self, names: Sequence[str]) -> list[Floats | None]:
        """Embed each name of a class: float32 (1280,) of length 1, None for other names."""
        return [self._vectors.get(normalize_name(name)) for name in names]


def _check_files(*paths: str) -> None:
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")


def _fingerprint(paths: Sequence[str], **options: Any) -> str:
    """Say what decides a model's output: this code, its options, the content of its files."""
    files = [sha256(path) for path in paths]
    return json.dumps({"version": VERSION, "files": files, **options}, sort_keys=True)


def _session(weights: str) -> Any:
    """Open an ONNX file on the CPU, with as many threads as the engine grants this process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def _resized(image: Image, width: int, height: int) -> Floats:
    """Resize an image: float32 (height, width, 3) in 0..255."""
    resized = PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _unit(rows: Floats) -> Floats:
    """Bring vectors, along the last axis, to length 1."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)


def _grid(side: int) -> tuple[Floats, Floats]:
    """List the detector's cells: x and y in cells (n, 2), and their size in pixels (n, 1)."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: side // stride, : side // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _iou(box: Floats, boxes: Floats) -> Floats:
    """Share that a box (4,) has in common with each of (n, 4): intersection over union."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    union = np.prod(box[2:] - box[:2]) + areas - common
    return np.asarray(common / np.maximum(union, 1e-9), dtype=np.float32)


def _last_layer(weights: str) -> Floats:
    """Read the weights of the classifier's last layer: float32 (classes, 1280).

    The file holds them as whole numbers, with their scale and zero point. Raises ConfigError if it does not.
    """
    (graph,) = _fields(Path(weights).read_bytes(), 7)
    data: dict[bytes, bytes] = {}
    for tensor in _fields(graph, 5):
        data.update(zip(_fields(tensor, 8), _fields(tensor, 9), strict=False))
    try:
        values, scale, zero = (data[name] for name in (b"w63", b"s63", b"z63"))
    except KeyError as error:
        raise ConfigError(
            f"{weights} has no tensor {error}: is it the MobileNetV2 of the example?"
        ) from error
    layer = np.frombuffer(values, np.uint8).astype(np.float32) - zero[0]
    return (layer * np.frombuffer(scale, np.float32)).reshape(-1, 1280)


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """Give the texts, bytes and messages of one number in a protobuf message, which is what ONNX files are.

    This spares a dependency on the package `onnx` for three tensors.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(message, place)
            continue
        size, place = _varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
        if key >> 3 == wanted:
            yield message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Read a number, seven bits a byte, low ones first; returns it and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
