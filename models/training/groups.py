"""Groups of parameters: which of them learn, at what part of the learning rate, and which decay.

By default all learn alike and all decay, biases and norms too, as in the official code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tagmill.models.ram.store import Model
from tagmill.models.training.blocks import blocks_of, depths_of
from tagmill.models.training.recipe import EngineConfig, Recipe
from tagmill.tag_system.core.errors import ConfigError

ENCODER, TRUNK = "encoder.", "encoder.trunk."


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn alike.

    Attributes:
        name: What they are, for people.
        parameters: Their names in the model.
        count: How many numbers they hold.
        rate: What the learning rate of a step is multiplied by.
        decay: Their weight decay.
    """

    name: str
    parameters: tuple[str, ...]
    count: int
    rate: float
    decay: float

    def as_json(self) -> dict[str, Any]:
        """Give it for the log, without the names."""
        tensors = len(self.parameters)
        return {
            "group": self.name,
            "tensors": tensors,
            "parameters": self.count,
            "rate": self.rate,
            "decay": self.decay,
        }


def freeze(model: Model, engine: EngineConfig) -> None:
    """Keep what `engine.freeze` names from learning. Raises ConfigError for what the model does not have."""
    modules: dict[str, nn.Module] = {name: part for name, part in model.named_modules() if name}
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    for name in engine.freeze:
        if name not in modules and name not in parameters:
            parts = ", ".join(part for part, _ in model.named_children())
            raise ConfigError(f"engine.freeze: the model has no {name}; its parts are {parts}, and theirs")
        values = list(modules[name].parameters()) if name in modules else [parameters[name]]
        if not values:
            raise ConfigError(f"engine.freeze: {name} has nothing that could learn: leave it out")
        for value in values:
            value.requires_grad_(False)


def groups_of(model: Model, recipe: Recipe) -> list[ParameterGroup]:
    """Sort what learns into groups, in the order of the model. Raises ConfigError if nothing does."""
    describe = _describer(model, recipe)
    groups: dict[tuple[str, float, float], list[tuple[str, int]]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            groups.setdefault(describe(name, value), []).append((name, value.numel()))
    if not groups:
        raise ConfigError("engine.freeze: nothing of the model is left to learn")
    return [
        ParameterGroup(key[0], tuple(name for name, _ in found), sum(size for _, size in found), *key[1:])
        for key, found in groups.items()
    ]


def table(groups: list[ParameterGroup], model: Model) -> list[str]:
    """Say how the parameters learn, a line a group."""
    learned = sum(group.count for group in groups)
    frozen = sum(value.numel() for value in model.parameters()) - learned
    lines = [
        f"{group.name}: {group.count:,} parameters, rate x {group.rate:.4g}, weight decay {group.decay:g}"
        for group in groups
    ]
    return [*lines, f"not learned: {frozen:,} parameters"]


def _describer(model: Model, recipe: Recipe) -> Callable[[str, Tensor], tuple[str, float, float]]:
    """Make the function from a parameter to its group's name, rate and decay."""
    schedule, engine = recipe.schedule, recipe.engine
    if schedule.layer_decay is not None and not blocks_of(model.encoder.trunk):
        raise ConfigError(
            f"schedule.layer_decay: the encoder {model.config.encoder.name} has no blocks, which would "
            "learn at rates of their own: take encoder_rate"
        )
    depths = {} if schedule.layer_decay is None else depths_of(model.encoder.trunk)
    layers = max(depths.values(), default=0) + 1
    apart = schedule.encoder_rate != 1 or schedule.layer_decay is not None

    def describe(name: str, value: Tensor) -> tuple[str, float, float]:
        group, rate = "others" if apart else "all", 1.0
        if apart and name.startswith(ENCODER):
            group, rate = "encoder", schedule.encoder_rate
            if schedule.layer_decay is not None and name.startswith(TRUNK):
                depth = depths[name.removeprefix(TRUNK)]
                group = f"encoder, layer {depth} of {layers - 1}"
                rate *= schedule.layer_decay ** (layers - depth)
        if engine.decayed == "matrices" and (value.ndim <= 1 or name.endswith("bias")):
            return f"{group}, norms and biases", rate, 0.0
        return group, rate, engine.weight_decay

    return describe
