import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import encode, square_image, write_squares, write_tar
from square_models import SquareTagger
from stage_runs import Bench, as_json, shared
from tagmill.runners.commands.demo import embedded
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import embed
from tagmill.transforms.candidates import Asked
from tagmill.transforms.embed import Embed, EmbedConfig, crop
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.parse import Parse, ParseConfig
from tagmill.transforms.tag import TagConfig

IMAGE = np.arange(40 * 50 * 3, dtype=np.int64).astype(np.uint8).reshape(40, 50, 3)
edge = st.floats(0, 1, width=32)


@given(edge, edge, edge, edge, st.floats(0, 1))
def test_a_crop_is_inside_the_image_holds_the_box_and_has_a_pixel(x1, y1, x2, y2, padding):
    x1, x2 = sorted((x1 * 50, x2 * 50))
    y1, y2 = sorted((y1 * 40, y2 * 40))
    places = np.stack(np.meshgrid(np.arange(40), np.arange(50), indexing="ij"), axis=-1)
    cut = crop(places, {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, padding)
    assert cut.size > 0
    (top, left), (bottom, right) = cut[0, 0], cut[-1, -1]
    assert cut.shape[:2] == (bottom - top + 1, right - left + 1)
    assert left <= min(x1, 49)
    assert right + 1 >= min(x2, 50)
    assert top <= min(y1, 39)
    assert bottom + 1 >= min(y2, 40)
    dx, dy = (x2 - x1) * padding, (y2 - y1) * padding
    assert left > x1 - dx - 1 or left == 49
    assert right < x2 + dx + 1
    assert top > y1 - dy - 1 or top == 39
    assert bottom < y2 + dy + 1


@pytest.mark.parametrize(
    ("box", "padding", "expected"),
    [
        ((10, 10, 20, 30), 0, (10, 30, 10, 20)),
        ((10, 10, 20, 30), 0.1, (8, 32, 9, 21)),
        ((0, 0, 50, 40), 1, (0, 40, 0, 50)),
        ((10.2, 10.2, 10.4, 10.4), 0, (10, 11, 10, 11)),
        ((49.9, 39.9, 50, 40), 0, (39, 40, 49, 50)),
        ((50, 40, 50, 40), 0, (39, 40, 49, 50)),
        ((0, 0, 0, 0), 0, (0, 1, 0, 1)),
    ],
    ids=str,
)
def test_crops(box, padding, expected):
    top, bottom, left, right = expected
    region = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
    assert np.array_equal(crop(IMAGE, region, padding), IMAGE[top:bottom, left:right])


@pytest.fixture
def run(tmp_path):
    """Embed the boxes of a script on one image of a red square, for given labels."""

    def run(
        script, labels=("red", "blue", "green"), vectors=None, tagger="square_models:SquareTagger", **changes
    ):
        contents = [("a.png", encode(square_image(["red"]))), ("a.json", as_json({"labels": list(labels)}))]
        bench = Bench(tmp_path / "run")
        bench.ingest(write_tar(tmp_path / "a.tar", contents))
        bench.candidates(Asked(tagger=SquareTagger.classes if tagger else None, localizer=True))
        model = "odd_models:ScriptedLocalizer"
        bench.run(Localize(LocalizeConfig(model=model, options={"script": script}), bench.shared))
        options = {"vectors": vectors or {"red": (1, 0), "blue": (0, 1), "green": (0.6, 0.8)}}
        config = EmbedConfig(model="odd_models:FixedEmbedder", options=options, **changes)
        stage = Embed(config, bench.shared, TagConfig(model=tagger) if tagger else None)
        (part,) = bench.run(stage)
        assert part.table.schema.equals(embed.SCHEMA)
        return part, stage.model

    return run


WHOLE = (0, 0, 96, 80)


def test_a_region_is_compared_with_its_own_tag_and_the_best_other(run):
    part, _ = run([("red", *WHOLE, 0.5), ("blue", *WHOLE, 0.5)])
    scores = {r["tag"]: (r["own_score"], r["other_score"], r["other_tag"]) for r in part.records}
    assert scores == {
        "red": (1, pytest.approx(0.6), "green"),
        "blue": (0, 1, "red"),
    }
    assert [r["embedding"] for r in part.records] == [[1, 0], [1, 0]]
    assert part.header.tags == ["blue", "red"]


def test_a_tag_that_was_asked_for_in_vain_is_still_another_tag(run):
    part, _ = run([("blue", *WHOLE, 0.5)], labels=["red", "blue"])
    assert [(r["tag"], r["other_tag"]) for r in part.records] == [("blue", "red")]


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ({"red": (1, 0)}, (1, None, None)),
        ({"green": (0.6, 0.8)}, (None, pytest.approx(0.6), "green")),
        ({"none": (1, 0)}, (None, None, None)),
        ({"red": (1, 0), "blue": (0, 1), "green": (0, 1)}, (1, 0, "blue")),
    ],
    ids=["own only", "other only", "neither", "two others alike"],
)
def test_names_that_cannot_be_embedded_have_no_score(run, vectors, expected):
    part, _ = run([("red", *WHOLE, 0.5)], vectors=vectors)
    (record,) = part.records
    assert (record["own_score"], record["other_score"], record["other_tag"]) == expected


