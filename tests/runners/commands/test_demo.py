import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from rich.console import Console

from runs import stage_files
from sources import VOCABULARY, encode, members, square_image, write_tar
from tagmill import open_run
from tagmill.pipeline.config import RunConfig, load_config
from tagmill.runners.commands import demo_report
from tagmill.runners.commands.demo import PIECES, Demo, embedded, show_demo
from tagmill.runners.commands.demo_config import demo_config, demo_models
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for the embedded data: coloured squares, whose captions err once, and their truth."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "vocabulary.tsv").write_text(VOCABULARY)
    for name in ("tagger.onnx", "clip-onnx", "grounding-dino-onnx"):
        (folder / name).mkdir()
    contents, truth = [], []
    for number in range(12):
        key = f"{number:06d}"
        fields = members(key, number)
        true = json.loads(fields[f"{key}.json"])["truth"]
        # The picture has a red and a green square close together: one box holds both.
        caption = "a yellow square" if number == 7 else "a " + " and a ".join(f"{t} square" for t in true)
        contents += [(f"{key}.png", fields[f"{key}.png"]), (f"{key}.txt", caption.encode())]
        truth.append({"key": key, "tags": true, "kinds": ["object"] * len(true)})
    write_tar(folder / "scenes-000000.tar", contents)
    pq.write_table(pa.Table.from_pylist(truth), folder / "truth.parquet")
    return folder


def square_models(data: Path) -> str:
    return f"""
vocabulary: {data / "vocabulary.tsv"}
tag: {{model: "square_models:SquareTagger"}}
localize: {{model: "square_models:SquareLocalizer"}}
embed: {{model: "square_models:SquareEmbedder"}}
clean: {{policy: {{rule: paper}}}}
"""


def shown(demo: Demo, data: Path) -> str:
    sink = io.StringIO()
    show_demo(Console(file=sink, soft_wrap=True, width=120), demo, data, square_models)
    return sink.getvalue()


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demo's run, and what was printed."""
    run = tmp_path_factory.mktemp("demo") / "run"
    return run, shown(Demo(None, str(run), 0), data)


def test_the_report_scores_every_step_by_kind(made):
    lines = [line.split() for line in made[1].splitlines()]
    (captions,) = [line for line in lines if line[:3] == ["captions", "alone", "object"]]
    (tagger,) = [line for line in lines if line[:4] == ["and", "the", "tagger", "object"]]
    assert float(captions[4]) < 1
    assert float(tagger[5]) == 1
    assert sum(line[:1] == ["all"] for line in lines) == 3


def test_what_is_named_to_look_at_is_there_and_the_question_is_answered(made):
    run, text = made
    (tar, member) = next(
        (line.split()[2], line.split()[3]) for line in text.splitlines() if line.startswith("  tar -xOf")
    )
    assert Path(tar).is_file()
    assert member.startswith("scenes%2F")
    (question,) = [line.split('"')[1] for line in text.splitlines() if " sql " in line]
    answer = [tuple(row.values()) for row in open_run(run).sql(question).to_pylist()]
    assert answer == demo_report.most_dropped(str(run / "report" / "tags.parquet"))
    for row in answer:
        assert [str(cell) for cell in row] in [line.split() for line in text.splitlines()]
    with Image.open(run / "report" / "example.png") as image:
        assert image.width > 800


def test_the_config_that_is_left_makes_the_same_run(made):
    run, _ = made
    config = load_config(str(run / "demo.yaml"))
    saved = yaml.safe_load((run / "run.yaml").read_text())["config"]
    assert config == RunConfig.model_validate(saved)


def test_a_second_time_nothing_is_made_and_all_is_printed_again(made, data):
    run, text = made
    before = stage_files(run)
    again = shown(Demo(None, str(run), 0), data)
    assert stage_files(run) == before
    report = "Tags against the truth"
    assert again.partition(report)[2] == text.partition(report)[2]


def test_an_example_with_a_wrong_tag_that_went_is_preferred():
    kept = {"tag": "dog", "verdict": "kept", "rule": "agreed", "boxes": 1, "parsed": 1}
    wrong = {"tag": "cat", "verdict": "dropped", "rule": "other_tag", "boxes": 1, "parsed": 1}
    never = {**wrong, "rule": "not_proposed"}
    worth = demo_report._worth
    assert worth([kept, wrong], {"dog"}) > worth([kept, wrong], {"dog", "cat"}) > worth([kept], {"dog"})
    assert worth([kept, never], None) == worth([kept], None)
    assert worth([], set()) < worth([kept], {"dog"})


@pytest.mark.parametrize(
    ("called", "said"),
    [(".venv/bin/tagmill", ".venv/bin/tagmill"), ("/opt/bin/tagmill", "tagmill"), ("cli.py", "tagmill")],
)
def test_commands_are_printed_as_this_one_was_called(tmp_path, monkeypatch, called, said):
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/bin/{name}")
    assert demo_report.command() == said


def test_photographs_are_run_and_it_is_said_that_their_tags_mean_nothing(data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(encode(square_image(["red", "blue"])))
    (tmp_path / "mine" / "a.txt").write_text("a red square")
    (tmp_path / "mine" / "b.png").write_bytes(encode(square_image(["green"])))
    demo = Demo(str(tmp_path / "mine"), str(tmp_path / "run"), 0)
    text = shown(demo, data)
    warning = "tags on photographs mean nothing"
    assert text.count(warning) == 2
    assert text.index(warning) < text.index("ingest:") < text.rindex(warning)
    assert "docs/examples/official.yaml" in text
    assert "Tags against the truth" not in text
    (tmp_path / "mine" / "c.png").write_bytes(encode(square_image(["yellow"])))
    assert "shards: 1/1 shards, 3 examples" in shown(demo, data)


@pytest.mark.parametrize("piece", PIECES)
def test_data_that_is_not_whole_is_one_line(data, tmp_path, piece):
    for path in data.iterdir():
        if not path.match(piece):
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ConfigError, match=r"the demo needs .* install tagmill again") as error:
        shown(Demo(None, str(tmp_path / "run"), 0), tmp_path)
    assert piece in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_would_do_harm_are_refused(data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.yaml").write_text("{}")
    for photos, run, said in (
        (str(tmp_path / "none"), "run", "is not a folder"),
        (str(tmp_path / "mine"), "mine/run", "lies among the photographs"),
        (None, "other", "is the folder of another run"),
    ):
        with pytest.raises(ConfigError, match=said):
            shown(Demo(photos, str(tmp_path / run), 0), data)


def test_the_config_of_the_embedded_models_is_one_that_is_understood(tmp_path):
    path = tmp_path / 'it\'s a "folder"'
    text = demo_config(str(path), embedded(), path) + demo_models(embedded())
    (tmp_path / "demo.yaml").write_text(text)
    config = load_config(str(tmp_path / "demo.yaml"))
    assert config.run == config.inputs[0].path == str(path)
    assert config.embed.options == {"path": str(embedded() / "clip-onnx"), "template": "a {}"}
    assert max(map(len, text.splitlines())) < 200
