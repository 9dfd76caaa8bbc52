"""The card of a trained model, as a reader of the Hugging Face hub and one of Markdown find it."""

import contextlib
import io
import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, repocard
from markdown_it import MarkdownIt

from commands import call
from sources import square_image
from tagmill.models.hub_names import hub_name
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.told_recipe import place_told
from trainings import CLASSES, lines

HOSTILE = "<img src=x onerror=alert(1)>|[a](http://b) `c` \N{RIGHT-TO-LEFT OVERRIDE}d\n---\n## e: *f*"
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def train(values, *more):
    path = Path(values["out"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return call("train", path, *more)[0]


def card_in(values, name="last"):
    return Path(values["out"]) / name / "README.md"


def tokens(text, kind):
    """All tokens of a kind in the body of a card."""
    body = READER.parse(ModelCard(text).text)
    return [one for token in body for one in (token, *(token.children or ())) if one.type == kind]


def section(text, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def strange(copied):
    """A dataset whose manifest and place hold texts that would be markup."""
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest |= {
        "licenses": {"CC-BY-4.0": 12, HOSTILE: 10},
        "inputs": {HOSTILE: {"format": "`", "examples": 22}},
    }
    path.write_text(json.dumps(manifest))
    return copied


def test_a_card_tells_the_training_to_the_hub_and_nothing_of_the_machine(values_of, strange, tmp_path):
    data = {"datasets": [{"path": str(strange), "name": HOSTILE}]}
    values = values_of(data=data, classes=[*CLASSES, HOSTILE, "tidy"], allow_unlearnable=True)
    values |= {"validate": {"every_steps": 2, "best_by": "loss"}}
    values |= {"card": {"license": "cc by 4.0", "name": HOSTILE}}
    train(values)
    moved = Path(shutil.copytree(strange, tmp_path / "elsewhere" / strange.name))
    there = {**values["data"], "datasets": [{"path": str(moved), "name": HOSTILE}]}
    again = values | {"out": str(tmp_path / "again"), "data": there}
    train(again)
    text = card_in(values).read_text()
    assert [card_in(again, name).read_text() for name in ("last", "best")] == [
        card_in(values, name).read_text() for name in ("last", "best")
    ]
    assert str(tmp_path.parent) not in text
    assert socket.gethostname() not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d", text)

    card = ModelCard.load(card_in(values))
    assert (card.data.library_name, card.data.pipeline_tag) == ("tagmill", "image-classification")
    assert card.data.license == "cc-by-4.0"
    assert {"base_model", "datasets", "language"}.isdisjoint(card.data.to_dict())
    last = lines(values)[-1]
    assert [(one.metric_name, one.metric_value) for one in card.data.eval_results] == [
        (name, pytest.approx(last[key], abs=5e-5))
        for name, key in (("mAP", "val_map"), ("CF1", "val_cf1"), ("OF1", "val_of1"))
    ]
    assert {one.dataset_split for one in card.data.eval_results} == {"validation"}
    assert card.data.metrics == ["mAP", "f1"]

    links = {one.attrs["href"] for one in tokens(text, "link_open")}
    assert links == {"https://arxiv.org/abs/2310.15200", "https://creativecommons.org/licenses/by/4.0/"}
    assert not tokens(text, "image") + tokens(text, "html_inline") + tokens(text, "em_open")
    assert [one.content.startswith("<!-- Written by tagmill") for one in tokens(text, "html_block")] == [True]
    titles = ["The model", "What it was trained on", "Licences", "Recipe"]
    titles += ["How good it is", "How to load it", "Limits"]
    headings = [one for one in READER.parse(card.text) if one.type == "heading_open"]
    assert [one.tag for one in headings] == ["h1", *["h2"] * len(titles)]
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == titles

    (fenced,) = [one for one in tokens(text, "fence") if one.info == "yaml"]
    told = Recipe.model_validate(yaml.safe_load(fenced.content) | {"out": values["out"]})
    ours = Recipe.model_validate(values)
    assert told.model_copy(update={"data": ours.data, "clip": ours.clip, "card": ours.card}) == ours
    assert told.data.datasets[0].path == strange.name
    assert "| `schedule.decay` | `cosine` | `exponential` |" in section(text, "Recipe")
    good = section(text, "How good it is")
    assert f"step {last['step']}, measured on the 8 examples" in good
    assert f"| mAP | {last['val_map']:.4f} |" in good
    assert "- Without a positive among them (1): `tidy`." in good
    assert re.search(r"- Unknown for all of these images \(1\): ``<img", good)
    data = section(text, "What it was trained on")
    assert "| `yellow` | 8 |" in data
    assert "- Without a positive, only learned to be absent (1): `tidy`." in data
    best = ModelCard.load(card_in(values, "best"))
    state = json.loads(card_in(values, "best").with_name("state.json").read_text())
    assert f"after step {state['step']}, measured" in best.text


def test_a_card_says_what_is_known_of_its_start_and_leads_to_tags(values_of, tmp_path):
    first = values_of("first", epochs=1, validate=False)
    train(first)
    assert "How good it is was not measured" in card_in(first).read_text()
    base = card_in(first)
    base.write_text(f"---\nlicense: other\nlicense_name: ours\n---\n{base.read_text().split('---', 2)[2]}")
    told = {"base_model": "owner/base", "datasets": ["owner/data"], "language": "en"}
    values = values_of(init=str(base.parent), model={}, classes=None, epochs=1, card=told, save_every=1)
    train(values)
    text = card_in(values).read_text()
    card = ModelCard(text)
    assert {key: card.data.get(key) for key in told} == told
    assert card.data.get("base_model_relation") == "finetune"
    assert card.data.license is None
    assert "The model began from `last`, whose licence is `ours`." in " ".join(
        section(text, "Licences").split()
    )
    assert "The model's own: unknown" in text
    assert "| unknown | 22 |" in text

    square_image(["red"]).save(tmp_path / "a.png")
    thresholds = ("--shards", values["data"]["datasets"][0]["path"], "--split", "val", "--min-positives", "1")
    folder = card_in(values).parent
    call("models", "calibrate", folder, *thresholds, "--out", tmp_path / "c", "--apply")
    fitted = card_in(values).read_text()
    assert "| thresholds | `none` |" in text
    assert "| thresholds | `none` |" not in fitted
    assert section(fitted, "Recipe") == section(text, "Recipe")
    assert "red" in run_blocks(fitted, {"FOLDER": str(folder), "IMAGE.jpg": str(tmp_path / "a.png")})

    files = ("tagger.onnx", "tagger.pt2")
    for name in files:
        out, _ = call("models", "export", folder, tmp_path / name)
        assert f"{name}.md: its card" in out.replace("\n", "")
    one, other = (ModelCard.load(tmp_path / f"{name}.md") for name in files)
    assert one.data.tags == [*card.data.tags, "onnx"]
    assert one.data.eval_results == other.data.eval_results == card.data.eval_results
    assert "`tagger.onnx` was made of the folder" in section(one.content, "This file")
    assert section(one.content, "The model") == section(fitted, "The model")
    assert "red" in run_blocks(
        one.content, {"FILE.onnx": str(tmp_path / files[0]), "IMAGE.jpg": str(tmp_path / "a.png")}
    )
    run_blocks(other.content, {"FILE.pt2": str(tmp_path / files[1])})


def run_blocks(text, names):
    """Do what the section on loading says, with real names in their places; gives what was printed."""
    shown = []
    for fence in tokens(f"---\na: b\n---\n{section(text, 'How to load it')}", "fence"):
        content = re.sub("|".join(map(re.escape, names)), lambda match: names[match[0]], fence.content)
        if fence.info == "sh":
            program, *arguments = content.split()
            assert program == "tagmill"
            shown.append(call(*arguments)[0])
        else:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(content, {})
            shown.append(printed.getvalue())
    return "".join(shown)


def test_what_another_wrote_is_left_as_it_is(values_of, tmp_path, monkeypatch):
    values = values_of(epochs=1)
    train(values)
    mine = "---\nlicense: mit\nmine: true\n---\n# Mine\n\nMy words.\n"
    card_in(values).write_text(mine)
    state = card_in(values).with_name("state.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"evaluated": False}))
    said = train(values, "--resume")
    assert f"{card_in(values)}: not a card of tagmill's, so it stays as it is" in said
    assert card_in(values).read_text() == mine
    (tmp_path / "b.onnx.md").write_text("notes")
    for name, told in (("a", "its card"), ("b", "not a card of tagmill's, so it stays as it is")):
        out, _ = call("models", "export", card_in(values).parent, tmp_path / f"{name}.onnx")
        assert f"{name}.onnx.md: {told}" in out.replace("\n", " ")
    assert (tmp_path / "b.onnx.md").read_text() == "notes"
    card = ModelCard.load(tmp_path / "a.onnx.md")
    assert (card.data.license, card.data["mine"], card.data.tags) == ("mit", True, ["onnx"])
    assert "My words.\n\n## The model" in card.text
    warned = []
    monkeypatch.setattr(repocard.logger, "warning", lambda *words: warned.append(words))
    for name, text in (("c", "---\n[\n---\n"), ("d", "# Mine\n")):
        card_in(values).write_text(text)
        call("models", "export", card_in(values).parent, tmp_path / f"{name}.onnx")
        told = (tmp_path / f"{name}.onnx.md").read_text()
        assert "Data, recipe, figures and licence are not known here." in told
    assert warned == []


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("/home/me/data/shards", "shards"),
        ("~/data", "data"),
        ("../me/data", "data"),
        ("runs/one/shards", "runs/one/shards"),
        ("C:\\me\\data", "data"),
        ("file:///home/me/data", "data"),
        ("local-dir:/home/me/clip", "local-dir:clip"),
        ("gs://bucket/a/b", "gs://bucket/a/b"),
        ("ftp://me:word@host:21/a?sig=x#y", "ftp://host:21/a"),
        ("ftp://me:wo/rd@host/a", "ftp://***"),
        ("https://hf_abcdefghijABCDEFGHIJ@host/a", "https://host/a"),
        ("ftp://me:${ENV:WORD}@host/a", "ftp://host/a"),
        ("zip://a.csv::/home/me/a.zip", "zip://a.csv::a.zip"),
        ("a photo of a {}.", "a photo of a {}."),
    ],
)
def test_a_place_is_told_without_the_machine_and_secrets(place, told):
    assert place_told(place) == told


def test_names_on_the_hub_are_those_that_it_could_have(values_of):
    assert hub_name("hf://datasets/owner/data@main/shards", dataset=True) == "owner/data"
    assert hub_name("hf://owner/model") == hub_name("hf://owner/model/folder") == "owner/model"
    assert hub_name("hf://datasets/owner/data") is None
    assert hub_name("gs://owner/data", dataset=True) is None
    path = Path(values_of()["out"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values_of(card={"base_model": "https://hub/owner/name"})))
    _, err = call("train", path, code=2)
    assert "card.base_model: 'https://hub/owner/name' is not a name on the Hugging Face hub" in err
    assert err.count("\n") == 1
