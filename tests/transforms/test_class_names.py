import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.class_names import ClassNames, masked_tags, summary

VOCABULARY = Vocabulary.from_text("dog\tobject\tpuppy|hound\ncat\nhot dog\ntree\n", "test")


def test_classes_are_mapped_by_name_and_alias_and_several_may_be_one_tag():
    names = ClassNames(["Cat", "sofa", "puppy", "hot_dog", "dog"], VOCABULARY)
    assert names.tags == ["dog", "cat", "hot dog"]
    assert names.unmapped == ["sofa"]
    assert names.names_of("dog") == ["puppy", "dog"]
    assert names.names_of("tree") == []


def test_a_tags_score_is_the_best_of_its_classes():
    names = ClassNames(["Cat", "sofa", "puppy", "hot_dog", "dog"], VOCABULARY)
    scores = names.tag_scores(np.array([0.1, 0.9, 0.3, 0.4, 0.2], dtype=np.float32))
    assert dict(zip(names.tags, scores.tolist(), strict=True)) == pytest.approx(
        {"dog": 0.3, "cat": 0.1, "hot dog": 0.4}
    )
    assert scores.dtype == np.float32


def test_a_model_that_knows_no_tag_scores_none():
    names = ClassNames(["sofa"], VOCABULARY)
    assert names.tag_scores(np.array([0.9], dtype=np.float32)).tolist() == []
    assert masked_tags(names.mask(len(VOCABULARY)), VOCABULARY) == set()


@given(st.integers(1, 40), st.data())
def test_the_mask_comes_back_as_the_tags_that_the_model_knows(size, data):
    vocabulary = Vocabulary.from_text("\n".join(f"tag {i}" for i in range(size)), "test")
    classes = data.draw(st.lists(st.integers(0, size - 1).map(lambda i: f"Tag_{i}"), max_size=10))
    names = ClassNames([*classes, "no tag"], vocabulary)
    assert masked_tags(names.mask(size), vocabulary) == set(names.tags) == {f"tag {c[4:]}" for c in classes}


@given(
    st.lists(st.sampled_from(["dog", "puppy", "hound", "cat", "sofa", "tree"]), min_size=1, unique=True),
    st.data(),
)
def test_every_mapped_class_counts(classes, data):
    scores = np.array(
        data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(classes), max_size=len(classes)))
    )
    names = ClassNames(classes, VOCABULARY)
    expected = {}
    for name, score in zip(classes, scores.astype(np.float32), strict=True):
        tag = VOCABULARY.resolve(name)
        if tag:
            expected[tag.name] = max(expected.get(tag.name, 0), score)
    assert dict(zip(names.tags, names.tag_scores(scores.astype(np.float32)), strict=True)) == expected


def test_summary_names_few_and_counts_many():
    assert summary(["a", "b"]) == "a, b"
    assert summary(map(str, range(5)), limit=2) == "0, 1 and 3 more"
    assert summary([]) == ""
