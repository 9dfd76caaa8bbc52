from pathlib import Path

import pytest

from tagmill.tag_system.builder.lists import CategoryList, read_list, read_names, split_names
from tagmill.tag_system.core.errors import ConfigError

SOURCE = """
import torch_that_is_not_there

OTHER = ["no"]
NAMES: list[str] = ["dog", "hot_dog/frankfurter", "TV (old)"]

def names() -> list:
    return ["cat", "Other Shoes", "a", "the sea"]
"""


@pytest.mark.parametrize(
    ("line", "paths", "names"),
    [
        pytest.param("television_set", False, ["television set"], id="underscore"),
        pytest.param(
            "Lamp/Light, torch or candle", False, ["lamp", "light", "torch", "candle"], id="several"
        ),
        pytest.param("crane_(machine)", False, ["crane"], id="remark"),
        pytest.param("/b/bar", True, ["bar"], id="letter folder"),
        pytest.param("/t/temple/asia", True, ["asia temple"], id="path"),
        pytest.param("/b/bakery/indoor", True, ["bakery"], id="inside"),
        pytest.param("N/A", False, [], id="too short"),
        pytest.param("salt & pepper", False, [], id="sign"),
    ],
)
def test_labels_become_names(line: str, paths: bool, names: list[str]) -> None:
    assert list(split_names(line, paths=paths)) == names


def test_lists_are_read_from_source_that_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "names.py").write_text(SOURCE)
    (tmp_path / "zoo" / "labels.txt").write_text("/b/bar\n/t/temple/asia\n")
    read = {
        variable: read_list(CategoryList("zoo", "zoo/names.py", variable), str(tmp_path))
        for variable in ("NAMES", "names")
    }
    assert read == {"NAMES": {"dog", "hot dog", "frankfurter"}, "names": {"cat"}}
    places = CategoryList("places", "zoo/labels.txt", kind="scene")
    assert read_list(places, str(tmp_path)) == {"bar", "asia temple"}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"zoo/x.txt is missing: `pip install .* zoo`"):
        read_list(CategoryList("zoo", "zoo/x.txt"), str(tmp_path))
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "x.py").write_text("A = 1")
    with pytest.raises(ConfigError, match="has no NAMES"):
        read_list(CategoryList("zoo", "zoo/x.py", "NAMES"), str(tmp_path))
    with pytest.raises(ConfigError, match="cannot read the list"):
        read_names(str(tmp_path / "none.txt"))


def test_a_users_own_list_may_be_csv(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text('/m/01,"Tortoise"\n/m/02,Sea turtle\n')
    assert read_names(str(tmp_path / "classes.csv")) == {"tortoise", "sea turtle"}
