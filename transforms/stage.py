"""The base classes of stages: what a stage reads, what decides its output, and how it makes a part.

Beam elements are references to parts; tables and pixels stay inside the workers. A stage object is pickled
to the workers with its config and vocabulary, and loads its models there, in `setup`.
"""

import importlib.metadata
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, get_args

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from tagmill.tag_system.core import files, plugins
from tagmill.tag_system.core.config import Config, ConfigT
from tagmill.tag_system.core.digests import table_digest, value_digest
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.pixels import MAX_BYTES
from tagmill.tag_system.core.redaction import referring
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.task_file import PartOrder

if TYPE_CHECKING:  # a stage with a model does not load it
    from tagmill.tag_system.vocabulary import Vocabulary

LIBRARIES = (
    "apache-beam",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "onnxruntime",
    "open-clip-torch",
    "pillow",
    "pyarrow",
    "spacy",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)
"""Libraries whose versions every part records."""


@dataclass(frozen=True)
class Shared:
    """Settings that all stages of a run share.

    Attributes:
        part_size: Most examples in a part.
        threads: Threads of the numeric libraries in one worker, on which the last bits of results depend.
        max_pixels: Most pixels of an image that is decoded.
        strict_versions: Whether versions of the libraries decide the output too.
        max_image_bytes: Memory that one image may take while it is decoded, and that all images in flight
            share.
        decode_threads: Threads of one worker that read, decode and prepare images; nothing depends on them.
    """

    part_size: int
    threads: int
    max_pixels: int
    strict_versions: bool = False
    max_image_bytes: int = MAX_BYTES
    decode_threads: int = 1


@dataclass(frozen=True)
class RunContext:
    """What a stage is constructed from in a run.

    Attributes:
        shared: Settings that all stages share.
        vocabulary: The run's vocabulary.
        config: The run's config by key; the section of a stage is its config, or None if it is switched off.
    """

    shared: Shared
    vocabulary: "Vocabulary"
    config: Mapping[str, Any]


class Stage(ABC, Generic[ConfigT]):
    """One step of the engine.

    Subclasses name the inputs, say what decides the output (`spec`), and make the output.
    """

    kind: ClassVar[str]
    """How the driver plans, makes and checks what the stage makes: one of `pipeline.kinds`."""
    name: ClassVar[str]
    version: ClassVar[int]
    """A number to raise when the same input and config give another output."""
    schema: ClassVar[pa.Schema]
    tables: ClassVar[tuple[str, ...]] = ()
    """The inputs that are one table for all parts."""
    slices: ClassVar[Mapping[str, str]] = {}
    """The inputs of which the output depends on a slice only, with the slice's name; see `parts.Output`."""
    uses_model: ClassVar[bool] = False
    """Model stages get accelerator hints on distributed runners, and try two parts first."""
    follows_rows: ClassVar[bool] = False
    """Whether a part is made again whenever the set of living rows changes.

    If not, a part that was made for more rows is used too, so a filter that only removes rows costs nothing.
    """

    def __init__(self, config: ConfigT, shared: Shared) -> None:
        self.config = config
        self.shared = shared

    @classmethod
    def config_class(cls) -> type[Config]:
        """Give the class of the stage's config: the argument of its generic base."""
        for base in cls.__mro__:
            for generic in vars(base).get("__orig_bases__", ()):
                for argument in get_args(generic):
                    if isinstance(argument, type) and issubclass(argument, Config):
                        return argument
        raise TypeError(f"{cls.__qualname__} does not name its config: derive it from PartStage[YourConfig]")

    @classmethod
    def of_run(cls, run: RunContext) -> Self | None:
        """Make the stage for a run; None if it is switched off."""
        config = run.config[cls.name]
        return None if config is None else cls(config, run.shared)

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check how the stage is set in a run's config. Raises ValueError for what cannot work."""

    @classmethod
    def remarks(cls, config: Mapping[str, Any]) -> Iterator[str]:
        """Give warnings about settings that work, but probably not as intended."""
        yield from ()

    def doubts(self, dropped: Mapping[str, int], examples: int) -> Iterator[str]:
        """Give warnings about how many of the examples that came in were dropped, by reason."""
        yield from ()

    @property
    def imports(self) -> Sequence[str]:
        """Name modules that `setup` and the work import, and that take long: where workers are forks of one
        process, that imports them once for all. They must start no threads when they are imported.
        """
        return ()

    @property
    def imports_alone(self) -> Mapping[str, Sequence[str]]:
        """Name modules that a process imports which runs nothing but this stage, each with modules that it
        would import in turn if they are installed, and that the stage does without: they cost memory.
        """
        return {}

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Name the stages whose tables this one reads, in their order; one that is switched off is left out.

        Filters need not be named: no stage is given rows that an earlier stage removed.
        """

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What decides the output, as JSON values: non-default settings, models and vocabulary.

        The driver computes it once, for a model's digest reads its weights, and pickles it to the workers.
        """
        model = getattr(self.config, "model", None)
        with plugins.asked(f"{self.name}.model {model}" if model else f"stage {self.name}"):
            spec = referring(self._spec())  # of what a model was constructed with, not the secrets
        return spec | {"libraries": libraries()} if self.shared.strict_versions else spec

    def _spec(self) -> dict[str, Any]:
        return {"config": self.config.changed()}

    @property
    def settings(self) -> dict[str, Any]:
        """The whole config, as JSON values: what a report shows."""
        return self.config.model_dump(mode="json")

    def output_uri(self, folder: str, name: str) -> str:
        """Name the file that later stages read for a part; `folder` is of the generation."""
        return parts.part_uri(folder, name)

    def cut_slices(self, table: pa.Table) -> dict[str, pa.Table]:
        """Cut what later stages may depend on, instead of the whole, out of the table of a part: tables with
        a column `row`, by name.
        """
        return {}

    def tags_of(self, table: pa.Table) -> list[str]:
        """Name the tags that the table of a part holds, if later stages depend on them."""
        return []

    def setup(self) -> None:
        """Load what processing needs, once a worker."""


