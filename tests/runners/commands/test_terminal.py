import io
import json
import logging
import sys
import threading
import warnings

import pytest
from rich.table import Table
from rich.text import Text

from tagmill.runners.api import html
from tagmill.runners.cli import main
from tagmill.runners.commands.logs import configure_logging
from tagmill.runners.commands.terminal import Terminal, complain
from tagmill.tag_system.core.text import dump_json, lines, shown

ODD = "\x1b[2J\x9b31m\u202egnp\u2066\u200b\ufeff\u2028\r\x07\udc80\u3164\U000e0041"
SHOWN = r"\x1b[2J\x9b31m\u202egnp\u2066\u200b\ufeff\u2028\r\x07\udc80\u3164\U000e0041"


def test_what_steers_a_terminal_is_escaped_and_what_can_be_read_stays():
    assert shown(f"a dog{ODD}") == f"a dog{SHOWN}"
    assert shown("a\nb\tc") == r"a\nb\tc"
    assert shown("a\nb\tc", keep="\n\t") == "a\nb\tc"
    for plain in ("café cafe\u0301 狗 собака 🐶 שלום", "a\\x1b", "a \xa0b\u3000c"):
        assert shown(plain) == plain


def test_json_keeps_its_values_and_says_nothing_to_a_terminal():
    value = {"caption": f"狗 {ODD}\x00\x7f\n"}
    written = dump_json(value)
    assert json.loads(written) == value
    assert "狗" in written
    assert shown(written) == written


def test_lines_end_where_an_editor_ends_them():
    assert lines("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh\ri\n") == [
        "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
        "h",
        "i",
    ]
    assert lines("") == []
    assert lines("\n") == [""]


def test_a_console_escapes_strings_cells_and_texts_and_reads_no_markup():
    stream = io.StringIO()
    console = Terminal(file=stream, width=200, force_terminal=True, color_system=None)
    odd = f"[red]:dog: {ODD}"
    console.print(f"{odd}\ntagmill: all is well", highlight=False)
    table = Table(box=None, title=odd)
    table.add_column(odd)
    table.add_row(odd, f"x{odd}")
    console.print(table)
    console.print(Text(f"x{odd}"))
    said = stream.getvalue()
    assert said.count("[red]:dog: ") == 6
    assert said.count(r"\x1b[2J\x9b31m\u202egnp") == 6
    assert shown(said, keep="\n") == said
    assert "\ntagmill" not in said


def test_what_is_said_on_standard_error_is_a_line_each_without_secrets(capfd):
    complain(f"{ODD}\nfake", "https://me:word@host/a?X-Amz-Signature=abc&x=1 hf_abcdefghijk0123456789")
    said = capfd.readouterr().err
    assert said.splitlines() == [
        rf"tagmill: {SHOWN}\nfake",
        "https://***@host/a?X-Amz-Signature=***&x=1 ***",
    ]


def test_logs_and_tracebacks_are_shown_too(capfd, monkeypatch):
    before = logging.getLogger().handlers[:]
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    try:
        configure_logging()
        try:
            raise ValueError(f"plug-in {ODD}")
        except ValueError as error:
            logging.getLogger("x").warning("%s\nfake", ODD, exc_info=True)
            sys.excepthook(type(error), error, error.__traceback__)
        said = capfd.readouterr().err
    finally:
        logging.getLogger().handlers[:] = before
    assert said.startswith(rf"WARNING x: {SHOWN}\nfake" + "\nTraceback")
    assert said.count(f"ValueError: plug-in {SHOWN}\n") == 2
    assert shown(said, keep="\n") == said


def test_a_page_shows_what_would_turn_its_direction():
    assert html.items([f"<b>{ODD}"]) == rf"<ul><li>&lt;b&gt;{SHOWN}</li></ul>"
    assert html.marked("\u202ea dog", [{"start": 3, "end": 6}]) == r"\u202ea <mark>dog</mark>"


def test_an_unknown_command_is_shown(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tagmill", f"x{ODD}"])
    monkeypatch.setattr("tagmill.runners.cli._leave", lambda code: None)
    main()
    said = capfd.readouterr().err
    assert SHOWN in said
    assert shown(said, keep="\n") == said


@pytest.mark.parametrize("door", ["parse", "parse --json"])
def test_captions_are_shown(capfd, monkeypatch, door, tmp_path):
    (tmp_path / "captions.txt").write_text("a dog \x1b[2J\x9b \u202e\u2028 runs\n", encoding="utf-8")
    arguments = [*door.split(), "--mode", "fast", "--file", str(tmp_path / "captions.txt")]
    monkeypatch.setattr(sys, "argv", ["tagmill", *arguments])
    monkeypatch.setattr("tagmill.runners.cli._leave", lambda code: None)
    main()
    said = capfd.readouterr().out
    assert "dog" in said
    assert shown(said, keep="\n") == said
