import io
import itertools
import json
import logging
import time

import pytest
from rich.console import Console
from rich.measure import Measurement

from tagmill.pipeline.progress import Extent
from tagmill.runners.commands import console
from tagmill.runners.commands.console import ConsoleProgress


def play(progress: ConsoleProgress, count: int = 2) -> None:
    """Two stages: one in which things are made, and one in which all is there already."""
    with progress:
        progress.start("ingest", Extent(1, 3, "sources"))
        with progress.watch("ingest", lambda: count):
            time.sleep(0.1)
        progress.finish("ingest", 20, 1)
        progress.start("tag", Extent(4, 4, "parts"))
        progress.finish("tag", 19, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(console, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.02)
    monkeypatch.setattr(console, "FRAMES_A_SECOND", 100)


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
    assert "2/3 sources" in text
    assert "20 examples" in text
    assert "1 dead" in text
    assert "as it was" in text
    assert "\x1b[?25h" in text  # the cursor is back


def test_numbers_of_a_large_run_are_whole_in_a_narrow_terminal(monkeypatch):
    clock = itertools.count(0, 4_000)
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    sink = io.StringIO()
    with ConsoleProgress(Console(file=sink, width=80, force_terminal=True, color_system=None)) as progress:
        progress.start("candidates", Extent(0, 14_000, "parts"))
        progress.finish("candidates", 14_000_000, 140_000)
        progress.start("localize", Extent(7_000, 14_000, "parts"))
    for said in ("✓ candidates", "14,000,000 examples", "140,000 dead\n", "7,000/14,000 parts"):
        assert said in sink.getvalue()


def test_a_view_is_closed_when_the_run_fails():
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True)
    with pytest.raises(RuntimeError), ConsoleProgress(console) as progress:  # noqa: PT012
        progress.start("tag", Extent(0, 1, "parts"))
        with progress.watch("tag", lambda: 0):
            raise RuntimeError("a bug")
    assert "\x1b[?25h" in sink.getvalue()


def test_plain_is_plain_in_a_terminal_too():
    sink = io.StringIO()
    play(ConsoleProgress(Console(file=sink, width=200, force_terminal=True), "plain"))
    assert "✓" not in sink.getvalue()
    assert "ingest: 3/3 sources" in sink.getvalue()


def test_a_terminal_shows_what_is_to_come_and_sums_up():
    sink = io.StringIO()
    play(
        ConsoleProgress(Console(file=sink, width=120, force_terminal=True), names=["ingest", "tag", "clean"])
    )
    assert "clean" in sink.getvalue()
    assert "made in 0 s: 19 examples" in sink.getvalue()
    assert "1 dead letters" in sink.getvalue()


def test_a_run_in_which_all_was_made_says_so_and_promises_nothing():
    sink = io.StringIO()
    with ConsoleProgress(Console(file=sink, width=120, force_terminal=True)) as progress:
        progress.start("tag", Extent(4, 4, "parts"))
        progress.finish("tag", 19, 0)
    assert "nothing to do" in sink.getvalue()


def test_a_stage_that_failed_is_marked_and_nothing_is_summed_up():
    sink = io.StringIO()
    with (  # noqa: PT012
        pytest.raises(RuntimeError),
        ConsoleProgress(Console(file=sink, width=120, force_terminal=True)) as progress,
    ):
        progress.start("tag", Extent(0, 4, "parts"))
        raise RuntimeError("a bug")
    assert "✗ tag" in sink.getvalue()
    assert "made in" not in sink.getvalue()


def test_warnings_go_above_the_lines_while_they_are_drawn_and_to_their_stream_afterwards():
    before, sink = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(before)
    logging.getLogger().addHandler(handler)
    try:
        with ConsoleProgress(Console(file=sink, width=120, force_terminal=True)) as progress:
            progress.start("tag", Extent(0, 4, "parts"))
            logging.getLogger("x").warning("between")
        logging.getLogger("x").warning("behind")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "between" in sink.getvalue()
    assert before.getvalue() == "behind\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 m 00 s"), (125, "2 m 05 s"), (7_500, "2 h 05 m")]
)
def test_times_are_said_in_two_units(seconds, said):
    assert console._duration(seconds) == said


@pytest.mark.parametrize(("rate", "said"), [(0.02, "50 s each"), (0.5, "0.5/s"), (1234.5, "1,234/s")])
def test_slow_things_are_said_in_time_for_each(rate, said):
    assert console._pace(rate) == said


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_line_fits_the_terminal_if_that_is_not_tiny(width):
    sink = io.StringIO()
    view = console._LiveView(Console(file=sink, width=width, force_terminal=True), ["clean"])
    stage = console._StageLine("duplicates", Extent(0, 14_000, "parts"))
    stage.done = 7_000
    view.update([stage], event="start")
    needed = Measurement.get(wide := Console(width=1_000), wide.options, view._table())
    view.close(failed=False)
    assert needed.maximum <= max(width, 80)
