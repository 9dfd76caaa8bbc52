"""What a page of the audit site is, and what it is made of.

A page gathers what it needs while the parts pass by, a few in memory at a time, and is written afterwards.
What it keeps must be bounded by tags, rules and samples: a run may have any number of examples.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from tagmill.pipeline.current import Begun
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import REPORT, RunFolder
from tagmill.pipeline.study.evaluation import StepScores
from tagmill.pipeline.study.site.pictures import ShownExample
from tagmill.tag_system.core import files
from tagmill.tag_system.decisions import Policy
from tagmill.transforms.clean import Clean
from tagmill.transforms.parts import SUFFIX

LISTED = 40
"""Examples that a list shows."""

_ASKED = re.compile(r"\b(?:FROM|JOIN) (\w+)")
"""The tables that a query names."""

Place = tuple[str, int]
"""Part and row of an example."""


@dataclass(frozen=True)
class SiteOptions:
    """What the site shows: `samples` decisions of each tag, verdict and rule; no pictures if `private`."""

    samples: int = 6
    private: bool = False


@dataclass(frozen=True)
class SiteRun:
    """A run as the site finds it, in whatever state.

    Attributes:
        run: Its folder.
        name: The folder's own name.
        records: The records of the stages that are whole, in order.
        begun: What lies in generations that were never finished.
        config: Its config as it was saved.
        stages: Rows of the report's table `stages`, of the unfinished ones too.
        tags: Rows of the report's table `tags`, in the vocabulary's order; none before clean was run.
        labels: Rows of its table `labels`.
        near: Its table of near-duplicates; None where nobody looked for them.
        scores: Scores against a truth by step, if one was named.
    """

    run: RunFolder
    name: str
    records: Mapping[str, StageRecord]
    begun: Sequence[Begun]
    config: dict[str, Any]
    stages: Sequence[Mapping[str, Any]]
    tags: Sequence[Mapping[str, Any]]
    labels: Sequence[Mapping[str, Any]]
    near: pa.Table | None
    options: SiteOptions
    scores: Mapping[str, StepScores] | None = None

    @cached_property
    def policy(self) -> Policy:
        """The policy that verdicts were given under."""
        record = self.records.get(Clean.name)
        return Policy(**record.spec["config"].get("policy", {})) if record else Policy()

    @cached_property
    def tables(self) -> set[str]:
        """The tables that `tagmill sql` has of the run, as it is."""
        report = files.list_names(self.run.path(REPORT), SUFFIX)
        begun = {one.record.stage for one in self.begun}
        return {*self.records, *begun, "dead", *(name.removesuffix(SUFFIX) for name in report)}

    def askable(self, queries: Iterable[str]) -> list[str]:
        """Leave out the queries of tables that the run has not."""
        return [query for query in queries if set(_ASKED.findall(query)) <= self.tables]


@dataclass(frozen=True)
class PartTables:
    """What stages say of the living examples of one part; None for a stage that was not run.

    All tables have `key`, `sha256` and `part` of the example beside their own columns. `twins` is of the
    examples that `duplicates` dropped.
    """

    examples: pa.Table
    decisions: pa.Table | None
    parsed: pa.Table | None
    twins: pa.Table | None


@dataclass(frozen=True)
class Sheet:
    """One file of the site.

    Attributes:
        path: Its path in the site, with slashes.
        title: What it is about.
        template: The file in `templates` that it is made with.
        values: What that is filled with.
        queries: The queries of `tagmill sql` that give the same.
    """

    path: str
    title: str
    template: str
    values: Mapping[str, Any]
    queries: Sequence[str] = ()


@dataclass
class Links:
    """Where pages of tags and examples lie, as other pages name them.

    Attributes:
        tags: The path of each tag's page.
        examples: What there is of each chosen example, by part and row.
    """

    tags: dict[str, str] = field(default_factory=dict)
    examples: dict[Place, ShownExample] = field(default_factory=dict)


class Page(ABC):
    """A subject of the site: what it gathers of the parts, and the files that it makes of that."""

    path: ClassVar[str]
    """Its first file, to which the menu leads."""
    title: ClassVar[str]
    """Its name in the menu."""

    def __init__(self, site: SiteRun) -> None:
        self.site = site

    def add(self, tables: PartTables) -> None:  # noqa: B027  # most pages gather nothing
        """Gather what it needs of a part; called for all parts in their order."""

    def chosen(self) -> Iterable[pa.Table]:
        """Give tables with `part`, `row` and `key` of the examples that it shows; with `tag`, of its box."""
        return ()

    @abstractmethod
    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make its files, the first of them at `path`."""
