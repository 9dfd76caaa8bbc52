"""Files anywhere fsspec reaches: whole reads, ranges, and writes that are there whole or not at all.

Uris are local paths or fsspec urls. A commit (`create_bytes`, `create_from`) is create-if-absent: of two
writers one wins and the other learns it, so a late attempt of an old job cannot replace what the run already
built on. `replace_bytes` and `replacing` write over what is there, which stays as it was until the new is
whole. Locally, the disk holds a file's bytes before the file gets its name, and the name before the call
returns: what was committed is still there after the power failed.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, cast

import fsspec
from braceexpand import braceexpand
from fsspec.implementations.local import LocalFileSystem

from tagmill.tag_system.core import secrets, stores
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.redaction import referring

THREADS = 16
"""Files that are looked at together: on an object store, each look takes its time."""

READERS = 64
"""Files that are read whole together, `RANGE_BYTES` at a time: bounded by bandwidth, no longer by waiting."""

PAGE_NAMES = 1000
"""Names that a store lists in one request."""

RANGE_BYTES = 4 << 20
"""Read of a large file at once, where it is read from one end to the other."""

MAX_BRACES = 100_000
"""Names that the braces of a pattern may stand for."""

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
"""Errors of a file system that cannot make a hard link: not at all, not from there, or not one more."""

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a file system says that is full, broken, or not to be written by who asks."""

NO_FLUSH = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)
"""Errors of folders that cannot be flushed: their file system has its own ways, or they may not be read."""

FLUSH = "TAGMILL_FSYNC"
"""Variable of the environment that, set to 0, leaves out waiting for the disk: for tests, and for runs that
can be made again if the power fails."""

TEMPORARY = ".tmp-"
"""Prefix of names that are not committed yet; readers and listings pass over them."""


def filesystem(uri: str) -> tuple[Any, str]:
    """Find the file system of `uri`, whose references to the environment are resolved, and the path in it.

    Raises ConfigError if nothing here can open it, or if it refers to a variable that is not set.
    """
    stores.prepare(uri)
    try:
        # Other processes write: with a remembered listing, what they made would not be there.
        client, path = fsspec.core.url_to_fs(secrets.resolve_text(uri), use_listings_cache=False)
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigError(f"{uri} cannot be opened: {error}; fsspec needs a package for it") from error
    stores.remember(client)
    return client, path


def refusal(error: OSError, place: str) -> str | None:
    """Say in a line what a file system refused, and where, else at `place`; None for other errors."""
    if isinstance(error, stores.StoreError):
        return str(error)
    if error.errno not in REFUSALS:
        return None
    return f"cannot go on in {error.filename or place}: {os.strerror(error.errno)}"


def join(folder: str, *names: str) -> str:
    """Join names to a folder's uri with slashes."""
    return "/".join([folder.rstrip("/"), *names])


def is_local(uri: str) -> bool:
    """Tell whether `uri` is on this machine's own file system."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """Give a local path from the root on; the uri of another store is as it is."""
    return referring(filesystem(uri)[1]) if is_local(uri) else uri


class SpecialFileError(OSError):
    """A pipe, a socket or a device lies where a regular file should."""


@dataclass(frozen=True)
class Opened:
    """A file that is open for reading: its size in bytes, and where it really lies, its links resolved.

    `real` is None where there are no links, in another store than the local file system.
    """

    stream: IO[bytes]
    size: int
    real: str | None


@contextmanager
def opened(uri: str) -> Iterator[Opened]:
    """Open a regular file for reading; what is told is of the open file, whatever its name becomes.

    Raises FileNotFoundError, and SpecialFileError for what is not a regular file: to read it might never end.
    """
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        with stores.naming(uri):
            stream = fs.open(path, "rb")
        with stream:
            size = getattr(stream, "size", None)  # opening looked it up
            size = size_and_stamp(uri)[0] if size is None else int(size)
            yield Opened(cast(IO[bytes], stores.NamedStream(stream, uri)), size, None)
        return
    _check_regular(os.stat(path), path)  # first, for to open a device may do something already
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # it may have become a pipe
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        _check_regular(status, path)
        yield Opened(stream, status.st_size, _real_path(handle, path))


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise SpecialFileError(errno.EINVAL, "not a regular file", path)


def _real_path(handle: int, path: str) -> str:
    """Say where an open file lies; where the system does not tell, where its name leads now."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return os.path.realpath(path)


@contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    """Open a file for reading. Raises as `opened`."""
    with opened(uri) as found:
        yield found.stream


@stores.named
def read_bytes(uri: str) -> bytes:
    """Read a whole file. Raises FileNotFoundError."""
    fs, path = filesystem(uri)
    data: bytes = fs.cat_file(path)
    return data


def read_start(uri: str, count: int) -> bytes:
    """Read the first bytes of a file, up to `count`. Raises FileNotFoundError."""
    with open_read(uri) as stream:
        return stream.read(count)


@stores.named
def read_tail(uri: str, count: int) -> tuple[int, bytes]:
    """Tell a file's size and read its last `count` bytes, or all of it. Raises FileNotFoundError."""
    fs, path = filesystem(uri)
    size = int(fs.info(path)["size"])
    return size, read_range(uri, max(0, size - count), size)


def sha256(uri: str, size: int | None = None) -> str:
    """Hash a file's bytes: hexadecimal; `size` spares a look, if it is known. Raises FileNotFoundError."""
    if is_local(uri):
        with open_read(uri) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # fsspec's file
    state = hashlib.sha256()
    for data in read_ranges(uri, size_and_stamp(uri)[0] if size is None else size):
        state.update(data)
    return state.hexdigest()


@stores.named
def read_range(uri: str, start: int, end: int) -> bytes:
    """Read the bytes of a file from `start` up to `end`. Raises FileNotFoundError."""
    fs, path = filesystem(uri)
    data: bytes = fs.cat_file(path, start=start, end=end)
    return data


def read_ranges(uri: str, size: int) -> Iterator[bytes]:
    """Read a file of a known size from front to end, `RANGE_BYTES` at a time. Raises FileNotFoundError."""
    for start in range(0, size, RANGE_BYTES):
        yield read_range(uri, start, min(start + RANGE_BYTES, size))


@stores.named
def exists(uri: str) -> bool:
    """Tell whether a file or folder is there."""
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


@stores.named
def is_folder(uri: str) -> bool:
    """Tell whether `uri` is a folder."""
    fs, path = filesystem(uri)
    return bool(fs.isdir(path))


@stores.named
def is_special(uri: str) -> bool:
    """Tell whether `uri` is a pipe, a socket or a device. Raises FileNotFoundError."""
    fs, path = filesystem(uri)
    return bool(fs.info(path)["type"] == "other")


@stores.named
def size_and_stamp(uri: str) -> tuple[int, str]:
    """Tell a file's size in bytes and what changes when it is rewritten (etag, else mtime).

    A pipe or device has neither: it is never read.
    """
    fs, path = filesystem(uri)
    info = fs.info(path)
    if info["type"] == "other":
        return 0, "special"
    return int(info["size"]), stamp_of(info)


