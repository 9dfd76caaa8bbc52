import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from runs import samples
from sources import VOCABULARY
from tagmill.models.training.datasets import read_manifest
from tagmill.models.training.targets import ClassMap, Marks, NewerTag, TagChoice, choose
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Evidence
from tagmill.tag_system.shard_contract import Sample
from tagmill.tag_system.vocabulary import Vocabulary

CLASSES = ("violet", "red", "green square", "Blue", "yellow", "tidy")


@pytest.fixture
def classes():
    return ClassMap(CLASSES, Vocabulary.from_text(VOCABULARY, "vocabulary.tsv"))


@pytest.fixture(scope="module")
def wrong(finished):
    """The picture of a blue square, blue by the generated caption, whose given caption says yellow."""
    (found,) = [sample for sample in samples(finished / "run") if sample["key"] == "squares/wrong"]
    return Sample.model_validate(found)


def tag(name, verdict="kept", **evidence):
    return NewerTag(name, verdict, "given", "given", Evidence(**evidence))


def test_classes_are_found_by_name_and_alias(classes):
    assert classes.unknown == ["violet"]
    assert classes.unmapped == ["purple"]
    target = classes.target([tag("green"), tag("blue"), tag("purple")], ["red", "purple"], None)
    assert target.values.tolist() == [0, 0, 1, 1, 0, 0]
    assert target.known.tolist() == [0, 1, 1, 1, 1, 1]
    assert target.mentioned.tolist() == [False, True, False, False, False, False]
    assert target.unmapped == ("purple",)


def test_two_classes_of_one_tag_share_its_target():
    classes = ClassMap(("red", "red square"), Vocabulary.from_text(VOCABULARY, ""))
    assert classes.target([tag("red")], [], None).values.tolist() == [1, 1]


def test_dropped_is_a_negative_and_uncertain_is_masked(classes):
    tags = [tag("red", "dropped"), tag("green", "uncertain"), tag("purple", "uncertain"), tag("tidy")]
    target = classes.target(tags, [], None)
    assert target.values.tolist() == [0, 0, 0, 0, 0, 1]
    assert target.known.tolist() == [0, 1, 0, 1, 1, 1]
    assert target.unmapped == ()
    assert {target.values.dtype, target.known.dtype} == {np.dtype(np.float32)}


def test_samples_do_not_change_each_others_targets(classes):
    classes.target([tag("red", "uncertain")], [], None)
    assert classes.target([], [], None).known.tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("tags", "blue", "yellow"),
    [
        ("stored", (1, 1), (0, 0)),
        ("parsed", (0, 1), (1, 1)),
        ("proposed", (1, 1), (1, 1)),
        ("paper", (1, 1), (1, 1)),
        ("adaptive", (1, 1), (0, 0)),
    ],
)
def test_presets_change_targets(shards, classes, wrong, tags, blue, yellow):
    target = classes.target(wrong.tags, [], choose(tags, read_manifest(str(shards))))
    found = [(target.values[place], target.known[place]) for place in (3, 4)]
    assert found == [blue, yellow]


def test_deciding_again_by_the_stored_policy_gives_the_stored_verdicts(shards, classes, finished):
    again = choose("adaptive", read_manifest(str(shards)))
    for record in samples(finished / "run"):
        tags = Sample.model_validate(record).tags
        assert [again.verdict(tag) for tag in tags] == [tag.verdict for tag in tags]


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [
        ({}, "kept"),
        ({"policy": {"tagger_threshold": 0.95}}, "dropped"),
        ({"policy": {"rule": "paper", "paper": {"outlier_fraction": 0.5}}}, "dropped"),
        ({"policy": {"rule": "paper", "paper": {"outlier_fraction": 0.5}}, "regions": False}, "kept"),
        ({"policy": {"tagger_threshold": 0.95}, "regions": False}, "dropped"),
        ({"sources": ["parsed", "generated"]}, "dropped"),
    ],
    ids=[
        "default",
        "higher threshold",
        "outlier",
        "regions unseen",
        "unseen but not named",
        "tagger unheard",
    ],
)
def test_any_policy_and_any_sources(choice, verdict):
    found = tag("red", tagger=0.9, asked=True, boxes=1, box_score=0.8, distance_rank=0.6)
    assert TagChoice.model_validate({"policy": {}} | choice).verdict(found) == verdict


