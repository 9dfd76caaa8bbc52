"""What came into a dataset since its run was last whole.

RUN/whole.json  the sources, parts, examples and shards that there were then
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Self

from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files, notes
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.shards import Shards

WHOLE = "whole.json"


@dataclass(frozen=True)
class Holdings:
    """What a whole run holds.

    Attributes:
        sources: Names of its sources.
        parts: Names of its parts.
        examples: Examples in its shards.
        shards: The start of each shard's digest, by the shard's name.
    """

    sources: list[str]
    parts: list[str]
    examples: int
    shards: dict[str, str]

    @classmethod
    def of(cls, records: Mapping[str, StageRecord]) -> Self | None:
        """Look at the records of a run, by stage; None if it was not made to its end."""
        if Shards.name not in records:
            return None
        ingest, shards = records[Ingest.name], records[Shards.name]
        digests = {name: shard.digest[:16] for name, shard in shards.parts.items()}
        return cls(ingest.more["sources"], list(ingest.parts), shards.count("example", "in"), digests)

    @classmethod
    def read(cls, run: RunFolder) -> Self | None:
        """Read what a run held when it was last whole; None if it never was. Raises DamageError."""
        uri = run.path(WHOLE)
        if not files.exists(uri):
            return None
        names = ("sources", "parts", "examples", "shards")
        found = notes.read(uri, *names)
        return cls(*(found[name] for name in names))

    def write(self, run: RunFolder) -> None:
        """Note that a run holds this."""
        files.replace_bytes(run.path(WHOLE), notes.dump(asdict(self)))

    def since(self, before: "Holdings") -> str:
        """Say in a line what came and what went, and what became of the shards; empty if nothing did."""
        kept = self.shards.keys() & before.shards.keys()
        changed = sum(self.shards[name] != before.shards[name] for name in kept)
        examples = self.examples - before.examples
        found = [
            *_moved("sources", self.sources, before.sources),
            *_moved("parts", self.parts, before.parts),
            *([f"examples {examples:+,}"] if examples else []),
            *_moved("shards", self.shards, before.shards),
        ]
        if not (found or changed):
            return ""
        left = f"earlier shards: {len(kept) - changed:,} as they were, {changed:,} written again"
        return f"since the run was last whole: {'; '.join([', '.join(found), left] if found else [left])}"


def _moved(what: str, now: Collection[str], before: Collection[str]) -> Iterator[str]:
    came, went = len(set(now) - set(before)), len(set(before) - set(now))
    if came:
        yield f"{what} +{came:,}"
    if went:
        yield f"{what} -{went:,}"
