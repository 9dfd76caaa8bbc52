"""What benchmarks measured, in one form: each says its figures here, and `bench.py` makes a table of them."""

import json
import os
import sys
from pathlib import Path

FILE = "TAGMILL_FIGURES"
"""The environment variable that names a file, to which figures are added as lines of JSON."""


def say(benchmark: str, what: str, value: float, unit: str = "ratio") -> None:
    """Print a figure, and add it to the file of figures if there is one.

    Ratios compare two ways in one run, and hold on other machines better than all other units.
    """
    sys.stdout.write(f"{benchmark}: {what}: {value:.4g}{'' if unit == 'ratio' else ' ' + unit}\n")
    sys.stdout.flush()
    if path := os.environ.get(FILE):
        line = {"benchmark": benchmark, "what": what, "value": float(value), "unit": unit}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")
