"""Reads sources into the parts of ingest, a row for each example."""

import io
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import IO, Any

import pyarrow as pa

from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.errors import ConfigError, DataError, InputChangedError, Reason
from tagmill.tag_system.shard_contract import Split
from tagmill.transforms import images, parts
from tagmill.transforms.formats.base import (
    Format,
    InputConfig,
    Limits,
    Record,
    Source,
    SourceExample,
    format_of,
)
from tagmill.transforms.formats.fields import FieldCounts
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.given import Caps, Given, given, upright_labels
from tagmill.transforms.image_copies import Copies
from tagmill.transforms.ingest import (
    SCHEMA,
    Ingest,
    IngestConfig,
    SourceTask,
    input_spec,
    part_fingerprint,
    part_name,
    source_fingerprint,
    source_record_uri,
)
from tagmill.transforms.stage import conform, made_by
from tagmill.transforms.worker import Worker

MAX_KEY_CHARACTERS = 400


class SourceWorker(Worker[Ingest, SourceTask]):
    """Ingests sources."""

    def is_done(self, task: SourceTask) -> bool:
        """Look for the record of the source: it is written when all of its parts are."""
        return files.exists(source_record_uri(self.folder, task.name))

    def make(self, task: SourceTask) -> None:
        """Ingest a source."""
        ingest_source(self.stage, self.folder, task)


