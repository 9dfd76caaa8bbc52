"""Checks of single files against what was recorded of them, for the verification of every kind."""

from collections.abc import Iterator

from tagmill.pipeline.records import StageRecord, read_json
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError
from tagmill.transforms import parquet, parts


def parts_of(folder: str, record: StageRecord) -> Iterator[str]:
    """Check the bytes of all parts, and of what lies beside them."""
    for name, known in record.parts.items():
        yield from sealed(parts.part_uri(folder, name), known.seal)
        beside = {"dead": parts.dead_uri(folder, name), "array": parts.array_uri(folder, name)}
        for what, digest in known.beside.items():
            yield from digested(beside[what], digest)


def sealed(uri: str, seal: str) -> Iterator[str]:
    """Check the bytes of a Parquet file of ours."""
    try:
        if parquet.seal(files.read_bytes(uri)) != seal:
            yield f"{uri} does not match its recorded digest"
    except FileNotFoundError:
        yield f"{uri} is missing"
    except (OSError, ValueError) as error:
        yield f"{uri} cannot be read: {error}"


def digested(uri: str, digest: str) -> Iterator[str]:
    """Check the bytes of any file."""
    try:
        found = files.sha256(uri)
    except FileNotFoundError:
        yield f"{uri} is missing"
    else:
        if found != digest:
            yield f"{uri} does not match its recorded digest"


def readable(uri: str) -> Iterator[str]:
    """Check that what the driver or a worker noted is there and can be read."""
    try:
        read_json(uri)
    except FileNotFoundError:
        yield f"{uri} is missing"
    except DamageError as error:
        yield str(error)
