import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["tag_system", "models", "transforms", "pipeline", "runners"]

FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

pytestmark = pytest.mark.skipif(not FILES, reason="no sources beside the tests: the wheel is tested")


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for name in imported(path):
        first, _, rest = name.partition(".")
        assert first not in LAYERS, f"import tagmill.{name}, not {name}"
        if first == "tagmill":
            assert LAYERS.index(rest.split(".")[0]) <= layer, f"{path} imports upward: {name}"


def test_the_ground_floor_stands_on_nothing_of_ours():
    for path in (ROOT / "tag_system" / "core").glob("*.py"):
        for name in imported(path):
            assert not name.startswith("tagmill.") or name.startswith("tagmill.tag_system.core."), path


def test_files_get_their_names_in_one_place():
    """What is written aside and renamed, or is not, is decided in core/files.py alone."""
    renaming = re.compile(
        r"\bos\.(replace|rename)\(|\.rename\(|\bmkstemp\(|NamedTemporaryFile\(|shutil\.move\("
    )
    found = {path.relative_to(ROOT).as_posix() for path in FILES if renaming.search(path.read_text())}
    assert found == {"tag_system/core/files.py"}


@pytest.mark.parametrize(
    ("layer", "banned"),
    [("tag_system", {"torch", "apache_beam"}), ("transforms", {"torch"}), ("models", {"apache_beam"})],
)
def test_heavy_libraries_stay_out_of_layers(layer: str, banned: set[str]):
    for path in (ROOT / layer).rglob("*.py"):
        found = {name.split(".")[0] for name in imported(path)} & banned
        assert not found, f"{path} imports {found}"


def test_a_class_name_stands_for_one_class():
    """A leading underscore makes no other name: `_Stage` beside `Stage` is read as the same thing."""
    found: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
