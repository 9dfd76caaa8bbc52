import shutil
from pathlib import Path

import numpy as np
import pytest

from runs import rows_of
from sources import square_image
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import decided_examples, find_example, read_pixels
from tagmill.tag_system.core.errors import ConfigError, InputChangedError


@pytest.fixture
def run(finished: Path) -> RunFolder:
    return RunFolder(str(finished / "run"))


def test_all_that_is_known_of_a_living_example_is_found(run):
    example = find_example(run, "squares/wrong")
    assert example.ingested["captions"] == ["a yellow square"]
    assert [mention["tag"] for mention in example.parsed[0]["mentions"]] == ["yellow"]
    assert example.generated == "a blue square"
    assert {(region["tag"], region["region"]) for region in example.regions} == {("blue", 0)}
    verdicts = {decision["tag"]: decision["verdict"] for decision in example.decisions}
    assert verdicts == {"blue": "kept", "yellow": "uncertain"}
    assert [decision["tag"] for decision in example.decided("kept", "uncertain")] == ["blue", "yellow"]
    assert (example.dead, example.duplicate_of) == ([], None)


def test_a_dead_caption_is_found_with_its_example(run):
    example = find_example(run, "squares/empty-caption")
    assert example.ingested["captions"] == ["a red square", None]
    ((stage, index, reason),) = [(d["stage"], d["caption_index"], d["reason"]) for d in example.dead]
    assert (stage, index, reason) == ("ingest", 1, "caption_empty")


def test_an_example_that_died_has_its_letter_and_no_image(run):
    example = find_example(run, "squares/broken")
    assert example.ingested is None
    assert [(d["unit"], d["reason"]) for d in example.dead] == [("example", "image_truncated")]
    assert example.decisions == []
    with pytest.raises(ConfigError, match="died at ingest"):
        read_pixels(run, example)


def test_a_dropped_copy_names_the_example_that_lives(run):
    example = find_example(run, "squares/copy")
    assert example.duplicate_of == "squares/000000"
    assert example.decisions == []


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("wrong", "squares/wrong"),
        ("squares/wronk", "squares/wrong"),
        ("squares/000100", "squares/000010"),
        ("other/000017", "squares/000017"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_ones(run, key, nearest):
    with pytest.raises(ConfigError, match="no example") as error:
        find_example(run, key)
    assert nearest in str(error.value)


def test_every_living_example_comes_with_its_decisions(run, finished):
    found = {example["key"]: decisions for example, decisions in decided_examples(run)}
    assert "squares/copy" not in found
    assert sum(map(len, found.values())) == len(rows_of(finished / "run", "clean"))


def test_pixels_come_from_the_source_as_long_as_it_is_the_same(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "all", dirs_exist_ok=True)
    copy = RunFolder(str(tmp_path / "all" / "run"))
    saved = tmp_path / "all" / "run" / "run.yaml"
    saved.write_text(saved.read_text().replace(str(finished), str(tmp_path / "all")))
    example = find_example(copy, "squares/wrong")
    np.testing.assert_array_equal(read_pixels(copy, example), np.array(square_image(["blue"], 77)))
    tar = tmp_path / "all" / "data" / "a.tar"
    tar.write_bytes(tar.read_bytes().replace(b"IDAT", b"IDOT"))
    with pytest.raises(InputChangedError, match="squares/wrong changed"):
        read_pixels(copy, example)
    tar.rename(tar.with_suffix(".moved.tar"))
    with pytest.raises(InputChangedError, match="was removed"):
        read_pixels(copy, example)
