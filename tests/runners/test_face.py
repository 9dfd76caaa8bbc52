"""The package tagmill as a notebook uses it; nothing here imports a module below it."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tagmill
from runs import squares_config
from sources import members, square_image, write_config, write_tar

NAMES = [
    "CaptionParser",
    "Vocabulary",
    "__version__",
    "decide",
    "load_config",
    "load_model",
    "open_dataset",
    "open_run",
    "plan",
    "predict",
    "run",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with a caption that is not harmless."""
    folder = tmp_path_factory.mktemp("made")
    first = [item for i in range(12) for item in members(f"{i:06d}", i).items()]
    first += members("bold", 31, captions=["a red square <script>alert(1)</script>"]).items()
    write_tar(folder / "data" / "a.tar", first)
    return tagmill.run(write_config(folder), workers=0, progress="quiet")


def in_a_new_process(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.package
def test_names_are_those_and_no_others():
    assert in_a_new_process("import tagmill; print(*dir(tagmill))").split() == NAMES
    assert tagmill.__all__ == NAMES
    for name in NAMES:
        assert getattr(tagmill, name)
    with pytest.raises(AttributeError, match="has no attribute 'load'"):
        _ = tagmill.load  # type: ignore[attr-defined]


@pytest.mark.package
def test_importing_is_cheap():
    code = (
        "import sys, time; start = time.perf_counter(); import tagmill; end = time.perf_counter();"
        "heavy = {'torch', 'apache_beam', 'pyarrow', 'numpy', 'pydantic', 'spacy'} & set(sys.modules);"
        "print(end - start < 0.1, heavy or 'nothing heavy')"
    )
    assert in_a_new_process(code) == "True nothing heavy"


def test_a_dataset_is_read_without_torch(made: Any):
    code = (
        "import sys, tagmill;"
        f"print(len(list(tagmill.open_run({made.folder!r}).dataset())), 'torch' in sys.modules)"
    )
    assert in_a_new_process(code) == "13 False"


def test_configs_come_from_files_and_dictionaries(tmp_path: Path):
    path = squares_config(tmp_path)
    config = tagmill.load_config(
        path, part_size=7, **{"clean.policy.rule": "paper"}, localize=None, embed=None
    )
    assert (config.part_size, config.clean.policy.rule, config.localize) == (7, "paper", None)
    values = config.model_dump()
    assert tagmill.load_config(values) == config
    assert tagmill.load_config(values, run=tmp_path / "other").run == str(tmp_path / "other")
    assert values == config.model_dump()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"part_sise": 3}, "config: unknown key part_sise; did you mean part_size?"),
        ({"part_size.more": 3}, "the override part_size.more: part_size is not a section"),
        ({"inputs": []}, "config: inputs: List should have at least 1 item"),
    ],
)
def test_wrong_configs_are_refused_in_a_line(tmp_path: Path, changes: dict[str, Any], said: str):
    values = tagmill.load_config(squares_config(tmp_path)).model_dump()
    with pytest.raises(Exception, match="^" + said.replace(".", r"\.").replace("?", r"\?")):
        tagmill.load_config(values, **changes)


def test_a_plan_says_what_a_run_then_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tagmill.load_config(
        squares_config(tmp_path, {"a.tar": (6, 0)}), duplicates=None, localize=None, embed=None
    )
    outlook = tagmill.plan(config)
    assert not outlook.is_whole
    assert repr(outlook).startswith("ingest: make 1 of 1 sources\n")
    assert not (tmp_path / "run").exists()
    run = tagmill.run(config)
    assert "shards: 1/1 shards" in capsys.readouterr().out
    assert run.config == config
    again = tagmill.plan(config)
    assert again.is_whole
    assert [stage.stage for stage in again] == [stage["stage"] for stage in run.stages]
    assert [stage.done for stage in again] == [stage.total for stage in again]
    tagmill.run(config, progress="quiet")
    assert capsys.readouterr().out == ""


