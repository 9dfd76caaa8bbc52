"""Where a run's time went: images a second by stage, and what was neither model nor decoding.

    python tests/benchmarks/stage_times.py RUN

Times are summed over the workers, from the footers of the parts: total = read + wait
for pixels + model + other. The table is of seconds; below it they are shares of the total.
"""

import sys

import pyarrow.parquet as pq
from figures import say
from rich.console import Console
from rich.table import Table


def main() -> None:
    stages = pq.read_table(f"{sys.argv[1]}/report/stages.parquet").to_pylist()
    table = Table("stage", "images", "images/s", "total s", "read", "wait", "model", "other", "MB")
    for stage in stages:
        seconds = dict(stage["seconds"])
        total = seconds.get("total", 0.0)
        spent = [seconds.get(name, 0.0) for name in ("read", "wait", "model")]
        numbers = [stage["examples_in"] / total if total else 0.0, total, *spent, total - sum(spent)]
        table.add_row(
            stage["stage"],
            str(stage["examples_in"]),
            *(f"{number:.2f}" for number in numbers),
            f"{stage['bytes'] / 1e6:.2f}",
        )
    Console().print(table)
    for stage in stages:
        say_shares(stage["stage"], stage["examples_in"], dict(stage["seconds"]))


def say_shares(stage: str, examples: int, seconds: dict[str, float]) -> None:
    if not (total := seconds.get("total", 0.0)):
        return
    say("stage_times", stage, examples / total, "images/s")
    spent = {name: seconds[name] / total for name in ("read", "wait", "model") if seconds.get(name)}
    for name, share in {**spent, "other": 1 - sum(spent.values())}.items():
        say("stage_times", f"{stage}: share of {name}", share)


if __name__ == "__main__":
    main()