def stamp_of(info: Mapping[str, Any]) -> str:
    """Take what changes when a file is rewritten out of what its file system says of it."""
    return str(info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created"))


@stores.named
def list_names(folder: str, suffix: str = "") -> list[str]:
    """List the sorted names of committed files in a folder; an absent folder is empty."""
    fs, path = filesystem(folder)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    names = (entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "file")
    return sorted(n for n in names if n.endswith(suffix) and not n.startswith(TEMPORARY))


def walk(folder: str) -> list[str]:
    """List the sorted names of committed files in a folder and all below it, relative to it."""
    return sorted(walk_sizes(folder))


@stores.named
def walk_sizes(folder: str) -> dict[str, int]:
    """Tell the sizes of committed files in a folder and all below it, by their names relative to it."""
    fs, path = filesystem(folder)
    found = {name.removeprefix(path).lstrip("/"): e["size"] for name, e in fs.find(path, detail=True).items()}
    return {n: int(size or 0) for n, size in found.items() if not n.rsplit("/", 1)[-1].startswith(TEMPORARY)}


@stores.named
def list_stamps(folder: str) -> dict[str, tuple[int, str]]:
    """Tell size and stamp of each committed file in a folder, by name, as `size_and_stamp` does of one.

    An absent folder is empty.
    """
    fs, path = filesystem(folder)
    try:
        entries = [one for one in fs.ls(path, detail=True) if one["type"] == "file"]
    except FileNotFoundError:
        return {}
    found = {one["name"].rsplit("/", 1)[-1]: (int(one["size"] or 0), stamp_of(one)) for one in entries}
    return {name: about for name, about in found.items() if not name.startswith(TEMPORARY)}


@stores.named
def temporaries(folder: str) -> list[str]:
    """List the sorted uris of files in a folder that were never committed: their writers were killed."""
    fs, path = filesystem(folder)
    found = (path.rsplit("/", 1)[-1] for path in (fs.ls(path, detail=False) if fs.exists(path) else ()))
    return sorted(join(folder, name) for name in found if name.startswith(TEMPORARY))


@stores.named
def list_sizes(folder: str) -> dict[str, int]:
    """Tell the sizes of the files in a folder, by name. Raises FileNotFoundError."""
    fs, path = filesystem(folder)
    return {entry["name"].rsplit("/", 1)[-1]: int(entry["size"] or 0) for entry in fs.ls(path, detail=True)}


@stores.named
def list_folders(folder: str) -> list[str]:
    """List the sorted names of the folders in a folder; an absent folder is empty."""
    fs, path = filesystem(folder)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")


def expand_braces(pattern: str) -> list[str]:
    """Write out the braces of a pattern: `{000..099}` and `{a,b}`. A file that is called so is left as it is.

    Raises ConfigError for more than `MAX_BRACES` names.
    """
    if "{" not in pattern or exists(pattern):
        return [pattern]
    try:
        found = list(islice(braceexpand(pattern), MAX_BRACES + 1))
    except ValueError as error:
        raise ConfigError(f"{pattern}: {error}") from error
    if len(found) > MAX_BRACES:
        raise ConfigError(f"{pattern} stands for more than {MAX_BRACES} files; use a pattern with *")
    return found


@stores.named
def expand(pattern: str) -> list[str]:
    """List the sorted uris that match a glob pattern, or the one file of that name."""
    fs, path = filesystem(pattern)
    found = [path] if fs.exists(path) else []
    if not found and fsspec.core.has_magic(path):
        entries = fs.glob(path, detail=True).items()
        found = [name for name, entry in entries if _is_file(fs, entry) and not _is_hidden(name)]
    local = is_local(pattern)
    # What is found is written down: without the values that the pattern referred to.
    return sorted(referring(name if local else fs.unstrip_protocol(name)) for name in found)


def has_wildcard(pattern: str) -> bool:
    """Tell whether a pattern is looked up in listings of folders."""
    return bool(fsspec.core.has_magic(filesystem(pattern)[1]))


def _is_file(fs: Any, entry: Mapping[str, Any]) -> bool:
    """Tell whether a listed name is a file, if a special one; a link is one unless it leads to a folder."""
    return bool(entry["type"] == "file" or (entry["type"] == "other" and not fs.isdir(entry["name"])))


def _is_hidden(path: str) -> bool:
    """Tell whether a wildcard passes over a file: temporaries, macOS's `._` twins and the like."""
    return path.rsplit("/", 1)[-1].startswith(".")


@stores.named
def create_bytes(uri: str, data: bytes, *, lasting: bool = True) -> bool:
    """Commit `data` as a new file; False if the file was there already, which is left as it is.

    Raises DamageError if a link to nowhere has its name.

    What is not `lasting` means nothing once the power failed, and does not wait for the disk.
    """
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True
    with local_scratch(path) as scratch:
        scratch.write_bytes(data)
        return _link(scratch, path, lasting=lasting)


@stores.named
def create_from(uri: str, local_path: Path) -> bool:
    """Commit the local file as a new file; False if the file was there already."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return _link(local_path, path, lasting=True)
    try:
        fs.put_file(str(local_path), path, mode="create")
    except FileExistsError:
        return False
    return True


@contextmanager
def local_scratch(target: str) -> Iterator[Path]:
    """Give a new local file's path, beside `target` if that is local, and remove it at the end."""
    local = is_local(target)
    folder = Path(filesystem(target)[1]).parent if local else Path(tempfile.gettempdir())
    _make_folder(folder)
    # Not by `tempfile`, whose 0600 would hide the run from a colleague: the umask says who may read it.
    scratch = folder / f"{TEMPORARY}{token_hex(8)}"
    os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _link(scratch: Path, path: str, *, lasting: bool) -> bool:
    if lasting:
        _flush(scratch)
    try:
        os.link(scratch, path)
        is_new = True
    except FileExistsError:
        is_new = False
        _check_there(path)
    if lasting:
        _flush_folder(Path(path).parent)  # of a file that was there too: its writer may not have come to that
    return is_new


def _check_there(path: str) -> None:
    """Raise DamageError for a link to nowhere: its name is taken, and nothing is there."""
    if os.path.islink(path) and not os.path.exists(path):
        raise DamageError(f"{path} is a link to nowhere; remove it and run again")


@stores.named
def adopt(source: str, target: str) -> int:
    """Give a committed file a second name in the same store, without moving its bytes where that can be.

    A hard link on one local file system, a copy by the store itself elsewhere. Returns how many bytes were
    copied. Raises FileExistsError if the target is there, DamageError if a link to nowhere is. For the one
    driver of a run.
    """
    fs, path = filesystem(source)
    destination = filesystem(target)[1]
    if fs.exists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(destination.rsplit("/", 1)[0], exist_ok=True)
        fs.cp_file(path, destination)
        return int(fs.info(path)["size"])
    folder, copied = Path(destination).parent, 0
    _make_folder(folder)
    _check_there(destination)
    _flush(Path(path))  # it may have come there by other ways, such as a copy of its run
    try:
        os.link(path, destination)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with local_scratch(destination) as scratch:
            shutil.copyfile(path, scratch)
            _flush(scratch)
            os.rename(scratch, destination)
        copied = os.path.getsize(destination)
    _flush_folder(folder)
    return copied


@stores.named
def replace_bytes(uri: str, data: bytes) -> None:
    """Write a file whole, over an old one if need be. For the one driver of a run, not for workers."""
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    with local_scratch(path) as scratch:
        scratch.write_bytes(data)
        _flush(scratch)
        os.replace(scratch, path)
        _flush_folder(scratch.parent)


@contextmanager
def replacing(uri: str, *, lasting: bool = True) -> Iterator[Path]:
    """Give a local path to write a file, folder or link at, by whatever library; at the end it becomes `uri`.

    The path has the name of `uri`, in a folder of its own: what is written beside it comes along under its
    own name. All is flushed to the disk before it gets its names, unless it need not be `lasting`. An old
    file is replaced; an old folder must be empty. If the block fails, what was there is left as it was. The
    files of a folder come to an object store one after the other.

    For one writer at a time. Raises ConfigError if the operating system does not let it be written.
    """
    fs, path = filesystem(uri)
    parent, name = path.rsplit("/", 1)
    local = isinstance(fs, LocalFileSystem)
    # By a name that the next attempt knows and clears: a killed writer may leave gigabytes beside the target.
    folder = Path(parent or "/", TEMPORARY + name) if local else Path(tempfile.mkdtemp(prefix=TEMPORARY))
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _make_folder(folder)
        yield folder / name
        made = sorted(folder.rglob("*"), reverse=True)  # what is in a folder before it
        if local:
            for one in made if lasting else ():
                if not one.is_symlink():
                    (_flush_folder if one.is_dir() else _flush)(one)
            for one in folder.iterdir():
                one.replace(folder.with_name(one.name))
            _flush_folder(folder.parent)
        else:
            for one in filter(Path.is_file, made):
                with stores.naming(uri):
                    fs.put_file(str(one), join(parent, one.relative_to(folder).as_posix()))
    except OSError as error:
        raise ConfigError(f"cannot write {uri}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the disk hold a local file, or the names in a folder, before what comes next."""
    if os.environ.get(FLUSH) == "0":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Have the disk hold the names in a folder, where its file system has that."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise


def _make_folder(folder: Path) -> None:
    """Make a folder and what it lies in, and have the disk hold the names of those that are new."""
    if folder.is_dir():
        return
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        _flush_folder(place.parent)


@stores.named
def move(source: str, target: str) -> None:
    """Move a file to another folder of the same file system. For the one driver of a run."""
    fs, path = filesystem(source)
    destination = filesystem(target)[1]
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(destination.rsplit("/", 1)[0], exist_ok=True)
        fs.mv(path, destination)
        return
    _make_folder(Path(destination).parent)
    fs.mv(path, destination)
    for place in (destination, path):  # at worst it has two names, never none
        _flush_folder(Path(place).parent)


@stores.named
def remove(uri: str, *, lasting: bool = True) -> None:
    """Remove a file or a whole folder; nothing there is fine. For `lasting` see `create_bytes`."""
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)
        if lasting and isinstance(fs, LocalFileSystem):  # what is made next may rely on it
            _flush_folder(Path(path).parent)


@stores.named
def folder_size(folder: str) -> int:
    """Count the bytes of all files below a folder."""
    fs, path = filesystem(folder)
    return int(sum(entry["size"] or 0 for entry in fs.find(path, detail=True).values()))
