import pytest

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.plugins import create

BUILT_IN = {"fraction": "fractions:Fraction", "counter": "collections:Counter"}


@pytest.mark.parametrize("name", ["fraction", "fractions:Fraction"])
def test_a_class_is_found_by_its_short_name_or_where_it_is(name):
    assert create("number", name, {"numerator": 3}, BUILT_IN) == 3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fractoin", {}, "unknown number 'fractoin': did you mean fraction? Otherwise use one of counter,"),
        ("zzz", {}, "unknown number 'zzz': use one of counter, fraction or your own class as package"),
        (":Fraction", {}, "unknown number ':Fraction'"),
        ("fractions:", {}, "unknown number 'fractions:'"),
        ("", {}, "unknown number ''"),
        ("nowhere.at.all:X", {}, "cannot import nowhere.at.all .* PYTHONPATH; or pip"),
        ("fractions:Nothing", {}, "module fractions has no Nothing"),
        ("fraction", {"size": 1}, "number 'fraction' with options {'size': 1}: .*unexpected keyword"),
        ("fraction", {"numerator": "x"}, "with options {'numerator': 'x'}: Invalid literal"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_one_line(name, options, words):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")) as raised:
        create("number", name, options, BUILT_IN, "; or pip install it")
    assert "\n" not in str(raised.value)
