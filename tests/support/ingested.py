"""What ingest made of a source: its rows, its dead letters, its counts."""

from typing import Any

from stage_runs import Bench


def rows(bench: Bench) -> list[dict[str, Any]]:
    return [record for name in bench.names for record in bench.part("ingest", name).records]


def letters(bench: Bench) -> list[tuple[int, str, str]]:
    return [(d["row"], d["unit"], d["reason"]) for name in bench.names for d in bench.dead("ingest", name)]


def check_counts(bench: Bench) -> None:
    """in = out + dead, for examples and for captions, against what the tables really hold."""
    for name in bench.names:
        part, dead = bench.part("ingest", name), bench.dead("ingest", name)
        example, caption = part.header.counts["example"], part.header.counts["caption"]
        died = {unit: sum(d["unit"] == unit for d in dead) for unit in ("example", "caption")}
        living = sum(text is not None for record in part.records for text in record["captions"])
        assert example == {
            "in": part.table.num_rows + died["example"],
            "out": part.table.num_rows,
            "dropped": 0,
            "dead": died["example"],
        }
        assert caption == {
            "in": living + died["caption"],
            "out": living,
            "dropped": 0,
            "dead": died["caption"],
        }
        assert sum(part.header.dead.values()) == len(dead)
        assert part.header.gone == sorted(d["row"] for d in dead if d["unit"] == "example")
        everyone = {r["row"] for r in part.records} | set(part.header.gone)
        assert everyone == set(range(example["in"]))
