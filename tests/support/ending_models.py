"""Taggers that end their own process, somewhere and somehow: both are options."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from square_models import SquareTagger
from tagmill.models.base import Floats, Image


def _interrupt() -> None:
    raise KeyboardInterrupt


HOW: dict[str, Callable[[], Any]] = {
    "sys.exit()": sys.exit,
    "sys.exit(0)": lambda: sys.exit(0),
    "os._exit(0)": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": _interrupt,
}


class EndingTagger(SquareTagger):
    def __init__(self, where: str, how: str) -> None:
        self._where, self._how = where, how
        self._at("constructor")

    def _at(self, place: str) -> None:
        if place == self._where:
            HOW[self._how]()

    def fingerprint(self) -> str:
        self._at("fingerprint")
        return super().fingerprint()

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        self._at("predict")
        return super().predict(batch)
