"""Models for the coloured squares that are slow, that fail, or that take their process with them.

An image is told by its seed's drawing alone, so trouble is asked for by files: an option names a folder.
"""

import hashlib
import logging
import os
import signal
import tarfile
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image

from square_models import SquareTagger
from tagmill.models.base import Floats, Image
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason


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


class HeldTagger(SquareTagger):
    """Leaves a file `begun` in `folder` when it starts, and goes on once there is another there, `go`."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        (self.folder / "begun").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.05)
        return super().predict(batch)


class WarningTagger(SquareTagger):
    """Warns in both of Python's ways."""

    def load(self) -> None:
        logging.getLogger("troubled_models").warning("it is slow here")
        warnings.warn("it is old", stacklevel=1)


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


def digest(image: Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def digests_of(tar: Path) -> list[str]:
    """The digests of the pixels of a tar's images, by which a model knows them."""
    with tarfile.open(tar) as archive:
        members = [member for member in archive if not member.name.endswith((".json", ".txt", ".cls"))]
        images = [PIL.Image.open(archive.extractfile(member)).convert("RGB") for member in members]
        return [digest(np.asarray(image)) for image in images]


class DeadlyTagger(SquareTagger):
    """Ends its process at images with some digests, or at all; its scores depend on the whole batch.

    `by` is the name of a signal, an exit code, "hang", or "refuse", which is to judge the image instead.
    """

    def __init__(self, bad: Sequence[str], by: str, at: str = "predict") -> None:
        self.bad = bad
        self.by = by
        self.at = at

    def load(self) -> None:
        if self.at == "load":
            self._end()

    def prepare(self, image: Image) -> Image:
        if self._is_bad(image):
            if self.by == "refuse":
                raise DataError(Reason.PROCESS_DIED, "refused")
            if self.at == "prepare":
                self._end()
        return image

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        if self.at == "predict" and any(map(self._is_bad, batch)):
            self._end()
        share = np.float32(1 - len(batch) / 1000 - sum(image.mean() for image in batch) / 1e6)
        return [scores * share for scores in super().predict(batch)]

    def _is_bad(self, image: Image) -> bool:
        return "all" in self.bad or digest(image) in self.bad

    def _end(self) -> None:
        if self.by == "hang":
            time.sleep(600)
        elif self.by.isdigit():
            os._exit(int(self.by))
        os.kill(os.getpid(), signal.Signals[self.by])
        time.sleep(60)  # another thread may take the signal, and this one would go on until it does


class CrowdedTagger(SquareTagger):
    """Kills its process for a batch of two or more, as memory does that is too short for them."""

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        if len(batch) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(batch)


class MendedTagger(SquareTagger):
    """Fails on the images whose digests a file lists, as long as that is there."""

    def __init__(self, broken: str) -> None:
        self.broken = Path(broken)

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        listed = self.broken.read_text().split() if self.broken.exists() else []
        if any(digest(image) in listed for image in batch):
            raise ValueError("it is broken")
        return super().predict(batch)
