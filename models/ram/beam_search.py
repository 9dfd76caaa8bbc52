"""Beam search and greedy search over word pieces, for several images at once.

Each image's search is its own: what it finds does not depend on the images beside it, and one that is
done leaves the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor


class BeamDecoder(Protocol):
    """A decoder that is writing texts: rows of tokens, as many for each image, those of one together."""

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read the prompt, one row an image; return the logits [images, tokens] of what follows."""

    def advance(self, ids: Sequence[int], rows: Sequence[int], images: Sequence[int]) -> Tensor:
        """Make new rows, add one token to each, and return the logits [len(ids), tokens] of what follows.

        `rows` says which row so far each new one continues, `images` which images so far go on.
        """


@dataclass(frozen=True)
class Search:
    """How texts are searched. Lengths count the prompt; with one beam the search is greedy.

    `length`: a text is scored by its log-probability divided by the number of its "generated" tokens
    with the end, as transformers 4.36 does, or of "all" its tokens without the end, as 4.25 did, which
    the published models came with.
    """

    beams: int = 3
    min_length: int = 10
    max_length: int = 30
    repetition_penalty: float = 1.0
    length: Literal["generated", "all"] = "generated"


class Hypothesis(NamedTuple):
    """The tokens of a text, prompt and end included; the score is None if the search was greedy."""

    ids: list[int]
    score: float | None


class _Beam(NamedTuple):
    """A text that is being written, and the sum of its log-probabilities."""

    ids: list[int]
    total: float


@dataclass
class _Image:
    """The search for one image."""

    beams: list[_Beam]
    finished: list[tuple[float, list[int]]] = field(default_factory=list)

    def finish(self, score: float, ids: list[int], limit: int) -> None:
        """Keep the text if it is among the `limit` best."""
        self.finished.append((score, ids))
        self.finished.sort(key=lambda found: -found[0])
        del self.finished[limit:]


def search(run: BeamDecoder, prompt: Sequence[int], count: int, end: int, how: Search) -> list[Hypothesis]:
    """Write one text for each of `count` images; a text ends with the token `end`."""
    if how.beams == 1:
        return _greedy(run, prompt, count, end, how)
    images = [_Image([_Beam(list(prompt), 0.0)]) for _ in range(count)]
    active, logits = list(images), run.start(prompt)
    ignored = len(prompt) if how.length == "generated" else 0
    for length in range(len(prompt), how.max_length):
        size = length - ignored + (how.length == "generated")
        beams = [beam for image in active for beam in image.beams]
        scores = _adjust(logits.float().log_softmax(1), [beam.ids for beam in beams], end, how)
        scores += scores.new_tensor([beam.total for beam in beams])[:, None]
        best = scores.reshape(len(active), -1).topk(2 * how.beams)
        ids, rows, going = [], [], []
        for i, image in enumerate(active):
            width, totals = len(image.beams), best.values[i].tolist()
            places = [divmod(place, scores.shape[1]) for place in best.indices[i].tolist()]
            parents = _extend(image, list(zip(totals, places, strict=True)), end, size, how.beams)
            if len(image.finished) == how.beams and image.finished[-1][0] >= totals[0] / size:
                continue
            going.append(i)
            ids += [beam.ids[-1] for beam in image.beams]
            rows += [i * width + parent for parent in parents]
        if going and length + 1 < how.max_length:
            logits = run.advance(ids, rows, going)
        active = [active[i] for i in going]
        if not active:
            break
    for image in active:
        for beam in image.beams:
            image.finish(beam.total / (how.max_length - ignored), beam.ids, how.beams)
    return [Hypothesis(image.finished[0][1], image.finished[0][0]) for image in images]


def _extend(
    image: _Image, ranked: Sequence[tuple[float, tuple[int, int]]], end: int, size: int, limit: int
) -> list[int]:
    """Go on with the best candidates, each a total, a beam and its next token; return the beams taken.

    A text that ends is finished, but only if it is among the first `limit` candidates.
    """
    beams, parents = [], []
    for rank, (total, (parent, token)) in enumerate(ranked):
        ids = [*image.beams[parent].ids, token]
        if token != end:
            beams.append(_Beam(ids, total))
            parents.append(parent)
        elif rank < limit:
            image.finish(total / size, ids, limit)
        if len(beams) == limit:
            break
    image.beams = beams
    return parents


def _greedy(run: BeamDecoder, prompt: Sequence[int], count: int, end: int, how: Search) -> list[Hypothesis]:
    texts = [list(prompt) for _ in range(count)]
    active, logits = texts, run.start(prompt)
    for length in range(len(prompt), how.max_length):
        for text, token in zip(
            active, _adjust(logits.float(), active, end, how).argmax(1).tolist(), strict=True
        ):
            text.append(token)
        going = [i for i, text in enumerate(active) if text[-1] != end]
        active = [active[i] for i in going]
        if not active or length + 1 == how.max_length:
            break
        logits = run.advance([text[-1] for text in active], going, going)
    return [Hypothesis(text, None) for text in texts]


def _adjust(scores: Tensor, texts: Sequence[Sequence[int]], end: int, how: Search) -> Tensor:
    """Make tokens that a text has already less likely, and its end impossible while it is too short."""
    if how.repetition_penalty != 1:
        used = torch.tensor(texts, device=scores.device)
        old = scores.gather(1, used)
        penalty = how.repetition_penalty
        scores = scores.scatter(1, used, torch.where(old < 0, old * penalty, old / penalty))
    if len(texts[0]) < how.min_length:
        scores[:, end] = -torch.inf
    return scores
