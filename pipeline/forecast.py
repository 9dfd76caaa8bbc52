"""What a run will cost, from samples of it that are made by the real models in a scratch folder.

Each stage is taken to cost something whatever the number of examples, such as loading a model, and something
for each example that comes in. A few examples show the one, two samples of different size the other.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.current import current_records
from tagmill.pipeline.job import Engine
from tagmill.pipeline.prices import Prices
from tagmill.pipeline.progress import Extent
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import FoundSource, find_sources
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms import parquet, parts
from tagmill.transforms.formats.base import InputConfig, format_of
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.ingest import Ingest, source_of

HOUR, GIGABYTE = 3_600, 10**9

MOST_SOURCES = 8
"""Sources of an input that a sample reads from, chosen by the digests of their names."""

SMALLER = 4
"""How many times smaller the smaller sample is."""

LEAST = 16
"""Examples of the largest sample at least: fewer tell nothing of what each costs."""


@dataclass(frozen=True)
class StageForecast:
    """What a stage will take.

    Attributes:
        stage: Its name.
        examples: Examples that come in.
        gone: Of them, how many it drops or that die.
        cpu: CPU seconds, of all workers.
        wall: Seconds that one worker like this process is at work.
        bytes: What it leaves in the run's folder.
        uses_model: Whether it runs a model, which is where an accelerator works.
    """

    stage: str
    examples: float
    gone: float
    cpu: float
    wall: float
    bytes: float
    uses_model: bool


@dataclass(frozen=True)
class Forecast:
    """What a run of `examples` examples will take, by stage; `is_exact` if their number was counted."""

    examples: int
    is_exact: bool
    sample: int
    stages: Sequence[StageForecast]


@dataclass
class _Spent:
    cpu: float = 0.0
    wall: float = 0.0


@dataclass
class _Meter:
    """Measures what stages take in this process, from the end of one to that of the next."""

    spent: dict[str, _Spent] = field(default_factory=lambda: defaultdict(_Spent))

    def __post_init__(self) -> None:
        self._last = time.process_time(), time.monotonic()

    def start(self, stage: str, extent: Extent) -> None:
        """Note nothing."""

    @contextmanager
    def watch(self, stage: str, count: Callable[[], int]) -> Iterator[None]:
        """Watch nothing: that would take time of its own."""
        yield

    def finish(self, stage: str, examples: int, dead: int) -> None:
        """Take the time of a stage."""
        now = time.process_time(), time.monotonic()
        self.spent[stage].cpu += now[0] - self._last[0]
        self.spent[stage].wall += now[1] - self._last[1]
        self._last = now


@dataclass(frozen=True)
class _Trial:
    """What a sample took and left, by stage."""

    limit: int
    records: Mapping[str, StageRecord]
    spent: Mapping[str, _Spent]
    bytes: Mapping[str, int]

    def examples(self, stage: str) -> int:
        """Count what came into a stage; what makes one table gets what the stage before let out."""
        came = 0
        for name, record in self.records.items():
            came = record.count("example", "in") if record.parts else came
            if name == stage:
                break
            came = record.count("example", "out") if record.parts else came
        return came


def forecast(
    config: RunConfig, engine: Engine, count: int, total: int | None = None, workers: int = 1
) -> Forecast:
    """Make samples, the largest of about `count` examples, and tell what the whole run will take.

    Args:
        config: The run's config; nothing is written into its folder.
        engine: Runs the samples' jobs in this process.
        count: Examples of the largest sample.
        total: Examples of the whole run; None: they are counted, or estimated by bytes.
        workers: Processes of the whole run, each of which loads its models.

    Raises:
        ConfigError: `count` is too small, or nobody can tell how many examples there are.
    """
    if count < LEAST:
        raise ConfigError(f"--measure {count}: {LEAST} examples are the least that tell something")
    found = find_sources(config.inputs)
    inputs = _narrowed(config.inputs, found)
    sampled = find_sources(inputs)
    with TemporaryDirectory(prefix="tagmill-measure-") as scratch:
        first, small, large = (
            _make(config, engine, inputs, -(-most // len(sampled)), Path(scratch, str(most)))
            for most in (1, count // SMALLER, count)
        )
        if total is None:
            counted = _estimated(large, found, sampled, Path(scratch, str(count)))
        else:
            counted = total, True
    return _extended(first, small, large, *counted, workers)


def _narrowed(inputs: Sequence[InputConfig], found: Mapping[str, FoundSource]) -> list[InputConfig]:
    """Let each input read a few of its sources, chosen by chance, where its format has a file a source."""
    narrowed = []
    for one in inputs:
        sources = [source for source in found.values() if source.config.name == one.name]
        if len(sources) > MOST_SOURCES and isinstance(format_of(one), FileFormat):
            by_chance = sorted(sources, key=lambda source: hashlib.sha256(source.name.encode()).digest())
            one = one.model_copy(update={"path": [source.uri for source in by_chance[:MOST_SOURCES]]})
        narrowed.append(one)
    return narrowed


def _make(
    config: RunConfig, engine: Engine, inputs: Sequence[InputConfig], limit: int, folder: Path
) -> _Trial:
    """Make a sample of so many examples of each source."""
    ingest = config.ingest.model_copy(update={"limit": limit})
    changes = {"run": str(folder), "inputs": inputs, "ingest": ingest, "reuse": [], "max_dead_fraction": 1.0}
    meter = _Meter()
    driver = Driver(config.model_copy(update=changes))
    driver.run(engine, meter)
    records = {record.stage: record for record in current_records(driver.run_folder)}
    sizes = {
        stage: files.folder_size(driver.run_folder.generation(stage, record.generation))
        for stage, record in records.items()
    }
    return _Trial(limit, records, meter.spent, sizes)


def _estimated(
    sample: _Trial, found: Mapping[str, FoundSource], sampled: Mapping[str, FoundSource], folder: Path
) -> tuple[int, bool]:
    """Tell how many examples there are, by the bytes that a sample's took, and whether that is exact.

    Raises ConfigError where the format does not tell.
    """
    total, is_exact = 0.0, True
    read = _read_of(sample, sampled, folder)
    for name in dict.fromkeys(source.config.name for source in found.values()):
        every, sources = (
            [source for source in some.values() if source.config.name == name] for some in (found, sampled)
        )
        examples = used = 0.0
        for source in sources:
            seen = read.get(source.name, _SourceShare())
            share = seen.share(source, sample.limit)
            if share is None:
                raise ConfigError(
                    f"input {name}: nobody can tell how many examples {source.uri} has without reading it; "
                    "say with --total how many the whole run has"
                )
            is_exact &= share == 1
            examples += seen.examples
            used += share * source.size
        is_exact &= len(sources) == len(every)
        total += examples * sum(source.size for source in every) / max(used, 1)
    return round(total), is_exact


@dataclass
class _SourceShare:
    """What was read of a source: examples, dead ones too, and the bytes of the source that these took."""

    examples: int = 0
    bytes: int = 0

    def share(self, source: FoundSource, limit: int) -> float | None:
        """Tell what share of a source was read, 1 for all of it; None if nobody can tell."""
        if self.examples < limit:
            return 1
        if not self.bytes or not source.size:
            return None
        return min(1, self.bytes / source.size)


def _read_of(sample: _Trial, sampled: Mapping[str, FoundSource], folder: Path) -> dict[str, _SourceShare]:
    """Tell what was read of each source, by its name.

    Of a tar these are how far its images lie apart, elsewhere the images' bytes, if they lie in the source.
    """
    record = sample.records[Ingest.name]
    ingest = RunFolder(str(folder)).generation(record.stage, record.generation)
    found: dict[str, _SourceShare] = defaultdict(_SourceShare)
    offsets: dict[str, list[int]] = defaultdict(list)
    folders = {name: files.is_folder(source.uri) for name, source in sampled.items()}
    for name, part in record.parts.items():
        source = sampled[source_of(name)]
        seen = found[source.name]
        seen.examples += part.came.bit_count()
        for image in parquet.read_table(parts.part_uri(ingest, name), ["image"])["image"].to_pylist():
            if image["uri"] == source.path and image["kind"] == "range":
                offsets[source.name].append(image["offset"])
            elif image["uri"] == source.path or folders[source.name]:
                seen.bytes += image["size"]
    for name, places in offsets.items():
        apart = (max(places) - min(places)) / max(len(places) - 1, 1)
        found[name].bytes += round(apart * found[name].examples)
    return found


def _extended(
    first: _Trial, small: _Trial, large: _Trial, total: int, is_exact: bool, workers: int
) -> Forecast:
    """Extend two samples to the whole run."""
    stages = []
    examples = float(total)
    for name, record in large.records.items():
        came = large.examples(name)
        sizes = (small.examples(name), came)
        begun, was, now = (sample.spent[name] for sample in (first, small, large))
        out = record.count("example", "out") if record.parts else came
        gone = examples * (came - out) / max(came, 1)
        stages.append(
            StageForecast(
                name,
                examples,
                gone,
                _line(sizes, (was.cpu, now.cpu), examples, begun.cpu, workers),
                _line(sizes, (was.wall, now.wall), examples, begun.wall),
                _line(sizes, (small.bytes.get(name, 0), large.bytes[name]), examples),
                record.spec.get("model") is not None,
            )
        )
        examples -= gone
    return Forecast(total, is_exact, large.examples(Ingest.name), stages)


def _line(
    sizes: tuple[int, int], values: tuple[float, float], at: float, begun: float = 0, times: int = 1
) -> float:
    """Lay a line through two values and go on to `at`.

    What does not depend on the size, at least what it took to begin, counts so many times.
    """
    (x0, x1), (y0, y1) = sizes, values
    slope = max(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else y1 / max(x1, 1)
    return max(0.0, y1 - slope * x1, begun) * times + slope * at


def price_of(stage: StageForecast, prices: Prices, *, on_gpu: bool) -> float | None:
    """Say what the machines of a stage cost; None if no price is known.

    A stage that was measured with an accelerator pays for the hours of one, any other for the cores that it
    keeps busy.
    """
    machine = prices.gpu if stage.uses_model and prices.gpu else prices.cpu
    if machine is None:
        return None
    if on_gpu and stage.uses_model and machine.gpus:
        return stage.wall / HOUR / machine.gpus * machine.hour
    return stage.cpu / HOUR / machine.cores * machine.hour


def space_price(forecast: Forecast, prices: Prices) -> float | None:
    """Say what a month of the run's folder costs; None if no price is known."""
    if prices.gigabyte_month is None:
        return None
    return sum(stage.bytes for stage in forecast.stages) / GIGABYTE * prices.gigabyte_month
