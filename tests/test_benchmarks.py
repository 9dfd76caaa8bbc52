import importlib
from pathlib import Path
from string import Formatter
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("bench")


def test_bench_runs_or_leaves_out_every_benchmark_and_has_what_they_need(bench: ModuleType):
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if "\ndef main(" in path.read_text()}
    run = {short.script for short in bench.SHORT}
    assert sorted([*run, *bench.LEFT_OUT, "bench"]) == sorted(scripts)
    places = {name for short in bench.SHORT for _, name, _, _ in Formatter().parse(short.arguments) if name}
    assert places <= set(dir(bench.Places))


def test_what_benchmarks_say_becomes_tables(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    figures = importlib.import_module("figures")
    monkeypatch.setenv(figures.FILE, str(tmp_path / "said.jsonl"))
    figures.say("parser", "speed, as fast as", 1.23456)
    figures.say("parser", "speed", 12345.678, "captions/s")
    assert capsys.readouterr().out == "parser: speed, as fast as: 1.235\nparser: speed: 12,346 captions/s\n"
    monkeypatch.setattr(bench, "OUT", tmp_path)
    bench.write_tables({"cores": "2"}, {"parser.py": figures.read(tmp_path / "said.jsonl")})
    assert (tmp_path / "figures.csv").read_text().splitlines() == [
        "benchmark,what,value,unit",
        'parser,"speed, as fast as",1.23456,ratio',
        "parser,speed,12345.7,captions/s",
    ]
    assert (tmp_path / "figures.md").read_text().splitlines() == [
        "# Figures",
        "",
        "- cores: 2",
        "",
        "## parser.py",
        "",
        "| figure | value | unit |",
        "|---|---|---|",
        "| speed, as fast as | 1.235 | ratio |",
        "| speed | 12,346 | captions/s |",
    ]
