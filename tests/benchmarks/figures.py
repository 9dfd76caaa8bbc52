"""What benchmarks measured, in one form: each says its figures here, and `bench.py` makes tables of them."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE = "TAGMILL_FIGURES"
"""The environment variable that names a file, to which figures are added as lines of JSON."""


@dataclass(frozen=True)
class Figure:
    """One figure: which benchmark measured what."""

    benchmark: str
    what: str
    value: float
    unit: str


def say(benchmark: str, what: str, value: float, unit: str = "ratio") -> None:
    """Print a figure, and add it to the file of figures if there is one.

    Ratios compare two ways in one run, and hold on other machines better than all other units.
    """
    figure = Figure(benchmark, what, float(value), unit)
    sys.stdout.write(f"{benchmark}: {what}: {number(value)}{'' if unit == 'ratio' else ' ' + unit}\n")
    sys.stdout.flush()
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            file.write(json.dumps(asdict(figure)) + "\n")


def number(value: float) -> str:
    """Write a value for people: four digits, and large ones without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def read(path: Path) -> list[Figure]:
    """Read what was said, in its order; a file that is not there says nothing."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Figure(**json.loads(line)) for line in lines]


def csv_table(figures: Iterable[Figure]) -> str:
    """Write figures as CSV."""
    sink = io.StringIO()
    table = csv.writer(sink, lineterminator="\n")
    table.writerow(field.name for field in fields(Figure))
    table.writerows((one.benchmark, one.what, f"{one.value:.6g}", one.unit) for one in figures)
    return sink.getvalue()


def markdown_tables(machine: Mapping[str, str], measured: Mapping[str, Iterable[Figure]]) -> str:
    """Write what the machine was, and a table of figures under each title."""
    lines = ["# Figures", "", *(f"- {name}: {value}" for name, value in machine.items())]
    for title, figures in measured.items():
        lines += ["", f"## {title}", "", "| figure | value | unit |", "|---|---|---|"]
        lines += [f"| {one.what} | {number(one.value)} | {one.unit} |" for one in figures]
    return "\n".join(lines) + "\n"
