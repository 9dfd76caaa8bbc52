"""Permissions that are lost: one line, exit code 2, and the same command goes on when they are back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import environment
from runs import drive, squares_config

BOUND = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
"""What makes permissions hold for root too."""


def run(config: Path, *more: object) -> tuple[int, str]:
    if os.getuid() == 0 and shutil.which(BOUND[0]) is None:
        pytest.skip("root may write anywhere, and there is no setpriv")
    command = [*(BOUND if os.getuid() == 0 else []), sys.executable, "-P", "-m", "tagmill.runners.cli", "run"]
    command += [str(config), *map(str, more)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(("place", "workers"), [("", 0), ("tag", 1)], ids=["the run", "a stage"])
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, place, workers):
    config = squares_config(tmp_path, {"a.tar": (2, 0)})
    drive(config)
    changed = ("--set", "tag.score_floor=0.2", "--workers", workers)
    folder = tmp_path / "run" / place
    folder.chmod(0o555)
    try:
        code, said = run(config, *changed)
    finally:
        folder.chmod(0o755)
    assert code == 2, said
    at = rf"{tmp_path}/run\S*"
    assert re.fullmatch(rf"tagmill: cannot (go on in|write) {at} ?[:(].*Permission denied.*\n", said)
    assert run(config, *changed) == (0, "")
