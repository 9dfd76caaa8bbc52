"""What made the run: models, settings and libraries."""

from collections.abc import Iterable, Iterator
from typing import Any

from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.study.site.base import Links, Page, Sheet
from tagmill.tag_system.core.config import flatten

SPECS = """SELECT stage, generation, version, spec, libraries
FROM stages;"""


class MadeOf(Page):
    """Shows the models with their digests, each stage's settings, and the config as a whole."""

    path, title = "made-of.html", "Models and config"

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        records = [*self.site.records.values(), *(one.record for one in self.site.begun)]
        libraries = [set(record.libraries.items()) for record in records]
        common = set.intersection(*libraries) if libraries else set()
        stages = [
            {
                "stage": record.stage,
                "generation": record.generation,
                "settings": sorted(flatten(record.settings).items()),
                "others": sorted(flatten(_others(record)).items()),
                "libraries": sorted(record.libraries.items() - common),
            }
            for record in records
        ]
        values: dict[str, Any] = {
            "models": list(_models(records)),
            "common": sorted(common),
            "stages": stages,
            "config": sorted(flatten(dict(self.site.config)).items()),
        }
        yield Sheet(self.path, self.title, "made_of.html", values, [SPECS])


def _models(records: Iterable[StageRecord]) -> Iterator[dict[str, str]]:
    """Name the models, as the config does, with the digests of what they are."""
    for record in records:
        name, digest = record.settings.get("model"), record.spec.get("model")
        if name is not None and digest is not None:
            yield {"stage": record.stage, "model": str(name), "digest": str(digest)}


def _others(record: StageRecord) -> dict[str, Any]:
    """Give what decides a stage's output beside its settings: models and vocabulary by their digests."""
    others = {name: value for name, value in record.spec.items() if name != "config"}
    return others | {"version": record.version}
