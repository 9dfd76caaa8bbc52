import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import write_squares
from square_models import SquareTagger
from stage_runs import SQUARES, Bench, example, ingest_part, part, shared
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, parse, tag
from tagmill.transforms.candidates import SCHEMA, Asked, Candidates, CandidatesConfig
from tagmill.transforms.caption import Caption, CaptionConfig
from tagmill.transforms.duplicates import Duplicates, DuplicatesConfig
from tagmill.transforms.parse import Parse, ParseConfig
from tagmill.transforms.parts import Inputs
from tagmill.transforms.tag import TagConfig, TagStage

KINDS = Vocabulary.from_text(
    "red\tobject\tred square|crimson\nblue\tobject\tblue square\ntidy\tattribute\nhall\tscene\nrun\taction\n",
    "t",
)
KNOWN = Asked(tagger=("red", "green", "blue"), localizer=True)


def single(value):
    """The float32 nearest to a number, which is what a table holds of it."""
    return float(np.float32(value))


def mentions(*tags):
    return [{"tag": t, "kind": "object", "surface": t, "start": 0, "end": 1} for t in tags]


def scored(*records):
    """A part of tag: (row, class, score)."""
    return part("tag", tag.SCHEMA, [{"row": r, "name": n, "score": s} for r, n, s in records])


def parsed(*captions):
    """A part of parse: (row, source, tags)."""
    records = [
        {"row": r, "source": source, "caption_index": i, "mentions": mentions(*tags)}
        for i, (r, source, tags) in enumerate(captions)
    ]
    return part("parse", parse.SCHEMA, records)


def labels(*names):
    return [{"name": name, "box": None} for name in names]


def inputs(*examples, removed=(), **others):
    return Inputs("p", {"ingest": ingest_part(*examples), **others}, {}, "", bitmaps.of(removed))


def stage_of(asked=KNOWN, vocabulary=SQUARES, **changes):
    return Candidates(CandidatesConfig(**changes), shared(), vocabulary, asked)


def gather(found, asked=KNOWN, vocabulary=SQUARES, **changes):
    stage = stage_of(asked, vocabulary, **changes)
    stage.setup()
    output = stage.process(found)
    assert output.table.schema.equals(SCHEMA)
    assert (output.examples, output.captions, output.dead, output.dropped) == (len(found.rows), 0, [], {})
    return output


def sources(found, asked=KNOWN, **changes):
    """What the sources say: by row and tag, in the order of the table."""
    names = ("given", "parsed", "generated", "tagger")
    rows = gather(found, asked, **changes).table.to_pylist()
    return {(r["row"], r["tag"]): tuple(r[name] for name in names) for r in rows}


def test_every_source_is_counted():
    captions = [(0, "given", ["red", "blue"]), (0, "given", ["red"]), (0, "generated", ["red", "tidy"])]
    found = sources(
        inputs(
            example(0, labels=labels("red", "Red_Square", "no tag")),
            parse=parsed(*captions),
            tag=scored((0, "red", 0.5), (0, "green", 0.3)),
        )
    )
    assert found == {
        (0, "blue"): (0, 1, 0, 0.0),
        (0, "green"): (0, 0, 0, single(0.3)),
        (0, "red"): (2, 2, 1, 0.5),
        (0, "tidy"): (0, 0, 1, None),
    }
    assert list(found) == sorted(found)


def test_a_caption_that_names_a_tag_twice_counts_once():
    captions = [(0, "given", ["red", "red"]), (0, "generated", ["red", "red"])]
    assert sources(inputs(example(0), parse=parsed(*captions))) == {(0, "red"): (0, 1, 1, 0.0)}


def test_hard_negatives_are_not_proposed_yet():
    table = gather(inputs(example(0, labels=labels("red")))).table
    assert table["probe"].to_pylist() == [None]


