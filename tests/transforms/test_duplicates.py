from dataclasses import replace

import apache_beam as beam
import pytest

from flaky_files import FlakyFileSystem
from sources import encode, square_image, write_tar
from stage_runs import Bench, as_json, shared
from tagmill.transforms import files, parts
from tagmill.transforms.duplicates import SCHEMA, Duplicates, DuplicatesConfig

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


def test_every_part_gets_a_table_and_its_counts_add_up(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 1), ("c", 2), ("d", 3), ("e", 1)]))
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    counts = [[part.header.counts["example"][n] for n in ("in", "out", "dropped", "dead")] for part in found]
    assert counts == [[2, 1, 1, 0], [2, 2, 0, 0], [1, 0, 1, 0]]
    assert [part.header.gone for part in found] == [[1], [], [0]]
    assert [part.header.dropped for part in found] == [{"same_image": 1}, {}, {"same_image": 1}]
    assert all(part.table.schema.equals(SCHEMA) for part in found)


def test_dead_rows_stay_gone_and_never_win(bench, tmp_path):
    contents = [("a.png", picture(1)), ("a.json", b"broken"), ("b.png", picture(1)), ("c.png", picture(1))]
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert losers(bench, found) == [("squares/c", "same_image", "squares/b")]
    assert [part.header.gone for part in found] == [[0], [0]]


def test_a_part_without_a_living_row(bench, tmp_path):
    bench.ingest(write_tar(tmp_path / "a.tar", [("a.png", b"broken"), ("b.png", b"broken")]))
    found = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert [(part.records, part.header.gone) for part in found] == [([], [0, 1])]


def test_later_input_changes_no_earlier_winner(bench, tmp_path):
    bench.ingest(write(tmp_path / "a.tar", [("a", 1), ("b", 1)]))
    before = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    bench.stages.pop()
    bench.ingest(write(tmp_path / "b.tar", [("c", 1), ("a", 2)]))
    after = bench.beam(Duplicates(DuplicatesConfig(), bench.shared), work=str(tmp_path / "after"))
    headers = [parts.read_header(parts.part_uri(after, name)) for name in bench.names]
    assert headers[0].digest == before[0].header.digest
    assert headers[1].gone == [0, 1]


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
    order = {name: place for place, name in enumerate(bench.names)}
    try:
        with beam.Pipeline(runner="BundleBasedDirectRunner") as pipeline:
            pipeline | beam.Create(tasks) | stage.transform(work, order)
    finally:
        FlakyFileSystem.bad = "\0"
    assert len(FlakyFileSystem.failed) == 1
    found = [parts.read_header(parts.part_uri(work, name)).digest for name in bench.names]
    assert found == expected


def test_meaning_is_json():
    assert as_json(Duplicates(DuplicatesConfig(), shared()).meaning) == b'{"config": {}}'
