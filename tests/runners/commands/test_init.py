"""`tagmill init` writes a config that reads data; tests/end_to_end/test_shapes.py has what shapes of it."""

import json

import pytest
import yaml

from commands import call
from input_runs import write_images
from tagmill.pipeline.config import load_config

CAPTIONS = ["a red square", "a blue square"]


def lines(folder):
    images = write_images(folder / "pictures", "a.png", "b.png")
    rows = [{"file_name": name, "text": text} for name, text in zip(images, CAPTIONS, strict=True)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "train.jsonl"


def classes(folder):
    write_images(folder, "red/1.png", "blue/2.png")
    return folder


@pytest.mark.parametrize(
    ("shape", "format_", "captions", "labels"),
    [(lines, "jsonl", 2, 0), (classes, "folder", 0, 2)],
    ids=["captions", "labels"],
)
def test_the_config_that_is_written_runs_as_it_stands(
    tmp_path, monkeypatch, shape, format_, captions, labels
):
    (tmp_path / "it").mkdir()
    path, output = shape(tmp_path / "it"), tmp_path / "mine.yaml"
    monkeypatch.chdir(tmp_path)
    said, _ = call("init", path, "--output", "mine.yaml", *(["--labels"] if labels else []))
    assert said.count("caption: ") == captions
    assert f": {format_}, " in said
    config = load_config(str(output))
    assert config.inputs[0].format == format_
    assert (config.parse is None) == bool(labels)
    assert "# fields: " in output.read_text() or format_ == "folder"
    call("run", "mine.yaml", "--workers", 0)
    ingested = json.loads(call("status", "runs/mine", "--json")[0])["stages"][0]
    assert (ingested["examples"]["out"], ingested["captions"]["in"]) == (2, captions)
    assert "exists; name another file" in call("init", path, "--output", "mine.yaml", code=2)[1]


def test_what_nobody_reads_is_said_in_a_line(tmp_path):
    (tmp_path / "notes.md").write_text("no data")
    output = tmp_path / "it.yaml"
    assert "no image in" in call("init", tmp_path, "--output", output, code=2)[1]
    urls = tmp_path / "list.tsv"
    urls.write_text("url\tcaption\n" + "http://e.org/1.jpg\ta cat\n" * 12)
    assert "img2dataset --url_list" in call("init", urls, "--output", output, code=2)[1]
    write_images(tmp_path / "two" / "photos", "1.png")
    assert (
        "none of the examples has a label"
        in call("init", tmp_path / "two" / "photos", "--output", output, "--labels", code=2)[1]
    )
    assert not output.exists()
    call("init", tmp_path / "two", f"{tmp_path}/two/photos", f"{tmp_path}/two/photos/", "--output", output)
    named = [source["name"] for source in yaml.safe_load(output.read_text())["inputs"]]
    assert named == ["two", "photos", "photos-3"]