class TestTagger:
    def test_its_score_is_nobodys_word_under_the_floor_but_evidence_on_named_tags(self):
        found = inputs(example(0, labels=labels("red")), tag=scored((0, "green", 0.29), (0, "red", 0.1)))
        assert sources(found) == {(0, "red"): (1, 0, 0, single(0.1))}

    @pytest.mark.parametrize("source", ["given", "generated"])
    def test_its_score_is_evidence_on_tags_of_captions_too(self, source):
        found = inputs(example(0), parse=parsed((0, source, ["red"])), tag=scored((0, "red", 0.1)))
        assert sources(found)[0, "red"][3] == single(0.1)

    @pytest.mark.parametrize(("floor", "found"), [(0.5, True), (0.51, False), (0.0, True)], ids=str)
    def test_the_floor_itself_is_enough(self, floor, found):
        said = sources(inputs(example(0), tag=scored((0, "red", 0.5))), candidate_floor=floor)
        assert said == ({(0, "red"): (0, 0, 0, 0.5)} if found else {})

    def test_a_tag_that_it_does_not_know_has_no_score_and_one_that_it_did_not_see_has_zero(self):
        found = sources(inputs(example(0, labels=labels("purple", "blue")), tag=scored()))
        assert found == {(0, "blue"): (1, 0, 0, 0.0), (0, "purple"): (1, 0, 0, None)}

    def test_without_a_tagger_nothing_has_a_score(self):
        found = gather(inputs(example(0, labels=labels("red"))), Asked(localizer=True))
        (record,) = found.table.to_pylist()
        assert (record["given"], record["tagger"], record["classes"]) == (1, None, [])
        assert found.notes == {}

    def test_several_classes_of_one_tag_give_the_highest_score(self):
        asked = Asked(tagger=("Crimson", "red_square", "blue"))
        seen = [(0, "Crimson", 0.25), (0, "red_square", 0.75), (1, "Crimson", 0.5), (2, "Crimson", 0.1)]
        examples = (example(0), example(1), example(2))
        found = gather(inputs(*examples, tag=scored(*seen)), asked, KINDS).table.to_pylist()
        assert [(r["row"], r["tag"], r["tagger"]) for r in found] == [(0, "red", 0.75), (1, "red", 0.5)]
        assert found[0]["classes"] == ["Crimson", "red_square"]

    @given(
        st.lists(
            st.sampled_from(["red", "crimson", "Red_Square", "blue", "sofa", "hall"]), min_size=1, unique=True
        ),
        st.floats(0, 1, width=32),
        st.data(),
    )
    def test_every_mapped_class_counts(self, classes, floor, data):
        score = st.none() | st.floats(0, 1, width=32)  # one that is not written lies under its stage's floor
        scores = {name: data.draw(score) for name in classes}
        named = data.draw(st.sets(st.sampled_from(["red", "blue", "tidy"])))
        written = scored(*((0, name, value) for name, value in scores.items() if value is not None))
        found = gather(
            inputs(example(0, labels=labels(*named)), tag=written),
            Asked(tagger=tuple(classes)),
            KINDS,
            candidate_floor=floor,
        )
        best, proposed = {}, set()
        for name, value in scores.items():
            known = KINDS.resolve(name)
            if known is not None:
                best[known.name] = max(best.get(known.name, 0), value or 0)
                if value is not None and value >= floor:
                    proposed.add(known.name)
        expected = {name: best.get(name) for name in named | proposed}
        assert {r["tag"]: r["tagger"] for r in found.table.to_pylist()} == expected

    def test_what_is_no_tag_is_noted(self):
        found = gather(inputs(example(0)), Asked(tagger=("red", "sofa", "blue", "lamp")))
        assert found.notes == {"unmapped_classes": 2, "unmapped": "sofa, lamp"}

    def test_processing_before_setup_is_a_bug(self):
        with pytest.raises(RuntimeError, match="call setup"):
            stage_of().process(inputs(example(0)))


