"""Grounding DINO (arXiv 2303.05499) as a localizer: where in an image is each of its tags?

The model reads one text of at most 256 tokens, "cat . fire truck .", and gives each of its queries
a box and a score for each token. Here a tag is known by the place of its tokens in the text and
never by a decoded string: a decoded label merges neighbours, is cut inside a word, or is empty.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from tagmill.models import guard, pretrained
from tagmill.models.base import Boxes, Image, Prepared
from tagmill.models.grounding_dino_boxes import check_options
from tagmill.models.grounding_dino_images import Picture, Preparation
from tagmill.models.grounding_dino_texts import Prompts, check_vocabulary, join
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.tag_system.core.text import parse_json
from tagmill.tag_system.prompts import Text

NEEDS = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json"),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.txt"),
)
FAMILY = ("grounding-dino", "mm-grounding-dino")
"""`model_type` of the checkpoints that work in this way; the second is MMDetection's version."""

Job: TypeAlias = tuple[int, Text]
"""The index of an image, and one of the texts that it is asked."""


class GroundingDino:
    """A Grounding DINO checkpoint in the format of transformers; fits `Localizer`.

    `path`: a folder, or a hub name `owner/name` (with `revision`). `box_floor`: scores at or below
    it are dropped; keep it low, verdicts have their own thresholds. `span`: how a tag's tokens make
    its score, "max" or "mean". `nms_iou`: of two boxes of one tag that overlap more, the better
    stays; 1 keeps all. `shortest` and `longest`: sides in pixels to which images are resized, by
    default the checkpoint's (800 and 1333). `device`: "auto", "cpu", "cuda", "cuda:1", ...

    Images are run together only if they have the same size after resizing, because padding changes
    the scores. `pad_to` (64, 128) rounds both sides up to a multiple with masked pixels, so that
    photos of many shapes share a few sizes and fill the batches; the scores differ from those of
    `pad_to=1`. Either way an image's result depends on itself and its own prompt alone.

    A tag's score depends on the other tags of its text. `tags_a_text`: at most so many tags share one, by
    default as many as fit; each further text of an image costs all but the image side again.

    Raises ConfigError for options out of range and for a folder that lacks a file.
    """

    classes: Sequence[str] | None = None
    version: ClassVar[int] = 1
    """Raised when the same files and options give other boxes."""

    def __init__(
        self,
        path: str,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        box_floor: float = 0.05,
        span: str = "max",
        nms_iou: float = 0.5,
        shortest: int | None = None,
        longest: int | None = None,
        pad_to: int = 1,
        tags_a_text: int | None = None,
    ) -> None:
        pretrained.check_dtype(dtype)
        check_options(box_floor, span, nms_iou, tags_a_text)
        if any(count is not None and count < 1 for count in (shortest, longest, pad_to)):
            raise ConfigError("shortest, longest and pad_to must be at least 1")
        self._device = device
        self._options: dict[str, Any] = {
            "dtype": dtype,
            "box_floor": box_floor,
            "span": span,
            "nms_iou": nms_iou,
            "shortest": shortest,
            "longest": longest,
            "pad_to": pad_to,
            "tags_a_text": tags_a_text,
        }
        on_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", path) and not Path(path).exists()
        self._source = pretrained.CheckpointSource(
            path,
            on_hub=bool(on_hub),
            revision=revision,
            needs=NEEDS,
            fetch=("*.json", "*.txt", "*.safetensors"),
        )
        self._images = Preparation(self._source.folder, shortest, longest, pad_to)
        if not on_hub:
            _check_family(Path(path))
        self._fingerprint: str | None = None
        self._model: Any = None
        self._at_once = 1

    def fingerprint(self) -> str:
        """Hash the checkpoint's files (of a hub name: the name and commit) and the options.

        The device and the batch size are not part of it. A hub name that is not in the cache is
        downloaded here; ConfigError if that fails.
        """
        if self._fingerprint is None:
            self._fingerprint = self._source.fingerprint(pretrained.changed(GroundingDino, self._options))
        return self._fingerprint

    def load(self) -> None:
        """Read processor and weights (safetensors only). Raises ConfigError if they do not fit."""
        import torch

        from tagmill.models.grounding_dino_sides import take_sides

        folder = self._source.folder()
        self._dtype = getattr(torch, self._options["dtype"])
        model, processor = read_checkpoint(folder, self._dtype)
        _ = self._images.edges  # read here, in one thread
        tokenizer = processor.tokenizer
        self._prompts = Prompts(
            lambda word: tokenizer(word, add_special_tokens=False)["input_ids"],
            model.config.max_text_len,
            self._options["tags_a_text"],
        )
        self._place = pretrained.resolve_device(self._device)
        self._model = model.to(self._place).eval()
        self._image_side, self._text_side = take_sides(self._model)

    def prepare(self, image: Image) -> Prepared:
        """Resize, normalise and pad one image, on the CPU."""
        return self._images.prepare(image)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of such an image resized and padded; read from the checkpoint's small files."""
        return self._images.size_of(width, height)

    def unpadded_size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of such an image resized alone."""
        return self._images.unpadded_size_of(width, height)

    def predict(self, batch: Sequence[Prepared], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        """Find the tags of each image's own prompt in it; see `Localizer`.

        Boxes lie inside the image, have sides of at least one pixel, and are sorted by tag, falling
        score and corners. A prompt over the model's text length is asked in several texts; at most
        len(batch) texts run at a time, or as many as `read` allows. The image side sees each image once.
        An empty prompt costs nothing.

        Raises ValueError for a tag without any token or with more than one text can hold,
        FloatingPointError if the model answers with NaN (float16 can overflow), and DataError if
        an image is so thin that it has fewer places than the model has queries (official sizes:
        about 1:42).
        """
        import torch

        if len(batch) != len(prompts):
            raise ValueError(f"{len(batch)} images but {len(prompts)} prompts")
        texts = [self._prompts.texts(prompt) for prompt in prompts]
        found: list[list[Boxes]] = [[] for _ in batch]
        with torch.inference_mode():
            for places in _same_size({place: one for place, one in enumerate(batch) if texts[place]}):
                jobs = [(place, text) for place in places for text in texts[place]]
                self._find([batch[place] for place in places], places, jobs, found)
        return [join(parts) for parts in found]

    def lengths_of(self, prompt: Sequence[str]) -> list[int]:
        """Count the tokens of each text that a prompt is asked in. Raises ValueError as `predict` does."""
        return [len(text.ids) for text in self._prompts.texts(prompt)]

    def read(self, prompts: Sequence[Sequence[str]], at_once: int) -> None:
        """Take note of the prompts to come, so that the text side reads each of their texts once; see
        `ReadingLocalizer`.
        """
        self._at_once = at_once
        self._text_side.expect(tuple(text.ids) for prompt in prompts for text in self._prompts.texts(prompt))

    def _find(
        self, images: Sequence[Picture], places: Sequence[int], jobs: Sequence[Job], found: list[list[Boxes]]
    ) -> None:
        """Find the tags of pairs of an image and a text; the images have one size."""
        import torch

        pixels = pretrained.placed([image.pixels for image in images], self._place, self._dtype)
        inside = torch.zeros(len(images), *pixels.shape[2:], dtype=torch.long)
        for row, image in enumerate(images):
            high, wide = image.inside
            inside[row, :high, :wide] = 1
        inside = inside.to(self._place)
        self._image_side.see(pixels, inside)
        rows = {place: row for row, place in enumerate(places)}

        def run(some: Sequence[Job]) -> list[Boxes]:
            chosen = [rows[place] for place, _ in some]
            scores, boxes = self._run(pixels, inside, chosen, [text for _, text in some])
            return [
                self._boxes(text, score, box, images[row].shape)
                for row, (_, text), score, box in zip(chosen, some, scores, boxes, strict=True)
            ]

        try:
            answers = guard.in_batches(run, jobs, max(self._at_once, len(images)))
        finally:
            self._image_side.forget()
        for (place, _), boxes in zip(jobs, answers, strict=True):
            found[place].append(boxes)

    def _run(self, pixels: Any, inside: Any, rows: Sequence[int], texts: Sequence[Text]) -> tuple[Any, Any]:
        """Ask texts about rows of pixels: scores (n, queries, tokens), boxes (n, queries, 4)."""
        import torch

        length = max(len(text.ids) for text in texts)
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            mask[row, : len(text.ids)] = 1
        self._image_side.choose(rows)
        self._text_side.choose([tuple(text.ids) for text in texts])
        try:
            output = self._model(
                pixel_values=pixels[:1].expand(len(rows), -1, -1, -1),  # the image side has seen them
                pixel_mask=inside[rows],
                input_ids=ids.to(self._place),
                attention_mask=mask.to(self._place),
                token_type_ids=torch.zeros_like(ids).to(self._place),
            )
        except RuntimeError as error:
            if "selected index k out of range" not in str(error):
                raise
            size = "x".join(str(side) for side in pixels.shape[2:])
            detail = f"resized to {size} it has fewer places than Grounding DINO has queries"
            raise DataError(Reason.IMAGE_TOO_THIN, detail) from error
        scores, boxes = output.logits.float().sigmoid().cpu(), output.pred_boxes.float().cpu()
        if scores.isnan().any() or boxes.isnan().any():
            raise FloatingPointError(f"Grounding DINO gave NaN in {self._options['dtype']}")
        return scores, boxes

    def _boxes(self, text: Text, scores: Any, boxes: Any, shape: tuple[int, int]) -> Boxes:
        """Reduce the scores (queries, tokens) of one text to its tags; keep the good boxes."""
        import torch
        from torchvision.ops import (
            batched_nms,
            box_convert,
        )

        height, width = shape
        by_tag = torch.zeros(len(scores), len(text.tags)).scatter_reduce_(
            1,
            torch.tensor(text.owners).expand(len(scores), -1),
            scores[:, text.positions],
            "amax" if self._options["span"] == "max" else "mean",
            include_self=False,
        )
        limits = torch.tensor([width, height, width, height])
        corners = box_convert(boxes, "cxcywh", "xyxy").mul(limits).clamp(min=0).minimum(limits)
        visible = ((corners[:, 2:] - corners[:, :2]) >= 1).all(dim=1)
        query, tag = ((by_tag > self._options["box_floor"]) & visible[:, None]).nonzero().unbind(1)
        # In double: batched_nms shifts the boxes of each tag far from those of the others.
        scored = corners[query].double(), by_tag[query, tag].double()
        best = batched_nms(*scored, tag, self._options["nms_iou"])
        query, tag = query[best], tag[best]
        return Boxes(
            np.asarray(text.tags, dtype=np.int64)[tag.numpy()],
            corners[query].numpy(),
            by_tag[query, tag].numpy(),
        )


def family_of(folder: Path) -> str | None:
    """Say which `FAMILY` a folder's checkpoint is of; None if of none."""
    try:
        _check_family(folder)
    except (ConfigError, OSError):
        return None
    return str(parse_json((folder / "config.json").read_text(encoding="utf-8"))["model_type"])


def read_checkpoint(folder: Path, dtype: Any) -> tuple[Any, Any]:
    """Read the network, in numbers of a dtype of torch, and its processor.

    Raises ConfigError for files that do not fit.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
    from transformers.utils import logging

    # Its bar for half a second of loading would run through the lines of the run's own progress.
    logging.disable_progress_bar()
    _check_family(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, report = AutoModelForZeroShotObjectDetection.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"cannot load Grounding DINO from {folder}: {error}") from error
    if report["missing_keys"]:
        # transformers fills what a file lacks with random numbers and goes on.
        raise ConfigError(f"{folder} lacks the weights {sorted(report['missing_keys'])[:3]}")
    check_vocabulary(processor.tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"]), folder)
    return model, processor


def _check_family(folder: Path) -> None:
    try:
        kind = parse_json((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{folder / 'config.json'} is not the config of a model ({error})") from error
    if kind not in FAMILY:
        raise ConfigError(f"{folder} holds a model of type {kind!r}, not one of {FAMILY}")


def _same_size(images: Mapping[int, Picture]) -> list[list[int]]:
    """Group the places of images by their processed size."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for place, image in images.items():
        by_size.setdefault(tuple(image.pixels.shape), []).append(place)
    return list(by_size.values())