def test_a_run_of_two_workers_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    # Few stages: each of them starts its workers anew.
    off = {"duplicates": None, "localize": None, "embed": None}
    config = tagmill.load_config(squares_config(tmp_path, {"a.tar": (6, 0)}), **off)
    one = tagmill.run(config, workers=0, progress="quiet")
    two = tagmill.run(tagmill.load_config(config, run=tmp_path / "two"), workers=2, progress="quiet")
    assert two.decisions().equals(one.decisions())


def test_a_run_is_opened_and_asked(made: Any):
    run = tagmill.open_run(Path(made.folder))
    assert repr(run).startswith(f"<run {made.folder}: ingest, ")
    stages = {stage["stage"]: stage for stage in run.stages}
    assert stages["ingest"]["examples_out"] == 13
    examples = list(run.examples())
    assert len(examples) == 13
    table = run.decisions()
    assert table.column_names[:2] == ["key", "tag"]
    for example in examples:
        assert run.example(example.key).found == example.found
        rows = [row for row in table.to_pylist() if row["key"] == example.key]
        assert sorted(row["tag"] for row in rows if row["verdict"] == "kept") == example.tags
    assert example.image.size == (96, 80)
    assert example.picture().width > 96
    with pytest.raises(Exception, match=r"no example nowhere .* the nearest keys: "):
        run.example("nowhere")


def test_what_is_not_a_run_is_refused(tmp_path: Path):
    with pytest.raises(Exception, match="is not a run folder"):
        tagmill.open_run(tmp_path)


class Harmless(HTMLParser):
    """Reads HTML; raises for what could run, or could be fetched from elsewhere. `text` is what is read."""

    TAGS = {
        "b",
        "code",
        "i",
        "img",
        "li",
        "mark",
        "p",
        "span",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    }

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.text, self.pictures, self.marked = "", 0, False
        self.open: list[str] = []
        self.feed(shown)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert tag in self.TAGS
        assert found.keys() <= {"alt", "height", "src", "style", "width"}
        assert "url" not in (found.get("style") or "")
        if tag == "img":
            assert (found["src"] or "").startswith("data:image/jpeg;base64,")
            self.pictures += 1
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"
        self.marked |= self.open[-1:] == ["mark"]


HOSTILE = "a red square <script>alert(1)</script>"


def test_a_notebook_shows_what_comes_from_outside_as_text(made: Any, tmp_path: Path):
    example = made.example("squares/bold")
    assert example.captions == [HOSTILE]
    shown = Harmless(example._repr_html_())
    assert HOSTILE in shown.text
    assert {"squares/bold", "red", "kept", "regions_agree"} <= set(shown.text.splitlines())
    sample = next(sample for sample in made.dataset() if sample.key == example.key)
    assert HOSTILE in Harmless(sample._repr_html_()).text
    assert "ingest" in Harmless(made._repr_html_()).text
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    example.image.save(file)
    found = tagmill.predict([file] * 21, model="square_models:SquareTagger")
    shown = Harmless(found._repr_html_())
    assert (shown.pictures, shown.text.count(file.name)) == (20, 20)
    assert "and 1 more" in shown.text
    assert {"red", f"{found[0].tags[0]['score']:.2f}"} <= set(shown.text.splitlines())
    assert repr(found[0]).startswith(f"<prediction {file}: ")


def test_a_notebook_shows_a_decision_with_what_it_rests_on(made: Any, tmp_path: Path):
    example = made.example("squares/bold")
    decision = example.decision("red")
    assert decision == next(one for one in example.decisions if one["tag"] == "red")
    shown = Harmless(decision._repr_html_())
    assert (shown.pictures, shown.marked) == (1, True)
    lines = shown.text.splitlines()
    assert lines[:3] == ["red (object) on squares/bold", "kept", " rule regions_agree, basis region"]
    assert lines[lines.index("best box") + 1] == f"{decision['box_score']:.2f}"
    assert "<script>alert(1)</script>" in shown.text
    with pytest.raises(Exception, match="no decision on 'dog' for squares/bold; decided were: "):
        example.decision("dog")
    source = Path(made.folder).parent / "data" / "a.tar"
    source.rename(tmp_path / "a.tar")
    try:
        shown = Harmless(decision._repr_html_())
        assert shown.pictures == 0
        assert "no picture: input squares: no file matches" in shown.text
    finally:
        (tmp_path / "a.tar").rename(source)


