"""Reads a webdataset tar as ingest does, example by example."""

from pathlib import Path
from typing import Any

from sources import members
from tagmill.tag_system.core.errors import DataError
from tagmill.transforms.formats.base import InputConfig, Limits, Source
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.webdataset import Webdataset

CONFIG = InputConfig(name="x", format="webdataset", path="unused")
PNG = members("k", 0)["k.png"]


def walk(
    path: Path,
    *,
    limit: int = 1 << 20,
    load: bool = True,
    config: InputConfig = CONFIG,
    format_: Webdataset | None = None,
) -> list[tuple[str, Any]]:
    """Read a tar: for each example its key, and its record or the reason why there is none."""
    source = Source(str(path.parent), path.name, str(path.parent))
    found = []
    format_ = format_ or Webdataset()
    with format_.open_read(str(path)) as raw:
        for item in format_.read(HashingStream(raw), source, config, Limits(limit)):
            try:
                record = item.load() if load else None
                if record is not None:
                    assert record.image["uri"] == path.name
                    record.image["uri"] = "it.tar"
                found.append((item.key, record))
            except DataError as error:
                found.append((item.key, error.reason))
    return found