StageT = TypeVar("StageT", bound=Stage[Any])


class PartStage(Stage[ConfigT]):
    """A stage that makes one part from the same-named parts of its inputs."""

    kind = "parts"
    keeps_lost: ClassVar[bool] = False
    """Whether `process` itself makes a dead letter of each of `Inputs.lost` that it comes to, at its place
    in the batches. Else the stage never sees these rows."""

    def read(self, task: "PartTask") -> parts.Inputs:
        """Read the inputs of a part."""
        read = {name: parts.read_part(uri) for name, uri in task.inputs.items() if name not in self.tables}
        tables = {
            name: _table(uri, files.size_and_stamp(uri))
            for name, uri in task.inputs.items()
            if name in self.tables
        }
        return parts.Inputs(task.name, read, tables, task.root, removed_rows(task))

    @abstractmethod
    def process(self, inputs: parts.Inputs) -> parts.Output:
        """Make one part."""

    def reuse(self, inputs: parts.Inputs, folder: str) -> parts.Output | None:
        """Make one part of what it was before its inputs lost rows, which lies in `folder`; None if that
        cannot be. Called without `setup`, for parts of shards.
        """
        return None


class GlobalStage(Stage[ConfigT]):
    """A stage whose output for one part may depend on every part of its inputs.

    Workers write into a work folder. The driver then publishes the parts that changed; an unchanged part
    keeps its file, so later stages need not run again.
    """

    kind = "global_parts"
    follows_rows = True

    @abstractmethod
    def transform(self, work: str, order: PartOrder) -> beam.PTransform:
        """Give the transform PartTask -> str that writes its results into the folder `work`.

        `order` gives the position of every part in ingest's order.
        """


class TableStage(GlobalStage[ConfigT]):
    """A stage that makes one table for all parts, a row for each name in its first column.

    A part of a later stage depends only on the rows of its own `tags`. Workers write the table in buckets.
    """

    kind = "table"
    table: ClassVar[str]
    """The name of the table's file."""

    @property
    def kept_from(self) -> str | None:
        """The run whose rows of this table are kept, and with them those that this run has itself; None for a
        table that is always made of all parts.

        Then `transform` gets the parts alone that hold other names too, and leaves out the `kept_names`.
        """
        return None

    def output_uri(self, folder: str, name: str) -> str:
        """Name the table, which is the same for all parts."""
        return files.join(folder, self.table)

    def merge(self, buckets: Iterable[pa.Table]) -> pa.Table:
        """Concatenate the buckets, ordered by name."""
        found = list(buckets)
        name = self.schema.names[0]
        table = pa.concat_tables(found).sort_by(name) if found else self.schema.empty_table()
        return table.combine_chunks()


WORK = "work"
"""The folder, in that of a generation, for what is made on the way to its output."""

BUCKET = "bucket-"
"""How the names of a table's buckets begin."""

KEPT = "kept.parquet"
"""The rows of a table that are kept, in the work folder of the job that makes the others."""


def kept_names(work: str) -> frozenset[str]:
    """Name the rows of a table that are kept, and not to be made in the folder `work`."""
    uri = files.join(work, KEPT)
    return frozenset(parquet.read_table(uri).column(0).to_pylist() if files.exists(uri) else ())


def named_rows(table: pa.Table) -> dict[str, str]:
    """Give the digest of every row of a table, by the name in its first column."""
    names = table.column(0).to_pylist()
    return {name: table_digest(table.slice(index, 1)) for index, name in enumerate(names)}


@beam.coders.registry.register_row
@dataclass(frozen=True)
class PartTask:
    """A part to be made.

    Attributes:
        name: The part's name.
        fingerprint: Hash of what decides its content.
        inputs: URI of each input, by stage.
        root: Folder that the part's image references are relative to.
        removed: URI of the table of rows that earlier stages removed (`ROWS_SCHEMA`), or empty.
        base: The fingerprint without the slices that the part depends on.
        lost: Rows, in decimal, that kill the process that works on them, with what is known of that.
        origin: Folder of a part to be rewritten without the rows that ingest does not have any more; empty
            for a part to be made.
    """

    name: str
    fingerprint: str
    inputs: Mapping[str, str]
    root: str
    removed: str = ""
    base: str = ""
    lost: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""


