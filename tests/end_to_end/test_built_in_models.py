import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

import tiny_models
from runs import samples
from sources import write_config, write_squares
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.runners.commands.console import ConsoleProgress
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.core.files import sha256
from tagmill.tag_system.decisions import Policy


def run(folder: Path, batch_size: int = 16) -> Path:
    """Run all stages with built-in models in their own formats; weights are random."""
    models = folder.parent / "models"
    if not models.exists():
        tiny_models.grounding_dino(models / "dino")
        tiny_models.open_clip(models / "clip")
        tiny_models.tag2text(models / "tag2text")
    write_squares(folder / "data" / "a.tar", 7)
    sections: dict[str, dict[str, Any]] = {
        "caption": {"model": "tag2text", "options": {"path": str(models / "tag2text"), "max_length": 14}},
        "tag": {"model": "ram", "options": {"path": str(models / "tag2text")}},
        "localize": {"model": "grounding-dino", "options": {"path": str(models / "dino")}, "box_floor": 0.0},
        "embed": {"model": "open-clip", "options": {"model": f"local-dir:{models / 'clip'}"}},
    }
    config = write_config(folder, **{n: s | {"batch_size": batch_size} for n, s in sections.items()})
    with (folder / "vocabulary.tsv").open("a") as stream:
        stream.write("car\ndog\nglass\n")
    driver = Driver(load_config(str(config)))
    with ConsoleProgress(Console(quiet=True), "plain") as progress:
        driver.run(LocalEngine(0, PipelineOptions([])), progress)
    (shards,) = (folder / "run" / "shards").glob("*/manifest.json")
    return shards.parent


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of a run."""
    return run(tmp_path_factory.mktemp("built_in") / "one")


def test_built_in_models_run_through_all_stages_to_the_same_bytes_twice(first: Path):
    second = run(first.parents[3] / "two")
    assert first.name == second.name
    names = sorted(path.name for path in first.glob("*.tar"))
    assert names
    assert [sha256(str(first / name)) for name in names] == [sha256(str(second / name)) for name in names]


def test_other_batch_mates_move_scores_and_verdicts_by_rounding_alone(first: Path):
    """As a filter leaves them that came after the models ran, or that was there before."""

    def decisions(shards: Path) -> dict[tuple[str, str], dict[str, Any]]:
        return {(s["key"], tag["tag"]): tag for s in samples(shards.parents[1]) for tag in s["tags"]}

    alone = decisions(run(first.parents[3] / "alone", batch_size=1))
    together = decisions(first)
    assert alone.keys() == together.keys()
    policy = Policy()
    limits = np.array([policy.tagger_threshold, policy.adaptive.weak_box, policy.adaptive.strong_box])
    for key, tag in together.items():
        ours, theirs = scores_of(tag), scores_of(alone[key])
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        if not (abs(ours[:, None] - limits) < 1e-4).any():
            assert tag["verdict"] == alone[key]["verdict"]


def scores_of(tag: dict[str, Any]) -> np.ndarray:
    """The scores of a decision's evidence, and of its best box."""
    names = ("score", "own_score", "other_score", "region_score")
    found = [entry[name] for entry in tag["evidence"] for name in names if name in entry]
    boxes = [entry["boxes"][0][4] for entry in tag["evidence"] if entry.get("boxes")]
    return np.array(found + boxes)


def test_every_box_of_a_shard_belongs_to_a_candidate_and_lies_in_its_image(first: Path):
    boxes = 0
    for path in first.glob("*.tar"):
        for sample in wds.WebDataset(str(path), shardshuffle=False, empty_check=False).decode("pil"):
            image, text = sample["png"], sample["json"]
            found = text if isinstance(text, dict) else json.loads(text)
            assert image.size == (found["width"], found["height"])
            for tag in found["tags"]:
                for x1, y1, x2, y2, score in chain(*(entry.get("boxes", []) for entry in tag["evidence"])):
                    boxes += 1
                    assert 0 <= x1 < x2 <= found["width"]
                    assert 0 <= y1 < y2 <= found["height"]
                    assert 0 <= score <= 1
    assert boxes


def test_tags_of_generated_captions_are_evidence(first: Path):
    folder = first.parents[1]
    captions: dict[tuple[str, int], dict[str, Any]] = {}
    for path in (folder / "caption").glob("*/*.parquet"):
        captions |= {(path.stem, row["row"]): row for row in pq.read_table(path).to_pylist()}
    assert len(captions) == 7
    assert len({row["caption"] for row in captions.values()}) > 1
    parsed = [
        row for path in (folder / "parse").glob("*/*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    mentions = [row["mentions"] for row in parsed if row["source"] == "generated"]
    assert len(mentions) == 7
    assert all(mentions)
    evidence = Counter[str]()
    for sample in samples(folder):
        for tag in sample["tags"]:
            evidence[tag["tag"]] += tag["sources"].get("generated", 0)
    images = Counter(tag for found in mentions for tag in {m["tag"] for m in found})
    assert +evidence == images
