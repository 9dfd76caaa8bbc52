"""A recipe as a model's card tells it: without places of this machine, and beside the published one."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from tagmill.models.training.recipe import OFFICIAL_TERMS, EngineConfig, LossConfig, Recipe, Term
from tagmill.models.training.schedule import ScheduleConfig
from tagmill.tag_system.core.redaction import HIDDEN, redacted

LEFT_OUT = {"out", "wandb", "card"}
"""Keys that say where a training was watched and kept, and what the card has elsewhere."""

MATTERING = {"precision", "accumulate", "clip_norm", "weight_decay", "decayed", "freeze", "ema", "batch_norm"}
"""Keys of `engine` by which another model comes out."""

_IN_FOLDER = re.compile(r"(?P<kind>(?:\w+-)?dir:)(?P<place>.*)", re.DOTALL)


def as_yaml(recipe: Recipe) -> str:
    """Write the recipe whole, but for `LEFT_OUT`, with its defaults."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude=LEFT_OUT)
    names = {"classes": list(recipe.classes)} if isinstance(recipe.classes, tuple) else {}
    return yaml.safe_dump(_told(values) | names, sort_keys=False, width=110)


def place_told(text: str) -> str:
    """Write a text without what it says of this machine, and without secrets.

    Of an absolute path, or one that leads out of the working directory, the last part stays; of a url
    scheme, host and path. What is neither stays as it is.
    """
    return redacted("::".join(map(_part, text.split("::"))))


def differences(recipe: Recipe, kind: str, terms: Sequence[Term]) -> list[tuple[str, str, str]]:
    """List what differs from the pretraining that was published: key, value here, value there.

    `terms` are those that a model of the kind learns by the recipe.
    """
    target = "mentioned" if kind == "tag2text" else "decided"
    published = {
        "losses": LossConfig(terms=OFFICIAL_TERMS[kind], target=target),
        "schedule": ScheduleConfig(),
        "engine": EngineConfig(),
    }
    here = _values({name: getattr(recipe, name) for name in published})
    there = _values(published)
    here |= {
        "losses.terms": sorted(terms),
        "epochs": recipe.epochs,
        "data.repeat_factor": recipe.data.repeat_factor is not None,
    }
    there |= {"epochs": Recipe.model_fields["epochs"].default, "data.repeat_factor": False}
    return [(key, _word(here[key]), _word(there[key])) for key in there if here[key] != there[key]]


def _values(sections: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, section in sections.items():
        for key, value in section.model_dump(mode="json").items():
            if name != "engine" or key in MATTERING:
                found[f"{name}.{key}"] = sorted(value) if key == "terms" and value else value
    return found


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _told(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_told(item) for item in value]
    return place_told(value) if isinstance(value, str) else value


def _part(text: str) -> str:
    """Write one of the places of a chained url, or all of what is none."""
    if found := _IN_FOLDER.fullmatch(text):
        return found["kind"] + _part(found["place"])
    if "://" not in text:
        return _path(text)
    try:
        url = urlsplit(text)
    except ValueError:
        return HIDDEN
    if url.scheme in ("file", "local"):
        return _path(f"/{url.path}")
    host = url.netloc.rpartition("@")[2]
    # A password may hold what ends the host of an url.
    shows = re.search(r":(?!\d*$)", host) is not None and "${" not in host
    return f"{url.scheme}://{HIDDEN}" if shows else f"{url.scheme}://{host}{url.path}"


def _path(text: str) -> str:
    path, windows = PurePosixPath(text), PureWindowsPath(text)
    if windows.drive:
        return windows.name
    if path.is_absolute() or ".." in path.parts or text.startswith("~"):
        return path.name
    return text
