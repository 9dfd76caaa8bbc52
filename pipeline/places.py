"""Where parts can be taken from: other generations of the run, and other runs.

Other runs are those of the first examples of this one's sources, and those that the config names under
`reuse`. What of it serves is told by fingerprints. What other runs lend is read once before it is used: it
may have been damaged since their own `verify`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from tagmill.pipeline import checks
from tagmill.pipeline.accounts import known_parts
from tagmill.pipeline.checks import Check
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError

TRIAL = "-limit-"
"""Stands in the name of a run's folder before a number, if only so many examples of each source are read."""


@dataclass(frozen=True)
class Adoption:
    """Files of another generation that are used in this one: `names` in the folder `source`.

    Those of another run, `lender`, have checks, by their names.
    """

    source: str
    names: tuple[str, ...]
    bytes: int
    lender: str = ""
    checks: Mapping[str, Check] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A generation of a stage from which parts can be taken; `lender` is the folder of another run, if it is
    one's.
    """

    run: RunFolder
    stage: str
    generation: str
    lender: str = ""

    @property
    def folder(self) -> str:
        """The folder of the generation."""
        return self.run.generation(self.stage, self.generation)

    @cached_property
    def record(self) -> StageRecord | None:
        """What is recorded of the generation, if it was ever finished. Raises DamageError."""
        return self.run.read_record(self.stage, self.generation)

    def parts(
        self, names: Iterable[str] | None = None, listed: Collection[str] | None = None
    ) -> dict[str, PartRecord]:
        """Give the records of the parts that are there, of `names` or of all, as `known_parts` does."""
        return known_parts(self.run, self.stage, self.generation, names, listed)

    def adoption(self, part: PartRecord) -> Adoption:
        """Name the files of a part."""
        return self.adoption_of(part.files(), part.size, checks.of_part(part))

    def adoption_of(self, names: Sequence[str], size: int, found: Mapping[str, Check]) -> Adoption:
        """Name files, the last of which makes the others count, and what they must be."""
        return Adoption(self.folder, tuple(names), size, self.lender, found if self.lender else {})


class Places:
    """The places that a run can take parts from; `lenders` are the runs that it names."""

    def __init__(self, run: RunFolder, lenders: Sequence[RunFolder] = ()) -> None:
        self._run = run
        self._lenders = lenders

    def of(self, stage: str, generation: str) -> Iterator[Place]:
        """Give the places for a generation of a stage: its other generations here, then those of others."""
        for other in self._run.generations(stage):
            if other != generation:
                yield Place(self._run, stage, other)
        yield from self.lent(stage)

    def lent(self, stage: str) -> Iterator[Place]:
        """Give the generations that other runs have of a stage."""
        for run in self._others:
            for other in run.generations(stage):
                yield Place(run, stage, other, run.root)

    @cached_property
    def _others(self) -> list[RunFolder]:
        folder, _, name = self._run.root.rpartition("/")
        trials = [one for one in files.list_folders(folder or ".") if one.startswith(name + TRIAL)]
        return [*(RunFolder(files.join(folder or ".", one)) for one in trials), *self._lenders]


def adopt(adoptions: Iterable[Adoption], folder: str) -> None:
    """Copy or link files into the folder of a generation; see `files.adopt`.

    Raises DamageError for a file of another run that is not as it was recorded there, or is gone.
    """

    taken = list(adoptions)
    sizes = {source: files.walk_sizes(source) for source in {one.source for one in taken if one.checks}}

    def one(adoption: Adoption) -> None:
        for problem in checks.run(adoption.source, adoption.checks, sizes.get(adoption.source, {})):
            raise DamageError(f"{problem}; remove it and run again")
        for name in adoption.names:  # the part comes last and makes them count
            files.adopt(files.join(adoption.source, name), files.join(folder, name))

    with ThreadPoolExecutor(files.THREADS) as pool:
        list(pool.map(one, taken))
