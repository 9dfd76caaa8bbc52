"""Checkpoints: folders that a tagger can use, with all that a training needs to go on exactly.

    OUT/steps/00000120/   config.json, model.safetensors, vocab.txt (with a text side): the model
                          README.md: its card, see `training_card`
                          state.safetensors, state.json: the rest; once it is validated, tags.parquet
    OUT/last, OUT/best    links to two of these
    OUT/lock              held by the process that trains

A folder is written whole or not at all (`files.replacing`), and a link is replaced in one go: whenever the
process ends, both lead to something whole.
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tagmill.models.ram import model_card, store
from tagmill.models.ram.model_card import CARD
from tagmill.models.ram.store import Model
from tagmill.models.ram.writing import save_tensors
from tagmill.models.training.metrics import TagMetrics
from tagmill.models.training.sharding import part_like
from tagmill.models.training.tag_table import TAGS, write_tags
from tagmill.tag_system.core import files, locks
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.text import parse_json

LAST, BEST = "last", "best"
STEPS, STATE, TENSORS = "steps", "state.json", "state.safetensors"
LOCK = "lock"


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds beside the model: `tensors` by name, and `state`, which JSON can hold."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(
    out: Path,
    step: int,
    model: Model,
    saved: Saved,
    *,
    vocab: Path | None,
    card: str,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the checkpoint of a step and make it `last`; remove what nothing links to.

    `weights` are the model's, where it does not have them whole.
    """
    names = (f"{step:08d}" + (f".{again}" if again else "") for again in itertools.count())
    folder = next(path for name in names if not (path := out / STEPS / name).exists())
    with files.replacing(str(folder)) as partial:
        store.save(model, partial, vocab=vocab, weights=weights)
        model_card.write(partial / CARD, card)
        save_tensors(saved.tensors, partial / TENSORS)
        _write_state(saved.state, partial / STATE)
    _link(out / LAST, Path(STEPS) / folder.name)
    _prune(out)


def record_evaluation(
    out: Path,
    state: dict[str, Any],
    tags: Sequence[TagMetrics] | None,
    *,
    best: bool,
    card: str | None = None,
) -> bool:
    """Give the last checkpoint its card, the table of its tags and its state; make it `best`, if it is.

    The state comes last: a process that ends in between leaves a checkpoint that is to be evaluated again.
    Tells False of a card that another wrote, which is left as it is.
    """
    folder = (out / LAST).resolve()
    if tags is not None:
        write_tags(str(folder / TAGS), tags)
    is_told = card is None or model_card.write(folder / CARD, card)
    if best:
        _link(out / BEST, Path(STEPS) / folder.name)
        _prune(out)
    with files.replacing(str(folder / STATE)) as partial:
        _write_state(state, partial)
    return is_told


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from training into the folder. Raises ConfigError if one does."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / LOCK).open("a")
    except OSError as error:
        raise ConfigError(f"out: cannot write into {out}: {error.strerror}") from error
    with stream:
        if not locks.acquire(stream):
            raise ConfigError(
                f"another process is training into {out}: wait for its end, or name another out"
            )
        yield


def exists(out: Path) -> bool:
    """Tell whether a training has left a checkpoint here."""
    return (out / LAST).exists()


def load(out: Path) -> Saved:
    """Read what the last checkpoint holds beside its model. Raises ConfigError without one, DamageError."""
    if not exists(out):
        raise ConfigError(f"{out} has no checkpoint to resume from: leave --resume out")
    try:
        return Saved(load_file(out / LAST / TENSORS), parse_json((out / LAST / STATE).read_text()))
    except (OSError, ValueError, SafetensorError) as error:
        raise DamageError(f"cannot read the checkpoint {out / LAST}: {error}") from error


def pack_optimizer(optimizer: torch.optim.Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    """Give the optimizer's tensors, as `optimizer/WHAT/PARAMETER`; `names` are those of its parameters."""
    states = optimizer.state_dict()["state"]
    return {
        f"optimizer/{what}/{name}": value
        for at, name in enumerate(names)
        for what, value in states.get(at, {}).items()
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, names: Iterable[str], saved: Saved) -> None:
    """Give the optimizer its tensors back. Raises ConfigError if they are of other parameters."""
    values = (value for group in optimizer.param_groups for value in group["params"])
    parameters: dict[str, Tensor] = dict(zip(names, values, strict=True))
    states: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for key, value in saved.tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            what, _, name = rest.partition("/")
            if name not in states:
                raise ConfigError(
                    f"the checkpoint trained {name}, this recipe does not: give the recipe of that training"
                )
            states[name][what] = part_like(value, parameters[name])
    if empty := [name for name, state in states.items() if not state]:
        raise ConfigError(
            f"the checkpoint did not train {empty[0]}, this recipe does: give the recipe of that training"
        )
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": dict(enumerate(states.values()))})


def _write_state(state: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(state, indent=1) + "\n")


def _link(link: Path, target: Path) -> None:
    with files.replacing(str(link)) as partial:
        partial.symlink_to(target)


def _prune(out: Path) -> None:
    kept = {(out / name).resolve().name for name in (LAST, BEST)}
    for folder in (out / STEPS).iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)
