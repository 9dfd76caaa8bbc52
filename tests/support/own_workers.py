"""Workers of our own: where worker processes find them."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tagmill.transforms.stage import PartTask, limit_threads
from tagmill.transforms.worker import PartWorker


class Numbers(PartWorker):
    """Notes the process that does a task, and whether it has what its driver has."""

    def setup(self) -> None:
        limit_threads(2)

    def do(self, task: PartTask) -> None:
        ones = np.ones((300, 300))
        assert (ones @ ones)[0, 0] == 300  # with threads that started after the fork
        assert os.environ["OF_THIS_JOB"] == task.root
        assert os.getcwd() == task.root
        Path(self.folder, f"{task.name}-{os.getpid()}").touch()


class Libraries(PartWorker):
    """Notes which large libraries its process holds once it is ready."""

    def do(self, task: PartTask) -> None:
        held = [name for name in ("spacy", "torch") if name in sys.modules]
        assert find_spec("torch")  # whoever needs it later finds it
        Path(self.folder, task.name).write_text(" ".join(held))
