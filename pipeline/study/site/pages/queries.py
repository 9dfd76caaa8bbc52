"""SQL: how to ask the tables of the run, and the queries of all pages in one place."""

from collections.abc import Iterator
from typing import Any

from tagmill.pipeline.study.site.base import Links, Page, Sheet
from tagmill.pipeline.study.site.pages import dead, duplicates, licences, overview, tags, untagged, weakest


class Queries(Page):
    """Lists the queries that the pages end with."""

    path, title = "sql.html", "SQL"

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        policy, samples = self.site.policy, self.site.options.samples
        some = self.site.tags[0]["tag"] if self.site.tags else "dog"
        asked: dict[str, list[str]] = {
            "What went in and what came out?": [overview.IN_AND_OUT],
            "What was decided, by which rule?": [overview.RULES],
            "What do the kept tags rest on?": [overview.KEPT_BY],
            "All tags with their counts": [tags.TABLE],
            f"One tag, such as {some}": tags.queries_of(some, samples),
            "Kept with the least evidence": [weakest.query("kept", policy)],
            "Dropped with the most": [weakest.query("dropped", policy)],
            "Captions, labels and examples without a tag": [
                untagged.CAPTIONS,
                untagged.LABELS,
                untagged.EXAMPLES,
            ],
            "Duplicates": [duplicates.PAIRS],
            "Licences, as the sources call them": [licences.SAID],
            "Dead letters": [dead.COUNTS, dead.LETTERS],
        }
        found = {question: self.site.askable(queries) for question, queries in asked.items()}
        values: dict[str, Any] = {"asked": {question: some for question, some in found.items() if some}}
        yield Sheet(self.path, self.title, "queries.html", values)
