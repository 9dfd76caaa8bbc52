"""Ingest: source files -> parts with a row for each example: image reference, captions, labels, meta."""

import io
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import IO, Any, Self

import apache_beam as beam
import pyarrow as pa
from pydantic import Field

from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError, DataError, InputChangedError, Reason
from tagmill.tag_system.core.pixels import MAX_BYTES
from tagmill.tag_system.shard_contract import Split
from tagmill.transforms import images, parts
from tagmill.transforms.exclusion import NOTHING, Exclusion, read_exclusion
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
from tagmill.transforms.stage import RunContext, Shared, Stage, conform, made_by
from tagmill.transforms.worker import Worker

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", images.IMAGE_REFERENCE, nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("orientation", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field(
            "labels",
            pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("box", pa.list_(pa.float32()))])),
            nullable=False,
        ),
        pa.field("meta", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

SLICES = {
    "pixels": ("key", "width", "height", "sha256"),
    "captions": ("captions",),
    "labels": ("labels",),
    "splits": ("split",),
}
"""Columns of each slice, besides the row."""

MAX_KEY_CHARACTERS = 400


class IngestConfig(Config):
    """Limits of what is read, and the share of examples that go to `val` where a source has no split.

    With `limit`, only that many examples of each source are read, the first ones.
    """

    max_pixels: int = Field(100_000_000, gt=0)
    max_image_bytes: int = Field(MAX_BYTES, gt=0)
    max_member_bytes: int = Field(64 << 20, gt=0)
    max_record_bytes: int = Field(4 << 20, gt=0)
    max_captions: int = Field(1_000, gt=0)
    max_labels: int = Field(1_000, gt=0)
    max_meta_bytes: int = Field(1 << 20, gt=0)
    max_caption_characters: int = Field(2_000, gt=0, le=1_000_000)  # the most that spaCy reads
    val_fraction: float = Field(0.01, ge=0, lt=1)
    limit: int | None = Field(None, gt=0)

    def caps(self) -> Caps:
        """Give the limits of what one example says."""
        return Caps(self.max_captions, self.max_caption_characters, self.max_labels, self.max_meta_bytes)


@beam.coders.registry.register_row
@dataclass(frozen=True)
class SourceTask:
    """A source file to be ingested; `config` is the config of its input, as JSON.

    `limit` is how many of its examples are read, 0 for all. The fingerprint knows nothing of it: parts that
    it does not cut are as they ever are.
    """

    name: str
    fingerprint: str
    root: str
    path: str
    images: str
    size: int
    stamp: str
    config: str
    limit: int = 0


class Ingest(Stage[IngestConfig]):
    """Reads sources; the only stage whose unit of work is a source file, which gives one part or more."""

    kind = "sources"
    name = "ingest"
    version = 6
    schema = SCHEMA

    def __init__(self, config: IngestConfig, shared: Shared, exclusion: Exclusion = NOTHING) -> None:
        super().__init__(config, shared)
        self.exclusion = exclusion

    @classmethod
    def of_run(cls, run: RunContext) -> Self:
        """Make the stage, which is never off, with what the run's inputs exclude."""
        return cls(run.config[cls.name], run.shared, read_exclusion(run.config["inputs"]))

    def inputs(self) -> tuple[str, ...]:
        """Ingest reads no other stage."""
        return ()

    def _spec(self) -> dict[str, Any]:
        excluded = {"exclude": self.exclusion.digest} if self.exclusion else {}
        return {**super()._spec(), "part_size": self.shared.part_size, **excluded}

    @property
    def reading(self) -> dict[str, Any]:
        """What decides how examples are read: the spec, but for how many, and what is taken out
        afterwards.
        """
        config = {name: value for name, value in self.spec["config"].items() if name != "limit"}
        return {name: value for name, value in self.spec.items() if name != "exclude"} | {"config": config}

    def cut_slices(self, table: pa.Table) -> dict[str, pa.Table]:
        """Cut the table by what stages read: a changed caption then does not make a stage run again that
        looks at pixels alone.
        """
        return {name: table.select(["row", *columns]) for name, columns in SLICES.items()}


def input_spec(config: InputConfig) -> dict[str, Any]:
    """Give the non-default settings of an input that decide what is read from its sources."""
    where = ("path", "images", "exclude")
    changed = {name: value for name, value in config.changed().items() if name not in where}
    version = format_of(config).version
    return changed if version == 1 else {**changed, "format_version": version}


def part_name(source_name: str, chunk: int) -> str:
    """Name the part of a source's chunk."""
    return f"{source_name}-{chunk:05d}"


def source_of(part: str) -> str:
    """Name the source of a part."""
    return part.rpartition("-")[0]


def source_fingerprint(task: SourceTask) -> str:
    """Hash what decides all that is read of a source."""
    return value_digest([task.fingerprint, task.limit]) if task.limit else task.fingerprint


def part_fingerprint(task: SourceTask, name: str, *, is_cut: bool = False) -> str:
    """Hash what makes a part of a source: the task, and the file as it was when it was read.

    `is_cut` tells that the task's limit may have cut the part.
    """
    return value_digest([task.fingerprint, name, task.size, task.stamp, *([task.limit] if is_cut else [])])


def source_record_uri(folder: str, source_name: str) -> str:
    """Name the record of a source that was ingested to its end."""
    return files.join(folder, "sources", source_name + ".json")


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
