"""What ingest made of a source: its rows, its dead letters, its counts."""

from typing import Any

from stage_runs import Bench
from tagmill.transforms import bitmaps


def rows(bench: Bench) -> list[dict[str, Any]]:
    return [record for name in bench.names for record in bench.part("ingest", name).records]


def letters(bench: Bench) -> list[tuple[int, str, str]]:
    return [(d["row"], d["unit"], d["reason"]) for name in bench.names for d in bench.dead("ingest", name)]


def check_counts(bench: Bench) -> None:
    """in = out + dead, for examples and for captions, against what the tables really hold."""
    for name in bench.names:
        part, dead = bench.part("ingest", name), bench.dead("ingest", name)
        header = part.header
        died = {unit: [d for d in dead if d["unit"] == unit] for unit in ("example", "caption")}
        living = sum(text is not None for record in part.records for text in record["captions"])
        assert header.counts.of("example") == {
            "in": part.table.num_rows + len(died["example"]),
            "out": part.table.num_rows,
            "dropped": 0,
            "dead": len(died["example"]),
        }
        assert header.counts.of("caption") == {
            "in": living + len(died["caption"]),
            "out": living,
            "dropped": 0,
            "dead": len(died["caption"]),
        }
        assert header.dead == by_reason(died["example"])
        assert header.dead_captions == by_reason(died["caption"])
        assert bitmaps.numbers(header.lost) == sorted(d["row"] for d in died["example"])
        everyone = {r["row"] for r in part.records} | set(bitmaps.numbers(header.lost))
        assert everyone == set(bitmaps.numbers(header.rows)) == set(range(header.counts.examples))


def by_reason(dead: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The rows of dead letters by their reason: a row for each."""
    reasons = sorted({d["reason"] for d in dead})
    return {reason: sorted(d["row"] for d in dead if d["reason"] == reason) for reason in reasons}