def ingest_source(stage: Ingest, folder: str, task: SourceTask) -> None:
    """Read one source front to end and commit the parts that are not there yet, then its record."""
    source = Source(task.root, task.path, task.images)
    config = InputConfig.model_validate_json(task.config)
    format_ = format_of(config)
    if format_.size_and_stamp(source.uri) != (task.size, task.stamp):
        raise InputChangedError(f"{source.uri} changed while the run was starting; run again")
    chunks = count = 0
    with _opened(format_, source, config) as stream:
        limits = Limits(stage.config.max_member_bytes, stage.config.max_record_bytes)
        found = _examples(format_.read(stream, source, config, limits), source)
        numbered = enumerate(islice(found, task.limit) if task.limit else found)
        part_size = stage.shared.part_size
        for chunk, group in groupby(numbered, key=lambda pair: pair[0] // part_size):
            name = part_name(task.name, chunk)
            if files.exists(parts.part_uri(folder, name)):
                count += sum(1 for _ in group)
            else:
                with Copies(folder, name) as copies:
                    count += _make_part(stage, folder, task, name, config, (e for _, e in group), copies)
            chunks += 1
        record = {"input": config.name, "path": task.path, "size": task.size, "stamp": task.stamp}
        # The rest of a source is not read for its digest alone: then size and stamp have to tell.
        digest = "" if task.limit else stream.finish()
        record |= {"sha256": digest, "fingerprint": source_fingerprint(task), "config": input_spec(config)}
        record |= {"parts": chunks, "examples": count}
    files.create_bytes(source_record_uri(folder, task.name), notes.dump(record))


@contextmanager
def _opened(format_: Format, source: Source, config: InputConfig) -> Iterator[HashingStream]:
    """Open a source. Raises ConfigError if that is not allowed."""
    with ExitStack() as stack:
        raw: IO[bytes] | _Unreadable
        try:
            raw = stack.enter_context(format_.open_read(source.uri))
        except files.SpecialFileError:
            raw = _Unreadable(f"{source.uri} is a pipe, a socket or a device, not a regular file")
        except PermissionError as error:
            raise ConfigError(f"input {config.name}: cannot read {source.uri}: {error.strerror}") from error
        yield HashingStream(raw)


class _Unreadable(io.RawIOBase):
    """A source that cannot be read at all: says so once, and is at its end then."""

    def __init__(self, detail: str) -> None:
        super().__init__()
        self._errors = [DataError(Reason.SOURCE_UNREADABLE, detail)]

    def read(self, size: int = -1) -> bytes:
        if self._errors:
            raise self._errors.pop()
        return b""


def _examples(found: Iterator[SourceExample], source: Source) -> Iterator[SourceExample]:
    """Give the examples of a source; an unreadable source and a repeated key become failing examples."""
    seen: set[str] = set()
    try:
        for example in found:
            if example.key in seen:
                yield SourceExample.failing(
                    example.key, Reason.KEY_REPEATED, f"again in {source.path}{example.remedy}"
                )
            else:
                if (
                    len(example.key) <= MAX_KEY_CHARACTERS
                ):  # longer ones die anyway, and might fill the memory
                    seen.add(example.key)
                yield example
    except DataError as error:
        yield SourceExample.failing(source.path, error.reason, error.detail)


def _make_part(
    stage: Ingest,
    folder: str,
    task: SourceTask,
    name: str,
    config: InputConfig,
    examples: Iterable[SourceExample],
    copies: Copies,
) -> int:
    """Make one part of a source and commit it; returns the number of its examples, live and dead."""
    start = time.perf_counter()
    rows, dead = [], []
    count = undecided = 0
    captions: dict[int, int] = {}
    fields = FieldCounts(config)
    for row, example, loaded in _loaded(examples, stage, config, fields, copies):
        count += 1
        key = f"{config.name}/{_printable(example.key)}"
        try:
            found = _checked(example, loaded)
            labels, on_trust = upright_labels(found.given, found.info, config)
            rows.append({"row": row, "key": key, "labels": labels} | _row(found, config, stage))
            captions[row] = len(found.given.captions)
            undecided += on_trust
            fields.add_labels(len(labels), found.given.label_loss)
            dead += [parts.Dead.of(row, key, error, index) for index, error in found.given.lost.items()]
            dead += [parts.Dead.of_field(row, key, error) for error in found.given.odd]
        except DataError as error:
            dead.append(parts.Dead.of(row, key, error))
    table = conform(pa.Table.from_pylist(rows, SCHEMA), stage)
    notes = {"source": task.name, "input": config.name, "boxes_undecided": undecided}
    lost = Counter(str(letter.reason) for letter in dead if letter.unit == "field")
    notes["fields"] = fields.to_json() | {"lost": dict(sorted(lost.items()))}
    output = parts.Output(table, count, sum(captions.values()), dead, notes=notes, captions_of=captions)
    output.slices = stage.cut_slices(table)
    output.copies = copies
    output.seconds["total"] = time.perf_counter() - start
    is_cut = bool(task.limit) and count == task.limit % stage.shared.part_size
    fingerprint = part_fingerprint(task, name, is_cut=is_cut)
    parts.commit(folder, made_by(stage, name, fingerprint), output, range(count))
    return count


@dataclass(frozen=True)
class Loaded:
    """An example that is read: where its image lies, what that is, and what the source says of it."""

    image: dict[str, Any]
    info: images.ImageInfo
    given: Given


def _loaded(
    examples: Iterable[SourceExample],
    stage: Ingest,
    config: InputConfig,
    fields: FieldCounts,
    copies: Copies,
) -> Iterator[tuple[int, SourceExample, "Future[Loaded | DataError]"]]:
    """Read examples in order and count their `fields`, while threads inspect the images of those read.

    What waits is of bounded size: the bytes of images that were not looked at, and what is known of the
    others, checked.
    """
    room = images.Room(stage.config.max_image_bytes)
    most = images.share_of_rest(stage.config.max_image_bytes)
    caps = stage.config.caps()
    with ThreadPoolExecutor(stage.shared.decode_threads, thread_name_prefix="inspect") as pool:
        waiting: deque[tuple[int, SourceExample, Future[Loaded | DataError]]] = deque()
        sizes: deque[int] = deque()
        for row, example in enumerate(examples):
            sizes.append(0)
            try:
                record = example.load()
                sizes[-1] = len(record.data)
                fields.add((*record.seen, *record.fields), record.used, captioned=bool(record.captions))
                said = _given(record, config, caps)
                image = copies.placed(record.image, record.data)
                future = pool.submit(_inspected, image, record.data, said, stage.config, room)
                del record
            except DataError as error:
                future = Future()
                future.set_result(error)
            waiting.append((row, example, future))
            while len(waiting) > images.AHEAD_IMAGES or (sum(sizes) > most and len(waiting) > 1):
                sizes.popleft()
                yield waiting.popleft()
        yield from waiting


def _given(record: Record, config: InputConfig, caps: Caps) -> Given | DataError:
    """Check what a source says; its error waits, for that of an image goes first."""
    try:
        return given(record, config, caps)
    except DataError as error:
        return error


def _inspected(
    image: dict[str, Any], data: bytes, said: Given | DataError, config: IngestConfig, room: images.Room
) -> Loaded | DataError:
    try:
        info = images.inspect(data, config.max_pixels, config.max_image_bytes, room)
    except DataError as error:
        return error
    return said if isinstance(said, DataError) else Loaded(image, info, said)


def _checked(example: SourceExample, loaded: "Future[Loaded | DataError]") -> Loaded:
    result = loaded.result()
    if isinstance(result, DataError):
        raise result
    if not example.key or len(example.key) > MAX_KEY_CHARACTERS or not example.key.isprintable():
        detail = f"a key has 1 to {MAX_KEY_CHARACTERS} printable characters: {example.key[:80]!r}"
        raise DataError(Reason.KEY_INVALID, detail)
    return result


def _printable(key: str) -> str:
    """Make any key fit for a table: what cannot be encoded or shown is escaped."""
    shown = key if key.isprintable() else key.encode("unicode_escape").decode()
    return shown[:MAX_KEY_CHARACTERS]


def _row(found: Loaded, config: InputConfig, stage: Ingest) -> dict[str, Any]:
    info, said = found.info, found.given
    split = config.split or said.split or _hashed_split(info.sha256, stage.config)
    more = {"captions": said.captions, "meta": said.meta, "split": split}
    return {"image": found.image, **asdict(info), **more}


def _hashed_split(sha256: str, config: IngestConfig) -> Split:
    """Draw train or val by the image's hash: copies of an image stay together."""
    return "val" if int(sha256[:13], 16) < config.val_fraction * 16**13 else "train"
