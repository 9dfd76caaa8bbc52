"""The wheel in an empty environment, without a checkout; packages come from where pip is set up to look."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (
    "models",
    "pipeline",
    "runners",
    "tag_system",
    "transforms",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
MOST = 1_200_000_000
"""Bytes that an environment may take in which the demo runs."""

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = ["-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def run(command: Sequence[object], folder: Path) -> str:
    """Run a command in a folder, as one who knows nothing of the checkout."""
    known = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def check_shown(folder: Path, said: str) -> None:
    assert "Tags against the truth" in said
    assert (folder / "runs" / "demo" / "report" / "example.png").is_file()
    assert (folder / "runs" / "demo" / "report" / "site" / "index.html").is_file()


def test_pip_installs_all_that_the_demo_needs_and_no_torch(wheel: Path, tmp_path: Path):
    place, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    venv.create(place, with_pip=True)
    run([place / "bin" / "pip", "install", "--quiet", "--no-compile", f"{wheel}[demo]"], empty)
    check_shown(empty, run([place / "bin" / "tagmill", "demo"], empty))
    files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MOST
    assert not list(place.glob("lib/*/site-packages/torch"))


@pytest.mark.parametrize("program", [("uvx", "--from"), ("pipx", "run", "--spec")], ids=lambda one: one[0])
def test_one_command_shows_the_demo(wheel: Path, tmp_path: Path, program: Sequence[str]):
    if not shutil.which(program[0]):
        pytest.skip(f"{program[0]} is not installed")
    check_shown(tmp_path, run([*program, f"tagmill[demo] @ {wheel.as_uri()}", "tagmill", "demo"], tmp_path))
