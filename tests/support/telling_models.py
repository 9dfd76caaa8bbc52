"""A user's own model that takes a token, and tells it wherever it can."""

import logging
import sys
import warnings
from collections.abc import Sequence

from square_models import SquareTagger
from tagmill.models.base import Floats, Image

ODD = "\x1b[2J\x9b31m\u202egnp\u200b"
"""What would steer a terminal."""


class TellingTagger(SquareTagger):
    def __init__(self, token: str, server: str = "", refuses: bool = False, fails: bool = False) -> None:
        if refuses:
            raise ValueError(f"{token} is not welcome at {server} {ODD}")
        self._token, self._server, self._fails = token, server, fails
        self._seen = 0

    def fingerprint(self) -> str:
        return f"telling {self._token} {self._server}"

    def load(self) -> None:
        logging.getLogger("telling").warning("logged %s for %s %s", self._token, self._server, ODD)
        warnings.warn(f"warned {self._token} {ODD}", stacklevel=1)
        sys.stderr.write(f"wrote {self._token} {ODD}\n")

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        if self._fails:
            raise RuntimeError(f"cannot reach {self._server} with {self._token} {ODD}")
        if self._seen == 0 and len(batch) == 1:
            self._seen = 1
            raise RuntimeError(f"one failed at {self._server} with {self._token} {ODD}")
        if self._seen == 0:
            raise RuntimeError("one by one")
        return super().predict(batch)
