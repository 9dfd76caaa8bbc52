import json
import math

import pytest

from sources import encode, square_image, write_squares, write_tar
from stage_runs import Bench, as_json, part, shared
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, candidates
from tagmill.transforms.candidates import Asked
from tagmill.transforms.localize import SCHEMA, Localize, LocalizeConfig
from tagmill.transforms.parse import Parse, ParseConfig
from tagmill.transforms.parts import Inputs

VOCABULARY = Vocabulary.from_text(
    "red\tobject\tred square|crimson\nblue\tobject\tblue square\n"
    "green\tobject\n"
    "tidy\tattribute\nhall\tscene\n",
    "t",
)


@pytest.fixture
def localize(tmp_path):
    """Localize one image of 96 x 80, whose labels are given, by a script of boxes."""

    def localize(script, labels=("red", "blue"), classes=None, **changes):
        contents = [("a.png", encode(square_image(["red"]))), ("a.json", as_json({"labels": list(labels)}))]
        bench = Bench(tmp_path / "run", vocabulary=VOCABULARY)
        bench.ingest(write_tar(tmp_path / "a.tar", contents))
        kinds = {"kinds": changes["kinds"]} if "kinds" in changes else {}
        bench.candidates(Asked(localizer=True, localized=classes), **kinds)
        options = {"script": script, "classes": classes}
        config = LocalizeConfig(model="odd_models:ScriptedLocalizer", options=options, **changes)
        stage = Localize(config, bench.shared)
        (part,) = bench.run(stage)
        assert part.table.schema.equals(SCHEMA)
        found = [
            (
                r["tag"],
                r["region"],
                *(r[n] for n in ("x1", "y1", "x2", "y2")),
                r["score"] and round(r["score"], 6),
            )
            for r in part.records
        ]
        return found, stage.model

    return localize


def nothing(tag):
    return (tag, None, None, None, None, None, None)


def test_boxes_come_best_first_and_a_tag_asked_in_vain_has_a_row(localize):
    found, model = localize([("red", 1, 2, 3, 4, 0.25), ("red", 5, 6, 7, 8, 0.75)])
    assert found == [nothing("blue"), ("red", 0, 5, 6, 7, 8, 0.75), ("red", 1, 1, 2, 3, 4, 0.25)]
    assert model.asked == [["blue", "red"]]


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((-5, -5, 200, 200), (0, 0, 96, 80)),
        ((90, 70, 100, 90), (90, 70, 96, 80)),
        ((95.5, 79.5, 96, 80), (95.5, 79.5, 96, 80)),
        ((10, 10, 10, 20), None),
        ((96, 0, 120, 80), None),
        ((-9, 0, 0, 80), None),
    ],
    ids=str,
)
def test_boxes_are_clipped_to_the_image_and_empty_ones_are_none(localize, box, kept):
    found, _ = localize([("red", *box, 0.5)], labels=["red"])
    assert found == ([("red", 0, *kept, 0.5)] if kept else [nothing("red")])


@pytest.mark.parametrize(("score", "kept"), [(0.25, True), (0.2499, False)], ids=str)
def test_the_floor_is_the_least_score(localize, score, kept):
    found, _ = localize([("red", 1, 2, 3, 4, score)], labels=["red"], box_floor=0.25)
    assert (found != [nothing("red")]) is kept


@pytest.mark.parametrize("line", [("red", math.nan, 0, 5, 5, 0.5), ("red", 1, 2, 3, 4, math.nan)], ids=str)
def test_what_is_no_number_is_no_answer_and_not_a_tag_asked_in_vain(localize, line):
    found, _ = localize([line], labels=["red"])
    assert found == []


def test_only_the_best_boxes_of_each_tag_are_kept(localize):
    script = [(tag, i, 0, i + 1, 9, (i + 1) / 8) for tag in ("red", "blue") for i in range(7)]
    found, _ = localize(script, max_boxes=2)
    assert [(tag, region, score) for tag, region, *_, score in found] == [
        ("blue", 0, 0.875),
        ("blue", 1, 0.75),
        ("red", 0, 0.875),
        ("red", 1, 0.75),
    ]


def test_equal_scores_are_ordered_by_place_and_not_by_chance(localize, tmp_path):
    boxes = [("red", x, y, x + 5, y + 5, 0.5) for x in (9, 3) for y in (7, 2)]
    found, _ = localize(boxes, labels=["red"])
    assert [line[2:4] for line in found] == [(3, 2), (3, 7), (9, 2), (9, 7)]


