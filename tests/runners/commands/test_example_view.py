import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tagmill.pipeline.run_folder import RunFolder
from tagmill.runners.commands.example_view import show_example
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import shown as shown_text


@pytest.fixture
def shown(finished: Path):
    def shown(key: str, output: Path | None = None) -> str:
        sink = io.StringIO()
        target = None if output is None else str(output)
        show_example(
            Console(file=sink, soft_wrap=True, width=40), RunFolder(str(finished / "run")), key, target
        )
        return sink.getvalue()

    return shown


def test_every_tag_has_a_line_with_its_evidence_however_narrow_the_console(shown):
    text = shown("squares/wrong")
    (kept,) = [line for line in text.splitlines() if line.startswith("blue")]
    assert kept.split()[:7] == ["blue", "object", "kept", "regions_agree", "region", "generated", "1"]
    (doubted,) = [line for line in text.splitlines() if line.startswith("yellow")]
    assert doubted.split() == [
        "yellow",
        "object",
        "uncertain",
        "no_box",
        "caption",
        "parsed",
        "1",
        "0.00",
        "none",
    ]
    assert "caption 0: a yellow square" in text
    assert "generated: a blue square" in text


def test_what_died_and_what_was_dropped_is_said(shown):
    assert "caption 1: dead letter: caption_empty" in shown("squares/empty-caption")
    assert "dead at ingest: image_truncated" in shown("squares/broken")
    assert "dropped: squares/000000 is the same" in shown("squares/copy")


def test_the_picture_is_written_where_it_is_asked_for(shown, tmp_path):
    target = tmp_path / "new" / "wrong.png"
    assert f"drawn: {target}" in shown("squares/wrong", target)
    with Image.open(target) as image:
        assert image.width > 1_200


def test_a_file_that_cannot_be_written_is_one_line(shown, tmp_path):
    with pytest.raises(ConfigError, match=r"name a \.png file"):
        shown("squares/wrong", tmp_path / "wrong.docx")
    with pytest.raises(ConfigError, match="died at ingest"):
        shown("squares/broken", tmp_path / "broken.png")


def test_a_caption_cannot_steer_the_terminal():
    assert shown_text("a \x1b]0;dog\x07\n cat 狗 👧") == "a \\x1b]0;dog\\x07\\n cat 狗 👧"
