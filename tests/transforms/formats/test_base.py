import errno

import pytest

from tagmill.transforms.formats.base import FORMATS, InputConfig, format_of, why_missing


@pytest.mark.parametrize("name", FORMATS)
def test_every_built_in_format_is_there(name: str):
    found = format_of(InputConfig(name="x", format=name, path="unused"))
    assert type(found).__module__.startswith("tagmill.transforms.formats.")


@pytest.mark.parametrize("name", ["folder", "webdataset"])
def test_images_has_no_meaning_where_a_source_holds_its_images(name: str):
    with pytest.raises(ValueError, match=f"a {name} holds its images"):
        InputConfig(name="x", format=name, path="unused", images="elsewhere")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("memory://x"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        OSError(errno.ELOOP, "Too many levels of symbolic links"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_file_that_cannot_be_opened_is_bad_data(error: OSError):
    assert why_missing(error).startswith("cannot be read (")


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(), TimeoutError(), OSError("connection lost"), OSError(errno.EIO, "disk")],
    ids=str,
)
def test_what_is_not_the_files_fault_stops_the_run_and_loses_no_example(error: OSError):
    with pytest.raises(type(error)) as raised:
        why_missing(error)
    assert raised.value is error
