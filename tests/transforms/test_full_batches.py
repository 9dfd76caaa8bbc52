"""The localizer's batches over a whole part: full, each image seen once, each text read once."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tiny_models
from predicting import predict
from sources import encode, write_tar
from stage_runs import Bench, as_json, example, shared
from tagmill.models.grounding_dino import GroundingDino
from tagmill.tag_system.core import files
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.batches import Fill, plan
from tagmill.transforms.candidates import Asked
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.on_pixels import load

COCO = Path(__file__).parents[3] / "shared" / "data" / "captions" / "coco_val2017_instances.parquet"

NAMES = [f"{a}{b}" for a in "abcdefghij" for b in "012"]
VOCABULARY = Vocabulary.from_text("".join(f"{name}\tobject\n" for name in NAMES), "letters")
SIZES = [(70, 50), (40, 90), (64, 64)] * 5
"""Of the images of a part, mixed."""

LABELS = [NAMES[:2], NAMES, NAMES[5:9]]
"""Labels of the images, in turn: each text comes often; the second make two texts, of 20 tags and of 10."""


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return tiny_models.grounding_dino(tmp_path_factory.mktemp("models") / "dino")


def noise(row: int) -> np.ndarray:
    """The image of a row."""
    width, height = SIZES[row]
    return np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)


def bench_of(folder: Path, **changes: int) -> Bench:
    contents = []
    for number in range(len(SIZES)):
        contents.append((f"{number:02}.png", encode(Image.fromarray(noise(number)))))
        contents.append((f"{number:02}.json", as_json({"labels": LABELS[number % 5 % 3]})))
    bench = Bench(folder / "run", vocabulary=VOCABULARY, part_size=len(SIZES), **changes)
    bench.ingest(write_tar(folder / "a.tar", contents))
    bench.candidates(Asked(localizer=True))
    return bench


def localize(bench: Bench, dino: Path, batch_size: int = 4) -> Localize:
    options = {"path": str(dino), "device": "cpu", "pad_to": 32}
    return Localize(
        LocalizeConfig(model="grounding-dino", options=options, batch_size=batch_size), bench.shared
    )


def test_an_image_is_seen_once_and_a_text_read_once_and_forwards_are_full(tmp_path, dino):
    bench = bench_of(tmp_path)
    stage = localize(bench, dino)
    seen, read, run = [], [], []
    stage.setup()
    network = stage.model._model
    network.model.backbone._backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    network.model.text_backbone._backbone.register_forward_pre_hook(
        lambda _, given: read.extend(map(tuple, given[0].tolist()))
    )
    network.register_forward_pre_hook(
        lambda _, __, given: run.append(tuple(given["pixel_values"].shape)), with_kwargs=True
    )
    stage.setup = lambda: None
    (part,) = bench.run(stage)
    assert sum(seen) == len(SIZES)
    assert len(read) == len(set(read)) == 4
    notes = part.header.notes["batches"]
    assert notes["forwards"] == len(run)
    assert (notes["images"], notes["items"], notes["texts"]) == (15, 21, 21)
    # Three sizes of five images each, two of which are asked two texts.
    assert sorted(shape[0] for shape in run) == [3, 3, 3, 4, 4, 4]
    assert 0 < notes["padding"] < notes["pixels"]


def test_an_image_gets_what_it_gets_alone_and_rows_keep_their_order(tmp_path, dino):
    bench = bench_of(tmp_path)
    stage = localize(bench, dino)
    (part,) = bench.run(stage)
    assert sorted({record["row"] for record in part.records}) == list(range(len(SIZES)))
    alone = GroundingDino(str(dino), device="cpu", pad_to=32)
    alone.load()
    for row in range(len(SIZES)):
        asked = sorted(LABELS[row % 5 % 3])
        (expected,) = predict(alone, [noise(row)], [asked])
        best = {r["tag"]: r["score"] for r in part.of_row(row) if r["region"] == 0}
        assert best
        for tag, score in best.items():
            assert abs(expected.scores[expected.tags == asked.index(tag)].max() - score) < 1e-4


def test_bytes_are_the_same_whatever_a_worker_made_before_and_however_many_threads(tmp_path, dino):
    made = []
    for number, threads in enumerate((1, 2)):
        bench = bench_of(tmp_path / str(number), decode_threads=threads)
        stage = localize(bench, dino)
        for _ in range(2):
            made.append(bench.run(stage)[0].table)
            files.remove(bench.uri("localize"))
            bench.stages.pop()
    assert all(table.equals(made[0]) for table in made)


@pytest.mark.skipif(not COCO.exists(), reason="needs ../shared")
@pytest.mark.parametrize(("pad_to", "batch_size"), [(64, 8), (160, 8), (160, 16)], ids=str)
def test_forwards_are_full_on_the_sizes_of_photographs(dino, pad_to, batch_size):
    options = {"path": str(dino), "shortest": 800, "longest": 1333, "pad_to": pad_to}
    config = LocalizeConfig(model="grounding-dino", options=options, batch_size=batch_size)
    stage = Localize(config, shared())
    stage.model = GroundingDino(**options)
    sizes = pq.read_table(COCO, columns=["width", "height"]).to_pylist()
    fill = Fill()
    for start in range(0, len(sizes), 1000):
        rows = [example(row, **size) for row, size in enumerate(sizes[start : start + 1000])]
        loads = [load(stage, one, (30,)) for one in rows]
        for batch in plan(loads, batch_size, 1 << 28):
            fill.add([loads[row] for row in batch], batch_size)
    assert fill.items == len(sizes) == 2537
    assert fill.items / fill.forwards >= 0.85 * batch_size
    assert fill.padding / fill.pixels < 0.07
