"""Models for the coloured squares that are slow, that fail, or that take their process with them.

An image is told by its seed's drawing alone, so trouble is asked for by files: an option names a folder.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from square_models import SquareTagger
from tagmill.models.base import Floats, Image
from tagmill.tag_system.core.errors import ConfigError


class SlowTagger(SquareTagger):
    """Takes `seconds` an image; leaves a file `begun` when it starts, if it is told where."""

    def __init__(self, seconds: float, begun: str = "") -> None:
        self.seconds = seconds
        self.begun = begun

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        if self.begun:
            Path(self.begun).touch()
        time.sleep(self.seconds * len(batch))
        return super().predict(batch)


class FailingTagger(SquareTagger):
    """Fails on every image, as a bug does."""

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        raise KeyError("a bug in a plug-in")


class MisplacedTagger(SquareTagger):
    """Cannot be had where it is needed: only the process `home` has it."""

    def __init__(self, home: int) -> None:
        self.home = home

    def load(self) -> None:
        if os.getpid() != self.home:
            raise ConfigError("the weights lie on another disk; mount it")
        super().load()


class DyingTagger(SquareTagger):
    """Kills its own process, without a word, while fewer than `times` files lie in `folder`."""

    def __init__(self, folder: str, times: int) -> None:
        self.folder = Path(folder)
        self.times = times

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        for number in range(self.times):
            with suppress(FileExistsError):  # of two processes, one gets a number
                (self.folder / str(number)).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(batch)
