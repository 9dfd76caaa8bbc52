"""Learning rates as pure functions of the step: there is no state, so nothing of it has to be resumed."""

import math
from typing import Literal

from pydantic import Field

from tagmill.tag_system.core.config import Config

MOST = 1e6
"""No rate or decay is larger; what torch makes of them is to fit into float32."""


class ScheduleConfig(Config):
    """How the learning rate rises and falls; the defaults are those of the RAM papers' code.

    It starts at `warmup_from` and rises in a line for `warmup_steps`. `exponential`: times `rate` each epoch.
    `cosine`: down to `floor` at the end of the last epoch. `constant` stays. It never falls below `floor`.
    `every`: whether it falls from epoch to epoch, as the official code does, or from step to step.

    The image encoder learns at `encoder_rate` times the rate. With `layer_decay` its trunk's layers learn at
    `layer_decay` times the rate of the next deeper one, the last at `layer_decay` times the encoder's.
    """

    learning_rate: float = Field(1e-4, gt=0, le=MOST)
    decay: Literal["exponential", "cosine", "constant"] = "exponential"
    rate: float = Field(0.9, gt=0, le=1)
    floor: float = Field(5e-7, ge=0, le=MOST)
    warmup_steps: int = Field(3000, ge=0)
    warmup_from: float = Field(5e-7, ge=0, le=MOST)
    every: Literal["epoch", "step"] = "epoch"
    encoder_rate: float = Field(1.0, gt=0, le=MOST)
    layer_decay: float | None = Field(None, gt=0, le=1)


def learning_rate(config: ScheduleConfig, step: int, epoch: float, epochs: int) -> float:
    """Give the rate of a step of the optimizer, taken at `epoch` of `epochs`; both count from 0."""
    peak, floor = config.learning_rate, min(config.floor, config.learning_rate)
    at = math.floor(epoch) if config.every == "epoch" else epoch
    if config.decay == "exponential":
        rate = max(floor, peak * config.rate**at)
    elif config.decay == "cosine":
        rate = floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(at / epochs, 1)))
    else:
        rate = peak
    if step >= config.warmup_steps:
        return rate
    return min(rate, config.warmup_from + (peak - config.warmup_from) * step / config.warmup_steps)
