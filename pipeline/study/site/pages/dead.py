"""Dead letters: what was lost, where and of what."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from tagmill.pipeline.dead_letters import dead_of
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.study.site.base import Links, Page, Sheet
from tagmill.pipeline.study.site.sampling import FirstRows
from tagmill.transforms import parquet, parts

A_REASON = 20
"""Dead letters that are listed of each stage, unit and reason."""

LETTERS = f"""SELECT stage, unit, reason, key, caption_index, detail
FROM dead
QUALIFY row_number() OVER (PARTITION BY stage, unit, reason ORDER BY key, caption_index) <= {A_REASON}
ORDER BY stage, unit, reason, key, caption_index;"""

COUNTS = """SELECT stage, unit, reason, count(*) AS count
FROM dead
GROUP BY ALL
ORDER BY count DESC, stage, unit, reason;"""


class DeadLetters(Page):
    """Lists the reasons, and some of each with their details; of stages that are not whole too."""

    path, title = "dead.html", "Dead letters"

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        records = [*self.site.records.values(), *(one.record for one in self.site.begun)]
        reasons = []
        for record in records:
            listed = self._letters(record)
            for (unit, reason), count in sorted(_counts(record).items()):
                some = listed.get((unit, reason), [])
                about = {
                    "stage": record.stage,
                    "unit": unit,
                    "reason": reason,
                    "count": count,
                    "letters": some,
                }
                reasons.append(about)
        values: dict[str, Any] = {"reasons": reasons, "total": sum(one["count"] for one in reasons)}
        yield Sheet(self.path, self.title, "dead.html", values, [COUNTS, LETTERS])

    def _letters(self, record: StageRecord) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Read the first dead letters of a stage by key, for each unit and reason."""
        folder = self.site.run.generation(record.stage, record.generation)
        rows = FirstRows(("unit", "reason"), ("key", "caption_index"), A_REASON)
        for name, part in record.parts.items():
            if "dead" in part.beside:
                table = parquet.read_table(parts.dead_uri(folder, name)).replace_schema_metadata()
                rows.add(table.filter(pc.equal(table["stage"], record.stage)))
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        table = rows.table()
        for letter in [] if table is None else table.to_pylist():
            found.setdefault((letter["unit"], letter["reason"]), []).append(letter)
        return found


def _counts(record: StageRecord) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for part in record.parts.values():
        for unit, found in dead_of(part).items():
            counts.update({(unit, reason): count for reason, count in found.items()})
    return counts
