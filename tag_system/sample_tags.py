"""A decision in a sample and back: a row of the table of decisions, and the evidence that `decide` reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tagmill.tag_system.decisions import Evidence
from tagmill.tag_system.shard_contract import SampleEvidence, SampleTag

TAGGER, LOCALIZER, EMBEDDER = "tag", "localize", "embed"
"""Names of the models whose evidence is decided on: those of their stages."""

SOURCES = ("given", "parsed", "generated", "probe")
PLAIN = ("tag", "kind", "verdict", "rule", "basis")
LATER = ("review", "implied_by")
LOOKS = ("own_score", "other_score", "region_score", "distance", "distance_rank")
"""Scores of the best box; `other_tag` is a name."""


def short(value: float) -> float:
    """Write a float32 value with as few digits as tell it apart."""
    return float(str(np.float32(value)))


def tag_record(decision: Mapping[str, Any], boxes: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Write a decision (a row of clean's table) with the tag's boxes as JSON: `SampleTag` without nulls."""
    return {
        **{name: decision[name] for name in PLAIN},
        "sources": {name: decision[name] for name in SOURCES if decision[name]},
        "evidence": _entries(decision, boxes),
        **{name: decision[name] for name in LATER if decision[name] is not None},
    }


def _entries(decision: Mapping[str, Any], boxes: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """List what each model says; one that was not asked, or does not know the tag, has no entry."""
    found: list[dict[str, Any]] = []
    if decision["tagger"] is not None:
        found.append({"model": TAGGER, "score": short(decision["tagger"])})
    if decision["asked"]:
        found.append({"model": LOCALIZER, "boxes": [[short(number) for number in box] for box in boxes]})
    look = {name: short(decision[name]) for name in LOOKS if decision[name] is not None}
    if decision["other_tag"] is not None:
        look["other_tag"] = decision["other_tag"]
    if look:
        found.append({"model": EMBEDDER, **look})
    if decision["presence"] is not None:
        found.append({"model": decision["presence_model"], "presence": short(decision["presence"])})
    return found


def evidence_of(tag: SampleTag) -> Evidence:
    """Read a sample's evidence back, to the bit, so that `decide` gives the verdict that clean gave."""
    entries = {entry.model: entry for entry in tag.evidence}
    tagger, localizer = entries.get(TAGGER), entries.get(LOCALIZER)
    boxes = localizer.boxes if localizer else None
    embedder = entries.get(EMBEDDER) or SampleEvidence(model=EMBEDDER)
    return Evidence(
        given=tag.sources.given,
        parsed=tag.sources.parsed,
        generated=tag.sources.generated,
        tagger=_single(tagger.score if tagger else None),
        asked=boxes is not None,
        boxes=len(boxes or ()),
        box_score=_single(boxes[0][4] if boxes else None),
        **{name: _single(getattr(embedder, name)) for name in LOOKS},
    )


def decision_of(tag: SampleTag) -> dict[str, Any]:
    """Read a sample's decision back: what `tag_record` took from clean's row, but for a verifier's answer."""
    looks = (entry.other_tag for entry in tag.evidence if entry.model == EMBEDDER)
    return {
        **{name: getattr(tag, name) for name in (*PLAIN, *LATER)},
        **vars(evidence_of(tag)),
        "other_tag": next(looks, None),
    }


def _single(value: float | None) -> float | None:
    return None if value is None else float(np.float32(value))
