"""RAM's annotation files: captions, and ids of tags by the names of a list."""

import json

import pytest

from input_runs import ingest_input, run_ingested, run_input, write_images
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture
def photos(tmp_path):
    write_images(tmp_path, "vg/a.png", "vg/b.png")
    (tmp_path / "tags.txt").write_text("tree\nline\nhot dog\npavement")
    items = [
        {
            "image_path": "vg/a.png",
            "caption": ["trees line the sidewalk", "a tree"],
            "union_label_id": [0, 1, 2, 3],
            "parse_label_id": [[0, 1, 3], [0]],
        },
        {"image_path": "vg/b.png", "caption": ["x"], "union_label_id": [], "parse_label_id": [[2, 4], []]},
    ]
    (tmp_path / "it.json").write_text(json.dumps(items))
    return tmp_path


def test_by_default_captions_are_parsed_again_and_ids_are_kept(photos):
    run_input(photos, format="ram", path=str(photos / "it.json"))
    found = run_ingested(photos)
    assert found.captions == {"vg/a": ["trees line the sidewalk", "a tree"], "vg/b": ["x"]}
    assert found.labels == {"vg/a": [], "vg/b": []}
    a, b = (json.loads(row["meta"]) for row in found.rows)
    assert a == {"generated_caption": 1, "union_label_id": [0, 1, 2, 3], "parse_label_id": [[0, 1, 3], [0]]}
    assert "generated_caption" not in b


def test_trusted_ids_become_labels_by_the_names_of_the_list(photos):
    options = {"tags": str(photos / "tags.txt"), "parsed": "trust", "generated": "none"}
    source = {"format": "ram", "path": str(photos / "it.json"), "options": options}
    found = ingest_input(photos, **source)
    assert found.labels == {
        "vg/a": [("tree", None), ("line", None), ("pavement", None)],
        "vg/b": [("hot dog", None)],
    }
    assert "generated_caption" not in found.rows[0]["meta"]
    ((key, reason, detail),) = found.dead
    assert (key, reason) == ("vg/b", "label_invalid")
    assert "1 of 2 labels: not a label: '4'" in detail


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parsed": "trust"}, "`parsed: trust` and `tags`"),
        ({"tags": "tags.txt"}, "go together"),
        ({"parsed": "maybe"}, "parsed is trust, union or reparse, got 'maybe'"),
        ({"generated": "first"}, "generated is last or none, got 'first'"),
        ({"parsed": "trust", "tags": "empty.txt"}, "empty.txt is no list of tags"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_one_line(photos, monkeypatch, options, words):
    monkeypatch.chdir(photos)
    (photos / "empty.txt").write_text("\n\n")
    with pytest.raises((ConfigError, ValueError), match=words):
        ingest_input(photos, format="ram", path="it.json", options=options)
