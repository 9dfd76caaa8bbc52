"""The tags of single images, and boxes for them, by models alone: no run, no given captions, no verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image as Picture

from tagmill.models.base import Captioner, Image, Localizer
from tagmill.models.ram.tagger import RamTagger
from tagmill.pipeline.example import Example
from tagmill.pipeline.picture import draw_example
from tagmill.tag_system.errors import DataError
from tagmill.tag_system.parser import CaptionParser
from tagmill.tag_system.vocabulary import Tag, Vocabulary
from tagmill.transforms import images
from tagmill.transforms.ingest import IngestConfig

WITHOUT_THRESHOLDS = 0.5
"""Score above which a tag counts as seen by a model that has no thresholds of its own."""


@dataclass
class Prediction:
    """One image and its tags, the highest score first, and its caption if one was written.

    A tag is {tag, score, sources, chinese, boxes}: `sources` are "tagger" and "generated", the caption's;
    the score is the tagger's, None for a tag of the caption alone; `chinese` is empty unless the vocabulary
    has it; `boxes`, best first, are {score, x1, y1, x2, y2} in pixels, None where nobody was asked.
    """

    path: Path
    pixels: Image
    caption: str | None = None
    tags: list[dict[str, Any]] = field(default_factory=list)


def read(files: Sequence[Path]) -> tuple[list[Prediction], dict[Path, str]]:
    """Decode images; of those that cannot be read or decoded, say why."""
    found, errors = [], {}
    for path in files:
        try:
            found.append(Prediction(path, images.decode(path.read_bytes(), IngestConfig().max_pixels)))
        except (OSError, DataError) as error:
            errors[path] = str(error.strerror if isinstance(error, OSError) else error)
    return found, errors


def tag(
    batch: Sequence[Prediction], tagger: RamTagger, vocabulary: Vocabulary, threshold: float | None
) -> None:
    """Add the tags above the threshold: one for all, or the model's own, or 0.5 if it has none."""
    own = WITHOUT_THRESHOLDS if tagger.thresholds is None else np.asarray(tagger.thresholds, np.float32)
    limits = np.broadcast_to(own if threshold is None else threshold, len(tagger.classes))
    for one, scores in zip(batch, tagger.predict([one.pixels for one in batch]), strict=True):
        for index in sorted(np.flatnonzero(scores > limits).tolist(), key=lambda i: -scores[i]):
            name = tagger.classes[index]
            one.tags.append(_tag(name, float(scores[index]), "tagger", vocabulary.resolve(name)))


def caption(
    batch: Sequence[Prediction], captioner: Captioner, parser: CaptionParser, vocabulary: Vocabulary
) -> None:
    """Write captions, and add their tags: a source more for those that are there, after them the others."""
    written = captioner.predict([one.pixels for one in batch])
    for one, text, mentions in zip(batch, written, parser.parse(written), strict=True):
        one.caption = text
        there = {known.name: tag for tag in one.tags if (known := vocabulary.resolve(tag["tag"]))}
        for name in dict.fromkeys(mention.tag for mention in mentions):
            if name in there:
                there[name]["sources"].append("generated")
            else:
                one.tags.append(_tag(name, None, "generated", vocabulary.resolve(name)))


def find(batch: Sequence[Prediction], localizer: Localizer, vocabulary: Vocabulary) -> None:
    """Ask for each image's objects, and for tags that the vocabulary does not know."""
    asked = [[tag for tag in one.tags if _has_boxes(tag["tag"], vocabulary)] for one in batch]
    prompts = [[tag["tag"] for tag in tags] for tags in asked]
    for tags, found in zip(asked, localizer.predict([one.pixels for one in batch], prompts), strict=True):
        for tag in tags:
            tag["boxes"] = []
        for index in np.argsort(-found.scores, kind="stable"):
            sides = dict(zip(("x1", "y1", "x2", "y2"), map(float, found.boxes[index]), strict=True))
            tags[found.tags[index]]["boxes"].append({"score": float(found.scores[index]), **sides})


def _tag(name: str, score: float | None, source: str, known: Tag | None) -> dict[str, Any]:
    chinese = "" if known is None else known.origin.chinese
    return {"tag": name, "score": score, "sources": [source], "chinese": chinese, "boxes": None}


def _has_boxes(name: str, vocabulary: Vocabulary) -> bool:
    tag = vocabulary.resolve(name)
    return tag is None or tag.kind == "object"


def draw(one: Prediction) -> Picture:
    """Draw the image with its boxes, and its tags beside it."""
    example = Example(one.path.name, "", 0)
    for found in one.tags:
        boxes = found["boxes"]
        example.decisions.append(
            {
                "tag": found["tag"],
                "verdict": "kept",
                "rule": "",  # the font has no Chinese letters
                "tagger": found["score"],
                "asked": boxes is not None,
                "box_score": boxes[0]["score"] if boxes else None,
            }
        )
        example.regions += [{"tag": found["tag"], "region": i, **box} for i, box in enumerate(boxes or ())]
    return draw_example(example, one.pixels)
