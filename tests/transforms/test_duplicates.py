from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaky_files import FlakyFileSystem
from sources import encode, square_image, write_tar
from stage_runs import Bench, as_json, shared, write_removed
from tagmill.tag_system.core import files
from tagmill.transforms import bitmaps, parts
from tagmill.transforms.duplicates import (
    ENTRY,
    SCHEMA,
    Duplicates,
    DuplicatesConfig,
    mark_contested,
    settle_copies,
    settle_in_order,
)
from tagmill.transforms.task_file import PartOrder

NAMES = ["red", "green", "blue", "yellow", "purple"]


def picture(number):
    return encode(square_image([NAMES[number % 5]], number))


def write(path, examples):
    """Write a tar of (key, number of its picture)."""
    return write_tar(path, [(f"{key}.png", picture(number)) for key, number in examples])


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "run", part_size=2)


def losers(bench, run=None):
    """All losers as (key, reason, key of the winner)."""
    found = run or bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    keys = {(name, r["row"]): r["key"] for name in bench.names for r in bench.part("ingest", name).records}
    return [
        (r["key"], r["reason"], keys[r["winner_part"], r["winner_row"]])
        for part in found
        for r in part.records
    ]


def test_of_copies_the_first_lives(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 2), ("c", 1), ("d", 3), ("e", 1), ("f", 2)]))
    assert losers(bench) == [
        ("squares/c", "same_image", "squares/a"),
        ("squares/e", "same_image", "squares/a"),
        ("squares/f", "same_image", "squares/b"),
    ]


def test_of_equal_keys_in_two_sources_the_first_lives(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 2)]))
    bench.ingest(write(tmp_path / "b.tar", [("b", 3), ("a", 4), ("c", 5)]))
    assert losers(bench) == [("squares/b", "same_key", "squares/b"), ("squares/a", "same_key", "squares/a")]


def test_an_image_with_the_same_key_and_bytes_is_lost_once_as_the_same_image(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1)]))
    bench.ingest(write(tmp_path / "b.tar", [("a", 1)]))
    assert losers(bench) == [("squares/a", "same_image", "squares/a")]


def test_an_image_whose_copy_lost_its_key_lives_on(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1)]))
    bench.ingest(write(tmp_path / "b.tar", [("a", 2)]))
    bench.ingest(write(tmp_path / "c.tar", [("b", 2)]))
    assert losers(bench) == [("squares/a", "same_key", "squares/a")]


def test_a_key_is_free_again_when_its_first_example_is_a_copy(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 1)]))
    bench.ingest(write(tmp_path / "b.tar", [("b", 2)]))
    assert losers(bench) == [("squares/b", "same_image", "squares/a")]


def test_copies_in_two_inputs_are_kept(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1)]), name="one")
    bench.ingest(write(tmp_path / "b.tar", [("a", 1)]), name="two")
    assert losers(bench) == []


def test_the_order_of_the_parts_decides_and_not_their_names(bench, tmp_path):
    for name in ("a", "b", "c"):
        bench.ingest(write(tmp_path / f"{name}.tar", [(name, 1)]))
    for order in (bench.names, bench.names[::-1]):
        bench.names = order
        first = bench.part("ingest", order[0]).records[0]["key"]
        files.remove(bench.uri("duplicates"))
        found = losers(bench)
        assert [winner for _, _, winner in found] == [first, first]
        bench.stages.pop()


PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40)
"""Examples in ingest's order, as key and image."""


def settle(pairs):
    """Settle examples as the job does, two to a part: {place: (reason, place of the winner)}."""
    entries = np.array(
        [(b"k%d" % key, b"i%d" % image, n // 2, n % 2, False) for n, (key, image) in enumerate(pairs)], ENTRY
    )
    marked = [mark_contested(block) for block in dealt(entries, "key")]
    losses, left = [], [entries[:0]]
    for block in dealt(np.concatenate([*left, *marked]), "image"):
        lost, still_open = settle_copies(block)
        losses += lost
        left.append(still_open)
    losses += settle_in_order(np.concatenate(left))
    found = {order * 2 + row: (reason, part * 2 + at) for order, row, reason, part, at in losses}
    assert len(found) == len(losses)
    return found


def dealt(entries, column):
    """Three buckets, each in the reverse of the order, but for those that are empty."""
    bucket = np.array([int(value[1:]) % 3 for value in entries[column]])
    blocks = (entries[bucket == number][::-1] for number in range(3))
    return [block for block in blocks if len(block)]


@given(PAIRS)
def test_a_loser_shares_its_image_or_else_its_key_with_an_earlier_one_that_lives(pairs):
    losses = settle(pairs)
    for place, (reason, winner) in losses.items():
        assert winner < place
        assert winner not in losses
        shared = 1 if reason == "same_image" else 0
        assert pairs[winner][shared] == pairs[place][shared]


@given(PAIRS)
def test_every_image_lives_once_but_where_each_of_its_keys_is_another_living_images(pairs):
    losses = settle(pairs)
    living = [pair for place, pair in enumerate(pairs) if place not in losses]
    keys, images = [key for key, _ in living], [image for _, image in living]
    assert len(set(keys)) == len(keys)
    assert len(set(images)) == len(images)
    for key, image in pairs:
        assert image in images or key in keys
        if image not in images:
            rows = [place for place, pair in enumerate(pairs) if pair[1] == image]
            assert {losses[place][0] for place in rows} == {"same_key"}
        if key not in keys:
            rows = [place for place, pair in enumerate(pairs) if pair[0] == key]
            assert {losses[place][0] for place in rows} == {"same_image"}


@given(PAIRS, PAIRS)
def test_later_examples_change_nothing_for_earlier_ones(earlier, later):
    after = settle(earlier + later)
    assert settle(earlier) == {place: loss for place, loss in after.items() if place < len(earlier)}


def test_the_job_drops_what_going_through_in_order_drops(bench, tmp_path):
    draw = np.random.default_rng(3)
    tars = [[(int(draw.integers(12)), int(draw.integers(9))) for _ in range(3)] for _ in range(12)]
    for number, examples in enumerate(tars):
        named = {f"{key:02d}": image for key, image in examples}  # of a key, one in a tar
        bench.ingest(write(tmp_path / f"{number:02d}.tar", list(named.items())))
    keys, images, expected = set(), set(), []
    for name in bench.names:
        for r in bench.part("ingest", name).records:
            if r["sha256"] in images or r["key"] in keys:
                expected.append((name, r["row"], "same_image" if r["sha256"] in images else "same_key"))
            else:
                keys.add(r["key"])
                images.add(r["sha256"])
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert [(p.header.name, r["row"], r["reason"]) for p in found for r in p.records] == expected
    assert {reason for _, _, reason in expected} == {"same_image", "same_key"}


def test_every_part_gets_a_table_and_its_counts_add_up(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 1), ("c", 2), ("d", 3), ("e", 1)]))
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    counts = [
        [part.header.counts.of("example")[n] for n in ("in", "out", "dropped", "dead")] for part in found
    ]
    assert counts == [[2, 1, 1, 0], [2, 2, 0, 0], [1, 0, 1, 0]]
    assert [bitmaps.numbers(part.header.lost) for part in found] == [[1], [], [0]]
    assert [part.header.dropped for part in found] == [{"same_image": [1]}, {}, {"same_image": [0]}]
    assert all(part.table.schema.equals(SCHEMA) for part in found)


