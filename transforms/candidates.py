"""Candidates: the tags that any source names for an image, and what each source says."""

from dataclasses import dataclass

from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.class_names import masked_tags
from tagmill.transforms.parts import Inputs


@dataclass
class Sources:
    """How many of the source's labels, given and generated captions name a tag, and the tagger's score.

    The score is None where the tagger does not know the tag, and 0 where it lies under the tag stage's floor.
    """

    given: int = 0
    parsed: int = 0
    generated: int = 0
    tagger: float | None = None


Candidates = dict[str, Sources]


def gather(inputs: Inputs, vocabulary: Vocabulary, candidate_floor: float) -> dict[int, Candidates]:
    """Collect the candidates of every living row, tags in the order of their names.

    A tag that only the tagger names is a candidate from `candidate_floor` on.
    """
    scored: set[str] = set()
    if "tag" in inputs:
        scored = masked_tags(inputs.parts["tag"].header.notes["scored"], vocabulary)
    return {row: _of_row(inputs, row, vocabulary, scored, candidate_floor) for row in inputs.rows}


def _of_row(
    inputs: Inputs, row: int, vocabulary: Vocabulary, scored: set[str], candidate_floor: float
) -> Candidates:
    found: Candidates = {}

    def sources(tag: str) -> Sources:
        return found.setdefault(tag, Sources(tagger=0.0 if tag in scored else None))

    for label in inputs.examples[row]["labels"]:
        tag = vocabulary.resolve(label["name"])
        if tag is not None:
            sources(tag.name).given += 1
    for caption in inputs.of_row("parse", row):
        for tag_name in {mention["tag"] for mention in caption["mentions"]}:
            sources(tag_name).parsed += 1
    for caption in inputs.of_row("caption", row):
        for tag_name in {mention["tag"] for mention in caption["mentions"]}:
            sources(tag_name).generated += 1
    for scores in inputs.of_row("tag", row):
        if scores["tag"] in found or scores["score"] >= candidate_floor:
            sources(scores["tag"]).tagger = scores["score"]
    return dict(sorted(found.items()))
