import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ["models", "pipeline", "runners", "tag_system", "transforms"]
FACE = ROOT / "runners" / "face"
"""What is installed as the package tagmill itself."""

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="the wheel is tested")


def test_every_package_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        "tagmill." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
        if path.parent != FACE
    }
    assert set(settings["packages"]) == {"tagmill", *found}
    folders = {"tagmill": "runners/face"} | {f"tagmill.{folder}": folder for folder in FOLDERS}
    assert settings["package-dir"] == folders


def test_the_face_holds_no_module_that_would_become_a_public_name():
    assert {path.name for path in FACE.glob("*.py")} == {"__init__.py"}


def test_every_folder_with_modules_is_a_package():
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_import_is_refused_with_the_right_name(folder: str):
    result = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert f"import tagmill.{folder}, not {folder}" in result.stderr


def test_the_face_has_one_name():
    result = subprocess.run(
        [sys.executable, "-c", "import tagmill.runners.face"], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "tagmill.runners.face" in result.stderr


def test_top_level_is_what_the_project_says():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    documents = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", "docs"}
    assert top == {"pyproject.toml", "tests", *FOLDERS, *documents}
