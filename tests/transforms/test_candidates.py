import pytest

from stage_runs import SQUARES, example, ingest_part, part
from tagmill.transforms import caption, parse, tag
from tagmill.transforms.candidates import Sources, gather
from tagmill.transforms.class_names import ClassNames
from tagmill.transforms.parts import Inputs


def mentions(*tags):
    return [{"tag": t, "kind": "object", "surface": t, "start": 0, "end": 1} for t in tags]


def scored(*records, classes=("red", "green", "blue")):
    notes = {"scored": ClassNames(classes, SQUARES).mask(len(SQUARES))}
    return part("tag", tag.SCHEMA, [{"row": r, "tag": t, "score": s} for r, t, s in records], notes=notes)


def parsed(*captions):
    records = [{"row": r, "caption_index": i, "mentions": mentions(*tags)} for r, i, tags in captions]
    return part("parse", parse.SCHEMA, records)


def generated(*captions):
    records = [{"row": r, "caption": "c", "mentions": mentions(*tags)} for r, tags in captions]
    return part("caption", caption.SCHEMA, records)


def labels(*names):
    return [{"name": name, "box": None} for name in names]


def inputs(*examples, **others):
    return Inputs("p", {"ingest": ingest_part(*examples), **others}, {}, "")


def test_every_source_is_counted():
    found = gather(
        inputs(
            example(0, labels=labels("red", "Red_Square", "no tag")),
            parse=parsed((0, 0, ["red", "blue"]), (0, 1, ["red"])),
            caption=generated((0, ["red", "tidy"])),
            tag=scored((0, "red", 0.5), (0, "green", 0.3)),
        ),
        SQUARES,
        0.3,
    )
    assert found == {
        0: {
            "blue": Sources(parsed=1, tagger=0.0),
            "green": Sources(tagger=pytest.approx(0.3)),
            "red": Sources(given=2, parsed=2, generated=1, tagger=0.5),
            "tidy": Sources(generated=1),
        }
    }
    assert list(found[0]) == sorted(found[0])


def test_the_taggers_score_is_nobodys_word_under_the_floor_but_evidence_on_named_tags():
    found = gather(
        inputs(example(0, labels=labels("red")), tag=scored((0, "green", 0.29), (0, "red", 0.1))),
        SQUARES,
        0.3,
    )
    assert found == {0: {"red": Sources(given=1, tagger=pytest.approx(0.1))}}


def test_the_floor_itself_is_enough():
    found = gather(inputs(example(0), tag=scored((0, "red", 0.5))), SQUARES, 0.5)
    assert found == {0: {"red": Sources(tagger=0.5)}}


def test_a_tag_that_the_tagger_does_not_know_has_no_score_and_one_that_it_did_not_see_has_zero():
    found = gather(inputs(example(0, labels=labels("purple", "blue")), tag=scored()), SQUARES, 0.3)
    assert found == {0: {"blue": Sources(given=1, tagger=0.0), "purple": Sources(given=1)}}


def test_without_a_tagger_nothing_has_a_score():
    assert gather(inputs(example(0, labels=labels("red"))), SQUARES, 0.3) == {0: {"red": Sources(given=1)}}


def test_rows_do_not_mix_and_one_without_candidates_stays():
    found = gather(inputs(example(0), example(3), parse=parsed((3, 0, ["red"]))), SQUARES, 0.3)
    assert found == {0: {}, 3: {"red": Sources(parsed=1)}}
