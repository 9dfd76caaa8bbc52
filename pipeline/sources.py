"""Finds a run's source files, orders them, and checks whether they changed since they were ingested."""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tagmill.pipeline.accounts import read_footers
from tagmill.pipeline.records import PartRecord
from tagmill.pipeline.run_folder import committed_parts, supersede
from tagmill.pipeline.source_notes import SourceNotes
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError, InputChangedError
from tagmill.transforms import parquet, parts
from tagmill.transforms.formats.base import CopyingFormat, Format, InputConfig, format_of
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.several import SeveralFiles
from tagmill.transforms.images import check_unchanged, read_references
from tagmill.transforms.ingest import (
    Ingest,
    SourceTask,
    input_spec,
    part_fingerprint,
    part_name,
    source_fingerprint,
    source_of,
    source_record_uri,
)

_log = logging.getLogger(__name__)


RECORD = ("input", "path", "size", "stamp", "sha256", "fingerprint", "config", "parts")
"""The keys of the record of a source that was ingested to its end."""


Stamp = tuple[int, str]
"""A file's size in bytes, and what changes when it is rewritten."""


@dataclass(frozen=True)
class FoundSource:
    """A source file as it is now, before it is compared with what was ingested."""

    name: str
    config: InputConfig
    root: str
    path: str
    images: str
    size: int
    stamp: str

    @property
    def uri(self) -> str:
        """Where the file is."""
        return files.join(self.root, self.path)


def find_sources(inputs: Iterable[InputConfig]) -> dict[str, FoundSource]:
    """List the sources of all inputs, by name, in the order of the inputs and then of their paths.

    Raises ConfigError for a pattern that matches nothing, and a folder that is missing or holds no image.
    """
    found: dict[str, FoundSource] = {}
    for source in inputs:
        format_ = format_of(source)
        root, paths = format_.find_sources(source)
        if source.images and not files.exists(source.images):
            raise ConfigError(f"input {source.name}: no image folder {source.images}")
        listed = _listed(source, format_, root, paths)
        with ThreadPoolExecutor(files.THREADS) as pool:
            for one in pool.map(partial(_find, source, format_, root, listed), paths):
                found[one.name] = one
    return found


def _listed(source: InputConfig, format_: Format, root: str, paths: Sequence[str]) -> dict[str, Stamp]:
    """Tell size and stamp of files of a store, by uri, as the folders' listings have them.

    Empty where each has to be asked for: the format has its own way, nothing was listed to find them, or the
    store says something else of a file than its listing does.
    """
    plain = SeveralFiles if isinstance(format_, SeveralFiles) and not format_.others else FileFormat
    is_plain = getattr(type(format_), "size_and_stamp", None) is plain.size_and_stamp
    if not is_plain or files.is_local(root) or not any(map(files.has_wildcard, source.paths)):
        return {}
    uris = [files.join(root, path) for path in paths]
    folders = list(dict.fromkeys(uri.rpartition("/")[0] for uri in uris))
    with ThreadPoolExecutor(files.THREADS) as pool:
        stamps = zip(folders, pool.map(files.list_stamps, folders), strict=True)
        listed = {
            files.join(folder, name): stamp for folder, there in stamps for name, stamp in there.items()
        }
    is_told = uris[0] in listed and listed[uris[0]] == files.size_and_stamp(uris[0])
    return listed if is_told else {}


def _find(
    source: InputConfig, format_: Format, root: str, listed: Mapping[str, Stamp], path: str
) -> FoundSource:
    # The name depends on what lies under the root alone: a copy of the data elsewhere keeps it.
    name = hashlib.sha256(f"{source.name}/{path}".encode()).hexdigest()[:12]
    uri = files.join(root, path)
    try:
        size, stamp = listed[uri] if uri in listed else format_.size_and_stamp(uri)
    except FileNotFoundError as error:
        raise ConfigError(f"input {source.name}: {uri} is missing, or a link to nothing") from error
    except OSError as error:
        if not files.is_local(uri):  # a connection that breaks is nobody's fault
            raise
        raise ConfigError(f"input {source.name}: cannot read {uri}: {error.strerror}") from error
    images = files.absolute(source.images) if source.images else format_.image_folder(root, uri)
    return FoundSource(name, source, root, path, images, size, stamp)


def source_task(stage: Ingest, source: FoundSource) -> SourceTask:
    """Make the task that ingests a source."""
    made_by = {"stage": stage.name, "version": stage.version, "spec": stage.reading}
    fingerprint = value_digest(made_by | {"input": input_spec(source.config)})
    return SourceTask(
        name=source.name,
        fingerprint=fingerprint,
        root=source.root,
        path=source.path,
        images=source.images,
        size=source.size,
        stamp=source.stamp,
        config=source.config.model_dump_json(),
        limit=stage.config.limit or 0,
    )


