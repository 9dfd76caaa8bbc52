import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.tag_system.prompts import build, pack


def test_tags_that_fit_share_one_prompt_in_order():
    assert pack([2, 3, 2], 7) == [[0, 1, 2]]


def test_a_tag_joins_the_first_prompt_that_has_room():
    assert pack([3, 4, 1, 2], 5) == [[0, 2], [1], [3]]


def test_no_tags_need_no_prompt():
    assert pack([], 5) == []
    assert build([], 8, start=1, dot=2, end=3) == []


def test_a_tag_over_the_budget_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="tag 1 has 6 tokens; one prompt has room for 1 to 5"):
        pack([2, 6], 5)


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(9, 30))
def test_every_tag_is_in_one_prompt_and_no_prompt_is_too_long(counts, budget):
    prompts = pack(counts, budget)
    assert sorted(i for prompt in prompts for i in prompt) == list(range(len(counts)))
    assert all(prompt == sorted(prompt) for prompt in prompts)
    assert all(sum(counts[i] for i in prompt) <= budget for prompt in prompts)
    # First-fit leaves at most one prompt that is not more than half full.
    assert sum(2 * sum(counts[i] for i in prompt) <= budget for prompt in prompts) <= 1


def test_every_tag_is_closed_by_a_dot_and_known_by_the_place_of_its_tokens():
    (text,) = build([[50], [60, 61]], 10, start=1, dot=2, end=3)
    assert text.ids == [1, 50, 2, 60, 61, 2, 3]
    assert text.positions == [1, 3, 4]
    assert text.owners == [0, 1, 1]
    assert text.tags == [0, 1]


def test_a_full_text_is_as_long_as_the_model_allows_and_the_rest_is_another_text():
    first, second = build([[50], [60, 61], [70]], 7, start=1, dot=2, end=3)
    assert len(first.ids) == 7
    assert second.ids == [1, 70, 2, 3]
    assert second.tags == [2]
    assert second.owners == [0]


def test_a_tag_without_tokens_is_an_error():
    with pytest.raises(ValueError, match="tag 1 has no tokens"):
        build([[50], []], 10, start=1, dot=2, end=3)