def test_a_tag_alone_has_no_other(run):
    part, _ = run([("red", *WHOLE, 0.5)], labels=["red"])
    assert (part.records[0]["other_score"], part.records[0]["other_tag"]) == (None, None)


def test_all_boxes_are_embedded_in_the_order_of_the_regions(run):
    script = [("red", 0, 0, 10 * i, 8 * i, i / 10) for i in range(1, 8)]
    part, model = run(script, batch_size=2, padding=0)
    assert [(r["tag"], r["region"]) for r in part.records] == [("red", i) for i in range(7)]
    assert model.sizes == [(8 * i, 10 * i, 3) for i in range(7, 0, -1)]


def test_an_image_without_boxes_has_no_row_and_lives(run):
    part, model = run([])
    assert (part.records, part.header.lost, part.header.tags, model.sizes) == ([], 0, [], [])
    assert part.header.counts.of("example") == {"in": 1, "out": 1, "dropped": 0, "dead": 0}


REGIONS = [("red", *WHOLE, 0.9), ("red", 0, 0, 9, 9, 0.4), ("blue", *WHOLE, 0.9), ("tidy", *WHOLE, 0.9)]


@pytest.mark.parametrize(
    ("mode", "doubtful_box", "asked"),
    [
        ("off", 0.5, set()),
        ("doubtful", 0.5, {("red", 1), ("blue", 0)}),  # a weak box; closer to red
        ("doubtful", 0.0, {("blue", 0)}),
        ("all", 0.5, {("red", 0), ("red", 1), ("blue", 0)}),  # the tagger does not know what is tidy
    ],
    ids=["off", "doubtful", "only closer to another", "all"],
)
def test_the_tagger_is_asked_about_regions(run, mode, doubtful_box, asked):
    part, _ = run(
        [line for line in REGIONS if line[0] != "tidy"],
        labels=["red", "blue", "tidy"],
        region_tagger=mode,
        doubtful_box=doubtful_box,
        batch_size=1,
    )
    scores = {(r["tag"], r["region"]): r["region_score"] for r in part.records}
    assert {place for place, score in scores.items() if score is not None} == asked
    assert all(scores[place] == (1.0 if place == ("red", 0) else 0.0) for place in asked)


def test_without_a_tagger_no_region_is_asked_about(run):
    part, _ = run(REGIONS, tagger=None, region_tagger="all")
    assert {r["region_score"] for r in part.records} == {None}


def test_a_regions_tagger_is_part_of_the_spec_only_where_it_is_asked():
    bench = Bench(None)

    def spec(mode, tagger="square_models:SquareTagger"):
        config = EmbedConfig(model="square_models:SquareEmbedder", region_tagger=mode)
        return Embed(config, bench.shared, TagConfig(model=tagger)).spec

    other = "square_models:SquareLocalizer"
    assert spec("off", other) == spec("off")
    assert spec("all", other) != spec("all")
    assert spec("all") != spec("doubtful")


