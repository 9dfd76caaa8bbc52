"""Refuses a step whose loss or gradient is not a finite number."""

import math
from collections.abc import Callable, Mapping

from tagmill.models.training.recipe import EngineConfig
from tagmill.tag_system.core.errors import ConfigError


def check_finite(
    figures: Mapping[str, float], step: int, engine: EngineConfig, *, saved: Callable[[], bool]
) -> None:
    """Raise ConfigError that names what is not finite in a step, and what helps.

    `saved` tells whether there is a checkpoint to go on from.
    """
    bad = {name: value for name, value in figures.items() if not math.isfinite(value)}
    if not bad:
        return
    names = ", ".join(f"{name} {value}" for name, value in bad.items())
    cures = ["a lower schedule.learning_rate"]
    cures.append("engine.clip_norm" if engine.clip_norm is None else "a lower engine.clip_norm")
    cures += ["engine.precision float32"] if engine.precision != "float32" else []
    way = "go on from the last checkpoint by --resume" if saved() else "start again"
    raise ConfigError(
        f"step {step} is not finite ({names}) and was not taken: {way} "
        f"with {', '.join(cures[:-1])} or {cures[-1]}"
    )
