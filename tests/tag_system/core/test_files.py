import errno
import gc
import os
import stat
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from forked import run_forked
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """A folder that is not there yet, on disk and in fsspec's stand-in for an object store."""
    return str(tmp_path / "new") if request.param == "local" else f"memory://{uuid4().hex}"


def test_the_first_of_two_writers_wins_and_the_other_learns_it(folder):
    uri = files.join(folder, "a", "b.bin")
    assert files.create_bytes(uri, b"first")
    assert not files.create_bytes(uri, b"second")
    assert files.read_bytes(uri) == b"first"


def test_the_first_of_two_local_files_wins(folder, tmp_path):
    uri = files.join(folder, "b.bin")
    for number, expected in ((1, True), (2, False)):
        with files.local_scratch(uri) as scratch:
            scratch.write_bytes(b"%d" % number)
            assert files.create_from(uri, scratch) is expected
    assert files.read_bytes(uri) == b"1"
    assert files.list_names(folder) == ["b.bin"]


def test_of_many_writers_at_once_exactly_one_wins(tmp_path):
    uri = str(tmp_path / "new" / "part.parquet")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: files.create_bytes(uri, b"%d" % i), range(24)))
    assert sum(won) == 1
    assert files.read_bytes(uri) == b"%d" % won.index(True)
    assert os.listdir(tmp_path / "new") == ["part.parquet"]


def test_a_committed_file_can_be_read_by_colleagues(tmp_path):
    for name, write in (("a", files.create_bytes), ("b", files.replace_bytes)):
        write(str(tmp_path / name), b"1")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


def test_listings_pass_over_temporaries_and_folders(folder):
    files.create_bytes(files.join(folder, "b.tar"), b"1")
    files.create_bytes(files.join(folder, "a.json"), b"1")
    files.create_bytes(files.join(folder, files.TEMPORARY + "c.tar"), b"1")
    files.create_bytes(files.join(folder, "dead", "d.tar"), b"1")
    assert files.list_names(folder) == ["a.json", "b.tar"]
    assert files.list_names(folder, ".tar") == ["b.tar"]
    assert files.list_folders(folder) == ["dead"]


def test_an_absent_folder_is_empty(folder):
    nowhere = files.join(folder, "nowhere")
    assert files.list_names(nowhere) == files.list_folders(nowhere) == []
    assert files.folder_size(nowhere) == 0
    assert not files.exists(nowhere)
    files.remove(nowhere)


def test_a_wildcard_gives_files_in_order_and_neither_folders_nor_hidden_files(folder):
    for name in ("b.tar", "a.tar", "._a.tar", ".tmp-x.tar", "c.tar/inner.tar", "d.txt"):
        files.create_bytes(files.join(folder, name), b"1")
    found = files.expand(files.join(folder, "*.tar"))
    assert [uri.rsplit("/", 1)[-1] for uri in found] == ["a.tar", "b.tar"]
    assert files.read_bytes(found[0]) == b"1"


def test_a_wildcard_follows_links_to_files_and_not_to_folders(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "far.bin").write_bytes(b"12")
    for name, target in {"a.tar": "far.bin", "b.tar": "data", "c.tar": "nowhere"}.items():
        (tmp_path / "data" / name).symlink_to(tmp_path / target)
    found = files.expand(str(tmp_path / "data" / "*.tar"))
    assert found == [str(tmp_path / "data" / name) for name in ("a.tar", "c.tar")]
    assert files.size_and_stamp(found[0])[0] == 2


def test_a_plain_name_is_that_file_or_nothing(folder):
    uri = files.join(folder, "a.tar")
    assert files.expand(uri) == []
    files.create_bytes(uri, b"1")
    assert len(files.expand(uri)) == 1


def test_the_stamp_tells_a_rewritten_file(folder):
    uri = files.join(folder, "a")
    files.replace_bytes(uri, b"1")
    size, stamp = files.size_and_stamp(uri)
    assert (size, stamp) == files.size_and_stamp(uri)
    files.replace_bytes(uri, b"2")
    if files.is_local(uri):
        os.utime(uri, (1, 1))
    assert files.size_and_stamp(uri)[1] != stamp


def test_replacing_writes_over_and_leaves_nothing_else(folder):
    uri = files.join(folder, "a")
    files.replace_bytes(uri, b"a long first text")
    files.replace_bytes(uri, b"2")
    assert files.read_bytes(uri) == b"2"
    assert files.list_names(folder) == ["a"]


