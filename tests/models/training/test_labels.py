import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagmill.models.training import labels, scores
from tagmill.models.training.benchmarks import Benchmark
from tagmill.tag_system.core.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("test/a", [1, 0]),
        ("openimages/test/a.jpg", [1, 0]),
        ("elsewhere/a", [1, 0]),
        ("a", [1, 0]),
        ("elsewhere/C_2", [1, 1]),
        ("one/b", [0, 1]),
        ("b", None),
        ("hico/C_2.JPG", [1, 1]),
        ("d", None),
    ],
)
def test_images_are_found_by_what_is_left_of_their_name(key, found):
    listed = Benchmark(("x", "y"), {"test/a": (0,), "one/b": (1,), "two/b": (), "C_2.jpg": (0, 1)})
    row = labels.of_benchmark(listed).find(key)
    assert (None if row is None else list(row)) == found


def test_what_nobody_asked_for_is_counted():
    keyed = labels.of_benchmark(Benchmark(("x",), {"a": (0,), "b": ()}))
    keyed.find("source/a")
    keyed.find("source/c")
    assert keyed.unused == 1


def test_labels_of_two_images_are_refused():
    keyed = labels.of_benchmark(Benchmark(("x",), {"a.jpg": (0,), "one/b": (), "two/c": ()}))
    assert keyed.find("one/b") is not None
    assert keyed.find("one/a") is not None
    with pytest.raises(ConfigError, match=r"the labels of a\.jpg fit two images, one/a and two/a: "):
        keyed.find("two/a")
    assert keyed.unused == 1


def test_a_truth_s_labels_are_those_of_its_sources():
    keyed = labels.KeyedLabels({"one/a": (0,), "b": ()}, 1)
    assert keyed.find("two/a") is None
    assert keyed.find("a") is not None
    assert keyed.find("two/b") is not None


def test_two_labels_of_an_image_are_refused():
    with pytest.raises(ConfigError, match=r"a\.jpg and a\.PNG are labels of one image"):
        labels.of_benchmark(Benchmark(("x",), {"a.jpg": (0,), "a.PNG": ()}))


def truth(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_a_truth_is_read_by_names_of_any_form(tmp_path):
    path = truth(
        tmp_path / "truth.parquet",
        key=["1", "2"],
        tags=[["Cat", "unheard"], []],
        kinds=[["object", "scene"], []],
    )
    keyed = labels.read_truth(path, ["dog", "cat", "CAT"], str.casefold)
    assert list(keyed.find("source/1")) == [0, 1, 1]
    assert not np.any(keyed.find("2"))
    assert keyed.unmapped == {"unheard": 1}
    assert keyed.kinds == {"cat": "object", "CAT": "object"}


def test_what_lines_of_a_truth_do_not_say_is_unknown(tmp_path):
    path = tmp_path / "truth.jsonl"
    path.write_text('{"key": "1", "tags": ["cat"], "absent": ["dog"]}\n\n{"key": "2", "tags": ["dog"]}\n')
    keyed = labels.read_truth(path, ["dog", "cat", "cow"], str)
    assert list(keyed.find("1")) == [scores.NEGATIVE, scores.POSITIVE, scores.UNKNOWN]
    assert list(keyed.find("2")) == [scores.POSITIVE, scores.NEGATIVE, scores.NEGATIVE]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["1"], "labels": [["cat"]]}, "is not a truth in Parquet with the columns key and tags"),
        ({"key": ["1"], "tags": [["cow"]]}, "labels no class of the model"),
        ({"key": ["1", "1"], "tags": [["cat"], []]}, "lists 1 twice: leave one row"),
        ({"key": ["1", None], "tags": [["cat"], []]}, "row 2 has the key None, which is not text"),
        ({"key": [1], "tags": [["cat"]]}, "row 1 has the key 1, which is not text"),
        ({"key": ["a", "b"], "tags": [["cat"], None]}, "row 2, b: tags and kinds should be lists of names"),
        ({"key": ["a"], "tags": [["cat", None]]}, "row 1, a: tags and kinds"),
        ({"key": ["a"], "tags": [[1]]}, "row 1, a: tags and kinds"),
        ({"key": ["a"], "tags": ["cat"]}, "row 1, a: tags and kinds"),
        ({"key": ["a", "b"], "tags": [["cat"], []], "kinds": [["object"], None]}, "row 2, b: tags and kinds"),
        ({"key": ["a"], "tags": [["cat"]], "kinds": [[None]]}, "row 1, a: tags and kinds"),
        ({"key": ["a"], "tags": [["cat"]], "kinds": [[]]}, "row 1, a: 0 kinds for 1 tags"),
    ],
)
def test_a_file_that_is_no_truth_is_refused(tmp_path, columns, message):
    path = truth(tmp_path / "truth.parquet", **columns)
    with pytest.raises(ConfigError, match=message) as raised:
        labels.read_truth(path, ["cat"], str)
    assert "\n" not in str(raised.value)
    (tmp_path / "text").write_text("key,tags")
    with pytest.raises(ConfigError, match="is not a truth in Parquet"):
        labels.read_truth(tmp_path / "text", ["cat"], str)
