"""Checks of single files against what was recorded of them, for the verification of every kind."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from tagmill.pipeline.records import PartRecord
from tagmill.tag_system.core import files
from tagmill.transforms import parquet, parts

Check = Callable[[str, int], bool]
"""Tells of a file, by its uri and size, whether it is as it was recorded. Raises ValueError, OSError."""


def sealed(seal: str) -> Check:
    """Check the bytes of a Parquet file of ours."""
    return lambda uri, size: parquet.file_seal(uri, size) == seal


def digested(digest: str) -> Check:
    """Check the bytes of any file by their sha256."""
    return lambda uri, size: files.sha256(uri, size) == digest


def of_part(part: PartRecord) -> dict[str, Check]:
    """Give the checks of a part and of what lies beside it, by their names in the generation's folder."""
    beside = {part.file_beside(what): digested(digest) for what, digest in part.beside.items()}
    return {part.name + parts.SUFFIX: sealed(part.seal)} | beside


def run(folder: str, checks: Mapping[str, Check], sizes: Mapping[str, int]) -> Iterator[str]:
    """Check files by their names in a folder, many at a time; gives what is wrong, in order.

    `sizes` has the size of each file that is there.
    """
    threads = files.THREADS if files.is_local(folder) else files.READERS
    with ThreadPoolExecutor(threads) as pool:
        uris = [files.join(folder, name) for name in checks]
        yield from filter(None, pool.map(_problem, uris, map(sizes.get, checks), checks.values()))


def _problem(uri: str, size: int | None, check: Check) -> str:
    try:
        if size is None:
            raise FileNotFoundError
        return "" if check(uri, size) else f"{uri} does not match its recorded digest"
    except FileNotFoundError:
        return f"{uri} is missing"
    except (OSError, ValueError) as error:
        return f"{uri} cannot be read: {error}"
