"""Checks of single files against what was recorded of them, for the verification of every kind."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from tagmill.tag_system.core import files
from tagmill.transforms import parquet

Check = Callable[[str], bool]
"""Tells of a file, by its uri, whether it is as it was recorded. Raises ValueError, OSError."""


def sealed(seal: str) -> Check:
    """Check the bytes of a Parquet file of ours."""
    return lambda uri: parquet.seal(files.read_bytes(uri)) == seal


def digested(digest: str) -> Check:
    """Check the bytes of any file by their sha256."""
    return lambda uri: files.sha256(uri) == digest


def run(folder: str, checks: Mapping[str, Check]) -> Iterator[str]:
    """Check files by their names in a folder, many at a time; gives what is wrong, in order."""
    with ThreadPoolExecutor(files.THREADS) as pool:
        uris = [files.join(folder, name) for name in checks]
        yield from filter(None, pool.map(_problem, uris, checks.values()))


def _problem(uri: str, check: Check) -> str:
    try:
        return "" if check(uri) else f"{uri} does not match its recorded digest"
    except FileNotFoundError:
        return f"{uri} is missing"
    except (OSError, ValueError) as error:
        return f"{uri} cannot be read: {error}"
