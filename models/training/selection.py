"""Which of a training's models is the best, and whether it is worth going on."""

import math
from collections.abc import Mapping
from typing import Any

from tagmill.models.training.recipe import Figure, ValidationConfig


class Selection:
    """The best figure that validations found so far, and how many since then found no better one.

    `config` is None for a training without validations.

    Attributes:
        figure: What models are compared by.
        value: The best one yet, None before the first.
        step: Where that was.
        waited: Validations since then.
    """

    def __init__(self, config: ValidationConfig | None) -> None:
        self._config = config
        self.figure: Figure = (config or ValidationConfig()).best_by
        self.value: float | None = None
        self.step, self.waited = 0, 0

    def note(self, step: int, figures: Mapping[Figure, float]) -> bool:
        """Note what a validation found; tells whether it is the best. One without the figure does not count.

        Equal to the best, or not a number, is not better.
        """
        found = figures.get(self.figure)
        if found is None:
            return False
        sign = -1 if self.figure == "loss" else 1
        best = -math.inf if self.value is None else sign * self.value
        better = sign * found > best
        if better:
            self.value, self.step, self.waited = found, step, 0
        else:
            self.waited += 1
        return better

    @property
    def is_over(self) -> bool:
        """Tell whether as many validations as the patience allows found nothing better."""
        patience = None if self._config is None else self._config.patience
        return patience is not None and self.waited >= patience

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps of it."""
        return {"by": self.figure, "value": self.value, "step": self.step, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any] | float) -> bool:
        """Go on from a state; tells False of one by another figure, which is left: the search begins anew.

        A number is the lowest loss, which is all that older checkpoints have.
        """
        if not isinstance(state, Mapping):
            state = {"by": "loss", "value": state if math.isfinite(state) else None, "step": 0, "waited": 0}
        if self._config is None:  # nothing is compared, and what was found stays for who does it again
            self.figure = state["by"]
        if state["by"] != self.figure:
            return False
        self.value, self.step, self.waited = state["value"], state["step"], state["waited"]
        return True