def test_a_file_or_folder_that_a_library_writes_comes_with_what_it_writes_beside_it(folder):
    uri = files.join(folder, "new", "model")
    with files.replacing(uri) as partial:
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "weights").write_bytes(b"1")
        partial.with_name("model.data").write_bytes(b"2")
        assert not files.exists(uri)
    assert files.read_bytes(files.join(uri, "inner", "weights")) == b"1"
    assert files.read_bytes(uri + ".data") == b"2"
    with files.replacing(uri + ".data") as partial:
        partial.write_bytes(b"3")
    assert files.read_bytes(uri + ".data") == b"3"
    assert files.temporaries(files.join(folder, "new")) == []


def test_a_replacement_that_fails_half_way_leaves_the_old_one_whole(folder):
    uri = files.join(folder, "a")
    files.replace_bytes(uri, b"old")
    with pytest.raises(RuntimeError), files.replacing(uri) as partial:  # noqa: PT012
        partial.write_bytes(b"half")
        raise RuntimeError
    with pytest.raises(ConfigError, match=f"cannot write {uri}: No space left"), files.replacing(uri):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert files.read_bytes(uri) == b"old"
    assert files.list_folders(folder) == []


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path):
    (tmp_path / ".tmp-a").mkdir()
    (tmp_path / ".tmp-a" / "half").write_bytes(b"1")
    with files.replacing(str(tmp_path / "a")) as partial:
        partial.symlink_to("elsewhere")
    assert os.listdir(tmp_path) == ["a"]
    assert os.readlink(tmp_path / "a") == "elsewhere"


def test_moving_makes_room_for_a_new_commit(folder):
    uri, target = files.join(folder, "a"), files.join(folder, "superseded", "a")
    files.create_bytes(uri, b"old")
    files.move(uri, target)
    assert files.create_bytes(uri, b"new")
    assert (files.read_bytes(uri), files.read_bytes(target)) == (b"new", b"old")


class TestAdopt:
    """A second name for a committed file."""

    @pytest.fixture
    def places(self, folder):
        source, target = files.join(folder, "old", "a"), files.join(folder, "new", "dead", "a")
        files.create_bytes(source, b"a part")
        return source, target

    def test_a_local_file_gets_a_second_name_and_no_byte_is_copied(self, tmp_path):
        source, target = tmp_path / "old" / "a", tmp_path / "new" / "dead" / "a"
        files.create_bytes(str(source), b"a part")
        assert files.adopt(str(source), str(target)) == 0
        assert os.path.samefile(source, target)
        assert source.stat().st_nlink == 2
        source.unlink()
        assert target.read_bytes() == b"a part"

    def test_a_store_copies_it_and_says_how_much(self):
        folder = f"memory://{uuid4().hex}"
        source, target = files.join(folder, "old", "a"), files.join(folder, "new", "dead", "a")
        files.create_bytes(source, b"a part")
        assert files.adopt(source, target) == 6
        assert (files.read_bytes(source), files.read_bytes(target)) == (b"a part", b"a part")
        files.remove(source)
        assert files.read_bytes(target) == b"a part"

    @pytest.mark.parametrize("number", files.NO_LINKS, ids=errno.errorcode.get)
    def test_where_there_are_no_links_it_is_copied(self, tmp_path, monkeypatch, number):
        source, target = tmp_path / "old" / "a", tmp_path / "new" / "a"
        files.create_bytes(str(source), b"a part")
        monkeypatch.setattr(os, "link", refusing(number))
        assert files.adopt(str(source), str(target)) == 6
        assert target.read_bytes() == b"a part"
        assert not os.path.samefile(source, target)
        assert stat.S_IMODE(target.stat().st_mode) == 0o644
        assert os.listdir(tmp_path / "new") == ["a"]

    def test_what_is_there_stays(self, places):
        source, target = places
        files.create_bytes(target, b"another")
        with pytest.raises(FileExistsError):
            files.adopt(source, target)
        assert files.read_bytes(target) == b"another"

    def test_what_is_there_stays_where_there_are_no_links(self, tmp_path, monkeypatch):
        source, target = tmp_path / "old" / "a", tmp_path / "new" / "a"
        files.create_bytes(str(source), b"a part")
        files.create_bytes(str(target), b"another")
        monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
        with pytest.raises(FileExistsError):
            files.adopt(str(source), str(target))
        assert target.read_bytes() == b"another"
        assert os.listdir(tmp_path / "new") == ["a"]

    def test_another_failure_to_link_is_one(self, tmp_path, monkeypatch):
        source, target = tmp_path / "old" / "a", tmp_path / "new" / "a"
        files.create_bytes(str(source), b"a part")
        monkeypatch.setattr(os, "link", refusing(errno.ENOSPC))
        with pytest.raises(OSError, match="refused"):
            files.adopt(str(source), str(target))
        assert os.listdir(tmp_path / "new") == []

    def test_what_is_not_there_cannot_be_adopted(self, places):
        source, target = places
        with pytest.raises(FileNotFoundError):
            files.adopt(source + "-gone", target)
        assert not files.exists(target)


