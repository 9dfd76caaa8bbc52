"""The settings that a resumed training must have as at its start."""

from collections.abc import Mapping
from typing import Any

from tagmill.models.training.recipe import Recipe
from tagmill.models.training.start import given_classes
from tagmill.tag_system.core.errors import ConfigError


def lasting_of(recipe: Recipe) -> dict[str, Any]:
    """Give what no part of a training can change, by keys of the recipe, as JSON holds it.

    Of `ema` that is whether there is one; of `classes` their names, wherever they are written.
    """
    values = recipe.model_dump(mode="json", include={"init", "trunk", "model", "labels"})
    classes, terms = given_classes(recipe), recipe.losses.terms
    return {
        "init": values["init"],
        "trunk": values["trunk"],
        **{f"{part}.{key}": value for part in ("model", "labels") for key, value in values[part].items()},
        "classes": None if classes is None else list(classes),
        "losses.terms": None if terms is None else sorted(terms),
        "engine.ema": recipe.engine.ema is not None,
        # Without it, the state of trainings from before there was the key is as it was.
        **({"engine.freeze": sorted(recipe.engine.freeze)} if recipe.engine.freeze else {}),
    }


def check_lasting(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError if a training is to go on with something that it cannot change."""
    keys = sorted(then.keys() | now.keys())
    changed = [key for key in keys if (key in then, then.get(key)) != (key in now, now.get(key))]
    if changed:
        raise ConfigError(
            f"a training cannot be resumed with another {', '.join(changed)}: give the recipe of its start, "
            "or start a new training in another out"
        )
