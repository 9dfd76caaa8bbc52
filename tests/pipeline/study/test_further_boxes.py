import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import call
from runs import drive, squares_config
from shelf_models import PLACES, SWAPPED, shelf
from sources import encode, write_tar
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example, living_examples, read_pixels
from tagmill.pipeline.study.further_boxes import FurtherBoxes, further_boxes
from tagmill.pipeline.study.picture import COLOURS, draw_photo
from tagmill.runners.api.runs import open_run
from tagmill.tag_system.decisions import Policy

SAID = "dropped by the best of 20 boxes; of the other 19: 12 would have kept it, 7 dropped it"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two pictures of one shelf, which differ in their first pixel and in which box is the best."""
    folder = tmp_path_factory.mktemp("shelf")
    truth = json.dumps({"truth": ["red", "blue"], "captions": []}).encode()
    pictures = {"plain": shelf(), "swapped": shelf(swapped=True)}
    write_tar(
        folder / "data" / "a.tar",
        [
            member
            for key, image in pictures.items()
            for member in ((f"{key}.png", encode(image)), (f"{key}.json", truth))
        ],
    )
    localize = {"model": "shelf_models:ShelfLocalizer"}
    drive(squares_config(folder, tars={}, localize=localize))
    return folder / "run"


@pytest.fixture
def run(folder: Path) -> RunFolder:
    return RunFolder(str(folder))


def of(run: RunFolder, key: str) -> FurtherBoxes:
    (found,) = further_boxes(run, [find_example(run, key)])
    assert set(found) == {"red"}  # a tag with one box has no other one
    return found["red"]


def test_each_box_says_what_clean_decides_where_it_is_the_best_one(run):
    plain, swapped = of(run, "squares/plain"), of(run, "squares/swapped")
    decided = {d["tag"]: d for d in find_example(run, "squares/swapped").decisions}["red"]
    (had_it_been,) = [one for one in plain.others if one["region"] == SWAPPED]
    apart = {"row", "box_score", "region"}
    assert decided["distance"] is not None
    assert decided["own_score"] > decided["other_score"]
    assert {k: v for k, v in had_it_been.items() if k not in apart} == {
        k: v for k, v in decided.items() if k not in apart
    }
    assert (swapped.verdict, swapped.counts()) == ("kept", {"kept": 11, "dropped": 8})
    assert plain.outdone
    assert not swapped.outdone  # a worse verdict is what weak boxes give
    rules = {one["region"]: one["rule"] for one in swapped.others}
    assert rules[SWAPPED] == "other_tag"  # it is the blue one now
    assert rules[19] == "weak_box"


def test_it_is_said_by_inspect_in_the_picture_and_in_a_notebook(run, folder, tmp_path):
    out, _ = call("inspect", folder, "squares/plain", "--output", tmp_path / "one.png")
    assert f"red: {SAID}" in " ".join(out.split())
    (line,) = [line for line in out.splitlines() if line.startswith("red ")]
    assert line.endswith("12 kept, 7 dropped")
    example = open_run(folder).example("squares/plain")
    assert f"<li>red: {SAID}</li>" in example._repr_html_()
    assert f"<li>{SAID}</li>" in example.decision("red")._repr_html_()
    assert "best of" not in example.decision("blue")._repr_html_()


def test_boxes_that_are_as_good_are_drawn_for_a_dropped_tag_too(run):
    example = find_example(run, "squares/plain")
    photo = np.array(draw_photo(example, read_pixels(run, example)))
    scale = photo.shape[1] / 124
    colour = [int(COLOURS["dropped"][i : i + 2], 16) for i in (1, 3, 5)]

    def drawn(place: int) -> int:
        """Count the pixels in the colour of dropped tags on the lower side of a box."""
        x1, _, x2, y2 = (round(side * scale) for side in PLACES[place])
        return (photo[y2 - 2 : y2 + 3, x1:x2] == colour).all(axis=-1).sum()

    assert 0 < drawn(12) < drawn(0)  # thinner than the best one
    assert drawn(13) == 0  # too weak to be one of them


def test_a_box_that_was_not_embedded_is_counted_apart(run):
    example = find_example(run, "squares/plain")
    less = replace(example, embedded=[one for one in example.embedded if one["region"] not in (3, 4)])
    never = replace(example, embedded=None)
    fewer, blind = (found["red"] for found in further_boxes(run, [less, never]))
    assert fewer.said().endswith("of the other 19: 10 would have kept it, 7 dropped it, 2 were not measured")
    assert (len(blind.others), blind.unmeasured) == (19, 0)


def test_of_two_boxes_the_other_one_is_spoken_of():
    assert (
        FurtherBoxes("dropped", 2, [{"verdict": "kept"}]).said().endswith("the other one would have kept it")
    )
    assert FurtherBoxes("dropped", 2, [], 1).said().endswith("the other one was not measured")


def test_a_verdict_that_no_box_gave_says_nothing(run):
    example = find_example(run, "squares/plain")
    agreed = [d | {"rule": "agreed", "basis": "captions", "verdict": "kept"} for d in example.decisions]
    assert further_boxes(run, [replace(example, decisions=agreed)]) == [{}]


def test_a_rule_that_cannot_be_had_here_is_a_warning(run, caplog):
    example = replace(
        find_example(run, "squares/plain"), policy=Policy(rule="gone_module:Rule", trust_given=False)
    )
    assert further_boxes(run, [example]) == [{}]
    assert "gone_module" in caplog.text


def test_all_living_examples_are_asked_at_once(run):
    examples = list(living_examples(run))
    found = further_boxes(run, examples)
    assert [one["red"].verdict for one in found] == ["dropped", "kept"]
    assert all(one["embedding"].base is None for example in examples for one in example.embedded)
