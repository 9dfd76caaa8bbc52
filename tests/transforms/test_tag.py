import json

import numpy as np
import pytest

from odd_models import WitnessTagger
from sources import COLOURS, write_squares
from square_models import SquareTagger, shares
from stage_runs import Bench, shared
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.images import decode
from tagmill.transforms.tag import SCHEMA, TagConfig, TagStage

TAGGER = "square_models:SquareTagger"


def truth(bench, name=None):
    return {r["row"]: sorted(json.loads(r["meta"])["truth"]) for r in bench.part("ingest", name).records}


def test_the_squares_of_every_image_are_seen(tmp_path):
    bench = Bench(tmp_path / "run", part_size=4)
    bench.ingest(write_squares(tmp_path / "a.tar", 7))
    made = bench.run(TagStage(TagConfig(model=TAGGER), bench.shared))
    for part, name in zip(made, bench.names, strict=True):
        assert part.table.schema.equals(SCHEMA)
        assert {row: sorted(r["name"] for r in part.of_row(row)) for row in truth(bench, name)} == truth(
            bench, name
        )
        assert part.header.counts.of("example")["out"] == len(truth(bench, name))
        assert part.header.seconds.keys() >= {"model", "decode", "wait", "read", "total"}


@pytest.mark.parametrize("floor", [0.0, 0.5, 1.0])
def test_the_floor_is_the_least_score_that_is_written(tmp_path, floor):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 3))
    (part,) = bench.run(TagStage(TagConfig(model=TAGGER, score_floor=floor), bench.shared))
    found = {(r["row"], r["name"]): r["score"] for r in part.records}
    expected = {}
    for row, record in enumerate(bench.part("ingest").records):
        place = record["image"]
        data = (tmp_path / "a.tar").read_bytes()[place["offset"] :][: place["size"]]
        for name, share in zip(COLOURS, shares(decode(data, 10**6)), strict=True):
            score = np.float32(min(1, share * 20))
            if score >= floor:
                expected[row, name] = float(score)
    assert found == expected


def test_the_models_own_classes_are_written_in_its_order_whatever_the_vocabulary(tmp_path):
    bench = Bench(tmp_path / "run", vocabulary=Vocabulary.from_text("blue\nother\nred\n", "test"))
    bench.ingest(write_squares(tmp_path / "a.tar", 2))
    (part,) = bench.run(TagStage(TagConfig(model=TAGGER, score_floor=0), bench.shared))
    assert [r["name"] for r in part.records] == SquareTagger.classes * 2
    assert [r["row"] for r in part.records] == [0] * len(COLOURS) + [1] * len(COLOURS)
    assert part.header.notes == {"batches": {"forwards": 1, "items": 2, "images": 2}}


def test_batches_hold_what_the_config_says(tmp_path):
    WitnessTagger.batches.clear()
    bench = Bench(tmp_path / "run", part_size=7)
    bench.ingest(write_squares(tmp_path / "a.tar", 7))
    bench.run(TagStage(TagConfig(model="odd_models:WitnessTagger", batch_size=3), bench.shared))
    assert WitnessTagger.batches == [3, 3, 1]


def test_the_spec_says_model_and_floor_but_neither_batch_nor_vocabulary():
    def spec(**changes):
        return TagStage(TagConfig(**({"model": TAGGER} | changes)), shared()).spec

    assert spec() == {"config": {"model": TAGGER}, "model": SquareTagger().fingerprint()}
    assert spec(batch_size=2) == spec()
    assert spec(score_floor=0.1) != spec()


def test_processing_before_setup_is_a_bug(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 1))
    stage = TagStage(TagConfig(model=TAGGER), bench.shared)
    with pytest.raises(AttributeError, match="classes"):
        stage.process(bench.inputs(stage))
