"""The common base of stages that run a model on pixels: config, model, batches and failures."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import Field

from tagmill.models import base, guard
from tagmill.models.base import Prepared
from tagmill.tag_system.core import plugins
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError, DataError
from tagmill.transforms.answers import AnswerError, check_count
from tagmill.transforms.batches import Fill, Load, plan
from tagmill.transforms.deadline import deadline
from tagmill.transforms.decode_ahead import Decoder, is_huge
from tagmill.transforms.images import PIXEL_BYTES, share_of_rest
from tagmill.transforms.parts import Dead, Inputs
from tagmill.transforms.stage import PartStage, Shared

ODD_SIZE = (1237, 619)
"""Width and height in pixels that no model asks for."""

FLOAT_PIXEL_BYTES = 12
"""Of a prepared pixel: three numbers of four bytes."""

PIXELS = {"ingest": "pixels"}
"""Slices of a stage that reads pixels: of ingest's part, which image stands under which key in which row."""

UNSAID = ("options", "batch_size", "timeout")
"""Keys of a model's config that are not part of what a stage means: paths say nothing of what lies there,
which the model's fingerprint says, and batches change sums in their last bits."""

Result = TypeVar("Result")

Prepare: TypeAlias = Callable[[int, base.Image], Prepared]
"""Makes of a row and its image what a model is called with."""


class ModelConfig(Config):
    """A model by its short name or `package.module:Class`, the options of its constructor, its batch.

    `timeout` is in seconds, for one batch from its decoding to the model's answer. No honest batch takes an
    hour, on a crowded machine without an accelerator or with a model that compiles itself at its first.
    """

    model: str
    options: dict[str, Any] = {}
    batch_size: int = Field(16, ge=1)
    timeout: float = Field(3600, gt=0)


class WholeImageConfig(ModelConfig):
    """The config of a stage that shows its model whole images.

    `draft`: decode JPEGs at a half, a quarter or an eighth of their size, whose sides are still so many times
    those that the model takes. It moves scores a little, and saves most of the time of decoding large ones.
    """

    draft: float | None = Field(None, ge=1)


ModelConfigT = TypeVar("ModelConfigT", bound=ModelConfig)


