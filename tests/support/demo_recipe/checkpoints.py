"""Checkpoints of the recipe's trainings: one file, replaced as a whole."""

from pathlib import Path
from typing import Any

import torch

from tagmill.tag_system.core import files


def keep(path: Path, step: int, **parts: Any) -> None:
    """Write the state of the parts (model, optimizer, ...) after a step."""
    states = {name: part.state_dict() for name, part in parts.items()}
    with files.replacing(str(path)) as partial:
        torch.save({"step": step, **states}, partial)


def restore(path: Path, **parts: Any) -> int:
    """Load the parts' states if there is a checkpoint; return the step that it was written after, else 0."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
