"""What the stages share that run a model on pixels: its config, its life, its batches, its failures."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import Field

from tagmill.models import base, guard
from tagmill.tag_system.errors import DataError, Reason
from tagmill.transforms.images import AHEAD_PIXELS, Decoder
from tagmill.transforms.parts import Dead, Inputs
from tagmill.transforms.stage import PartStage, Shared, StageConfig

MAX_FAILURES = 3
"""Images of one part that a model may fail on before that counts as a bug."""

Result = TypeVar("Result")


class ModelConfig(StageConfig):
    """A model by its short name or `package.module:Class`, the options of its constructor, its batch."""

    model: str
    options: dict[str, Any] = {}
    batch_size: int = Field(16, ge=1)


ModelConfigT = TypeVar("ModelConfigT", bound=ModelConfig)


class ModelStage(PartStage[ModelConfigT]):
    """A part stage with one model, constructed on the driver (to fail early) and loaded on the worker."""

    uses_model = True

    def __init__(self, config: ModelConfigT, shared: Shared) -> None:
        super().__init__(config, shared)
        self.model: Any = None

    def _meaning(self) -> dict[str, Any]:
        model = base.create(self.config.model, self.config.options)
        # Batches change sums in the last bits, and paths say nothing of what lies there.
        config = self.config.model_dump(mode="json", exclude={"options", "batch_size"})
        return {
            "config": config,
            "model": model.fingerprint(),
            "vocabulary": self.shared.vocabulary.digest,
        }

    def setup(self) -> None:
        """Construct and load the model."""
        self.model = base.create(self.config.model, self.config.options)
        self.model.load()


@dataclass
class OnPixels(Generic[Result]):
    """Results of a model by row, the images that died, and where the time went."""

    results: dict[int, Result] = field(default_factory=dict)
    dead: list[Dead] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def run_on_pixels(
    stage: ModelStage[Any],
    inputs: Inputs,
    rows: Sequence[int],
    call: Callable[[list[tuple[int, base.Image]]], Collection[Result]],
) -> OnPixels[Result]:
    """Call a model with batches of (row, image) of the given rows; images are decoded ahead of it.

    An image that cannot be decoded, or that the model fails on, is dead; results keep the order of rows.
    """
    run: OnPixels[Result] = OnPixels()
    model_seconds = 0.0
    failures = 0
    with Decoder(stage.shared.threads, stage.shared.max_pixels) as decoder:
        pixels = decoder.pixels([inputs.examples[row] for row in rows], inputs.root)
        for batch in _batches(zip(rows, pixels, strict=True), stage.config.batch_size):
            good = [(row, image) for row, image in batch if not isinstance(image, DataError)]
            start = time.perf_counter()
            answers = guard.predict(call, good, stage.config.batch_size, max_failures=MAX_FAILURES - failures)
            model_seconds += time.perf_counter() - start
            outcome = dict(zip((row for row, _ in good), answers, strict=True))
            for row, image in batch:
                result = image if isinstance(image, DataError) else outcome[row]
                if isinstance(result, DataError):
                    run.dead.append(Dead.of(row, inputs.key(row), result))
                    failures += result.reason is Reason.MODEL_FAILED
                else:
                    run.results[row] = result
    run.seconds = {"model": model_seconds, "decode": decoder.seconds, "wait": decoder.waited}
    return run


Decoded = tuple[int, base.Image | DataError]


def _batches(decoded: Iterable[Decoded], size: int) -> Iterator[list[Decoded]]:
    """Group images into batches of at most `size`, and of bounded pixels where they are huge."""
    batch: list[Decoded] = []
    pixels = 0
    for row, image in decoded:
        batch.append((row, image))
        pixels += 0 if isinstance(image, DataError) else image.shape[0] * image.shape[1]
        if len(batch) == size or pixels > AHEAD_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
