"""Checkpoints of the recipe's trainings: one file, replaced as a whole."""

import os
from pathlib import Path
from typing import Any

import torch


def keep(path: Path, step: int, **parts: Any) -> None:
    """Write the state of the parts (model, optimizer, ...) after a step."""
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, **states}, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def restore(path: Path, **parts: Any) -> int:
    """Load the parts' states if there is a checkpoint; return the step that it was written after, else 0."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
