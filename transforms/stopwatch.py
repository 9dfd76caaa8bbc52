"""Times of work that is not of one part: workers note them in files, and the driver sums them up.

They say what a stage cost. No digest is of them.
"""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar

import apache_beam as beam

from tagmill.tag_system.core import files

FOLDER = "seconds"
"""The folder of the notes, in the one in which a stage works."""

TOTAL = "total"


class TimedFn(beam.DoFn):
    """A step of a graph that notes, bundle by bundle, how long it was `at_work`.

    `step` is what the time was spent on.
    """

    step: ClassVar[str]

    def __init__(self, work: str) -> None:
        self._work = work
        self._seconds = 0.0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Measure what is done within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def finish_bundle(self) -> None:
        """Note the time of this bundle."""
        if self._seconds:
            note(self._work, uuid.uuid4().hex, {self.step: self._seconds, TOTAL: self._seconds})
        self._seconds = 0.0


def note(work: str, name: str, seconds: Mapping[str, float]) -> None:
    """Note times under a name of their own, in the folder of a stage's work."""
    data = json.dumps({step: round(value, 4) for step, value in seconds.items()}).encode()
    files.create_bytes(files.join(work, FOLDER, f"{name}.json"), data, lasting=False)


def noted(work: str) -> dict[str, dict[str, float]]:
    """Read all times that were noted, by the name of the note."""
    folder = files.join(work, FOLDER)
    names = files.list_names(folder, ".json")
    with ThreadPoolExecutor(files.THREADS) as pool:
        texts = pool.map(lambda name: files.read_bytes(files.join(folder, name)), names)
        return {name.removesuffix(".json"): json.loads(text) for name, text in zip(names, texts, strict=True)}


def summed(work: str) -> dict[str, float]:
    """Sum up all times that were noted, by what they were spent on."""
    found: defaultdict[str, float] = defaultdict(float)
    for seconds in noted(work).values():
        for step, value in seconds.items():
            found[step] += value
    return {step: round(value, 4) for step, value in sorted(found.items())}