def refusing(number):
    def link(*_):
        raise OSError(number, "refused")

    return link


@pytest.mark.parametrize("count", [1, 4, 5, 100])
def test_the_end_of_a_file(folder, count):
    uri = files.join(folder, "a")
    files.create_bytes(uri, b"12345")
    assert files.read_tail(uri, count) == (5, b"12345"[-count:])
    with pytest.raises(FileNotFoundError):
        files.read_tail(files.join(folder, "nowhere"), count)


def test_the_end_of_an_empty_file(folder):
    uri = files.join(folder, "a")
    files.create_bytes(uri, b"")
    assert files.read_tail(uri, 8) == (0, b"")


def test_size_and_removal_of_a_folder(folder):
    files.create_bytes(files.join(folder, "a"), b"123")
    files.create_bytes(files.join(folder, "b", "c"), b"4567")
    assert files.folder_size(folder) == 7
    files.remove(folder)
    assert not files.exists(files.join(folder, "a"))


def test_a_missing_file_is_a_file_not_found_error(folder):
    with pytest.raises(FileNotFoundError):
        files.read_bytes(files.join(folder, "nowhere"))
    with pytest.raises(FileNotFoundError), files.open_read(files.join(folder, "nowhere")):
        pass


def test_scratch_goes_even_when_the_writer_fails(tmp_path):
    target = str(tmp_path / "x")
    with pytest.raises(RuntimeError), files.local_scratch(target) as scratch:  # noqa: PT012
        scratch.write_bytes(b"half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("folder", "joined"), [("a", "a/b/c"), ("a/", "a/b/c"), ("gs://x/y/", "gs://x/y/b/c")], ids=str
)
def test_join(folder, joined):
    assert files.join(folder, "b", "c") == joined


class RememberingFileSystem(MemoryFileSystem):
    """Remembers listings and answers from them, as the file systems of object stores do: `remembering://`."""

    protocol = "remembering"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    exists = AbstractFileSystem.exists

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("remembering:"))

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        entries = self._ls_from_cache(path) or super().ls(path, detail=True)
        self.dircache[path] = entries
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **options: Any) -> Any:
        found = self._ls_from_cache(self._strip_protocol(path))
        return found[0] if found else super().info(path)


def test_what_another_process_wrote_is_seen_whatever_was_listed_before():
    fsspec.register_implementation("remembering", RememberingFileSystem, clobber=True)
    folder = f"remembering://{uuid4().hex}"
    files.create_bytes(files.join(folder, "a"), b"")
    assert files.list_names(folder) == ["a"]
    RememberingFileSystem(skip_instance_cache=True).pipe_file(files.join(folder, "b"), b"")
    assert files.exists(files.join(folder, "b"))
    assert files.list_names(folder) == ["a", "b"]


@pytest.mark.parametrize("uri", ["nosuch://a/b", "s3n://a/b"])
def test_an_address_that_nothing_here_can_open_is_an_error_in_the_config(uri):
    with pytest.raises(ConfigError, match=f"{uri} cannot be opened"):
        files.exists(uri)


def test_a_forked_process_leaves_the_clients_of_its_parent_open():
    """s3fs closes one that nobody holds, by a loop that the process does not have: a traceback in the log."""
    closed = weakref.finalize(files.filesystem("s3://bucket")[0], print)

    def is_left_open() -> bool:
        files.filesystem("s3://bucket")  # makes one of its own, and fsspec forgets the others
        gc.collect()
        return closed.alive

    assert run_forked(is_left_open).result is True
