import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.tag_system.shard_contract import (
    LAYOUT,
    Manifest,
    ManifestModel,
    ManifestShard,
    escape,
    parse_manifest,
    parse_sample,
    shard_name,
    unescape,
)

quick = settings(deadline=None, max_examples=150, database=None)
whole_text = st.text(st.characters(exclude_categories=["Cs"]))


@quick
@given(whole_text)
def test_any_key_comes_back_from_its_member_name(key):
    member = escape(key)
    assert unescape(member) == key
    assert not set(member) & set("./\\ \0\n")
    assert member.isascii()


@quick
@given(whole_text, whole_text)
def test_two_keys_never_share_a_member_name(a, b):
    assert (escape(a) == escape(b)) == (a == b)


@pytest.mark.parametrize(
    ("key", "member"),
    [
        ("squares/000.a", "squares%2F000%2Ea"),
        ("a%2Fb", "a%252Fb"),
        ("..", "%2E%2E"),
        ("é", "%C3%A9"),
        ("a_b-c~d", "a_b-c~d"),
    ],
)
def test_escape(key, member):
    assert escape(key) == member


SAMPLE: dict[str, Any] = {
    "layout": 2,
    "key": "k",
    "width": 1,
    "height": 1,
    "format": "PNG",
    "sha256": "s",
    "split": "train",
    "captions": [],
    "tags": [
        {
            "tag": "a",
            "kind": "object",
            "verdict": "kept",
            "rule": "given",
            "basis": "given",
            "sources": {"given": 1},
            "evidence": [
                {"model": "tag", "score": 0.5},
                {"model": "another-localizer", "boxes": [], "moon_phase": 0.5},
                {"model": "a-verifier", "presence": 0.25},
            ],
        }
    ],
    "labels": [],
    "meta": "{}",
}


def test_a_sample_of_a_later_writer_is_read_and_what_is_left_out_is_null():
    sample = parse_sample(json.dumps({**SAMPLE, "more": 1}).encode())
    assert (sample.key, sample.orientation, sample.implied, sample.absent) == ("k", None, None, None)
    (tag,) = sample.tags
    assert (tag.review, tag.implied_by, tag.sources.probe) == (None, None, 0)
    assert [(entry.model, entry.score, entry.boxes, entry.presence) for entry in tag.evidence] == [
        ("tag", 0.5, None, None),
        ("another-localizer", None, [], None),
        ("a-verifier", None, None, 0.25),
    ]


@pytest.mark.parametrize("missing", SAMPLE)
def test_a_sample_without_one_of_its_fields_is_refused(missing):
    left = {name: value for name, value in SAMPLE.items() if name != missing}
    with pytest.raises(DataError, match="Field required"):
        parse_sample(json.dumps(left).encode())


@pytest.mark.parametrize("box", [[1, 2, 3, 4], [1, 2, 3, 4, "high"]], ids=str)
def test_a_box_that_is_none_is_refused(box):
    tag = SAMPLE["tags"][0] | {"evidence": [{"model": "localize", "boxes": [box]}]}
    with pytest.raises(DataError) as caught:
        parse_sample(json.dumps(SAMPLE | {"tags": [tag]}).encode())
    assert caught.value.reason == Reason.RECORD_INVALID


LAYOUTS = {
    1: "layout 1, this version reads layout 2; make the shards again with tagmill run",
    3: "layout 3, this version reads layout 2; update tagmill",
}


@pytest.mark.parametrize(("layout", "said"), LAYOUTS.items())
def test_another_layout_is_refused_in_one_line(layout, said):
    # Of layout 1 as it was written: nothing else of it needs to fit.
    old = SAMPLE | {"layout": layout, "vocabulary": "v", "meta": {}}
    with pytest.raises(DataError) as caught:
        parse_sample(json.dumps(old).encode())
    assert caught.value.detail == f"a sample of {said}"
    manifest = {"layout": layout, "vocabulary": "v", "tags": 1, "examples": {}, "shards": [], "made_by": {}}
    with pytest.raises(ConfigError) as refused:
        parse_manifest(json.dumps(manifest).encode(), "runs/a/shards/b")
    assert str(refused.value) == f"runs/a/shards/b has shards of {said}"


def test_a_manifest_comes_back_from_json():
    shard = ManifestShard(name=shard_name("val", 3), split="val", examples=1, bytes=2, sha256="s")
    models = {"tag": ManifestModel(stage="tag", name="ram", fingerprint="f")}
    manifest = Manifest(
        layout=LAYOUT, vocabulary="v", tags=2, examples={"val": 1}, shards=[shard], models=models, made_by={}
    )
    assert parse_manifest(manifest.model_dump_json().encode(), "") == manifest
    assert shard.name == "val-000003"
