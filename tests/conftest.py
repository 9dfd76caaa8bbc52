import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sources import encode, members, square_image, write_config, write_tar
from tagmill.tag_system.core import files, redaction


def pytest_configure() -> None:
    """Set what holds for all processes of the tests."""
    # Models this small lose more time between threads than they win, the more so on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault(files.FLUSH, "0")  # no power fails between two tests
    os.environ.pop("COLUMNS", None)  # whoever starts the tests has a terminal, their commands have none
    settings.register_profile("tests", max_examples=40, deadline=None)
    settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _nothing_resolved() -> Iterator[None]:
    """Have a test forget what it resolved, which would be taken out of what later ones are shown."""
    yield
    redaction._resolved.clear()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run through every stage, with a few things wrong in its sources.

    Read it and leave it as it is. There are 24 examples: in the first tar a copy of an image, an example
    without a caption and one with an empty caption beside a good one; in the second a broken image.
    """
    from runs import drive

    folder = tmp_path_factory.mktemp("finished")
    first = [item for i in range(12) for item in members(f"{i:06d}", i).items()]
    first += [("copy.png", first[0][1]), ("copy.json", first[1][1])]
    first += members("no-caption", 30, captions=[]).items()
    first += members("empty-caption", 31, captions=["a red square", "  "]).items()
    # The caption names what the picture does not show.
    first += [("wrong.png", encode(square_image(["blue"], 77))), ("wrong.txt", b"a yellow square")]
    second = [item for i in range(12, 19) for item in members(f"{i:06d}", i).items()]
    second += [("broken.png", second[0][1][:60]), ("broken.txt", b"a red square")]
    write_tar(folder / "data" / "a.tar", first)
    write_tar(folder / "data" / "b.tar", second)
    config = write_config(
        folder, caption={"model": "square_models:SquareCaptioner"}, ingest={"val_fraction": 0.3}
    )
    drive(config)
    return folder
