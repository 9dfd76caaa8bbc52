"""Samples of a run, made by its own stages and models in a scratch folder, and what they take."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from tempfile import TemporaryDirectory

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.current import current_records
from tagmill.pipeline.job import Engine
from tagmill.pipeline.progress import Extent
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run import Driver
from tagmill.pipeline.sources import FoundSource
from tagmill.tag_system.core import files
from tagmill.tag_system.core.store_requests import NONE, RequestCounter, StoreRequests
from tagmill.transforms.formats.base import InputConfig, format_of
from tagmill.transforms.formats.file_format import FileFormat

MOST_SOURCES = 8
"""Sources of an input that a sample reads from, chosen by the digests of their names."""


@dataclass
class Spent:
    """What a stage took in a sample: CPU and wall seconds, and requests to stores."""

    cpu: float = 0.0
    wall: float = 0.0
    requests: StoreRequests = NONE


@dataclass
class Meter:
    """Measures what stages take in this process, from the end of one to that of the next."""

    counter: RequestCounter
    spent: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))

    def __post_init__(self) -> None:
        self._last = time.process_time(), time.monotonic(), self.counter.made

    def start(self, stage: str, extent: Extent) -> None:
        """Note nothing."""

    @contextmanager
    def watch(self, stage: str, count: Callable[[], int]) -> Iterator[None]:
        """Watch nothing: that would take time of its own."""
        yield

    def finish(self, stage: str, examples: int, dead: int) -> None:
        """Take the time of a stage."""
        now = time.process_time(), time.monotonic(), self.counter.made
        self.spent[stage].cpu += now[0] - self._last[0]
        self.spent[stage].wall += now[1] - self._last[1]
        self.spent[stage].requests += now[2] - self._last[2]
        self._last = now


@dataclass(frozen=True)
class Trial:
    """What a sample took and left, by stage."""

    limit: int
    records: Mapping[str, StageRecord]
    spent: Mapping[str, Spent]
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


@contextmanager
def scratch_folder(scratch: str | None) -> Iterator[str]:
    """Make a folder for samples, and remove it. Its store's client is imported then, see `counting`."""
    if scratch is None:
        with TemporaryDirectory(prefix="tagmill-measure-") as folder:
            yield folder
        return
    folder = files.join(scratch.rstrip("/"), f"tagmill-measure-{token_hex(4)}")
    files.filesystem(folder)
    try:
        yield folder
    finally:
        files.remove(folder)


def narrowed(inputs: Sequence[InputConfig], found: Mapping[str, FoundSource]) -> list[InputConfig]:
    """Let each input read a few of its sources, chosen by chance, where its format has a file a source."""
    narrowed = []
    for one in inputs:
        sources = [source for source in found.values() if source.config.name == one.name]
        if len(sources) > MOST_SOURCES and isinstance(format_of(one), FileFormat):
            by_chance = sorted(sources, key=lambda source: hashlib.sha256(source.name.encode()).digest())
            one = one.model_copy(update={"path": [source.uri for source in by_chance[:MOST_SOURCES]]})
        narrowed.append(one)
    return narrowed


def make_trial(
    config: RunConfig,
    engine: Engine,
    inputs: Sequence[InputConfig],
    limit: int,
    folder: str,
    counter: RequestCounter,
) -> Trial:
    """Make a sample of so many examples of each source."""
    ingest = config.ingest.model_copy(update={"limit": limit})
    changes = {"run": folder, "inputs": inputs, "ingest": ingest, "reuse": [], "max_dead_fraction": 1.0}
    meter = Meter(counter)
    driver = Driver(config.model_copy(update=changes))
    driver.run(engine, meter)
    records = {record.stage: record for record in current_records(driver.run_folder)}
    sizes = {
        stage: files.folder_size(driver.run_folder.generation(stage, record.generation))
        for stage, record in records.items()
    }
    return Trial(limit, records, meter.spent, sizes)