class Sources:
    """The sources of a run, compared with what its ingest folder holds.

    Attributes:
        order: Names of the sources in ingest's order: known ones keep their order, new ones follow.
        whole: The parts that exist with all their files.
        again: Those of them that are made again all the same.
    """

    def __init__(
        self,
        inputs: Sequence[InputConfig],
        stage: Ingest,
        source_notes: SourceNotes,
        whole: set[str],
        again: Collection[str] = (),
    ) -> None:
        self.again = set(again)
        self._whole = whole
        self._inputs = {source.name for source in inputs}
        self.found = find_sources(inputs)
        self.folder = source_notes.folder
        self.notes = source_notes
        self._stage = stage
        self.order = list(self.found)
        self.digests: dict[str, str] = {}
        self.records = self._read_records(source_notes, self.order)
        self._touched: dict[str, dict[str, Any]] = {}
        self._rewritten: set[str] = set()
        self.removed: list[str] = []
        self._gone: dict[str, dict[str, Any]] = {}
        self._renamed: set[str] = set()
        self._before: dict[str, dict[str, Any]] = {}
        self._folder_before = self.folder
        self._adopted: dict[str, tuple[str, dict[str, Any]]] = {}

    def follow(self, before: list[str], folder: str) -> None:
        """Take over the order of the sources `before`, which were ingested into a generation's folder."""
        known = set(before)
        self.order = [name for name in before if name in self.found]
        self.order += [name for name in self.found if name not in known]
        self.removed = [name for name in before if name not in self.found]
        self._folder_before = folder
        self._gone = {name: self._record_of_removed(name) for name in self.removed}
        gone = {
            (record["path"], record.get("size"), record.get("stamp")): name
            for name, record in self._gone.items()
            if record["input"] not in self._inputs
        }
        for name in self.order[len(before) - len(self.removed) :]:
            source = self.found[name]
            if was := gone.get((source.path, source.size, source.stamp)):
                self._renamed.add(name)
                self._before[name] = self._gone[was]

    def lacks(self) -> bool:
        """Tell whether a source was not read to its end, or lacks a part."""
        return any(
            name not in self.records or not _parts_of(name, self.records[name]) <= self._whole
            for name in self.order
        )

    def adopt(
        self,
        source_notes: SourceNotes,
        whole: Collection[str],
        again: Collection[str],
        lender: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Take over the sources that another generation read in just the same way.

        Args:
            source_notes: The notes of that generation.
            whole: The parts that are there with all their files.
            again: Sources that must be read again all the same.
            lender: The inputs of the run whose generation it is, by name, if that is another run: then the
                files here are compared with its record, which was perhaps of others.
        """
        folder, wanted = source_notes.folder, [name for name in self.order if name not in self.records]
        for name, record in self._read_records(source_notes, wanted).items():
            source, names = self.found[name], _parts_of(name, record)
            if lender is None:
                self._before[name] = record
            if record["fingerprint"] != source_fingerprint(source_task(self._stage, source)):
                continue
            if name in again or not names <= set(whole):
                continue
            if lender is not None:
                apart = not self.is_same_place(name, lender)
                if self._difference(source, record, folder, check=False, images=apart):
                    continue
                record |= {"size": source.size, "stamp": source.stamp}
            self.records[name] = record
            self._adopted[name] = (folder, record)
            self._whole |= names

    def is_same_place(self, name: str, lender: Mapping[str, Mapping[str, Any]]) -> bool:
        """Tell whether another run, by its inputs, found the images of a source just where they are now."""
        config = self.found[name].config
        if not format_of(config).images_apart:
            return True
        before = lender.get(config.name, {})
        places = [*config.paths, *([config.images] if config.images else [])]
        is_fixed = all(place.startswith("/") or not files.is_local(place) for place in places)
        return is_fixed and (before.get("path"), before.get("images")) == (config.path, config.images)

    def adopted(self, tasks: list[SourceTask]) -> list[str]:
        """Name the sources that are taken over, but for those that are read again after all."""
        again = {task.name for task in tasks}
        return [name for name in self._adopted if name not in again]

    def adopted_parts(self, tasks: list[SourceTask]) -> Iterator[str]:
        """Name the parts of the sources that are taken over."""
        for name in self.adopted(tasks):
            yield from sorted(_parts_of(name, self.records[name]))

    def adopted_from(self, part: str) -> str:
        """Name the folder that a part of a source which is taken over lies in."""
        return self._adopted[source_of(part)][0]

    def note_adopted(self, tasks: list[SourceTask]) -> None:
        """Write the records of the sources that were taken over: their parts are there."""
        for name in self.adopted(tasks):
            record = self._touched.pop(name, self._adopted[name][1])
            self.notes.replace(name, notes.dump(record))

    def _read_records(self, source_notes: SourceNotes, wanted: list[str]) -> dict[str, dict[str, Any]]:
        """Read what is noted of the sources `wanted`, in their order."""
        return {
            name: self._parse(name, data, source_record_uri(source_notes.folder, name))
            for name, data in (source_notes.read(wanted) if wanted else {}).items()
        }

    def _parse(self, name: str, data: bytes, uri: str) -> dict[str, Any]:
        """Read what a worker noted of a source, and keep the digest of its bytes. Raises DamageError."""
        self.digests[name] = hashlib.sha256(data).hexdigest()
        return notes.parse(data, uri, *RECORD)

    def _check_removed(self, *, accept_changes: bool) -> None:
        """Name sources that were ingested and are not there any more.

        Raises InputChangedError if their input is: a disk that is not mounted is not a wish.
        """
        if not self.removed:
            return
        records = list(self._gone.values())
        shown = ", ".join(f"{record['input']}: {record['path']}" for record in records[:3])
        shown += " ..." if len(records) > 3 else ""
        if not accept_changes and any(record["input"] in self._inputs for record in records):
            raise InputChangedError(
                f"{len(records)} sources were ingested and are missing now: {shown}; put them back, or "
                "run with --accept-changes to take their examples out of the dataset"
            )
        names = {(self._before[name]["input"], self.found[name].config.name) for name in self._renamed}
        for was, now in sorted(names):
            _log.warning(
                "input %s is called %s now: its examples get other keys, and all stages make their parts "
                "again; with its old name nothing is made",
                was,
                now,
            )
        if len(self._renamed) < len(records):
            _log.warning("%d sources were removed; their examples leave the dataset: %s", len(records), shown)

    def _record_of_removed(self, name: str) -> dict[str, Any]:
        """Read the record of a source that was removed; one that was being made again has none."""
        uri = source_record_uri(self._folder_before, name)
        if files.exists(uri):
            return notes.read(uri, *RECORD)
        return {"input": next(iter(self._inputs)), "path": name}

    def todo(self, *, accept_changes: bool, check: bool = False) -> tuple[list[SourceTask], list[str]]:
        """List the sources that are not ingested, or no longer as they must be, and why.

        With `check`, sources are read that look unchanged, and the images that they name. Raises
        InputChangedError for a source that is missing or whose bytes changed, unless changes are accepted.
        """
        self._check_removed(accept_changes=accept_changes)
        tasks, reasons = [], []
        for name in self.order:
            source, record = self.found[name], self.records.get(name)
            task = source_task(self._stage, source)
            if record is None:
                was = self._before[name]["input"] if name in self._renamed else ""
                reason = f"its input was called {was}" if was else "new source"
            elif record["fingerprint"] != source_fingerprint(task):
                reason = _changes(record["config"], input_spec(source.config))
            elif what := self._changed(source, record, check=check):
                if not accept_changes:
                    raise InputChangedError(
                        f"{what} changed since it was ingested; put the old file back, "
                        "or run with --accept-changes to make its parts again"
                    )
                reason = "the file changed"
            elif self.again & _parts_of(name, record):
                reason = "its dead letters are tried again"
            elif missing := _parts_of(name, record) - self._whole:
                reason = f"{len(missing)} of its parts are missing"
            else:
                continue
            tasks.append(task)
            reasons.append(f"{source.path}: {reason}{_copying(source)}")
        return tasks, reasons

    def expected_parts(self) -> list[str] | None:
        """Name the parts that there will be once all is read, in order; None if a file is new, or another, or
        not read to its end.
        """
        if self._stage.config.limit:
            return None
        found = []
        for name in self.order:
            source, record = self.found[name], self.records.get(name) or self._before.get(name)
            if record is None or not record["sha256"]:
                return None
            if (source.size, source.stamp) != (record["size"], record["stamp"]):
                return None
            found += sorted(_parts_of(name, record))
        return found

    def _changed(self, source: FoundSource, record: dict[str, Any], *, check: bool) -> str:
        """Compare size and stamp, and only where they differ, or on demand, the bytes; says what changed."""
        folder = self._adopted[source.name][0] if source.name in self._adopted else self.folder
        what = self._difference(source, record, folder, check=check, images=check)
        if what:
            self._rewritten.add(source.name)
        elif (source.size, source.stamp) != (record["size"], record["stamp"]):
            self._touched[source.name] = record | {"size": source.size, "stamp": source.stamp}
        return what

    def _difference(
        self, source: FoundSource, record: dict[str, Any], folder: str, *, check: bool, images: bool
    ) -> str:
        """Compare a source, and its `images` if they lie apart, with its record; says what differs."""
        is_touched = (source.size, source.stamp) != (record["size"], record["stamp"])
        format_, what = format_of(source.config), ""
        if record["sha256"] and (is_touched or check):
            with format_.open_read(source.uri) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # fsspec's
            what = source.uri if digest != record["sha256"] else ""
        elif is_touched:  # only its first examples were read
            what = source.uri
        if not what and images and format_.images_apart:
            what = self._changed_image(source, record, folder)
        return what

    def _changed_image(self, source: FoundSource, record: dict[str, Any], folder: str) -> str:
        """Read the images that a source names; names one that is another than was ingested, or missing."""

        def compare(row: dict[str, Any]) -> str:
            if row["image"]["kind"] != "file":  # the source itself holds it
                return ""
            try:
                (data,) = read_references([row["image"]], source.images)
                check_unchanged(data, row)
            except InputChangedError:
                return f"the image of {row['key']}"
            return ""

        with ThreadPoolExecutor(files.THREADS) as pool:
            for name in sorted(_parts_of(source.name, record) & committed_parts(folder)):
                table = parquet.read_table(parts.part_uri(folder, name), ["key", "image", "sha256"])
                if what := next(filter(None, pool.map(compare, table.to_pylist())), ""):
                    return what
        return ""

    def note_touched(self) -> None:
        """Write down the new stamps of sources whose bytes are the old ones: they need no second look."""
        for name, record in self._touched.items():
            if name in self._adopted:
                continue  # see `note_adopted`
            data = notes.dump(record)
            self.notes.replace(name, data)
            self.digests[name] = hashlib.sha256(data).hexdigest()
        self._touched = {name: record for name, record in self._touched.items() if name in self._adopted}

    def stale_parts(self, tasks: list[SourceTask]) -> list[str]:
        """Name the parts of these sources that are there and must be made again.

        Those that an interrupted ingest left behind are as good as any, if nothing of them is missing.
        """
        by_name = {task.name: task for task in tasks}
        there = sorted(name for name in committed_parts(self.folder) if source_of(name) in by_name)
        found = {name: footer.header for name, footer in read_footers(self.folder, there).items()}
        wanted = {name: _fingerprints(by_name[source_of(name)], name) for name in there}
        return [
            name
            for name in there
            if name not in self._whole
            or name in self.again
            or found[name].fingerprint not in wanted[name]
            # With equal size and stamp the fingerprint says nothing of the bytes.
            or source_of(name) in self._rewritten
        ]

    def usable_parts(self, tasks: list[SourceTask], found: Mapping[str, PartRecord]) -> list[str]:
        """Name the parts that were made elsewhere of sources to be read, and are just what would be made."""
        by_name = {task.name: task for task in tasks}
        return [
            name
            for name, part in found.items()
            if (task := by_name.get(source_of(name))) is not None
            and task.name not in self._rewritten
            and name not in self.again
            and part.fingerprint == part_fingerprint(task, name)
        ]

    def drop_records(self, tasks: list[SourceTask]) -> None:
        """Move the records of these sources out of the way, and of those that were removed."""
        for name in [*(task.name for task in tasks), *self.removed]:
            supersede(self.folder, source_record_uri(self.folder, name))

    def strays(self, there: Iterable[str]) -> list[str]:
        """Pick the parts that lie in the folder and are of no source of the run."""
        known = set(self.order)
        return sorted(name for name in there if source_of(name) not in known)

    def part_names(self) -> Iterator[tuple[str, FoundSource]]:
        """Name the parts of all ingested sources, in order, with their sources."""
        noted = self._read_records(self.notes, self.order)
        taken = {name: record for name, (_, record) in self._adopted.items()}
        for name in self.order:
            record = noted.get(name) or taken.get(name) or {"parts": 0}
            for chunk in range(record["parts"]):
                yield part_name(name, chunk), self.found[name]


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the keys of an input that changed, with both values."""
    defaults = {name: field.default for name, field in InputConfig.model_fields.items()}
    defaults["format_version"] = 1
    changes = [
        f"{key} {json.dumps(before.get(key, defaults[key]))} -> {json.dumps(now.get(key, defaults[key]))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    return f"its input's {', '.join(changes)}"


def _fingerprints(task: SourceTask, name: str) -> set[str]:
    return {part_fingerprint(task, name, is_cut=is_cut) for is_cut in ({False, bool(task.limit)})}


def _copying(source: FoundSource) -> str:
    """Say how much disk the copies of a source's images take, if its format makes some."""
    format_ = format_of(source.config)
    size = format_.copied_bytes(source.uri) if isinstance(format_, CopyingFormat) else 0
    return f"; {size:,} bytes of images are copied into the run" if size else ""


def _parts_of(name: str, record: dict[str, Any]) -> set[str]:
    return {part_name(name, chunk) for chunk in range(record["parts"])}