ROWS_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("made_for", pa.binary(), nullable=False),
        pa.field("came", pa.binary(), nullable=False),
        pa.field("removed", pa.binary(), nullable=False),
        pa.field("tags", pa.binary(), nullable=False),
    ]
)
"""One row for each part of a stage, with bitmaps over the rows of the ingest part.

`made_for`: rows for which the part was made. `came`: rows that came in. `removed`: rows that this stage or an
earlier one removed. `tags`: tags that the part holds; bit i is the i-th tag of the record's list.
"""


def removed_rows(task: PartTask) -> int:
    """Read which rows of a part earlier stages took out, as a bitmap."""
    if not task.removed:
        return 0
    return _removed(task.removed, files.size_and_stamp(task.removed)).get(task.name, 0)


def living(table: pa.Table, task: PartTask) -> pa.Table:
    """Filter a part's table, by its column `row`, to the rows that live."""
    removed = removed_rows(task)
    if not removed:
        return table
    return table.filter(pc.invert(pc.is_in(table["row"], pa.array(bitmaps.numbers(removed), pa.int32()))))


@lru_cache(maxsize=2)
def _removed(uri: str, _version: tuple[int, str]) -> dict[str, int]:
    table = parquet.read_table(uri, ["name", "removed"])
    bits = (bitmaps.load(data) for data in table["removed"].to_pylist())
    return dict(zip(table["name"].to_pylist(), bits, strict=True))


@cache
def libraries() -> dict[str, str]:
    """Give the versions of the `LIBRARIES` that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def part_fingerprint(stage: Stage[Any], inputs: Mapping[str, Any]) -> str:
    """Hash what makes a part: the stage's version and spec, and the digests of what it reads."""
    return value_digest({"stage": stage.name, "version": stage.version, "spec": stage.spec, "inputs": inputs})


def made_by(stage: Stage[Any], name: str, fingerprint: str) -> parts.MadeBy:
    """Describe what makes a part."""
    return parts.MadeBy(stage.name, stage.version, name, fingerprint, stage.spec, libraries())


def limit_threads(threads: int) -> None:
    """Limit the numeric libraries of this process to `threads` threads, on which the last bits of sums
    depend."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # The variables reach libraries that are loaded later, and child processes; this reaches the loaded ones.
    threadpool_limits(limits=threads)
    if "torch" in sys.modules:  # keeps a number of its own, for threads to come too
        sys.modules["torch"].set_num_threads(threads)


def make_part(stage: PartStage[Any], folder: str, task: PartTask) -> None:
    """Read a part's inputs, process them and commit the result into a generation's folder."""
    start = time.perf_counter()
    inputs = stage.read(task)
    opened = time.perf_counter()
    output = process_part(stage, task, inputs)
    output.seconds["read"] = opened - start
    output.seconds["total"] = time.perf_counter() - start
    commit_part(stage, folder, task, inputs, output)


def commit_part(
    stage: PartStage[Any], folder: str, task: PartTask, inputs: parts.Inputs, output: parts.Output
) -> None:
    """Commit what was made of a part's inputs into a generation's folder."""
    output.table = conform(output.table, stage)
    output.slices, output.tags = stage.cut_slices(output.table), stage.tags_of(output.table)
    read = {other: inputs.parts[other].header.by_row[name] for other, name in slices_of(stage, task.inputs)}
    made = replace(made_by(stage, task.name, task.fingerprint), base=task.base, read=read)
    parts.commit(folder, made, output, inputs.rows)


def process_part(stage: PartStage[Any], task: PartTask, inputs: parts.Inputs) -> parts.Output:
    """Process what was read for a part; its lost rows are dead, as images are that cannot be decoded."""
    inputs.lost = {
        int(row): DataError(Reason.PROCESS_DIED, detail)
        for row, detail in task.lost.items()
        if int(row) in inputs.examples
    }
    if stage.keeps_lost or not inputs.lost:
        return stage.process(inputs)
    output = stage.process(inputs.without_lost())
    output.examples += len(inputs.lost)
    output.dead += [parts.Dead.of(row, inputs.key(row), error) for row, error in inputs.lost.items()]
    return output


def slices_of(stage: Stage[Any], inputs: Iterable[str]) -> list[tuple[str, str]]:
    """List the inputs of which a stage depends on a slice only, with the slice's name."""
    return [(other, stage.slices[other]) for other in inputs if other in stage.slices]


@lru_cache(maxsize=2)
def _table(uri: str, _version: tuple[int, str]) -> pa.Table:
    """Read a table that all parts share; cached until the file changes.

    A worker may outlive a run, and new input replaces the table of a generation.
    """
    return parquet.read_table(uri)


def conform(table: pa.Table, stage: Stage[Any]) -> pa.Table:
    """Check that a table has its stage's schema and ascending rows: anything else is a bug."""
    table = table.cast(stage.schema)
    rows = table.column("row").to_numpy()
    if (rows[1:] < rows[:-1]).any():
        raise ValueError(f"{stage.name}: rows are not ascending")
    return table
