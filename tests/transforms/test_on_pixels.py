import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from odd_models import ThreadsTagger
from predicting import predict
from sources import encode, square_image, write_tar
from square_models import SquareTagger
from stage_runs import Bench
from tagmill.models.base import create
from tagmill.runners.commands.demo import embedded
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.transforms import bitmaps, parts
from tagmill.transforms.tag import TagConfig, TagStage


@pytest.fixture
def bench(tmp_path):
    """Twelve images of widths 20 to 31."""
    contents = [(f"{w}.png", encode(Image.new("RGB", (w, 10), (220, 30, 30)))) for w in range(20, 32)]
    bench = Bench(tmp_path / "run", part_size=12)
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    return bench


def picky(bench, bad, unprepared=(), **changes):
    options = {"bad": bad, "unprepared": unprepared}
    config = TagConfig(model="odd_models:PickyTagger", options=options, **changes)
    return bench.run(TagStage(config, bench.shared))[0]


@pytest.mark.parametrize("where", ["predict", "prepare"])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("bad", [[25], [20, 31], [20, 21, 22]], ids=str)
def test_an_image_that_the_model_fails_on_is_dead_and_the_others_live(bench, bad, batch_size, where):
    part = picky(bench, *((bad, ()) if where == "predict" else ((), bad)), batch_size=batch_size)
    rows = [width - 20 for width in bad]
    assert bitmaps.numbers(part.header.lost) == rows
    assert [r["row"] for r in part.records] == [row for row in range(12) if row not in rows]
    dead = bench.dead("tag")
    assert [(d["row"], d["key"], d["reason"]) for d in dead] == [
        (width - 20, f"squares/{width}", "model_failed") for width in bad
    ]
    assert dead[0]["detail"] == f"KeyError: 'width {bad[0]}'"
    count = part.header.counts.of("example")
    assert (count["in"], count["out"], count["dead"]) == (12, 12 - len(bad), len(bad))


@pytest.mark.parametrize(
    ("bad", "unprepared", "last"),
    [
        ([20, 24, 28, 31], [], 31),
        ([], [20, 24, 28, 31], 31),
        ([20, 24], [28, 31], ""),
        ([31], [20, 24, 28], 31),
    ],
    ids=["predict", "prepare", "both", "predict last"],
)
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_more_than_three_failures_a_part_are_a_bug(bench, bad, unprepared, last, batch_size):
    with pytest.raises(KeyError, match=f"width {last}"):
        picky(bench, bad, unprepared, batch_size=batch_size)
    assert not files.exists(parts.part_uri(bench.uri("tag"), bench.names[0]))


def test_an_image_that_cannot_be_decoded_is_dead_and_no_failure_of_the_model(tmp_path):
    contents = [(f"{w}.png", encode(Image.new("RGB", (w, 10)))) for w in range(20, 32)]
    bench = Bench(tmp_path / "run", part_size=12, max_pixels=250)
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    part = picky(bench, [20, 21], batch_size=5)
    assert [d["reason"] for d in bench.dead("tag")] == ["model_failed"] * 2 + ["image_too_large"] * 6
    assert bitmaps.numbers(part.header.lost) == [0, 1, 6, 7, 8, 9, 10, 11]
    assert part.header.dead == {"image_too_large": [6, 7, 8, 9, 10, 11], "model_failed": [0, 1]}


def test_a_part_of_which_nothing_lives(tmp_path):
    bench = Bench(tmp_path / "run", max_pixels=1)
    bench.ingest(write_tar(tmp_path / "a.tar", [("a.png", encode(Image.new("RGB", (9, 9))))]))
    part = picky(bench, [])
    assert (part.records, part.header.lost, part.of_row(0)) == ([], bitmaps.of([0]), [])


@pytest.mark.parametrize("batch_size", [1, 16])
def test_what_prepare_says_of_an_image_or_of_the_config_stands(bench, monkeypatch, batch_size):
    def prepare(self, image):
        if image.shape[1] > 25:
            raise DataError(Reason.IMAGE_TOO_THIN, f"width {image.shape[1]}")
        return image

    monkeypatch.setattr(SquareTagger, "prepare", prepare)
    config = TagConfig(model="square_models:SquareTagger", batch_size=batch_size)
    (part,) = bench.run(TagStage(config, bench.shared))
    assert bitmaps.numbers(part.header.lost) == list(range(6, 12))
    assert {(d["reason"], d["detail"]) for d in bench.dead("tag")} == {
        ("image_too_thin", f"width {width}") for width in range(26, 32)
    }

    def refuse(self, image):
        raise ConfigError("no")

    monkeypatch.setattr(SquareTagger, "prepare", refuse)
    files.remove(bench.uri("tag"))
    bench.stages.pop()
    with pytest.raises(ConfigError, match="no"):
        bench.run(TagStage(config, bench.shared))


def test_images_are_prepared_in_the_threads_that_decode_and_predicted_in_the_models_own(bench):
    (part,) = bench.run(TagStage(TagConfig(model="odd_models:ThreadsTagger"), bench.shared))
    assert all(name.startswith("decode") for name in ThreadsTagger.prepared)
    assert (len(ThreadsTagger.prepared), ThreadsTagger.predicted) == (12, [threading.current_thread().name])
    assert part.header.seconds["prepare"] >= 12 * 0.005


def test_a_stage_gives_what_preparing_and_predicting_by_hand_give(tmp_path):
    options = {"path": str(embedded() / "tagger"), "device": "cpu"}
    model = create("ram", options)
    bench = Bench(tmp_path / "run", part_size=12)
    pictures = [square_image(["red", "blue"], seed, (60 + 9 * seed, 80)) for seed in range(7)]
    bench.ingest(write_tar(tmp_path / "a.tar", [(f"{i}.png", encode(p)) for i, p in enumerate(pictures)]))
    (part,) = bench.run(
        TagStage(TagConfig(model="ram", options=options, batch_size=4, score_floor=0), bench.shared)
    )
    model.load()
    pixels = [np.asarray(picture) for picture in pictures]
    by_hand = predict(model, pixels[:4]) + predict(model, pixels[4:])
    found = np.array([record["score"] for record in part.records], np.float32).reshape(7, -1)
    assert found.tobytes() == np.stack(by_hand).tobytes()


def test_batches_of_huge_images_give_the_same_rows(bench):
    expected = picky(bench, [25]).records
    bench.shared = replace(bench.shared, max_image_bytes=10_000)  # the largest takes 8 * 310 + a file
    files.remove(bench.uri("tag"))
    bench.stages.pop()
    assert picky(bench, [25]).records == expected


def test_an_image_without_a_number_for_a_score_is_dead_and_not_one_without_tags(bench):
    config = TagConfig(model="odd_models:OverflowingTagger", options={"width": 25})
    bench.run(TagStage(config, bench.shared))
    (dead,) = bench.dead("tag")
    assert (dead["row"], dead["reason"]) == (5, "model_failed")
    assert "scores from nan to nan, expected 0 to 1" in dead["detail"]
