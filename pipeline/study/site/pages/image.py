"""The page of one example: its picture with the boxes, its captions, and the evidence on each of its tags."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tagmill.pipeline.study.example import Example
from tagmill.pipeline.study.further_boxes import FurtherBoxes
from tagmill.pipeline.study.mentions import split_mentions
from tagmill.pipeline.study.site.base import Links, Sheet
from tagmill.pipeline.study.site.pictures import ShownExample
from tagmill.tag_system.reasons import THIN, VOUCHERS, why

VERDICTS = ("kept", "uncertain", "dropped")


def sheet(example: Example, shown: ShownExample, links: Links, further: Mapping[str, FurtherBoxes]) -> Sheet:
    """Make the page of an example; `further` is what the other boxes of its tags would have said, by tag."""
    tags = [
        _tag(example, decision, further.get(decision["tag"]))
        for verdict in VERDICTS
        for decision in example.decided(verdict)
    ]
    values = {
        "example": example,
        "shown": shown,
        "said": said(example),
        "tags": tags,
        "boxes": list(_boxes(example, tags)),
        "others": example.not_proposed(),
        "captions": list(_captions(example)),
        "labels": (example.ingested or {}).get("labels") or [],
    }
    return Sheet(shown.path, example.key, "image.html", values, [query(example.key)])


def query(key: str) -> str:
    """Write the evidence as a query of `tagmill sql`."""
    name = key.replace("'", "''")
    return f"""SELECT tag, kind, verdict, rule, basis, given, parsed, generated, tagger, boxes, box_score,
       own_score, other_tag, other_score, distance_rank
FROM clean
WHERE key = '{name}'
ORDER BY verdict, tag;"""


def said(example: Example) -> str:
    """Sum up in a sentence or two what became of an example and of its tags."""
    if example.dropped:
        winner = f" in favour of {example.duplicate_of}" if example.duplicate_of else ""
        return f"Dropped by {example.dropped}{winner}."
    letters = [one for one in example.dead if one["unit"] == "example"]
    if letters:
        return f"Dead at {letters[0]['stage']}: {letters[0]['reason']}, {letters[0]['detail']}."
    if not example.decisions:
        return "Nothing is decided on it yet."
    count = {verdict: len(example.decided(verdict)) for verdict in VERDICTS}
    total = sum(count.values())
    if not total:
        return "Nobody proposed a tag for it."
    kept = example.decided("kept")
    thin = sum(decision["basis"] in THIN for decision in kept)
    sentence = (
        f"Of {total} proposed {'tag' if total == 1 else 'tags'}, {count['kept']} kept, {count['uncertain']} "
        f"uncertain, {count['dropped']} dropped."
    )
    if not thin:
        return sentence
    rest = "rests" if thin == 1 else "rest"
    return f"{sentence} {thin} of the kept {rest} on one source that nothing confirms."


def _tag(example: Example, decision: Mapping[str, Any], further: FurtherBoxes | None) -> dict[str, Any]:
    sources = [
        f"{decision[name]} {words}{'s' if decision[name] > 1 else ''}"
        for name, words in (("given", "label"), ("parsed", "caption"), ("generated", "generated caption"))
        if decision[name]
    ]
    return {
        **decision,
        "why": why(decision, example.policy),
        "vouched": VOUCHERS[decision["basis"]],
        "is_thin": decision["basis"] in THIN and decision["verdict"] == "kept",
        "further": further.said() if further and further.outdone else "",
        "sources": ", ".join(sources) or "nobody but the tagger",
    }


def _boxes(example: Example, tags: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the boxes of proposed tags, those of kept ones last, as what is drawn last lies on top."""
    for tag in reversed(tags):
        for region in reversed(example.regions):
            if region["tag"] == tag["tag"]:
                yield {**region, "verdict": tag["verdict"], "is_best": region["region"] == 0}


def _captions(example: Example) -> Iterator[dict[str, Any]]:
    """Give the captions with the words marked that gave tags."""
    mentions = {record["caption_index"]: record["mentions"] for record in example.parsed}
    verdicts = {
        decision["tag"]: "not_proposed" if decision["rule"] == "not_proposed" else decision["verdict"]
        for decision in example.decisions
    }
    letters = {one["caption_index"]: one for one in example.dead if one["unit"] == "caption"}
    for index, caption in enumerate((example.ingested or {}).get("captions") or []):
        letter = letters.get(index)
        pieces = [] if caption is None else list(_pieces(caption, mentions.get(index, []), verdicts))
        yield {"pieces": pieces, "letter": letter, "is_read": index in mentions}


def _pieces(
    caption: str, mentions: Sequence[Mapping[str, Any]], verdicts: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    for text, mention in split_mentions(caption, mentions):
        tag = "" if mention is None else mention["tag"]
        yield {"text": text, "tag": tag, "verdict": verdicts.get(tag, "")}
