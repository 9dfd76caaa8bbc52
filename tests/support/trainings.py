"""Small trainings over the coloured squares: a model of seconds, and what a training leaves in its folder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.train import Trainer

CLASSES = ["red", "green square", "blue", "yellow"]
MODEL = {
    "image_size": 32,
    "encoder": {
        "name": "resnet18",
        "arguments": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
        "stages": [3, 4],
        "width": 16,
    },
    "dimension": 24,
    "head": {"hidden": 16, "heads": 2, "layers": 1, "inner": 32, "dropout": 0.1},
}
TEXT = {"heads": 2, "layers": 2, "inner": 32, "tokens": 1032, "positions": 64}
FIGURES = ("val_map", "val_cf1", "val_of1")
HERE = Process(torch.device("cpu"))


def trainer_of(values: dict[str, Any], **how: Any) -> Trainer:
    return Trainer(Recipe.model_validate(values), HERE, **how)


def lines(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of the log, without what differs from one run to the next."""
    kept = ("step", "position", "total", "tagging", "gradient", "rate", "val_tagging", *FIGURES)
    rows = [json.loads(line) for line in (Path(values["out"]) / "log.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["step"]]  # the first is about the classes
    return [{name: row[name] for name in kept if name in row} for row in rows]


def weights(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(values["out"]) / "last" / "model.safetensors")
