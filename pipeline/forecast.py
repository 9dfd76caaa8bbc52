"""What a run will cost, from samples of it that are made by the real models in a scratch folder.

Each stage is taken to cost something whatever the number of examples, such as loading a model, and something
for each example that comes in. A few examples show the one, two samples of different size the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.example_counts import count_examples
from tagmill.pipeline.job import Engine
from tagmill.pipeline.request_forecast import parts_of, requests_of
from tagmill.pipeline.sources import find_sources
from tagmill.pipeline.trials import Trial, make_trial, narrowed, scratch_folder
from tagmill.tag_system.core import files, store_requests
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.store_requests import NONE, StoreRequests
from tagmill.transforms.ingest import Ingest

HOUR = 3_600

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
        requests: What the object stores of inputs and scratch folder are asked.
    """

    stage: str
    examples: float
    gone: float
    cpu: float
    wall: float
    bytes: float
    uses_model: bool
    requests: StoreRequests = NONE


@dataclass(frozen=True)
class Forecast:
    """What a run of `examples` examples will take, by stage; `is_exact` if their number was counted."""

    examples: int
    is_exact: bool
    sample: int
    stages: Sequence[StageForecast]


def forecast(
    config: RunConfig,
    engine: Engine,
    count: int,
    total: int | None = None,
    workers: int = 1,
    scratch: str | None = None,
) -> Forecast:
    """Make samples, the largest of about `count` examples, and tell what the whole run will take.

    Args:
        config: The run's config; nothing is written into its folder.
        engine: Runs the samples' jobs in this process.
        count: Examples of the largest sample.
        total: Examples of the whole run; None: they are counted, or estimated by bytes.
        workers: Processes of the whole run, each of which loads its models.
        scratch: A folder or url in which a folder for the samples is made, and removed; None: here.

    Raises:
        ConfigError: `count` is too small, or nobody can tell how many examples there are.
    """
    if count < LEAST:
        raise ConfigError(f"--measure {count}: {LEAST} examples are the least that tell something")
    found = find_sources(config.inputs)
    inputs = narrowed(config.inputs, found)
    sampled = find_sources(inputs)
    with scratch_folder(scratch) as folder, store_requests.counting() as counter:
        asked = not all(files.is_local(uri) for uri in (folder, *(source.uri for source in sampled.values())))
        first, small, large = (
            make_trial(
                config, engine, inputs, -(-most // len(sampled)), files.join(folder, str(most)), counter
            )
            for most in (1, count // SMALLER, count)
        )
        samples = [first, small, large]
        if asked:
            ones = config.model_copy(update={"part_size": 1})
            samples.append(make_trial(ones, engine, inputs, 2, files.join(folder, "pieces"), counter))
        if total is None:
            counted = count_examples(large, found, sampled, files.join(folder, str(count)))
        else:
            counted = total, True
    parts = parts_of(counted[0], [source.size for source in found.values()], config.part_size)

    def requests(stage: str, examples: float) -> StoreRequests:
        return requests_of(stage, samples, examples, parts) if asked else NONE

    return _extended(first, small, large, *counted, workers, requests)


def _extended(
    first: Trial,
    small: Trial,
    large: Trial,
    total: int,
    is_exact: bool,
    workers: int,
    requests: Callable[[str, float], StoreRequests],
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
                requests(name, examples),
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
