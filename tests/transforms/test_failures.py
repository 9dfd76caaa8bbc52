"""What a worker could not note, its disk being full, is read in what the runner says."""

import errno
import traceback

import pytest

from disks import full_disk
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.stores import StoreError
from tagmill.transforms import failures


def test_a_full_disk_that_refuses_the_note_too_is_told_in_the_runners_words(tmp_path):
    folder = str(tmp_path / "tag")
    with full_disk(0):
        try:
            with failures.noted(folder):
                files.create_bytes(files.join(folder, "a.parquet"), b"1")
        except ConfigError:
            text = f"{traceback.format_exc()} [while running 'tag/Tag']"
    assert failures.find(folder) is None
    found = failures.told(text, folder)
    assert isinstance(found, ConfigError)
    assert str(found) == f"cannot go on in {folder}: File too large"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"PermissionError: [Errno {errno.EACCES}] Permission denied: '/far/a'", "/far/a: Permission denied"),
        (
            f"Traceback\nOSError: [Errno {errno.ENOSPC}] No space left on device",
            "here: No space left on device",
        ),
        (
            f"RuntimeError: OSError: [Errno {errno.EROFS}] Read-only: '/a' [while running",
            "/a: Read-only file system",
        ),
        (f"OSError: [Errno {errno.ENOENT}] No such file or directory: '/far/a'", None),
        (f"ValueError: a caption: OSError: [Errno {errno.ENOSPC}] it says", None),
        ("RuntimeError: a worker process died", None),
    ],
    ids=["permission", "full", "wrapped", "another error", "quoted", "nothing"],
)
def test_only_what_a_file_system_refused_is_taken_for_that(text, said):
    found = failures.told(text, "here")
    assert (found and str(found)) == (said and f"cannot go on in {said}")


def test_a_store_that_takes_no_note_either_is_told_in_the_runners_words():
    error = StoreError("s3://bucket does not do what it is asked: 503; run again", None)
    text = "".join(traceback.format_exception_only(error)).rstrip()
    found = failures.told(f"Traceback\n{text} [while running 'tag/Tag']", "here")
    assert str(found) == str(error)
