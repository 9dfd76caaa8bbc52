"""The tags of single images, and boxes for them, by models alone: no run, no given captions, no verdicts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Image as Picture

from tagmill.models import guard
from tagmill.models.base import Boxes, Captioner, Image, Localizer, PixelModel, Prepared, Tagger
from tagmill.pipeline.study.asking import TagList, answers
from tagmill.pipeline.study.example import Example
from tagmill.pipeline.study.picture import draw_example
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DataError
from tagmill.tag_system.parser import CaptionParser
from tagmill.tag_system.vocabulary import Tag, Vocabulary
from tagmill.transforms import images
from tagmill.transforms.formats.base import Limits
from tagmill.transforms.ingest import IngestConfig

Item = TypeVar("Item")
Answer = TypeVar("Answer")

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


class ImageBatch:
    """Some images. One that cannot be read, or that a model fails on, leaves it: `errors` says why."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        self.images: list[Prediction] = []
        self.errors: dict[Path, str] = {}
        for path in paths:
            self.read(path)

    def read(self, path: Path) -> None:
        """Read a file and add its image."""
        try:
            with files.opened(str(path)) as found:
                Limits(IngestConfig().max_member_bytes).check(path.name, found.size)
                data = found.stream.read(found.size)
            pixels = images.decode(data, IngestConfig().max_pixels)
        except (OSError, DataError) as error:
            self.errors[path] = str(error.strerror if isinstance(error, OSError) else error)
        else:
            self.images.append(Prediction(path, pixels))

    def prepared(self, model: PixelModel) -> list[Prepared]:
        """Prepare the images that are left for a model; those that it fails on leave too."""
        found = [guard.prepare(partial(model.prepare, one.pixels)) for one in self.images]
        guard.Failures().add(found)
        return [made for _, made in self._keep(found)]

    def ask(
        self, call: Callable[[list[Item]], Collection[Answer]], items: Sequence[Item]
    ) -> list[tuple[Prediction, Answer]]:
        """Call a model on an item for each image; give the images that are left with its answers."""
        return self._keep(guard.predict(call, items, max(1, len(items))))

    def _keep(self, answers: Sequence[Answer | DataError]) -> list[tuple[Prediction, Answer]]:
        """Let the images go whose answer is an error; give the others with theirs."""
        given = []
        for one, answer in zip(self.images, answers, strict=True):
            if isinstance(answer, DataError):
                self.errors[one.path] = str(answer)
            else:
                given.append((one, answer))
        self.images = [one for one, _ in given]
        return given


def batches(paths: Sequence[Path], size: int) -> Iterator[ImageBatch]:
    """Read images in batches of at most `size`, and of bounded memory where they are huge."""
    batch, read, taken = ImageBatch(), 0, 0
    for path in paths:
        batch.read(path)
        read += 1
        taken = sum(one.pixels.nbytes for one in batch.images)
        if read == size or taken > images.share_of_rest(IngestConfig().max_image_bytes):
            yield batch
            batch, read = ImageBatch(), 0
    if read:
        yield batch


def tag(
    batch: ImageBatch,
    tagger: Tagger,
    vocabulary: Vocabulary,
    threshold: float | None,
    asked: TagList | None = None,
) -> None:
    """Add the tags above the threshold: one for all, or the model's own, or 0.5 if it has none.

    With a list of tags only these, by its names; the highest score counts of a tag that is several classes.
    """
    known = getattr(tagger, "thresholds", None)
    own = WITHOUT_THRESHOLDS if known is None else np.asarray(known, np.float32)
    limits = np.broadcast_to(own if threshold is None else threshold, len(tagger.classes))
    columns = range(len(tagger.classes)) if asked is None else asked.columns
    names = tagger.classes if asked is None else [asked.written[place] for place in columns]
    ask = answers(tagger, None if asked is None else columns)
    for one, scores in batch.ask(ask, batch.prepared(tagger)):
        given: set[str] = set()
        seen = np.flatnonzero(scores > limits[list(columns)])
        for index in sorted(seen.tolist(), key=lambda i: -scores[i]):
            name = names[index]
            if asked is None or name not in given:
                one.tags.append(_tag(name, float(scores[index]), "tagger", vocabulary.resolve(name)))
            given.add(name)


def caption(
    batch: ImageBatch,
    captioner: Captioner,
    parser: CaptionParser,
    vocabulary: Vocabulary,
    asked: TagList | None = None,
) -> None:
    """Write captions, and add their tags: a source more for those that are there, after them the others.

    With a list of tags only these, by its names.
    """
    written = batch.ask(captioner.predict, batch.prepared(captioner))
    for (one, text), mentions in zip(written, parser.parse([text for _, text in written]), strict=True):
        one.caption = text
        there = {known.name: tag for tag in one.tags if (known := vocabulary.resolve(tag["tag"]))}
        for name in dict.fromkeys(mention.tag for mention in mentions):
            if name in there:
                there[name]["sources"].append("generated")
            elif asked is None or name in asked.names:
                shown = name if asked is None else asked.names[name]
                one.tags.append(_tag(shown, None, "generated", vocabulary.resolve(name)))


def find(batch: ImageBatch, localizer: Localizer, vocabulary: Vocabulary) -> None:
    """Ask for each image's objects, and for tags that the vocabulary does not know."""

    def asked(one: Prediction) -> list[dict[str, Any]]:
        return [tag for tag in one.tags if _has_boxes(tag["tag"], vocabulary)]

    def predict(part: list[tuple[Prepared, list[str]]]) -> Sequence[Boxes]:
        return localizer.predict([one for one, _ in part], [prompts for _, prompts in part])

    prepared = batch.prepared(localizer)
    prompts = [[tag["tag"] for tag in asked(one)] for one in batch.images]
    items = list(zip(prepared, prompts, strict=True))
    for one, found in batch.ask(predict, items):
        tags = asked(one)
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
                "rule": "",  # nothing decided on it
                "basis": "region" if boxes else "tagger",
                "tagger": found["score"],
                "asked": boxes is not None,
                "box_score": boxes[0]["score"] if boxes else None,
            }
        )
        example.regions += [{"tag": found["tag"], "region": i, **box} for i, box in enumerate(boxes or ())]
    return draw_example(example, one.pixels)