def test_a_misspelt_choice_is_refused():
    with pytest.raises(ValidationError, match="sources"):
        TagChoice.model_validate({"policy": {}, "sources": ["tager"]})


def test_a_preset_without_the_datasets_policy_is_refused_unless_it_is_stored(shards):
    manifest = read_manifest(str(shards)).model_copy(update={"made_by": {}})
    assert choose("stored", manifest) is None
    with pytest.raises(ConfigError, match="write tags as policy, sources and regions"):
        choose("paper", manifest)


def test_a_rule_of_somebody_else_is_needed_only_where_it_decides(shards):
    manifest = read_manifest(str(shards))
    clean = {"config": {"policy": {"rule": "rules_of_nobody:Boxed", "options": {"least": 0.5}}}}
    foreign = manifest.model_copy(update={"made_by": {"stages": {"clean": clean}}})
    for preset in ("stored", "parsed", "proposed", "paper", "adaptive"):
        choose(preset, foreign)
    policy = {"rule": "rules_of_nobody:Boxed"}
    choose(TagChoice.model_validate({"policy": policy, "regions": False}), manifest)
    with pytest.raises(ConfigError, match="cannot import rules_of_nobody"):
        choose(TagChoice.model_validate({"policy": policy}), manifest)


def test_marks_count_for_what_was_not_decided_on_and_absence_for_what_is_uncertain(classes):
    tags = [tag("red", "uncertain"), tag("green", "uncertain"), tag("yellow"), tag("blue", "dropped")]
    marks = Marks(positive=["tidy", "red", "blue"], absent=["green", "yellow", "purple"])
    target = classes.target(tags, ["green", "red"], None, marks)
    assert target.values.tolist() == [0, 0, 0, 0, 1, 1]
    assert target.known.tolist() == [0, 0, 1, 1, 1, 1]
    assert target.mentioned.tolist() == [False, True, False, False, False, False]
    left_out = classes.target(tags, [], None, Marks(masked=["tidy", "purple", "yellow"]))
    assert left_out.values.tolist() == [0, 0, 0, 0, 1, 0]
    assert left_out.known.tolist() == [0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("policy", "value", "known"),
    [
        ({}, 0, 1),
        ({"implied": "ignored"}, 0, 0),
        ({"implied": "positive"}, 1, 1),
        ({"implied": "positive", "tags": "parsed"}, 0, 0),
    ],
)
def test_marks_in_shards_count_by_the_policy_of_their_dataset(copied, loader_of, policy, value, known):
    uncertain = set()
    for tar in copied.glob("train-*.tar"):
        with tar.open("r+b") as stream:
            for row in pq.read_table(tar.with_suffix(".index.parquet")).to_pylist():
                if row["member"].endswith(".json"):
                    stream.seek(row["offset"])
                    record = json.loads(stream.read(row["size"]))
                    for tag in record["tags"]:
                        tag["evidence"] = []  # makes room
                    open_ = [tag["tag"] for tag in record["tags"] if tag["verdict"] == "uncertain"]
                    uncertain.update((record["key"], tag) for tag in open_)
                    record |= {"implied": ["tidy"], "absent": open_}
                    text = json.dumps(record, separators=(",", ":")).encode()
                    assert len(text) <= row["size"]
                    stream.seek(row["offset"])
                    stream.write(text.ljust(row["size"]))
    assert uncertain

    def batch_of(**how):
        (batch,) = loader_of(None, datasets=[{"path": str(copied), **policy, **how}], batch_size=14)
        return batch

    batch = batch_of()
    assert batch.targets[:, 5].tolist() == [value] * 14
    assert batch.known[:, 5].tolist() == [known] * 14
    masked = {
        how: int((batch_of(absent=how, implied="negative").known[:, 1:5] == 0).sum())
        for how in ("negative", "decided")
    }
    assert masked["negative"] == 0
    assert masked["decided"] > 0 or "tags" in policy
    read, *_ = loader_of(None, datasets=[{"path": str(copied), **policy}], batch_size=14).targets(99)
    assert {float(target.known[5]) for _, target in read} == {known}
