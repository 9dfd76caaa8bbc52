from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tagmill.pipeline.cut import extend_cut
from tagmill.tag_system.shard_contract import SPLITS

COUNTS = st.lists(st.tuples(*[st.integers(0, 10)] * 3), max_size=12)


def counts_of(parts: list[tuple[int, ...]]) -> dict[str, dict[str, int]]:
    """Parts of `size` at most; a split without examples is not counted."""
    named = {f"p{i:03d}": dict(zip(SPLITS, counts, strict=True)) for i, counts in enumerate(parts)}
    return {name: {split: n for split, n in found.items() if n} for name, found in named.items()}


def taken(cut: list[dict[str, Any]], split: str) -> list[str]:
    return [name for shard in cut if shard["split"] == split for name in shard["parts"]]


@given(COUNTS, COUNTS)
def test_parts_are_taken_once_in_order_and_later_ones_move_none(first, more):
    before = extend_cut([], counts_of(first), 10)
    counts = counts_of(first + more)
    cut = extend_cut(before, counts, 10)
    assert cut[: len(before)] == before
    for split in SPLITS:
        assert taken(cut, split) == [name for name, found in counts.items() if split in found]
    for shard in cut:
        assert 0 < sum(counts[name][shard["split"]] for name in shard["parts"]) <= 10
    assert len({shard["name"] for shard in cut}) == len(cut)
    assert extend_cut(cut, counts, 10) == cut


@given(COUNTS, st.sets(st.integers(0, 11)))
def test_what_is_removed_leaves_and_nothing_else_moves(parts, removed):
    counts = counts_of(parts)
    cut = extend_cut([], counts, 10)
    left = {name: found for i, (name, found) in enumerate(counts.items()) if i not in removed}
    after = extend_cut(cut, left, 10)
    where = {(s["split"], name): s["name"] for s in cut for name in s["parts"]}
    for shard in after:
        assert shard["parts"]
        assert {where[shard["split"], name] for name in shard["parts"]} == {shard["name"]}
    assert sum(len(shard["parts"]) for shard in after) == sum(len(found) for found in left.values())


def test_a_new_shard_takes_no_name_that_is_in_use():
    cut = extend_cut([], {"a": {"train": 5}, "b": {"train": 5}}, 5)
    assert [shard["name"] for shard in cut] == ["train-000000", "train-000001"]
    after = extend_cut(cut, {"b": {"train": 5}, "c": {"train": 5}}, 5)
    assert [shard["name"] for shard in after] == ["train-000001", "train-000002"]
