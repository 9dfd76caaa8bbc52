import pytest

from tagmill.tag_system.checking import difference, problems
from tagmill.tag_system.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("dog\ncat\nDog", "v:3: 'Dog' repeats the name of v:1", id="duplicate"),
        pytest.param(
            "dog\t\tcat\ncat\t\tdog", "v:1: 'dog' and 'cat' (v:2) are aliases of each other", id="cycle"
        ),
        pytest.param("dog\t\tcat\ncat", "v:1: the alias 'cat' of 'dog' shadows the name of v:2", id="shadow"),
        pytest.param("dog\t\tdog", "v:1: the alias 'dog' of 'dog' shadows the name of v:1", id="own name"),
        pytest.param("a\t\tx\nb\t\tx", "v:2: the alias 'x' of 'b' is one of 'a' too", id="shared"),
        pytest.param("dog\n\tobject", "v:2: empty name", id="empty name"),
        pytest.param("dog\t\tpup||puppy", "v:1: 'dog' has an empty alias", id="empty alias"),
        pytest.param("a\t\t\t1\nb", "v:1: the id is '1' where 0 is due; add tags at the end only", id="id"),
        pytest.param("a\tthing", "v:1: unknown kind 'thing', expected one of", id="kind"),
        pytest.param("# none", "v: the vocabulary has no tags; write one name a line", id="empty"),
    ],
)
def test_every_fault_is_found_where_it_is(text: str, message: str) -> None:
    assert any(line.startswith(message) for line in problems(text, "v"))


def test_all_faults_are_told_at_once() -> None:
    assert len(problems("a\tthing\nb\t\ta\nb\n\tobject\n", "v")) == 4
    assert problems("a\t\tx\nb\n", "v") == []


def test_difference_tells_what_came_went_moved_and_changed() -> None:
    old = Vocabulary.from_text("dog\t\tpup\ncat\nred\tattribute", "old")
    longer = Vocabulary.from_text("dog\t\tpuppy\ncat\tscene\nred\tattribute\nsky", "new")
    found = difference(old, longer)
    assert found.append_only
    assert (found.added, found.removed, found.moved) == (["sky"], [], [])
    assert found.changed == ["dog: aliases -pup +puppy", "cat: object -> scene"]
    shorter = difference(old, Vocabulary.from_text("cat\nred\tattribute", "new"))
    assert shorter.removed == ["dog"]
    assert shorter.moved == ["cat: id 1 -> 0", "red: id 2 -> 1"]
    assert not shorter.append_only
