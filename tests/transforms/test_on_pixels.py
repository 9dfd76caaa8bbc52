import numpy as np
import pytest
from PIL import Image

from sources import encode, write_tar
from stage_runs import Bench
from tagmill.tag_system.errors import DataError, Reason
from tagmill.transforms import files, images, on_pixels, parts
from tagmill.transforms.tag import Tag, TagConfig


@pytest.fixture
def bench(tmp_path):
    """Twelve images of widths 20 to 31."""
    contents = [(f"{w}.png", encode(Image.new("RGB", (w, 10), (220, 30, 30)))) for w in range(20, 32)]
    bench = Bench(tmp_path / "run", part_size=12)
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    return bench


def picky(bench, bad, **changes):
    config = TagConfig(model="odd_models:PickyTagger", options={"bad": bad}, **changes)
    return bench.run(Tag(config, bench.shared))[0]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("bad", [[25], [20, 31], [20, 21, 22]], ids=str)
def test_an_image_that_the_model_fails_on_is_dead_and_the_others_live(bench, bad, batch_size):
    part = picky(bench, bad, batch_size=batch_size)
    rows = [width - 20 for width in bad]
    assert part.header.gone == rows
    assert [r["row"] for r in part.records] == [row for row in range(12) if row not in rows]
    dead = bench.dead("tag")
    assert [(d["row"], d["key"], d["reason"]) for d in dead] == [
        (width - 20, f"squares/{width}", "model_failed") for width in bad
    ]
    assert dead[0]["detail"] == f"KeyError: 'width {bad[0]}'"
    count = part.header.counts["example"]
    assert (count["in"], count["out"], count["dead"]) == (12, 12 - len(bad), len(bad))


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_more_than_three_failures_a_part_are_a_bug(bench, batch_size):
    with pytest.raises(KeyError, match="width 31"):
        picky(bench, [20, 24, 28, 31], batch_size=batch_size)
    assert not files.exists(parts.part_uri(bench.uri("tag"), bench.names[0]))


def test_an_image_that_cannot_be_decoded_is_dead_and_no_failure_of_the_model(tmp_path):
    contents = [(f"{w}.png", encode(Image.new("RGB", (w, 10)))) for w in range(20, 32)]
    bench = Bench(tmp_path / "run", part_size=12, max_pixels=250)
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    part = picky(bench, [20, 21], batch_size=5)
    assert [d["reason"] for d in bench.dead("tag")] == ["model_failed"] * 2 + ["image_too_large"] * 6
    assert part.header.gone == [0, 1, 6, 7, 8, 9, 10, 11]
    assert part.header.dead == {"example/image_too_large": 6, "example/model_failed": 2}


def test_a_part_of_which_nothing_lives(tmp_path):
    bench = Bench(tmp_path / "run", max_pixels=1)
    bench.ingest(write_tar(tmp_path / "a.tar", [("a.png", encode(Image.new("RGB", (9, 9))))]))
    part = picky(bench, [])
    assert (part.records, part.header.gone, part.of_row(0)) == ([], [0], [])


def square(side):
    return np.broadcast_to(np.uint8(0), (side, side, 3))


@pytest.mark.parametrize(
    ("sides", "size", "batches"),
    [
        ([10] * 7, 3, [3, 3, 1]),
        ([10], 3, [1]),
        ([], 3, []),
        ([9_000, 10, 10, 10], 4, [1, 3]),
        ([10, 9_000, 10, 10], 4, [2, 2]),
        ([5_000, 5_000, 5_000, 10], 4, [3, 1]),
    ],
    ids=str,
)
def test_batches_are_bounded_by_count_and_by_pixels(sides, size, batches):
    decoded = list(enumerate(map(square, sides)))
    found = list(on_pixels._batches(decoded, size))
    assert [len(batch) for batch in found] == batches
    assert [row for batch in found for row, _ in batch] == list(range(len(sides)))


def test_errors_take_a_place_but_no_pixels_in_a_batch():
    decoded = [(i, DataError(Reason.IMAGE_UNREADABLE, "")) for i in range(5)]
    assert [len(batch) for batch in on_pixels._batches(decoded, 2)] == [2, 2, 1]


def test_batches_of_huge_images_give_the_same_rows(bench, monkeypatch):
    expected = picky(bench, [25]).records
    monkeypatch.setattr(images, "AHEAD_PIXELS", 100)
    monkeypatch.setattr(on_pixels, "AHEAD_PIXELS", 100)
    files.remove(bench.uri("tag"))
    assert picky(bench, [25]).records == expected


def test_an_image_without_a_number_for_a_score_is_dead_and_not_one_without_tags(bench):
    config = TagConfig(model="odd_models:OverflowingTagger", options={"width": 25})
    bench.run(Tag(config, bench.shared))
    (dead,) = bench.dead("tag")
    assert (dead["row"], dead["reason"]) == (5, "model_failed")
    assert "scores from nan to nan, expected 0 to 1" in dead["detail"]
