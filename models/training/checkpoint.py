"""Checkpoints: folders that a tagger can use, with all that a training needs to go on exactly.

    OUT/steps/00000120/   config.json, model.safetensors, vocab.txt (with a text side): the model
                          README.md: its card, see `training_card`
                          state.safetensors, state.json: the rest; once it is validated, tags.parquet
    OUT/last, OUT/best    links to two of these
    OUT/lock              held by the process that trains

A folder is written whole or not at all (`files.replacing`), and a link is replaced in one go: whenever the
process ends, both lead to something whole. A checkpoint is there while its state.json is, which tells size
and sha256 of the large files; it is the first to go when a checkpoint is removed. What else lies in its
folder, as the table of tags does, is written before state.json is, and goes to an object store with it: see
`out_folder`.
"""

import itertools
import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tagmill.models.local_copies import OF_TRAINING
from tagmill.models.pretrained import BEST_AND_LAST
from tagmill.models.ram import model_card, store
from tagmill.models.ram.config import VOCAB, WEIGHTS
from tagmill.models.ram.model_card import CARD
from tagmill.models.ram.store import Model
from tagmill.models.ram.writing import save_tensors
from tagmill.models.training.metrics import TagMetrics
from tagmill.models.training.sharding import part_like
from tagmill.models.training.tag_table import TAGS, write_tags
from tagmill.tag_system.core import files, locks
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.text import parse_json

BEST, LAST = BEST_AND_LAST
STEPS, STATE, TENSORS = "steps", "state.json", OF_TRAINING
LOCK = "lock"

FILES = "files"
"""Key of the state: size and sha256 of those of `FIXED` that the checkpoint has."""

FIXED = (WEIGHTS, VOCAB, TENSORS)
"""Files that stay as they were saved; what else lies beside them is small, and may be written again."""

NEEDED = {"step", "best", "loader"}
"""Keys of the state without which nothing can go on."""

_NAME = re.compile(r"(\d+)(?:\.(\d+))?")


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
    keep: int = 1,
    taken: Collection[str] = (),
    lasting: bool = True,
) -> str:
    """Write the checkpoint of a step, make it `last`, and give its name, which is none of those `taken`.

    Then the last `keep` and the best are left. `weights` are the model's, where it does not have them whole.
    For `lasting` see `files.replacing`. Raises ConfigError if it cannot be written; what was there stays.
    """
    names = (f"{step:08d}" + (f".{again}" if again else "") for again in itertools.count())
    name = next(name for name in names if name not in taken and not (out / STEPS / name).exists())
    with files.replacing(str(out / STEPS / name), lasting=lasting) as partial:
        store.save(model, partial, vocab=vocab, weights=weights)
        model_card.write(partial / CARD, card)
        save_tensors(saved.tensors, partial / TENSORS)
        _write_state(saved.state | {FILES: _described(partial)}, partial / STATE)
    link(out, LAST, name)
    _prune(out, keep)
    return name


def record_evaluation(
    out: Path,
    state: dict[str, Any],
    tags: Sequence[TagMetrics] | None,
    *,
    best: bool,
    card: str | None = None,
    keep: int = 1,
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
        link(out, BEST, folder.name)
        _prune(out, keep)
    with files.replacing(str(folder / STATE)) as partial:
        _write_state(state | {FILES: files_of(folder)}, partial)
    return is_told


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from training into the folder. Raises ConfigError if one does."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / LOCK).open("a")
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"out: {out} is not, or is not in, a folder: name another out") from error
    except OSError as error:
        raise ConfigError(f"out: cannot write into {out}: {error.strerror}; name another out") from error
    with stream:
        if not locks.acquire(stream):
            raise ConfigError(
                f"another process is training into {out}: wait for its end, or name another out"
            )
        yield


def in_order(names: Iterable[str]) -> list[str]:
    """Pick the names of checkpoints, the newest last."""
    found = {name: match for name in names if (match := _NAME.fullmatch(name))}
    return sorted(found, key=lambda name: (int(found[name][1]), int(found[name][2] or 0)))


def kept_of(names: Iterable[str], keep: int, best: str | None) -> set[str]:
    """Say which of the checkpoints stay: the last `keep`, and the best."""
    return {*in_order(names)[-keep:], *([] if best is None else [best])}


def names_of(out: Path) -> list[str]:
    """List the checkpoints that a training has left here, the newest last."""
    return in_order(path.parent.name for path in (out / STEPS).glob(f"*/{STATE}"))


def exists(out: Path) -> bool:
    """Tell whether a training has left a checkpoint here."""
    return bool(names_of(out))


def load(out: Path, name: str) -> Saved:
    """Read what a checkpoint holds beside its model. Raises DamageError if it is not as it was saved."""
    folder = out / STEPS / name
    try:
        state = parse_json((folder / STATE).read_text())
        if lacking := NEEDED - state.keys():
            raise ValueError(f"{STATE} has no {', '.join(sorted(lacking))}")
        for one, about in state.get(FILES, {}).items():
            _check(folder / one, about["bytes"], about["sha256"])
        return Saved(load_file(folder / TENSORS), state)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise DamageError(str(error)) from error


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Read which files a checkpoint was saved with; none is told of one from before there was that."""
    try:
        return dict(parse_json((folder / STATE).read_text()).get(FILES, {}))
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def link(out: Path, name: str, checkpoint: str) -> None:
    """Have `last` or `best` lead to a checkpoint."""
    with files.replacing(str(out / name)) as partial:
        partial.symlink_to(Path(STEPS) / checkpoint)


def linked(out: Path, name: str) -> str | None:
    """Tell to which checkpoint `last` or `best` leads; None if it is not there."""
    path = out / name
    return path.readlink().name if path.is_symlink() else None


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


def _described(folder: Path) -> dict[str, dict[str, Any]]:
    found = [path for name in FIXED if (path := folder / name).exists()]
    return {path.name: {"bytes": path.stat().st_size, "sha256": files.sha256(str(path))} for path in found}


def _check(path: Path, size: int, sha256: str) -> None:
    """Raise ValueError for a file that is not the one that was written."""
    if not path.exists():
        raise ValueError(f"{path.name} is missing")
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes instead of {size:,}")
    if files.sha256(str(path)) != sha256:
        raise ValueError(f"{path.name} holds other bytes than were written")


def _prune(out: Path, keep: int) -> None:
    kept = kept_of(names_of(out), keep, linked(out, BEST))
    for folder in (out / STEPS).iterdir():
        if folder.name not in kept:
            (folder / STATE).unlink(missing_ok=True)  # first: what is left is not a checkpoint any more
            shutil.rmtree(folder)