@pytest.mark.parametrize(("mode", "reads"), [("off", False), ("doubtful", True), ("all", True)])
def test_candidates_are_read_only_for_the_taggers_classes(mode, reads):
    config = EmbedConfig(model="square_models:SquareEmbedder", region_tagger=mode)
    tagger = TagConfig(model="square_models:SquareTagger")
    assert ("candidates" in Embed(config, shared(), tagger).inputs()) is reads
    assert "candidates" not in Embed(config, shared()).inputs()


def test_a_region_has_the_highest_score_of_the_classes_of_its_tag(tmp_path):
    vocabulary = Vocabulary.from_text("thing\tobject\tblue|red|yellow\nother\tobject\tgreen\n", "t")
    bench = Bench(tmp_path / "run", vocabulary=vocabulary)
    fields = as_json({"labels": ["thing", "other"]})
    contents = [("a.png", encode(square_image(["blue"]))), ("a.json", fields)]
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    (found,) = bench.candidates(Asked(tagger=SquareTagger.classes, localizer=True))
    classes = {"other": ["green"], "thing": ["red", "blue", "yellow"]}
    assert {r["tag"]: r["classes"] for r in found.records} == classes
    script = [("thing", *WHOLE, 0.5), ("other", *WHOLE, 0.5)]
    model = "odd_models:ScriptedLocalizer"
    bench.run(Localize(LocalizeConfig(model=model, options={"script": script}), bench.shared))
    options = {"vectors": {"thing": (1, 0)}}
    config = EmbedConfig(model="odd_models:FixedEmbedder", options=options, region_tagger="all")
    (part,) = bench.run(Embed(config, bench.shared, TagConfig(model="square_models:SquareTagger")))
    assert {r["tag"]: r["region_score"] for r in part.records} == {"other": 0.0, "thing": 1.0}


def test_real_squares_look_most_like_themselves(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 5))
    bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
    bench.candidates(Asked(tagger=SquareTagger.classes, localizer=True))
    bench.run(Localize(LocalizeConfig(model="square_models:SquareLocalizer"), bench.shared))
    config = EmbedConfig(model="square_models:SquareEmbedder", region_tagger="all")
    (part,) = bench.run(Embed(config, bench.shared, TagConfig(model="square_models:SquareTagger")))
    assert len(part.records) == len(bench.part("localize").records)
    for record in part.records:
        assert record["own_score"] > 0.9 > (record["other_score"] or 0)
        assert record["region_score"] == 1


@pytest.mark.parametrize("mode", ["off", "doubtful"])
def test_pixels_are_kept_only_of_regions_that_the_tagger_may_be_asked_about(mode):
    config = EmbedConfig(model="square_models:SquareEmbedder", region_tagger=mode)
    stage = Embed(config, shared(), TagConfig(model="square_models:SquareTagger"))
    stage.setup()
    place = {"x1": 10, "y1": 10, "x2": 20, "y2": 30}
    known = {} if mode == "off" else {"red": [0]}
    kept = [stage._cut(IMAGE, {"tag": tag, **place}, known).pixels is not None for tag in ("red", "tidy")]
    assert kept == [mode != "off", False]
    assert stage._held((50, 40), [place]) == 3 * (12 * 24 + (0 if mode == "off" else 50 * 40))


def test_a_tag_is_the_same_vector_whatever_was_met_before(tmp_path):
    options = {"model": f"local-dir:{embedded() / 'clip'}", "device": "cpu"}
    texts = []
    for tags in (["dog"], ["cat", "dog", "red", "rose", "shoe"]):
        stage = Embed(EmbedConfig(model="open-clip", options=options), Bench(tmp_path / "run").shared, None)
        stage.setup()
        stage._learn(tags)
        texts.append(stage._text["dog"])
    assert texts[0].tobytes() == texts[1].tobytes()
