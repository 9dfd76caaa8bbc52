"""What the readers of lines take for the end of one: other separators are letters of a name."""

import json

import pytest

from tagmill.models.ram.word_pieces import SPECIAL, WordPieces
from tagmill.models.training.benchmarks import read_tags
from tagmill.models.training.journal import LOG, Journal
from tagmill.runners.commands.models import read_lines
from tagmill.tag_system.builder.lists import read_names
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.truth import read_images
from tagmill.tag_system.vocabulary import Vocabulary

ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"


def test_json_lines_of_a_truth(tmp_path):
    rows = [{"key": f"k{n} {ODD}", "tags": [ODD]} for n in range(3)]
    path = tmp_path / "truth.jsonl"
    path.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert [(image.key, image.tags) for image in read_images(str(path))] == [
        (row["key"], (ODD,)) for row in rows
    ]


def test_a_line_nested_too_deeply_is_one_line(tmp_path):
    (tmp_path / "truth.jsonl").write_text('{"key": "a", "tags": []}\n' + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"truth\.jsonl:2 is not JSON"):
        list(read_images(str(tmp_path / "truth.jsonl")))


def test_lists_and_vocabularies(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(f"{ODD}\r\nsecond\nthird".encode())
    assert list(read_tags(path)) == [ODD, "second", "third"]
    assert read_lines(path, "a list") == [ODD, "second", "third"]
    assert len(read_names(str(path))) == 3
    assert len(Vocabulary.load(str(path))) == 3


def test_word_pieces_keep_their_numbers(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, "\u2028", "x\x85y", "dog"]) + "\n", encoding="utf-8")
    assert WordPieces(path).caption_start == len(SPECIAL) + 3


def test_a_training_log_keeps_its_lines(tmp_path):
    lines = [json.dumps({"step": n, "note": ODD}, ensure_ascii=False) for n in (1, 2, 3)]
    (tmp_path / LOG).write_text("\n".join(lines) + "\n", encoding="utf-8")
    Journal(tmp_path, 2).close()
    assert (tmp_path / LOG).read_text(encoding="utf-8").split("\n") == [*lines[:2], ""]