class TestAsked:
    """Which names of a model stand for a candidate, and what a localizer is asked."""

    def asked(self, asked=KNOWN, names=("red", "tidy", "hall", "run"), **changes):
        found = gather(inputs(example(0, labels=labels(*names))), asked, KINDS, **changes).table.to_pylist()
        return {r["tag"]: r["prompts"] for r in found}

    def test_every_candidate_has_its_kind(self):
        found = gather(inputs(example(0, labels=labels("red", "tidy", "hall", "run"))), KNOWN, KINDS).table
        assert dict(zip(found["tag"].to_pylist(), found["kind"].to_pylist(), strict=True)) == {
            "hall": "scene",
            "red": "object",
            "run": "action",
            "tidy": "attribute",
        }

    def test_only_tags_of_the_kinds_are_asked_for(self):
        assert self.asked() == {"hall": [], "red": ["red"], "run": [], "tidy": []}

    def test_further_kinds_can_be_asked_for(self):
        kinds = ["scene", "attribute"]
        assert self.asked(kinds=kinds) == {"hall": ["hall"], "red": [], "run": [], "tidy": ["tidy"]}
        assert self.asked(kinds=[]) == {"hall": [], "red": [], "run": [], "tidy": []}

    def test_a_localizer_of_a_closed_list_is_asked_by_its_own_names(self):
        closed = Asked(localizer=True, localized=("Crimson", "red_square", "blue", "sofa"))
        assert self.asked(closed, ["red", "blue"]) == {"blue": ["blue"], "red": ["Crimson", "red_square"]}

    def test_a_tag_that_a_closed_list_does_not_have_is_not_asked_for(self):
        closed = Asked(localizer=True, localized=("blue",))
        assert self.asked(closed, ["red", "blue"]) == {"blue": ["blue"], "red": []}
        assert self.asked(Asked(localizer=True, localized=()), ["red"]) == {"red": []}

    def test_without_a_localizer_nothing_is_asked_for(self):
        assert self.asked(Asked(tagger=("red",)), ["red"]) == {"red": []}

    def test_the_classes_are_the_taggers_own_names_whatever_the_kind(self):
        tagger = Asked(tagger=("hall", "red_square", "sofa", "Crimson"), localizer=True)
        found = gather(inputs(example(0, labels=labels("red", "hall", "blue"))), tagger, KINDS).table
        assert {r["tag"]: r["classes"] for r in found.to_pylist()} == {
            "blue": [],
            "hall": ["hall"],
            "red": ["red_square", "Crimson"],
        }


class TestRows:
    def test_rows_do_not_mix_and_one_without_candidates_stays(self):
        found = gather(inputs(example(0), example(3), parse=parsed((3, "given", ["red"]))))
        assert [(r["row"], r["tag"]) for r in found.table.to_pylist()] == [(3, "red")]
        assert found.examples == 2

    def test_removed_rows_have_none(self):
        read = {"parse": parsed((1, "given", ["red"])), "tag": scored((1, "blue", 0.9), (2, "blue", 0.9))}
        found = inputs(example(0), example(1, labels=labels("red")), example(2), removed=[1], **read)
        assert sources(found) == {(2, "blue"): (0, 0, 0, single(0.9))}

    def test_copies_have_no_candidates(self, tmp_path):
        bench = Bench(tmp_path / "run", part_size=3)
        for name in ("a", "b"):
            bench.ingest(write_squares(tmp_path / f"{name}.tar", 3))
        tagger = TagStage(TagConfig(model="square_models:SquareTagger"), bench.shared)
        assert [part.header.rows for part in bench.run(tagger)] == [0b111, 0b111]
        bench.run(Duplicates(DuplicatesConfig(), bench.shared))
        first, second = bench.candidates(Asked(tagger=SquareTagger.classes, localizer=True))
        assert {r["row"] for r in first.records} == {0, 1, 2}
        assert (second.records, second.header.rows) == ([], 0)


