"""Verification: does what lies in a run's folder still match what was recorded of it?"""

import hashlib
from collections.abc import Iterator

from tagmill.pipeline.dataset import CUT, read_index_header
from tagmill.pipeline.plan import CLUSTERS
from tagmill.pipeline.report import current_records
from tagmill.pipeline.run import check_counts
from tagmill.pipeline.run_folder import RECORD, RunFolder, StageRecord, read_json
from tagmill.pipeline.stages import STAGE_NAMES
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.errors import ConfigError, DamageError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import files, parts
from tagmill.transforms.cluster import tag_digests
from tagmill.transforms.digests import table_digest, value_digest
from tagmill.transforms.ingest import source_record_uri
from tagmill.transforms.shards import index_uri, tar_uri


def verify(run: RunFolder) -> Iterator[tuple[str, int, list[str]]]:
    """Check the current generation of every stage; gives stage, things checked, and what is wrong."""
    yield from _unrecorded(run)
    for record in current_records(run):
        folder = run.generation(record.stage, record.generation)
        if record.stage == "shards":
            problems = list(_shards(folder, record))
        elif record.stage == "cluster":
            problems = list(_clusters(folder, record))
        else:
            problems = list(_parts(folder, record))
        if record.stage == "ingest":
            problems += _sources(folder, record)
        yield record.stage, max(1, len(record.parts)), problems


def _unrecorded(run: RunFolder) -> Iterator[tuple[str, int, list[str]]]:
    """Find stages whose parts are there without the record that says what they are."""
    for stage in STAGE_NAMES:
        pointer = run.path(stage, RECORD)
        if run.generations(stage) and not files.exists(pointer):
            yield stage, 1, [f"{pointer} is missing; run again"]
            continue
        generation = run.current(stage)
        if generation and run.read_record(stage, generation) is None:
            uri = files.join(run.generation(stage, generation), RECORD)
            yield stage, 1, [f"{uri} is missing; run again"]


def _sources(folder: str, record: StageRecord) -> Iterator[str]:
    """Check what ingest noted of each source."""
    for name in record.more["sources"]:
        uri = source_record_uri(folder, name)
        try:
            read_json(uri)
        except FileNotFoundError:
            yield f"{uri} is missing"
        except DamageError as error:
            yield str(error)


def _parts(folder: str, record: StageRecord) -> Iterator[str]:
    for name, known in record.parts.items():
        uri = parts.part_uri(folder, name)
        try:
            part = parts.read_part(uri)
            digest = value_digest([table_digest(part.table), part.header.gone])
            check_counts(part.header)
        except FileNotFoundError:
            yield f"{uri} is missing"
        except (DamageError, OSError, ValueError) as error:
            yield f"{uri} cannot be read: {error}"
        else:
            if digest != known.digest:
                yield f"{uri} does not match its recorded digest"
            yield from _dead_letters(folder, part.header)
            if record.stage == "features":
                yield from _array(folder, part.header)


def _dead_letters(folder: str, header: parts.Header) -> Iterator[str]:
    """Check that there is a letter for everything that died in a part."""
    uri, count = parts.dead_uri(folder, header.name), sum(header.dead.values())
    if not count:
        return
    try:
        if parts.read_table(uri).num_rows != count:
            yield f"{uri} does not hold the {count} dead letters of its part"
    except (OSError, ValueError) as error:
        yield f"{uri} cannot be read: {error}; remove its part too"


def _array(folder: str, header: parts.Header) -> Iterator[str]:
    uri = parts.array_uri(folder, header.name)
    if not files.exists(uri):
        yield f"{uri} is missing"
    elif hashlib.sha256(files.read_bytes(uri)).hexdigest() != header.notes["sha256"]:
        yield f"{uri} does not match its recorded digest"


def _clusters(folder: str, record: StageRecord) -> Iterator[str]:
    uri = files.join(folder, CLUSTERS)
    try:
        rows = tag_digests(parts.read_table(uri))
    except FileNotFoundError:
        yield f"{uri} is missing"
    except (OSError, ValueError) as error:
        yield f"{uri} cannot be read: {error}"
    else:
        if rows != record.more["rows"]:
            yield f"{uri} does not match its recorded digest"


def _shards(folder: str, record: StageRecord) -> Iterator[str]:
    manifest = files.join(folder, contract.MANIFEST)
    if not files.exists(manifest):
        yield f"{manifest} is missing: the dataset is not whole"
        return
    try:
        whole = contract.parse_manifest(files.read_bytes(manifest), folder)
    except ConfigError as error:
        yield str(error)
        return
    yield from _vocabulary(files.join(folder, contract.VOCABULARY), whole)
    yield from _cut(files.join(folder, CUT))
    listed = whole.shards
    if {shard.name for shard in listed} != set(record.parts):
        yield f"{manifest} lists other shards than were recorded"
    for shard in listed:
        yield from _index(folder, shard)
        uri = tar_uri(folder, shard.name)
        try:
            with files.open_read(uri) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # fsspec
        except FileNotFoundError:
            yield f"{uri} is missing"
        else:
            if digest != shard.sha256:
                yield f"{uri} does not match the manifest"


def _vocabulary(uri: str, manifest: contract.Manifest) -> Iterator[str]:
    """Check the tags, which trainings read beside the shards."""
    try:
        if Vocabulary.from_text(files.read_bytes(uri).decode(), uri).digest != manifest.vocabulary:
            yield f"{uri} is not the vocabulary of the manifest"
    except FileNotFoundError:
        yield f"{uri} is missing"
    except (ConfigError, UnicodeDecodeError) as error:
        yield f"{uri} cannot be read: {error}"


def _cut(uri: str) -> Iterator[str]:
    """Check the note of where shards are cut, by which new input only adds some."""
    try:
        read_json(uri)
    except FileNotFoundError:
        yield f"{uri} is missing"
    except DamageError as error:
        yield str(error)


def _index(folder: str, shard: contract.ManifestShard) -> Iterator[str]:
    uri = index_uri(folder, shard.name)
    try:
        header = read_index_header(folder, shard.name)
        members = parts.read_table(uri).num_rows
        if (header["sha256"], members) != (shard.sha256, 2 * shard.examples):
            yield f"{uri} does not match the manifest"
    except FileNotFoundError:
        yield f"{uri} is missing"
    except DamageError as error:
        yield str(error)
    except (OSError, ValueError) as error:
        yield f"{uri} cannot be read: {error}"
