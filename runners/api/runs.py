"""Runs, for callers in Python: make one whole, open one, look at its examples."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image as pillow

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.current import current_records
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study import example as examples
from tagmill.pipeline.study.exports.base import ExportOptions
from tagmill.pipeline.study.exports.exporting import ExportSummary, export
from tagmill.pipeline.study.further_boxes import further_boxes
from tagmill.pipeline.study.overlay import decision_tables
from tagmill.pipeline.study.picture import draw_example
from tagmill.pipeline.study.report import stage_row
from tagmill.pipeline.study.site.base import SiteOptions
from tagmill.pipeline.study.site.site import write_site
from tagmill.runners.api import html
from tagmill.runners.api.config import ConfigLike, checked
from tagmill.runners.api.datasets import ShardDataset, open_dataset
from tagmill.runners.api.decisions import RunDecision, example_picture
from tagmill.runners.beam_flags import parse_flags
from tagmill.runners.commands import inspection, launch
from tagmill.runners.commands.terminal import Terminal
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Verdict
from tagmill.tag_system.shard_contract import SPLITS, Split
from tagmill.transforms.clean import SCHEMA

_KEY = pa.field("key", pa.string(), nullable=False)


@dataclass(frozen=True, repr=False)
class RunExample:
    """One example of a run, with all that the run knows of it.

    Attributes:
        run: The run.
        found: What each stage says: `ingested`, `parsed`, `regions`, `decisions`, `dead`, `dropped`.
    """

    run: RunFolder
    found: examples.Example

    @property
    def key(self) -> str:
        """The example's key, `<input>/<source key>`."""
        return self.found.key

    @property
    def captions(self) -> list[str]:
        """The captions that were given; a caption that died is left out."""
        given = self.found.ingested["captions"] if self.found.ingested else []
        return [caption for caption in given if caption is not None]

    @property
    def tags(self) -> list[str]:
        """The tags that were kept."""
        return [decision["tag"] for decision in self.found.decided("kept")]

    @property
    def decisions(self) -> list[RunDecision]:
        """The decision on each proposed tag: kept ones first, then uncertain, then dropped ones.

        Each is a dictionary: the columns of clean's table by name.
        """
        found = [one for verdict in ("kept", "uncertain", "dropped") for one in self.found.decided(verdict)]
        return [RunDecision(one, self.run, self.found) for one in found]

    def decision(self, tag: str) -> RunDecision:
        """Find the decision on a tag, proposed or not; raises ConfigError that names those that there are."""
        for one in self.found.decisions:
            if one["tag"] == tag:
                return RunDecision(one, self.run, self.found)
        others = ", ".join(sorted(one["tag"] for one in self.found.decisions)) or "none"
        raise ConfigError(f"no decision on {tag!r} for {self.key}; decided were: {others}")

    @property
    def image(self) -> pillow.Image:
        """The image, read from its source: upright, in RGB.

        Raises ConfigError if the source is not found, InputChangedError if it is another one now.
        """
        return pillow.fromarray(examples.read_pixels(self.run, self.found))

    def picture(self) -> pillow.Image:
        """Draw the image with the boxes of its tags, and the verdicts beside it; raises as `image` does."""
        (further,) = further_boxes(self.run, [self.found])
        return draw_example(self.found, examples.read_pixels(self.run, self.found), further)

    def __repr__(self) -> str:
        state = ", ".join(self.tags) or self.found.dropped or ("dead" if self.found.dead else "no tags")
        return f"<example {self.key}: {state}>"

    def _repr_html_(self) -> str:
        (further,) = further_boxes(self.run, [self.found])
        return (
            html.heading(self.key)
            + example_picture(self.run, self.found)
            + html.items(self.captions)
            + html.table(self.decisions, html.DECISION_COLUMNS)
            + html.items(f"{tag}: {boxes.said()}" for tag, boxes in further.items() if boxes.outdone)
        )


