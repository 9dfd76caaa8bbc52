"""Calls a model in batches, so that a full memory or a bad image does not end the run.

This is the one place of the engine that catches whatever a model raises. A stage calls every model,
built-in or plug-in, through `prepare` and `predict`; the models themselves run what they are given.
"""

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from tagmill.tag_system.core.errors import ConfigError, DataError, Reason

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_FAILURES = 3
"""Images that a model may fail on, in one part or one call, before that counts as a bug."""

MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "failed to allocate memory",
    "cublas_status_alloc_failed",
)
"""What libraries say, in lower case, in a RuntimeError that means: not enough memory."""


class Failures:
    """Counts the images that a model failed on. More than `most` failures are a bug, not bad images."""

    def __init__(self, most: int = MAX_FAILURES) -> None:
        self._most, self._count = most, 0

    @property
    def left(self) -> int:
        """How many more may fail."""
        return self._most - self._count

    def add(self, results: Iterable[object]) -> None:
        """Count the failures among results. Raises the model's own exception for the first one too many."""
        for result in results:
            if isinstance(result, DataError) and result.reason is Reason.MODEL_FAILED:
                self._count += 1
                if self._count > self._most:
                    raise result.__cause__ or result


def prepare(call: Callable[[], Result]) -> Result | DataError:
    """Prepare one image, and turn an exception into that image's `DataError`.

    Args:
        call: Prepares the image.

    Returns:
        The result, or a DataError: the model's own, if it refused the image; `IMAGE_TOO_LARGE`, if memory was
        short, which says nothing against the model; else a `MODEL_FAILED` with the exception as its cause,
        for `Failures` to count.

    Raises:
        ConfigError: If the model raises it.
    """
    try:
        return call()
    except ConfigError:
        raise
    except DataError as error:
        return error
    except MemoryError as error:
        detail = f"there is not enough memory to prepare it ({error}); lower max_image_bytes"
        return DataError(Reason.IMAGE_TOO_LARGE, detail)
    except Exception as error:  # noqa: BLE001  a model may raise anything; see `Failures`
        failure = _failure(error)
        failure.__cause__ = error
        return failure


def predict(
    call: Callable[[list[Item]], Collection[Result]],
    items: Sequence[Item],
    batch_size: int,
    *,
    max_failures: int = MAX_FAILURES,
) -> list[Result | DataError]:
    """Run `call` over the items in batches.

    Out of memory halves the batch, for this and all later batches of this call. After any other exception the
    items of the batch run one by one.

    Args:
        call: Gives one result for each item of a batch.
        items: What to run it on.
        batch_size: Most items in a batch.
        max_failures: Most items that may fail.

    Returns:
        One result for each item, in order. An item that fails alone, or alone exceeds the memory, gets a
        `DataError(MODEL_FAILED)`. A DataError that `call` raises for a single item is its result, and is not
        counted as a failure: the model has refused the item.

    Raises:
        ValueError: `batch_size` is below 1, or `call` gave another number of results than it got items.
        ConfigError: If `call` raises it.
        Exception: The last failure, if more than `max_failures` items fail: that is a bug, not bad images.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    results: list[Result | DataError] = []
    waiting = deque(list(items[i : i + batch_size]) for i in range(0, len(items), batch_size))
    limit, failures = batch_size, 0
    while waiting:
        batch = waiting.popleft()
        if len(batch) > limit:
            waiting.extendleft(reversed(_split(batch, limit)))
            continue
        answer, error = _attempt(call, batch)
        if error is None:
            results.extend(answer)
        elif len(batch) > 1:
            if is_out_of_memory(error):
                limit = max(1, len(batch) // 2)
                waiting.appendleft(batch)
            else:
                waiting.extendleft([item] for item in reversed(batch))
        elif isinstance(error, DataError):
            results.append(error)
        else:
            failures += 1
            if failures > max_failures:
                raise error
            results.append(_failure(error))
    return results


def in_batches(
    call: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> list[Result]:
    """Run `call` over items in batches, for a model that makes several items of one image.

    Out of memory halves the batch, for this and all later batches of this call; anything else is raised.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + size]
        try:
            results.extend(call(batch))
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            size = len(batch) // 2
        else:
            continue
        _release_memory()  # here, where no traceback holds the batch's tensors
    return results


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the error means that the device or the machine has too little memory.

    It compares class names and messages, so that no model library must be installed.
    """
    if isinstance(error, MemoryError):
        return True
    if any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in MEMORY_PHRASES)


def _failure(error: Exception) -> DataError:
    return DataError(Reason.MODEL_FAILED, f"{type(error).__name__}: {error}")


def _split(batch: list[Item], size: int) -> list[list[Item]]:
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def _attempt(
    call: Callable[[list[Item]], Collection[Result]], batch: list[Item]
) -> tuple[list[Result], Exception | None]:
    """Call the model once; hand back what it returned or what it raised."""
    try:
        answer = call(batch)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  a model may raise anything; see `predict`
        if len(batch) > 1 or is_out_of_memory(error):
            # The frames in a traceback hold the batch's tensors while the next call needs the room.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            _release_memory()
        return [], error
    if len(answer) != len(batch):
        raise ValueError(
            f"{_name(call)} returned {len(answer)} results for {len(batch)} items; "
            "a model must return one for each"
        )
    return list(answer), None


def _release_memory() -> None:
    torch = sys.modules.get("torch")  # no CUDA memory can be held without it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _name(call: Callable[..., object]) -> str:
    owner = getattr(call, "__self__", None)
    if owner is not None:
        return f"{type(owner).__name__}.{getattr(call, '__name__', 'predict')}"
    return str(getattr(call, "__qualname__", type(call).__name__))