def test_dead_rows_do_not_come_in_and_never_win(bench, tmp_path):
    contents = [("a.png", picture(1)), ("a.json", b"broken"), ("b.png", picture(1)), ("c.png", picture(1))]
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert losers(bench, found) == [("squares/c", "same_image", "squares/b")]
    assert [bitmaps.numbers(part.header.rows) for part in found] == [[1], [0]]
    assert [bitmaps.numbers(part.header.lost) for part in found] == [[], [0]]


def test_rows_that_an_earlier_stage_took_out_do_not_come_in_and_never_win(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 1), ("c", 1), ("d", 2)]))
    stage = Duplicates(DuplicatesConfig(), bench.shared)
    bits = dict(zip(bench.names, [0b01, 0b10], strict=True))
    removed = write_removed(str(tmp_path / "removed.parquet"), bits)
    tasks = [replace(task, removed=removed) for task in bench.tasks(stage)]
    work = str(tmp_path / "work")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        order = PartOrder(bench.names)
        pipeline | beam.Create(tasks) | stage.transform(work, order)
    found = [parts.read_part(parts.part_uri(work, name)) for name in bench.names]
    assert losers(bench, found) == [("squares/c", "same_image", "squares/b")]
    assert [bitmaps.numbers(part.header.rows) for part in found] == [[1], [0]]
    assert [bitmaps.numbers(part.header.lost) for part in found] == [[], [0]]


def test_a_part_without_a_living_row(bench, tmp_path):
    bench.ingest(write_tar(tmp_path / "a.tar", [("a.png", b"broken"), ("b.png", b"broken")]))
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert [(part.records, part.header.rows, part.header.lost) for part in found] == [([], 0, 0)]


def test_later_input_changes_no_earlier_winner(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 1)]))
    before = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    bench.stages.pop()
    bench.ingest(write(tmp_path / "b.tar", [("c", 1), ("a", 2)]))
    after = bench.beam(Duplicates(DuplicatesConfig(), bench.shared), work=str(tmp_path / "after"))
    headers = [parts.read_header(parts.part_uri(after, name)) for name in bench.names]
    assert headers[0].digest == before[0].header.digest
    assert bitmaps.numbers(headers[1].lost) == [0, 1]


def test_bundles_that_fail_and_are_tried_again_give_the_same_parts(bench, tmp_path):
    examples = [(str(i), i % 9) for i in range(24)]
    bench.ingest(write(tmp_path / "a.tar", examples))
    stage = Duplicates(DuplicatesConfig(), bench.shared)
    expected = [part.header.digest for part in bench.run(stage)]
    bench.stages.pop()
    tasks = []
    for task in bench.tasks(stage):
        uri = f"flaky://retries/{task.name}.parquet"
        files.create_bytes(uri, files.read_bytes(task.inputs["ingest"]))
        tasks.append(replace(task, inputs={"ingest": uri}))
    FlakyFileSystem.failed.clear()
    FlakyFileSystem.bad = f"{bench.names[3]}.parquet"
    work = str(tmp_path / "work")
    order = PartOrder(bench.names)
    try:
        with beam.Pipeline(runner="BundleBasedDirectRunner") as pipeline:
            pipeline | beam.Create(tasks) | stage.transform(work, order)
    finally:
        FlakyFileSystem.bad = "\0"
    assert len(FlakyFileSystem.failed) == 1
    found = [parts.read_header(parts.part_uri(work, name)).digest for name in bench.names]
    assert found == expected


def test_spec_is_json():
    assert as_json(Duplicates(DuplicatesConfig(), shared()).spec) == b'{"config": {}}'