class ModelStage(PartStage[ModelConfigT]):
    """A part stage with one model, constructed on the driver (to fail early) and loaded on the worker."""

    uses_model = True
    keeps_lost = True

    def __init__(self, config: ModelConfigT, shared: Shared) -> None:
        super().__init__(config, shared)
        self.model: Any = None

    def _spec(self) -> dict[str, Any]:
        model = base.create_for_pixels(self.config.model, self.config.options)
        with self.blamed():
            self.check_model(model)
        config = {name: value for name, value in self.config.changed().items() if name not in UNSAID}
        return {"config": config, "model": model.fingerprint()}

    @property
    def settings(self) -> dict[str, Any]:
        """The config, but for what says nothing of the output."""
        return {name: value for name, value in super().settings.items() if name not in UNSAID}

    @property
    def imports(self) -> Sequence[str]:
        """What the model says that it imports."""
        return base.imports_of(self.config.model)

    def setup(self) -> None:
        """Construct and load the model."""
        self.model = base.create_for_pixels(self.config.model, self.config.options)
        self.model.load()
        with self.blamed():
            self.check_loaded()

    def check_model(self, model: Any) -> None:
        """Check what a model says of itself before it is loaded. Raises AnswerError."""

    def check_loaded(self) -> None:
        """Check what the loaded model answers whatever the image. Raises AnswerError."""

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Raise ConfigError that names the model for an answer which no image is to blame for."""
        name = f"{self.name}.model {self.config.model}"
        try:
            with plugins.asked(name):
                yield
        except AnswerError as error:
            raise ConfigError(f"{name}: {error}") from error


def classes_of(config: ModelConfig) -> Sequence[str] | None:
    """Give the names that a model knows, None for any; its weights are not read."""
    classes = base.create_for_pixels(config.model, config.options).classes
    return None if classes is None else tuple(classes)


@dataclass
class OnPixels(Generic[Result]):
    """Results of a model by row, the images that died, how full its batches were, and where the time went."""

    results: dict[int, Result] = field(default_factory=dict)
    dead: list[Dead] = field(default_factory=list)
    fill: Fill = field(default_factory=Fill)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, row: int, key: str, result: Result | DataError) -> None:
        """Take in what became of one image."""
        if isinstance(result, DataError):
            self.dead.append(Dead.of(row, key, result))
        else:
            self.results[row] = result

    @property
    def notes(self) -> dict[str, Any]:
        """What a part notes of it."""
        return {"batches": {name: count for name, count in asdict(self.fill).items() if count}}


def run_on_pixels(
    stage: ModelStage[Any],
    inputs: Inputs,
    rows: Sequence[int],
    call: Callable[[list[tuple[int, Prepared]]], Collection[Result]],
    prepare: Prepare | None = None,
    load_of: Callable[[int], Load] | None = None,
) -> OnPixels[Result]:
    """Call a model with batches of (row, prepared image); images are decoded and prepared ahead of it.

    `prepare` gets a row and its image, in a thread of the decoder; without it the stage's model prepares the
    whole image. `load_of` says what a row brings to a batch, if that is not one image, see `load`. Batches
    are planned over the whole part, see `batches.plan`.

    An image that cannot be decoded, that is lost, or that the model fails on, is dead, and takes its place in
    its batch; results are in the order of rows.
    """

    def ask(batch: list[tuple[int, Prepared]]) -> Collection[Result]:
        answers = call(batch)
        check_count(answers, len(batch))
        return answers

    run: OnPixels[Result] = OnPixels()
    model_seconds = 0.0
    failures = guard.Failures()
    limit = stage.shared.max_image_bytes
    loads = {row: load_of(row) if load_of else load(stage, inputs.examples[row]) for row in rows}
    huge = {row for row, one in loads.items() if is_huge(inputs.examples[row], one.held, limit)}
    batches = plan(list(loads.values()), stage.config.batch_size, share_of_rest(limit), huge)
    longest = max(map(len, batches), default=0)
    with (
        Decoder(
            stage.shared.decode_threads, stage.shared.max_pixels, limit, longest, _least(stage)
        ) as decoder,
        deadline(stage.config.timeout) as begin_anew,
    ):
        ahead = _ahead(stage, inputs, batches, decoder, prepare, loads)
        for planned in batches:
            batch = [(row, next(ahead)) for row in planned]
            failures.add(one for _, one in batch)
            good = [(row, one) for row, one in batch if not isinstance(one, DataError)]
            start = time.perf_counter()
            with stage.blamed():
                answers = guard.predict(ask, good, stage.config.batch_size, max_failures=failures.left)
                failures.add(answers)
            model_seconds += time.perf_counter() - start
            outcome = dict(zip((row for row, _ in good), answers, strict=True))
            for row, one in batch:
                run.add(row, inputs.key(row), one if isinstance(one, DataError) else outcome[row])
            run.fill.add([loads[row] for row, _ in good], stage.config.batch_size)
            del one, good  # the next batch needs their room
            batch.clear()
            begin_anew()
    run.results = dict(sorted(run.results.items()))
    run.seconds = {
        "model": model_seconds,
        "decode": decoder.seconds,
        "prepare": decoder.preparing,
        "wait": decoder.waited,
    }
    return run


def _ahead(
    stage: ModelStage[Any],
    inputs: Inputs,
    batches: Sequence[Sequence[int]],
    decoder: Decoder,
    prepare: Prepare | None,
    loads: Mapping[int, Load],
) -> Iterator[Prepared | DataError]:
    """Decode and prepare the images of the rows of batches ahead; what is wrong with one stands for it."""
    make = prepare or (lambda _, image: stage.model.prepare(image))
    rows = [row for batch in batches for row in batch]
    examples = [inputs.examples[row] for row in rows if row not in inputs.lost]
    made = decoder.pixels(
        examples,
        inputs.root,
        lambda example, image: guard.prepare(lambda: make(example["row"], image)),
        lambda example: loads[example["row"]].held,
        sorted(range(len(examples)), key=lambda place: examples[place]["row"]),
    )
    for row in rows:
        yield inputs.lost[row] if row in inputs.lost else next(made)


def load(stage: ModelStage[Any], example: Mapping[str, Any], tokens: Sequence[int] = ()) -> Load:
    """Say what an image brings to a batch of the stage's model, which takes it whole.

    `tokens` are the lengths of the texts that the model is asked about it, each an item of its own.
    """
    size = width, height = example["width"], example["height"]
    prepared = stage.model.size_of(width, height)
    is_any = takes_any_sizes(stage.model)
    unpadded = getattr(stage.model, "unpadded_size_of", None)
    return Load(
        example["row"],
        None if is_any else prepared,
        room(stage.model, width, height),
        items=len(tokens) or 1,
        inside=None if is_any or unpadded is None else unpadded(*size),
        tokens=tuple(tokens),
        encoded=example["image"]["size"],
    )


def _least(stage: ModelStage[Any]) -> Callable[[Mapping[str, Any]], tuple[int, int]] | None:
    """Say how large a stage wants images, if they may be decoded smaller than they are."""
    times = stage.config.draft if isinstance(stage.config, WholeImageConfig) else None
    if times is None:
        return None
    size_of = getattr(stage.model, "unpadded_size_of", stage.model.size_of)

    def least(example: Mapping[str, Any]) -> tuple[int, int]:
        width, height = size_of(example["width"], example["height"])
        return math.ceil(width * times), math.ceil(height * times)

    return least


def takes_any_sizes(model: base.PixelModel) -> bool:
    """Tell whether a model leaves images the size that they have: then it looks at each by itself."""
    return model.size_of(*ODD_SIZE) == ODD_SIZE


def room(model: base.PixelModel, width: int, height: int) -> int:
    """Count the bytes that an image of this size takes once prepared.

    A model that leaves the size as it is most likely hands the decoded image on.
    """
    wide, high = model.size_of(width, height)
    as_it_is = (wide, high) == (width, height)
    return wide * high * (PIXEL_BYTES if as_it_is else FLOAT_PIXEL_BYTES)
