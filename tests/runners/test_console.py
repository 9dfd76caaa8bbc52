import io
import json
import time

import pytest
from rich.console import Console

from tagmill.runners import console
from tagmill.runners.console import ConsoleProgress


def play(progress: ConsoleProgress, count: int = 2) -> None:
    """Two stages: one in which things are made, and one in which all is there already."""
    with progress:
        progress.start("ingest", 1, 3)
        with progress.watch("ingest", lambda: count):
            time.sleep(0.1)
        progress.finish("ingest", 20, 1)
        progress.start("tag", 4, 4)
        progress.finish("tag", 19, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(console, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.02)


def test_plain_lines_say_where_a_stage_began_goes_and_ended():
    sink = io.StringIO()
    play(ConsoleProgress(Console(file=sink, width=200)))
    lines = sink.getvalue().splitlines()
    assert lines[0] == "ingest: 1/3 sources"
    assert any(line.startswith("ingest: 2/3 sources, ") and "left" in line for line in lines[1:])
    (ended,) = [line for line in lines if line.startswith("ingest: 3/3 sources, 20 examples, 1 dead")]
    assert ended.endswith(" s")
    assert lines[-2] == "tag: 4/4 parts"
    assert lines[-1].startswith("tag: 4/4 parts, 19 examples, 0 dead")
    assert "\x1b" not in sink.getvalue()


def test_a_stage_in_which_nothing_came_yet_promises_no_end():
    sink = io.StringIO()
    play(ConsoleProgress(Console(file=sink, width=200)), count=1)
    assert "left" not in sink.getvalue()


def test_json_lines_are_whole_objects(capsys):
    play(ConsoleProgress(Console(file=io.StringIO()), "json"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "start"
    assert (events[0]["stage"], events[0]["unit"], events[0]["done"], events[0]["total"]) == (
        "ingest",
        "sources",
        1,
        3,
    )
    assert {event["event"] for event in events} == {"start", "progress", "finish"}
    finished = [event for event in events if event["event"] == "finish"]
    assert [(event["stage"], event["examples"], event["dead"]) for event in finished] == [
        ("ingest", 20, 1),
        ("tag", 19, 0),
    ]


def test_a_terminal_shows_every_stage_in_a_line_of_its_own():
    sink = io.StringIO()
    play(ConsoleProgress(Console(file=sink, width=120, force_terminal=True)))
    text = sink.getvalue()
    assert "✓ ingest" in text
    assert "✓ tag" in text
    assert "3/3 sources" in text
    assert "1 dead" in text
    assert "as it was" in text
    assert "\x1b[?25h" in text  # the cursor is back


def test_a_view_is_closed_when_the_run_fails():
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True)
    with pytest.raises(RuntimeError), ConsoleProgress(console) as progress:  # noqa: PT012
        progress.start("tag", 0, 1)
        with progress.watch("tag", lambda: 0):
            raise RuntimeError("a bug")
    assert "\x1b[?25h" in sink.getvalue()


def test_plain_is_plain_in_a_terminal_too():
    sink = io.StringIO()
    play(ConsoleProgress(Console(file=sink, width=200, force_terminal=True), "plain"))
    assert "✓" not in sink.getvalue()
    assert "ingest: 3/3 sources" in sink.getvalue()