def test_samples_of_a_dataset(made: Any):
    dataset = made.dataset()
    samples = list(dataset)
    assert [sample.key for sample in samples] == [example.key for example in made.examples()]
    assert [sample.tags for sample in samples] == [example.tags for example in made.examples()]
    assert [sample.captions for sample in samples] == [example.captions for example in made.examples()]
    assert dataset[-1] == samples[-1] == dataset[len(dataset) - 1]
    assert dataset[3].image.mode == "RGB"
    assert np.array_equal(np.asarray(samples[3].image), np.asarray(made.example(samples[3].key).image))
    assert len(dataset.vocabulary) == 6
    policy = made.config.clean.policy
    verdicts = {tag: tagmill.decide(known, policy).verdict for tag, known in samples[0].evidence.items()}
    assert verdicts == {tag.tag: tag.verdict for tag in samples[0].record.tags}
    assert "13 samples" in dataset._repr_html_()
    again = tagmill.open_dataset(dataset.folder, "train")
    assert list(again) == samples
    with pytest.raises(IndexError):
        dataset[13]
    with pytest.raises(Exception, match="has no examples in the split val"):
        made.dataset("val")


def test_predict_takes_paths_pictures_and_arrays(tmp_path: Path):
    picture = square_image(["red", "blue"], 3)
    picture.save(tmp_path / "a.png")
    images = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        picture,
        np.asarray(picture),
        picture.convert("RGBA"),
    ]
    model = tagmill.load_model("square_models:SquareTagger")
    found = tagmill.predict(images, model=model, batch_size=2)
    assert [[tag["tag"] for tag in one.tags] for one in found] == [[tag["tag"] for tag in found[0].tags]] * 5
    assert {tag["tag"] for tag in found[0].tags} == {"red", "blue"}
    (single,) = tagmill.predict(picture, model="square_models:SquareTagger", threshold=1)
    assert single.tags == []


def test_predict_takes_a_list_of_tags(tmp_path: Path):
    picture, model = square_image(["red", "blue"], 3), "square_models:SquareTagger"
    (found,) = tagmill.predict(picture, model=model, taglist=["Blue", "green"], threshold=0)
    assert [tag["tag"] for tag in found.tags] == ["Blue"]
    (tmp_path / "tags.txt").write_text("Blue\ngreen\n")
    (again,) = tagmill.predict(picture, model=model, taglist=tmp_path / "tags.txt", threshold=0)
    assert again.tags == found.tags
    with pytest.warns(UserWarning, match=r"no class for 1 of the 2 tags .*\('dog'\)"):
        tagmill.predict(picture, model=model, taglist=["red", "dog"])
    with pytest.raises(Exception, match="taglist: 1 of the 1 names are neither tags"):
        tagmill.predict(picture, model=model, taglist=["rdde"])
    with pytest.raises(Exception, match="taglist lists no tags"):
        tagmill.predict(picture, model=model, taglist=[])


def test_predict_stands_pictures_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    square_image(["red"]).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        both = tagmill.predict([picture, tmp_path / "a.png"], model="square_models:SquareTagger")
    assert both[0].pixels.shape == (96, 80, 3)
    assert np.array_equal(both[0].pixels, both[1].pixels)


def test_predict_refuses_what_it_cannot_tag(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(Exception, match=r"broken\.png: image_unreadable"):
        tagmill.predict(tmp_path / "broken.png", model="square_models:SquareTagger")
    with pytest.raises(TypeError, match="an image is uint8"):
        tagmill.predict(np.zeros((4, 4, 3)), model="square_models:SquareTagger")
    with pytest.raises(TypeError, match="not a int"):
        tagmill.predict([1], model="square_models:SquareTagger")  # type: ignore[list-item]
    with pytest.raises(Exception, match="SquareLocalizer is not a tagger"):
        tagmill.predict([], model="square_models:SquareLocalizer")
    with pytest.raises(Exception, match="unknown model 'squares': use one of"):
        tagmill.load_model("squares")
