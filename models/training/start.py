"""The model that a training starts from: built by its config, with given weights and all its classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from tagmill.models.local_copies import local_copy
from tagmill.models.pretrained import require_files
from tagmill.models.ram import checkpoints, store
from tagmill.models.ram import config as configs
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.store import Model
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.training import class_labels
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.teacher import Teacher
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files, stores
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary, normalize_name

TRUNK, ALIGNMENT = "encoder.trunk.", "alignment."
OF_CLASSES = {"label_embed": 0, "score_weight": 1, "score_bias": 1}
"""Tensors of Tag2Text that have a row for each class, and in which dimension."""


def resolve(recipe: Recipe) -> RamConfig:
    """Make the model's config of what the recipe says. Raises ConfigError.

    With another list of classes than that of `init`, thresholds are left out: they belong to the old scores.
    """
    base = None if recipe.init is None else _config_in(Path(local_copy(recipe.init)))
    values: dict[str, Any] = {} if base is None else base.model_dump()
    names = _classes(recipe, base)
    if base is None or names != base.classes:
        old = {} if base is None else {base.classes[at] for at in base.silent}
        silent = [at for at, name in enumerate(names) if name in old]
        values |= {"classes": names, "thresholds": None, "silent": silent, "vocabulary": None}
    try:
        config = RamConfig.model_validate(_merge(values, recipe.model))
    except ValidationError as error:
        raise ConfigError(f"model: {configs.explain(error)}") from error
    if base is not None and config.kind != base.kind:
        raise ConfigError(f"model.kind is {config.kind}, but {recipe.init} is a {base.kind}")
    return config


def _config_in(folder: Path) -> RamConfig:
    require_files(folder, configs.NEEDS)
    return configs.read(folder)


def build(recipe: Recipe, config: RamConfig, teacher: Teacher | None) -> Model:
    """Build the model and load what the recipe starts from; what is new is random, or for labels CLIP's.

    Raises ConfigError if weights do not fit, or a class has no label embedding.
    """
    model = store.build(config)
    state = model.state_dict()
    weights = dict(state)
    known: dict[str, Tensor] = {}
    if recipe.init is not None:
        start = store.load(Path(local_copy(recipe.init)))
        loaded = start.state_dict()
        if not isinstance(model, Tag2Text):
            known = _known(start.config, config, loaded["label_embed"])
            del loaded["label_embed"]
        elif start.config.classes != config.classes:
            loaded |= _renumber(start.config, config, loaded, state)
        if config.alignment is not None and start.config.alignment is None:
            weights |= _branch(loaded, state)
        # A text side and a branch can be left away, or put on: their weights alone may be amiss.
        weights |= {
            key: value
            for key, value in loaded.items()
            if key in state or not key.startswith(("text.", ALIGNMENT))
        }
    if recipe.trunk is not None:
        weights |= _trunk(Path(local_copy(recipe.trunk)), state)
    if not isinstance(model, Tag2Text):
        weights["label_embed"] = class_labels.extend(known, recipe.labels, config, teacher)
    checkpoints.load(weights, model)
    return model


def given_classes(recipe: Recipe) -> tuple[str, ...] | None:
    """Give the classes that a recipe names, itself or by a file or url; None if it names none."""
    given = recipe.classes
    if given is None or isinstance(given, tuple):
        return given
    if files.is_local(given):
        found = Vocabulary.load(files.filesystem(given)[1] if "://" in given else given)
    else:
        found = _read(given, "classes: name a file of this store, one name a line, or the names")
    return tuple(tag.name for tag in found)


def _classes(recipe: Recipe, base: RamConfig | None) -> tuple[str, ...]:
    given = given_classes(recipe)
    if given is not None:
        return given
    if base is not None:
        return base.classes
    uri = files.join(recipe.data.datasets[0].path, contract.VOCABULARY)
    return tuple(tag.name for tag in _read(uri, "give a dataset's folder, RUN/shards/GENERATION"))


def _read(uri: str, cure: str) -> Vocabulary:
    try:
        return Vocabulary.from_text(files.read_bytes(uri).decode("utf-8-sig"), uri)
    except (*stores.ANSWERS, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {uri}: {cure}") from error


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Lay new keys over the old ones, and those of a section over those of that section."""
    both = [key for key in new if isinstance(old.get(key), dict) and isinstance(new[key], dict)]
    return {**old, **new, **{key: _merge(old[key], new[key]) for key in both}}


def _known(old: RamConfig, new: RamConfig, embeddings: Tensor) -> dict[str, Tensor]:
    """Give the old embeddings by the new names; none if a class has another number of them now."""
    if old.descriptions != new.descriptions:
        return {}
    rows = embeddings.unflatten(0, (len(old.classes), -1))
    pairs = zip(new.classes, _places(old, new), strict=True)
    return {name: rows[place] for name, place in pairs if place is not None}


def _places(old: RamConfig, new: RamConfig) -> list[int | None]:
    """Find where each new class was among the old ones, None if nowhere.

    Names can differ in their writing alone, or repeat, and still be classes of their own. So the very name
    comes first, the n-th time it stands there for the n-th time, and only then the first that is the same
    tag.
    """
    same: dict[str, list[int]] = {}
    alike: dict[str, int] = {}
    for at, name in enumerate(old.classes):
        same.setdefault(name, []).append(at)
        alike.setdefault(normalize_name(name), at)
    left = {name: iter(places) for name, places in same.items()}
    return [next(left.get(name, iter(())), alike.get(normalize_name(name))) for name in new.classes]


def _renumber(
    old: RamConfig, new: RamConfig, loaded: Mapping[str, Tensor], fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Bring the classes' own tensors to the new order; rows of new classes stay as they were drawn."""
    pairs = [(at, place) for at, place in enumerate(_places(old, new)) if place is not None]
    to = torch.tensor([at for at, _ in pairs], dtype=torch.long)
    of = torch.tensor([place for _, place in pairs], dtype=torch.long)
    return {
        key: fresh[key].clone().index_copy_(dim, to, loaded[key].index_select(dim, of))
        for key, dim in OF_CLASSES.items()
    }


def _branch(loaded: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Let a new alignment branch read as the tag encoder does, which looks at the same images.

    The tag encoder's first layers look by the head's modules, and have none of their own. Layers that it
    does not have stay as they were drawn.
    """
    found = {}
    for key in state:
        if key.startswith(f"{ALIGNMENT}encoder."):
            name = key.replace(f"{ALIGNMENT}encoder.", "text.tag_encoder.")
            heads = name.replace("text.tag_encoder.", "head.").replace(".cross.", ".attention.")
            source = loaded.get(name, loaded.get(heads))
            if source is not None:
                found[key] = source
    return found


def _trunk(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read weights of the image encoder, in timm's names or those of the official Swin; extra ones are left.

    Raises ConfigError if one that the model needs is not there.
    """
    read = checkpoints.read(path)
    if any(key.startswith("layers.0.downsample.") for key in read):
        body = {f"visual_encoder.{key}": value for key, value in read.items() if not key.startswith("head.")}
        found = dict(checkpoints.translate(body).weights)
    else:
        found = {TRUNK + key: value for key, value in read.items()}
    found = {key: value.float() if value.is_floating_point() else value for key, value in found.items()}
    wanted = [key for key in state if key.startswith(TRUNK)]
    missing = [key for key in wanted if key not in found and not key.endswith("relative_position_index")]
    if missing:
        first = ", ".join(key.removeprefix(TRUNK) for key in missing[:3])
        raise ConfigError(f"trunk: {path} lacks {len(missing)} weights of the encoder ({first}, ...)")
    return {key: found[key] for key in wanted if key in found}