def test_only_tags_of_the_kinds_are_asked_for(localize):
    found, model = localize([], labels=["red", "tidy", "hall"])
    assert (found, model.asked) == ([nothing("red")], [["red"]])


def test_further_kinds_can_be_asked_for(localize):
    _, model = localize([], labels=["red", "tidy", "hall"], kinds=["scene", "attribute"])
    assert model.asked == [["hall", "tidy"]]


def test_an_image_without_candidates_is_not_asked_for_and_lives(localize):
    found, model = localize([("red", 1, 2, 3, 4, 0.5)], labels=["no tag"])
    assert (found, model.asked) == ([], [])


class TestClosedList:
    def test_the_model_is_asked_by_its_own_names(self, localize):
        script = [("Crimson", 1, 2, 3, 4, 0.5), ("red_square", 5, 6, 7, 8, 0.75), ("blue", 0, 0, 5, 5, 0.5)]
        found, model = localize(script, classes=["Crimson", "red_square", "blue", "sofa"])
        assert model.asked == [["blue", "Crimson", "red_square"]]
        assert found == [
            ("blue", 0, 0, 0, 5, 5, 0.5),
            ("red", 0, 5, 6, 7, 8, 0.75),
            ("red", 1, 1, 2, 3, 4, 0.5),
        ]

    def test_a_tag_that_it_does_not_know_was_not_asked_for(self, localize):
        found, model = localize([], classes=["blue"])
        assert (found, model.asked) == ([nothing("blue")], [["blue"]])


def test_real_squares_are_found_where_they_are(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 5))
    bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
    bench.candidates()
    (part,) = bench.run(Localize(LocalizeConfig(model="square_models:SquareLocalizer"), bench.shared))
    truth = {
        row: sorted(json.loads(e["meta"])["truth"])
        for row, e in bench.inputs(bench.stages[-1]).examples.items()
    }
    found = {row: [r["tag"] for r in part.of_row(row)] for row in truth}
    assert found == truth
    assert all(r["score"] == pytest.approx(0.9) and r["x2"] <= 96 and r["y2"] <= 80 for r in part.records)


@pytest.mark.parametrize(
    "changes",
    [{"box_floor": 0.2}, {"max_boxes": 3}, {"options": {"script": [], "classes": []}}],
    ids=str,
)
def test_what_changes_the_output_changes_the_spec(changes):
    base = {"model": "odd_models:ScriptedLocalizer", "options": {"script": []}}
    before = Localize(LocalizeConfig(**base), shared()).spec
    assert Localize(LocalizeConfig(**(base | changes)), shared()).spec != before
    assert Localize(LocalizeConfig(**base, batch_size=3), shared()).spec == before


def test_kinds_say_what_is_asked_and_not_how_it_is_answered():
    base = {"model": "odd_models:ScriptedLocalizer", "options": {"script": []}}
    stages = [Localize(LocalizeConfig(**base, **more), shared()) for more in ({}, {"kinds": ["scene"]})]
    assert stages[0].spec == stages[1].spec
    assert [stage.settings["kinds"] for stage in stages] == [["object"], ["scene"]]


def test_images_are_asked_for_what_the_candidates_say_and_for_no_more(tmp_path):
    """Names need not be tags, several may be of one tag, and removed rows are not asked for."""

    def candidate(row, tag, *prompts):
        counts = dict.fromkeys(("given", "parsed", "generated"), 0)
        names = {"prompts": list(prompts), "classes": ["not for a localizer"]}
        return {"row": row, "tag": tag, "kind": "object", **counts, **names}

    contents = [(f"{row}.png", encode(square_image(["red"], row))) for row in range(3)]
    bench = Bench(tmp_path / "run")
    (ingest,) = bench.ingest(write_tar(tmp_path / "a.tar", contents))
    found = [candidate(0, "a", "x", "y"), candidate(0, "b"), candidate(1, "c", "z"), candidate(2, "d", "w")]
    read = {"ingest": ingest, "candidates": part("candidates", candidates.SCHEMA, found)}
    options = {"script": [("y", 1, 2, 3, 4, 0.5), ("w", 1, 2, 3, 4, 0.5)]}
    config = LocalizeConfig(model="odd_models:ScriptedLocalizer", options=options)
    stage = Localize(config, bench.shared)
    stage.setup()
    output = stage.process(Inputs("p", read, {}, bench.roots[bench.names[0]], bitmaps.of([2])))
    assert stage.model.asked == [["x", "y"], ["z"]]
    assert [(r["row"], r["tag"], r["region"]) for r in output.table.to_pylist()] == [
        (0, "a", 0),
        (1, "c", None),
    ]
    assert output.examples == 2
