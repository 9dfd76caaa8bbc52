from hypothesis import given
from hypothesis import strategies as st

from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.class_names import ClassNames, summary

VOCABULARY = Vocabulary.from_text("dog\tobject\tpuppy|hound\ncat\nhot dog\ntree\n", "test")


def test_classes_are_mapped_by_name_and_alias_and_several_may_be_one_tag():
    names = ClassNames(["Cat", "sofa", "puppy", "hot_dog", "dog"], VOCABULARY)
    assert names.tag_of == {"Cat": "cat", "puppy": "dog", "hot_dog": "hot dog", "dog": "dog"}
    assert names.unmapped == ["sofa"]
    assert names.names_of("dog") == ["puppy", "dog"]
    assert names.names_of("tree") == []


def test_a_model_that_knows_no_tag():
    names = ClassNames(["sofa"], VOCABULARY)
    assert (names.tag_of, names.unmapped) == ({}, ["sofa"])
    assert names.names_of("dog") == names.names_of("sofa") == []


def test_a_class_that_a_model_has_twice_is_asked_for_once():
    names = ClassNames(["dog", "cat", "dog"], VOCABULARY)
    assert names.names_of("dog") == ["dog"]


@given(st.lists(st.sampled_from(["dog", "puppy", "Hound", "cat", "hot_dog", "sofa", "no tag", "tree"])))
def test_every_class_stands_for_its_tag_or_is_unmapped(classes):
    names = ClassNames(classes, VOCABULARY)
    for name in classes:
        tag = VOCABULARY.resolve(name)
        assert names.tag_of.get(name) == (tag.name if tag else None)
        assert (name in names.unmapped) == (tag is None)
    mapped = [name for name in dict.fromkeys(classes) if name in names.tag_of]
    for tag in VOCABULARY:
        assert names.names_of(tag.name) == [name for name in mapped if names.tag_of[name] == tag.name]


def test_summary_names_few_and_counts_many():
    assert summary(["a", "b"]) == "a, b"
    assert summary(map(str, range(5)), limit=2) == "0, 1 and 3 more"
    assert summary([]) == ""
