import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runs import squares_config

SUPPORT = Path(__file__).parents[1] / "support"

pytestmark = pytest.mark.package


def test_worker_processes_import_tagmill_and_not_the_folder_they_stand_in(tmp_path: Path):
    """A `models` folder in the working directory must not hijack workers, which start as `python -m`."""
    for folder in ("models", "pipeline", "transforms"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise ImportError('the wrong package')")
    # Few stages: each of them starts its workers anew.
    stages = {"duplicates": None, "localize": None, "embed": None}
    config = squares_config(tmp_path, {"a.tar": (12, 0)}, **stages)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SUPPORT)]))
    site = [str(Path(entry).resolve()) for entry in path.split(os.pathsep)]
    result = subprocess.run(
        [sys.executable, "-P", "-m", "tagmill.runners.cli", "run", str(config), "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (manifest,) = (tmp_path / "run" / "shards").glob("*/manifest.json")
    assert sum(json.loads(manifest.read_text())["examples"].values()) == 12


def test_the_package_under_test_is_the_one_that_was_asked_for():
    """Where a wheel is installed aside, it is that wheel that is tested and not the checkout."""
    import tagmill.models.base as base
    import tagmill.tag_system.vocabulary as vocabulary

    for entry in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        site = Path(entry).resolve()
        if (site / "tagmill").exists():
            assert Path(base.__file__).is_relative_to(site)
    assert len(vocabulary.Vocabulary.load()) > 1_000
    assert (Path(vocabulary.__file__).parent / "py.typed").exists()
