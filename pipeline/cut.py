"""Assigns whole parts to shards, so that new input only adds shards."""

from collections.abc import Mapping
from typing import Any

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import notes

CUT = "cut.json"
"""The file of a generation's folder that notes its cut."""

Cut = list[dict[str, Any]]
"""One entry a shard, in order: its name, its split and the parts that it takes."""


def extend_cut(cut: Cut, counts: Mapping[str, Mapping[str, int]], size: int) -> Cut:
    """Assign the parts that are in no shard yet, in their order; earlier assignments stay.

    Parts without examples leave their shards, and so do parts that no longer fit.

    Args:
        cut: The shards so far.
        counts: Examples of each split, by part.
        size: Most examples in a shard.

    Returns:
        All shards with parts.
    """
    kept = [{**shard, "parts": _fitting(shard, counts, size)} for shard in cut]
    kept = [shard for shard in kept if shard["parts"]]
    numbers = {split: 1 + max(_numbers(cut, split), default=-1) for split in contract.SPLITS}
    placed = {(shard["split"], name) for shard in kept for name in shard["parts"]}
    for split in contract.SPLITS:
        filled = size
        for name, found in counts.items():
            count = found.get(split, 0)
            if (split, name) in placed or not count:
                continue
            if filled + count > size:
                shard = contract.shard_name(split, numbers[split])
                kept.append({"name": shard, "split": split, "parts": []})
                numbers[split] += 1
                filled = 0
            kept[-1]["parts"].append(name)
            filled += count
    return kept


def is_shrunk(cut: Cut, before: Cut) -> bool:
    """Tell whether all shards of a cut, and all parts in them, were there before."""
    parts = {shard["name"]: set(shard["parts"]) for shard in before}
    return all(set(shard["parts"]) <= parts.get(shard["name"], set()) for shard in cut)


def _fitting(shard: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], size: int) -> list[str]:
    """List the parts of a shard that have examples of its split, as far as they fit."""
    fitting, filled = [], 0
    for name in shard["parts"]:
        count = counts.get(name, {}).get(shard["split"], 0)
        if count and filled + count <= size:
            fitting.append(name)
            filled += count
    return fitting


def _numbers(cut: Cut, split: str) -> list[int]:
    return [int(shard["name"].rsplit("-", 1)[1]) for shard in cut if shard["split"] == split]


def read_cut(uri: str) -> Cut:
    """Read a cut. Raises DamageError."""
    cut: Cut = notes.read(uri, "shards")["shards"]
    return cut