class Run:
    """A run that was begun or finished; every call reads the folder again."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @property
    def folder(self) -> str:
        """The run's folder."""
        return self._folder.root

    @property
    def config(self) -> RunConfig:
        """The config that the run was last made with."""
        return RunConfig.model_validate(self._folder.saved_config() or {})

    @property
    def stages(self) -> list[dict[str, Any]]:
        """A record for each finished stage, as in the report's table `stages`: counts and times."""
        return [stage_row(self._folder, record) for record in current_records(self._folder)]

    def report(self, folder: str, *, samples: int = 6, private: bool = False) -> str:
        """Write pages that show what the run did and why into a local folder; gives the first of them.

        `samples` images are shown of each tag, verdict and rule; no pictures if `private`. Raises ConfigError
        for a folder that holds something else than such pages.
        """
        write_site(self._folder, folder, SiteOptions(samples, private))
        return files.join(folder, "index.html")

    def examples(self) -> Iterator[RunExample]:
        """Give every example that is in the dataset, in order."""
        for found in examples.living_examples(self._folder):
            yield RunExample(self._folder, found)

    def example(self, key: str) -> RunExample:
        """Find an example, living or not, by its key; raises ConfigError that names the nearest keys."""
        return RunExample(self._folder, examples.find_example(self._folder, key))

    def decisions(self) -> pa.Table:
        """Read the decisions on all examples in the dataset: the table of `clean`, by `key` and not by `row`.

        Raises ConfigError if the run has no decisions yet.
        """
        schema = pa.schema([_KEY, *(field for field in SCHEMA if field.name != "row")])
        tables = [schema.empty_table()]
        for ingested, decided in decision_tables(self._folder):
            keys = ingested["key"].take(pc.index_in(decided["row"], ingested["row"]))
            tables.append(decided.drop_columns("row").add_column(0, _KEY, keys).cast(schema))
        return pa.concat_tables(tables)

    def sql(self, query: str) -> pa.Table:
        """Ask one SELECT of DuckDB of the run's tables, as `tagmill sql` does; needs the extra `sql`.

        Raises ConfigError for a query that cannot be answered.
        """
        from tagmill.pipeline.study.tables import ask_whole, open_tables

        with open_tables(self._folder) as connection:
            return ask_whole(connection, query)

    def dataset(self, split: Split = "train") -> ShardDataset:
        """Open a split of the run's shards; raises ConfigError if there are none yet."""
        generation = self._folder.current("shards")
        if generation is None:
            raise ConfigError(f"{self.folder} has no shards yet: run it to its end")
        return open_dataset(self._folder.generation("shards", generation), split)

    def export(
        self,
        to: str,
        folder: str | os.PathLike[str],
        *,
        where: str | None = None,
        verdicts: Sequence[Verdict] | None = None,
        splits: Sequence[Split] = SPLITS,
        box_score: float | None = None,
        classes: str | os.PathLike[str] | None = None,
        size: int | None = None,
    ) -> ExportSummary:
        """Write the dataset in the format `to` into a new folder, as `tagmill export` does (docs/exports.md).

        Returns how many examples it has by split, and what the format cannot say. Raises ConfigError for what
        is not a format, an option of it or a folder to write into, and where nothing is chosen.
        """
        options = ExportOptions(
            splits=tuple(splits),
            where=where,
            verdicts=None if verdicts is None else tuple(verdicts),
            box_score=box_score,
            classes=None if classes is None else os.fspath(classes),
            size=size,
        )
        return export(self.folder, to, os.fspath(folder), options)

    def __repr__(self) -> str:
        names = [record.stage for record in current_records(self._folder)]
        return f"<run {self.folder}: {', '.join(names) or 'no stage finished'}>"

    def _repr_html_(self) -> str:
        return html.heading(self.folder) + html.table(self.stages, html.STAGE_COLUMNS)


def run(
    config: ConfigLike,
    *,
    workers: int = 1,
    progress: Literal["auto", "plain", "json", "quiet"] = "auto",
    until: str | None = None,
    accept_changes: bool = False,
    check_sources: bool = False,
) -> Run:
    """Make everything of a run that is not made yet, on this machine.

    Args:
        config: A config, its keys and values, or the path of its YAML file.
        workers: Worker processes; with 0 this process does the work itself.
        progress: How progress is shown: "auto" is live in a terminal and plain elsewhere.
        until: The last stage to be made; the models of later ones are not needed.
        accept_changes: Make the parts of changed source files again and drop those of missing ones, instead
            of refusing.
        check_sources: Read sources and images again that look unchanged by size and time.

    Returns:
        The run, open.

    Raises:
        ConfigError: The config does not hold, a model cannot be had, or somebody else drives the run.
        InputChangedError: A source file is missing, or another one than the run has read.
        TooManyDeadError: A stage lost more of its input than `max_dead_fraction` allows.

    Examples:
        >>> photos = {"name": "photos", "format": "folder", "path": "photos"}
        >>> run({"run": "runs/photos", "inputs": [photos], "parse": {"mode": "fast"}}, progress="quiet")
        <run runs/photos: ingest, duplicates, parse, candidates, clean, shards>
    """
    if workers < 0:
        raise ConfigError(f"workers must be 0 or more, got {workers}")
    driver = Driver(checked(config), accept_changes=accept_changes, check_sources=check_sources, until=until)
    quiet = progress == "quiet"
    console = Terminal(quiet=quiet)
    log_format = launch.log_format("plain" if quiet else progress)
    with closing(LocalEngine(workers, parse_flags([]))) as engine:
        launch.make(driver, engine, console, log_format)
    return Run(driver.run_folder)


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open the folder of a run, finished or not.

    Args:
        folder: A path or an fsspec URL.

    Returns:
        The run; opening it reads no tables.

    Raises:
        ConfigError: The folder is not a run's.

    Examples:
        >>> made = open_run("runs/photos")
        >>> example = made.example("photos/beach")
        >>> example.captions, example.tags
        (['an airplane at the beach'], ['airplane', 'beach'])
        >>> example.decision("beach")["rule"]
        'not_localized'
    """
    return Run(inspection.open_run(os.fspath(folder)))
