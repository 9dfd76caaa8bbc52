"""The settings that a resumed training must have as at its start, and those whose change it says."""

from collections.abc import Mapping
from typing import Any

from tagmill.models.ram.config import RamConfig
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


def changeable_of(recipe: Recipe) -> dict[str, Any]:
    """Give what decides what is learned, and how fast, and may change: by keys of the recipe, for JSON."""
    values = recipe.model_dump(mode="json", include={"losses": True, "data": {"datasets": True}})
    losses = {name: value for name, value in values["losses"].items() if name != "terms"}
    marks = {
        f"data.datasets.{at}.{key}": dataset[key]
        for at, dataset in enumerate(values["data"]["datasets"])
        for key in ("tags", "implied", "absent")
    }
    return {
        **{f"losses.{name}": value for name, value in losses.items()},
        **marks,
        "data.decisions": recipe.data.decisions is not None,
        "schedule.encoder_rate": recipe.schedule.encoder_rate,
        "schedule.layer_decay": recipe.schedule.layer_decay,
        "engine.decayed": recipe.engine.decayed,
    }


def changes(then: Mapping[str, Any], recipe: Recipe) -> str:
    """Say what of `changeable_of` is another than it was then; nothing if nothing is."""
    changed = [key for key, value in changeable_of(recipe).items() if key in then and then[key] != value]
    return f"from here on with another {', '.join(changed)} than before" if changed else ""


def config_of(config: RamConfig, state: Mapping[str, Any]) -> RamConfig:
    """Give the config of a checkpoint as the training left it, by its state.

    Thresholds that it was given since are for the scores of that checkpoint, and of no later one.
    """
    if "thresholds" not in state:
        return config
    own = state["thresholds"]
    return config.model_copy(update={"thresholds": None if own is None else tuple(own)})


def check_lasting(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError if a training is to go on with something that it cannot change."""
    keys = sorted(then.keys() | now.keys())
    changed = [key for key in keys if (key in then, then.get(key)) != (key in now, now.get(key))]
    if changed:
        raise ConfigError(
            f"a training cannot be resumed with another {', '.join(changed)}: give the recipe of its start, "
            "or start a new training in another out"
        )
