"""The parts that a stage has, in its generation and elsewhere, and whether they can be used again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tagmill.pipeline.places import Place
from tagmill.pipeline.plan import StagePlan, Upstream, work
from tagmill.pipeline.records import PartRecord
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import equal_rows
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.stage import Stage


@dataclass(frozen=True)
class Wanted:
    """A part that a plan needs.

    Attributes:
        name: The part's name.
        fingerprint: The fingerprint that it must have.
        came: Bitmap of the rows that come in.
        base: The fingerprint without slices, see `Header`.
        before: The fingerprint that it had before rows were taken out of its inputs.
        base_before: Likewise the fingerprint without slices.
        ingested: Bitmap of the rows that ingest has; None where parts are not of ingest's.
    """

    name: str
    fingerprint: str
    came: int
    base: str = ""
    before: str = ""
    base_before: str = ""
    ingested: int | None = None

    def excess(self, part: PartRecord) -> int:
        """Give the rows of a part that ingest does not have any more."""
        return 0 if self.ingested is None else part.made_for & ~self.ingested


class Stock:
    """The parts that a stage has, in its generation, whose folder holds the files `listed`, and elsewhere."""

    def __init__(
        self, upstream: Upstream, stage: str, generation: str, names: list[str], listed: list[str]
    ) -> None:
        self._stage, self._names = stage, names
        self._places = upstream.places
        self._own = Place(upstream.run, stage, generation)
        self._here = self._own.parts(names, listed)
        self._again = upstream.to_retry(stage, self._here)
        record = self._own.record
        self._lost = set(record.parts if record else ()) - self._here.keys()
        self._others: list[tuple[Place, dict[str, PartRecord]]] | None = None

    def serve(self, plan: StagePlan[Any], wanted: Wanted, by_row: Callable[[], dict[str, str]]) -> bool:
        """Look for a part that can be used, and add it to the plan, or else the reason why it must be made.

        Args:
            plan: The plan to add to.
            wanted: The part.
            by_row: Reads the digests for each row of the slices that the part depends on.

        Returns:
            Whether a part was found.
        """
        name, why = wanted.name, "not made yet"
        if name in self._again:
            plan.reasons.append(f"{name}: its dead letters are tried again")
            return False
        for place, found in self._found():
            part, folder = found.get(name), place.folder
            if part is None:
                continue
            reason = _why_not(part, wanted)
            if reason == CHANGED and self._is_equal_where_it_counts(folder, part, wanted, by_row):
                part, reason = replace(part, fingerprint=wanted.fingerprint, base=wanted.base), ""
            excess = wanted.excess(part)
            if not reason and place != self._own and not self._is_sound(place, part, is_read=bool(excess)):
                reason = "its copy is damaged"
            if not reason and excess:
                plan.origins[name] = folder if folder != plan.folder else work(plan)
                why = f"rewritten without {excess.bit_count()} of its rows"
                break
            if not reason:
                plan.done[name] = part
                if folder != plan.folder:
                    plan.adopted[name] = place.adoption(part)
                return True
            if folder == plan.folder or reason != CHANGED:
                why = reason
        plan.reasons.append(f"{name}: {why}")
        return False

    def find_relative(self, name: str, stage: Stage[Any]) -> str:
        """Give the folder of a part that another generation here made likewise of other inputs, or ""."""
        for place, found in self._found():
            if name in found and place != self._own and not place.lender:
                header = parts.read_header(parts.part_uri(place.folder, name))
                if (header.version, header.spec) == (stage.version, stage.spec):
                    return place.folder
        return ""

    def _is_equal_where_it_counts(
        self, folder: str, part: PartRecord, wanted: Wanted, by_row: Callable[[], dict[str, str]]
    ) -> bool:
        """Tell whether a part's inputs are unchanged in all living rows.

        Digests of slices cover all rows that the inputs were made for, which a filter changes. Digests of
        the whole are those that the inputs had before rows were taken out.
        """
        if wanted.came & ~part.made_for:
            return False
        if part.fingerprint == wanted.before:
            return True
        if not part.base or part.base not in (wanted.base, wanted.base_before):
            return False
        read, rows = parts.read_header(parts.part_uri(folder, part.name)).read, bitmaps.numbers(wanted.came)
        now = by_row()
        return all(equal_rows(read.get(other, ""), digests, rows) for other, digests in now.items())

    def _is_sound(self, place: Place, part: PartRecord, *, is_read: bool) -> bool:
        """Check a part that was removed from this generation, and one of another run that a worker reads: a
        damaged copy must not replace it. What is adopted from another run is checked as it comes.
        """
        if part.name not in self._lost and not (place.lender and is_read):
            return True
        return parquet.seal(files.read_bytes(parts.part_uri(place.folder, part.name))) == part.seal

    def _found(self) -> Iterator[tuple[Place, dict[str, PartRecord]]]:
        """Give the parts of this generation, and then those of other places, which are read on demand."""
        yield self._own, self._here
        if self._others is None:
            places = self._places.of(self._stage, self._own.generation)
            self._others = [(place, place.parts(self._names)) for place in places]
        yield from self._others


CHANGED = "its inputs changed"


def _why_not(part: PartRecord, wanted: Wanted) -> str:
    """Say why a part cannot be used; empty if it can."""
    if part.fingerprint != wanted.fingerprint:
        return CHANGED
    if hidden := wanted.came & ~part.made_for:
        return f"made when {hidden.bit_count()} of its rows were filtered out"
    return ""
