"""Looks for what must not be in a run any more: in every file of its folder, of any stage or report.

Parquet is unpacked, and so are tars: an image is found by its bytes, under any name.
"""

import hashlib
import html
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.takedown import NOTE, Remembered
from tagmill.pipeline.verify import Verified
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms import image_copies, parquet, parts
from tagmill.transforms.exclusion import IMAGE, Exclusion, entry_hash, read_exclusion_files
from tagmill.transforms.ingest import source_of

_DIGESTS = re.compile(rb"[0-9a-f]{64}")


def check_absent(run: RunFolder, uri: str) -> Iterator[Verified]:
    """Look for what a file excludes (see `exclusion`) in all files of a run.

    Raises ConfigError if the file cannot be read, or the folder is not a run's.
    """
    saved = run.saved_config()
    if saved is None:
        raise ConfigError(f"{run.root} is not a run folder: it has no run.yaml")
    exclusion = read_exclusion_files([uri], [source["name"] for source in saved["inputs"]])
    search = _Hunt(exclusion, _led_to(run), _excluded_sources(run, exclusion))
    names = files.walk(run.root)
    with ThreadPoolExecutor(files.THREADS) as pool:
        places = pool.map(lambda name: search.count(run.path(name)), names)
        problems = [
            f"{run.path(name)} holds what {uri} excludes, {count} times; run tagmill run and tagmill gc"
            for name, count in zip(names, places, strict=True)
            if count
        ]
    yield "absent", len(names), problems


def _led_to(run: RunFolder) -> set[str]:
    """Give the hashes of the images that excluded keys and sources led to, as the run remembers them."""
    found: set[str] = set()
    for stage in run.stages():
        for generation in run.generations(stage):
            record = run.read_record(stage, generation)
            memory = Remembered.read(record.more.get(NOTE, {})) if record else Remembered()
            found |= {image for _, image in memory.images}
    return found


def _excluded_sources(run: RunFolder, exclusion: Exclusion) -> set[str]:
    """Name the sources that are excluded: how their parts are called."""
    found = set()
    for name in files.walk(run.root) if exclusion.sources else []:
        path = PurePosixPath(name)
        if path.parent.name == "sources" and path.suffix == ".json":
            where = json.loads(files.read_bytes(run.path(name))).get("path", "")
            if any(uri == where or uri.endswith("/" + where) for uri in exclusion.sources):
                found.add(path.stem)
    return found


def _is_apart(key: str, text: str) -> bool:
    """Tell whether a key stands somewhere that is not the middle of another one."""
    return bool(re.search(rf"(?<![\w/]){re.escape(key)}(?!\w)", text))


@dataclass(frozen=True)
class _Hunt:
    """What is looked for: entries of a list, hashes of images, and names of sources."""

    exclusion: Exclusion
    led_to: set[str]
    sources: set[str]

    def count(self, uri: str) -> int:
        """Count the places of a file that hold something of it."""
        name = PurePosixPath(uri)
        if name.suffix == ".parquet":
            return self._in_parquet(uri, is_excluded=source_of(name.stem) in self.sources)
        if name.suffix == ".tar":
            return self._in_tar(uri)
        if name.suffix == image_copies.SUFFIX:
            return self._in_copies(uri)
        data = files.read_bytes(uri)
        if name.suffix == ".json":
            return self._in_json(data)
        text = data.decode(errors="replace")
        if name.suffix == ".html":
            text = html.unescape(text)
        keys = sum(key in text and _is_apart(key, text) for key in self.exclusion.keys)
        return self._in_bytes(data) + keys

    def _in_parquet(self, uri: str, *, is_excluded: bool) -> int:
        with files.open_read(uri) as stream:
            read = pq.ParquetFile(stream)
            metadata: Mapping[bytes, bytes] = read.schema_arrow.metadata or {}
            found = sum(self._in_json(value) for value in metadata.values())
            for group in range(read.num_row_groups):
                table = read.read_row_group(group)
                found += table.num_rows if is_excluded else 0
                found += sum(self._in_column(column.combine_chunks()) for column in table.columns)
        return found

    def _in_column(self, column: pa.Array) -> int:
        """Count matches in the texts of a column, however they are nested."""
        if pa.types.is_struct(column.type):
            return sum(self._in_column(one) for one in column.flatten())
        if pa.types.is_list(column.type):
            return self._in_column(column.flatten())
        if not pa.types.is_string(column.type):
            return 0
        looked_for = pa.array(self.exclusion.keys | self.exclusion.images, pa.string())
        found = pc.sum(pc.is_in(column, looked_for)).as_py() or 0
        return int(found) + sum(
            self._is_image(text) for text in column.to_pylist() if text and len(text) == 64
        )

    def _in_tar(self, uri: str) -> int:
        found = 0
        with files.open_read(uri) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                stem, _, extension = member.name.rpartition(".")
                content = archive.extractfile(member)
                data = content.read() if content else b""
                if extension == "json":
                    found += self._in_json(data)
                else:
                    found += contract.unescape(stem) in self.exclusion.keys
                    digest = hashlib.sha256(data).hexdigest()
                    found += digest in self.exclusion.images or self._is_image(digest)
        return found

    def _in_copies(self, uri: str) -> int:
        """Count the copied images beside a part; the part says where each begins."""
        folder, _, name = uri.rpartition("/")
        part = name.removesuffix(image_copies.SUFFIX)
        found = 0
        with files.open_read(uri) as stream:
            references = parquet.read_table(parts.part_uri(folder, part), ["image"])["image"].to_pylist()
            for image in (one for one in references if one["kind"] == image_copies.KIND):
                stream.seek(image["offset"])
                digest = hashlib.sha256(stream.read(image["size"])).hexdigest()
                found += digest in self.exclusion.images or self._is_image(digest)
        return found

    def _in_json(self, data: bytes) -> int:
        try:
            return self._in_value(json.loads(data))
        except (ValueError, RecursionError):
            return self._in_bytes(data)

    def _in_value(self, value: Any) -> int:
        if isinstance(value, dict):
            return sum(self._in_value(one) for pair in value.items() for one in pair)
        if isinstance(value, list):
            return sum(map(self._in_value, value))
        if not isinstance(value, str):
            return 0
        return int(value in self.exclusion.keys or value in self.exclusion.images or self._is_image(value))

    def _in_bytes(self, data: bytes) -> int:
        return sum(
            digest in self.exclusion.images or self._is_image(digest)
            for digest in (match.decode() for match in _DIGESTS.findall(data))
        )

    def _is_image(self, digest: str) -> bool:
        return bool(self.led_to) and entry_hash(IMAGE, digest) in self.led_to
