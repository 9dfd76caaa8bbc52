"""Verification: does what lies in a run's folder still match what was recorded of it?"""

from collections.abc import Iterator

from tagmill.pipeline import ledger
from tagmill.pipeline.current import current_records
from tagmill.pipeline.dataset import CUT
from tagmill.pipeline.plan import CLUSTERS
from tagmill.pipeline.records import StageRecord, read_json
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.stages import STAGE_NAMES
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import parquet, parts
from tagmill.transforms.cluster import tag_digests
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
        problems += _chain(run, record)
        yield record.stage, max(1, len(record.parts)), problems


def _unrecorded(run: RunFolder) -> Iterator[tuple[str, int, list[str]]]:
    """Find stages of which a note is missing that says what their parts are."""
    for stage in STAGE_NAMES:
        folder = run.path(stage)
        finished = [g for g in run.generations(stage) if run.read_record(stage, g)]
        if finished and ledger.latest(folder) is None:
            yield stage, 1, [f"{folder}: the note which generation is current is missing; run again"]
        elif (generation := run.current(stage)) and generation not in finished:
            yield stage, 1, [f"{run.generation(stage, generation)}: its record is missing; run again"]


def _chain(run: RunFolder, record: StageRecord) -> Iterator[str]:
    """Check that a stage was made from what is current of its inputs."""
    for stage, generation in record.inputs.items():
        if run.current(stage) != generation:
            yield f"{record.stage} was made from {run.generation(stage, generation)}, which is not current"


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
    """Check the bytes of all parts, and of what lies beside them."""
    for name, known in record.parts.items():
        yield from _sealed(parts.part_uri(folder, name), known.seal)
        beside = {"dead": parts.dead_uri(folder, name), "array": parts.array_uri(folder, name)}
        for what, digest in known.beside.items():
            yield from _digested(beside[what], digest)


def _sealed(uri: str, seal: str) -> Iterator[str]:
    """Check the bytes of a Parquet file of ours."""
    try:
        if parquet.seal(files.read_bytes(uri)) != seal:
            yield f"{uri} does not match its recorded digest"
    except FileNotFoundError:
        yield f"{uri} is missing"
    except (OSError, ValueError) as error:
        yield f"{uri} cannot be read: {error}"


def _digested(uri: str, digest: str) -> Iterator[str]:
    """Check the bytes of any file."""
    try:
        found = files.sha256(uri)
    except FileNotFoundError:
        yield f"{uri} is missing"
    else:
        if found != digest:
            yield f"{uri} does not match its recorded digest"


def _clusters(folder: str, record: StageRecord) -> Iterator[str]:
    uri = files.join(folder, CLUSTERS)
    try:
        rows = tag_digests(parquet.read_table(uri))
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
        if shard.name in record.parts:
            yield from _sealed(index_uri(folder, shard.name), record.parts[shard.name].seal)
        yield from _digested(tar_uri(folder, shard.name), shard.sha256)


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