class TestSlices:
    """What a model is asked, and nothing else, decides whether it is asked again."""

    def slices(self, asked=KNOWN, vocabulary=SQUARES, names=("red", "tidy"), scores=(), row=0, **changes):
        found = inputs(example(row, labels=labels(*names)), tag=scored(*scores))
        table = gather(found, asked, vocabulary, **changes).table
        return stage_of(asked, vocabulary, **changes).cut_slices(table)

    def changed(self, **changes):
        before, after = self.slices(), self.slices(**changes)
        assert before.keys() == after.keys() == {"prompts", "classes"}
        return {name for name in before if before[name] != after[name]}

    @pytest.mark.parametrize(
        "changes",
        [
            {"names": ("red", "red", "tidy")},
            {"scores": [(0, "red", 0.9)]},
            {"scores": [(0, "blue", 0.29)]},
            {"names": ("red",)},
            {"names": ("red", "Red_Square", "no tag")},
            {"candidate_floor": 0.9},
            {"asked": Asked(tagger=("blue", "red", "sofa"), localizer=True)},
            {"asked": Asked(tagger=KNOWN.tagger, localizer=True, localized=("red", "sofa"))},
            {"vocabulary": Vocabulary.from_text(SQUARES.dump() + "sofa\tobject\tcouch\n", "more")},
        ],
        ids=[
            "another label of a tag",
            "a score of a named tag",
            "a score under the floor",
            "one tag less that is not asked for",
            "other names of the same tags",
            "another floor",
            "other classes of the tagger for other tags",
            "a closed list with the same names",
            "a word more",
        ],
    )
    def test_what_asks_no_model_another_thing_changes_none(self, changes):
        assert self.changed(**changes) == set()

    @pytest.mark.parametrize(
        "changes",
        [
            {"names": ("red", "blue", "tidy")},
            {"names": ("tidy",)},
            {"scores": [(0, "blue", 0.9)]},
            {"kinds": ["object", "attribute"]},
            {"row": 1},
        ],
        ids=["another tag", "a tag less", "one that the tagger sees", "another kind", "another row"],
    )
    def test_other_tags_change_both(self, changes):
        assert self.changed(**changes) == {"prompts", "classes"}

    def test_another_name_for_the_localizer_is_nothing_to_the_tagger(self):
        closed = Asked(tagger=KNOWN.tagger, localizer=True, localized=("red_square",))
        assert self.changed(asked=closed) == {"prompts"}

    def test_another_class_of_the_tagger_is_nothing_to_the_localizer(self):
        asked = Asked(tagger=(*KNOWN.tagger, "red_square"), localizer=True)
        assert self.changed(asked=asked) == {"classes"}


class TestMeaning:
    def test_it_says_vocabulary_floor_kinds_and_who_is_asked(self):
        specs = [
            stage_of().spec,
            stage_of(vocabulary=Vocabulary.from_text("red", "x")).spec,
            stage_of(candidate_floor=0.4).spec,
            stage_of(kinds=["scene"]).spec,
            stage_of(Asked(tagger=("red",), localizer=True)).spec,
            stage_of(Asked(tagger=KNOWN.tagger)).spec,
            stage_of(Asked(localizer=True)).spec,
            stage_of(Asked()).spec,
            stage_of(Asked(tagger=KNOWN.tagger, localizer=True, localized=("red",))).spec,
            stage_of(Asked(tagger=KNOWN.tagger, localizer=True, localized=())).spec,
        ]
        assert len({json.dumps(spec, sort_keys=True) for spec in specs}) == len(specs)
        assert all(spec.keys() == {"config", "vocabulary", "asked"} for spec in specs)

    def test_it_does_not_say_how_a_list_of_names_is_held(self):
        lists = Asked(tagger=list(KNOWN.tagger), localizer=True)
        assert stage_of(lists).spec == stage_of().spec
        assert Candidates(CandidatesConfig(), shared(threads=7), SQUARES, KNOWN).spec == stage_of().spec


def test_the_whole_way_over_real_squares(tmp_path):
    bench = Bench(tmp_path / "run", part_size=4)
    bench.ingest(write_squares(tmp_path / "a.tar", 7), labels="truth")
    bench.run(Caption(CaptionConfig(model="square_models:SquareCaptioner"), bench.shared))
    bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
    bench.run(TagStage(TagConfig(model="square_models:SquareTagger"), bench.shared))
    asked = Asked(tagger=SquareTagger.classes, localizer=True)
    for made, name in zip(bench.candidates(asked), bench.names, strict=True):
        assert made.table.schema.equals(SCHEMA)
        for record in bench.part("ingest", name).records:
            truth = sorted(label["name"] for label in record["labels"])
            found = made.of_row(record["row"])
            assert [r["tag"] for r in found] == truth
            for r in found:
                assert (r["given"], r["parsed"], r["generated"], r["kind"]) == (1, 1, 1, "object")
                assert r["tagger"] > 0.3
                assert r["prompts"] == r["classes"] == [r["tag"]]
