"""What ingest makes of an input of any format: by a run of the command line, or that stage alone."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from commands import call
from runs import current_folder
from sources import COLOURS, encode, square_image, write_config
from stage_runs import shared
from tagmill.pipeline.sources import find_sources, source_task
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.ingest import Ingest, IngestConfig
from tagmill.transforms.source_worker import ingest_source

OFF = {"parse": None, "tag": None, "localize": None, "embed": None, "cluster": None}
LEFT_OUT = ("row", "width", "height", "orientation", "format", "sha256", "phash")


def write_images(folder: Path, *paths: str) -> list[str]:
    """Write images of one square each, all different, below a folder."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode(square_image([sorted(COLOURS)[number % len(COLOURS)]], number)))
    return list(paths)


class Ingested:
    """What lies in a folder of ingest, of the input `name`."""

    def __init__(self, folder: Path, name: str = "x") -> None:
        self._prefix = f"{name}/"
        self.rows = self._read(folder)
        """The rows, without what is of the bytes of images."""
        self.dead = [
            (row["key"].removeprefix(self._prefix), row["reason"], row["detail"])
            for row in self._read(folder / "dead")
        ]
        """Key, reason and detail of each dead letter."""

    @property
    def captions(self) -> dict[str, list[str]]:
        """The captions, by key."""
        return {row["key"].removeprefix(self._prefix): row["captions"] for row in self.rows}

    @property
    def labels(self) -> dict[str, list[tuple[str, list[float] | None]]]:
        """Names and boxes of the labels, by key."""
        return {
            row["key"].removeprefix(self._prefix): [(label["name"], label["box"]) for label in row["labels"]]
            for row in self.rows
        }

    def _read(self, folder: Path) -> list[dict[str, Any]]:
        rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        mine = [row for row in rows if row["key"].startswith(self._prefix)]
        return [{name: value for name, value in row.items() if name not in LEFT_OUT} for row in mine]


def ingest_input(folder: Path, **source: Any) -> Ingested:
    """Ingest an input `x` by the stage alone, anew at each call. Raises ConfigError."""
    stage = Ingest(IngestConfig(), shared(part_size=100))
    number = len(list(folder.glob("ingested-*")))
    target = folder / f"ingested-{number}"
    for found in find_sources([InputConfig(name="x", **source)]).values():
        ingest_source(stage, str(target), source_task(stage, found))
    return Ingested(target)


def run_input(folder: Path, code: int = 0, dead: float = 1.0, **source: Any) -> str:
    """Run the engine over an input `x` into `folder`/run; gives what it says on standard error."""
    inputs = [{"name": "x", **source}]
    config = write_config(folder, inputs=inputs, max_dead_fraction=dead, **OFF)
    return call("run", config, "--workers", 0, code=code)[1]


def run_ingested(folder: Path) -> Ingested:
    """What a run made by `run_input` has ingested."""
    return Ingested(current_folder(folder / "run", "ingest"))
