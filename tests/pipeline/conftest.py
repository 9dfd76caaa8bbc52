import shutil
from pathlib import Path

import pytest

from runs import STAGES, drive, squares_config


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("made") / "it"
    assert drive(squares_config(folder)).stages == STAGES
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, with its sources, and the config that belongs to it; times are kept."""
    shutil.copytree(made, tmp_path / "it")
    return squares_config(tmp_path / "it", tars={})
