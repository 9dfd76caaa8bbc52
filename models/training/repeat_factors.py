"""Repeat-factor sampling (Gupta et al. 2019, LVIS): samples with rare tags are shown more often.

With f(c) the share of samples that are positive for class c, of those in which it is known, a sample's factor
is the largest max(1, sqrt(threshold / f(c))) of its positive classes. Positives are those that the training
learns from. The records are read twice, without images: for f, and then for the factors.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from tagmill.models.training.data import RepeatConfig
from tagmill.models.training.learnable import AT_ONCE, LONG, digest_of
from tagmill.models.training.loader import Loader
from tagmill.models.training.newer import StoredDecisions
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Recipe
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import value_digest

KEPT = "repeat_factors.npz"
"""In the folder of a training: the factors, by what they were made of."""

Factors = list[NDArray[np.float32]]


def lay(
    loader: Loader,
    recipe: Recipe,
    classes: tuple[str, ...],
    process: Process,
    say: Callable[[str], None],
    *,
    decisions: StoredDecisions | None = None,
) -> None:
    """Have a loader show samples by their factors, if the recipe asks for it, and say what that comes to."""
    config = recipe.data.repeat_factor
    if config is None:
        return
    newer = None if decisions is None else decisions.about
    of = value_digest([digest_of(loader, recipe, classes, newer), config.model_dump(mode="json")])
    path = recipe.folder / KEPT
    factors = _kept(path, of, loader) if process.first else None
    if process.gather(Counter(kept=int(factors is not None)))["kept"]:
        factors = _together(factors or _nothing(loader), process)
    else:
        count = sum(map(len, _nothing(loader)))
        if count >= LONG:
            say(f"looking for rare classes in {count:,} records, twice")
        factors = _made(loader, config, process, mentioned=recipe.losses.target == "mentioned")
        if process.first:
            with files.replacing(str(path)) as partial, partial.open("wb") as stream:
                np.savez(stream, *factors, of=np.array(of))
    loader.repeat(factors)
    every = np.concatenate(factors)
    say(
        f"repeat factors: {(every > 1).sum():,} of {len(every):,} samples have rare classes and come up to "
        f"{every.max():.3g} times in an epoch, which is {every.mean():.3g} times as long"
    )


def _made(loader: Loader, config: RepeatConfig, process: Process, *, mentioned: bool) -> Factors:
    """Read what the samples teach, each process its share; what cannot be read has the factor 1."""
    counts = np.zeros((2, len(loader.origins[0].classes)), np.int64)
    for _, _, positives, known in _taught(loader, mentioned=mentioned):
        counts += positives, known
    positive, known = process.sum(torch.from_numpy(counts).to(process.device)).cpu().numpy()
    # A class without a positive asks for nothing.
    shares = positive.clip(1) / known.clip(1)
    wanted = np.sqrt(config.threshold / shares).clip(1, config.limit).astype(np.float32)
    factors = _nothing(loader)
    for source, number, positives, _ in _taught(loader, mentioned=mentioned):
        factors[source][number] = wanted[positives].max(initial=1)
    return [found.clip(1) for found in _together(factors, process)]


def _taught(
    loader: Loader, *, mentioned: bool
) -> Iterator[tuple[int, int, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Give dataset, number, positive and known classes of each sample of this process's share."""
    for targets in loader.targets(AT_ONCE):
        for address, target in targets:
            positives = target.positives(mentioned=mentioned)
            yield address.dataset, loader.number(address), positives, target.known > 0


def _nothing(loader: Loader) -> Factors:
    return [np.zeros(len(dataset.places), np.float32) for dataset in loader.datasets]


def _together(factors: Factors, process: Process) -> Factors:
    """Put the factors of all processes together, each of which has zeros for what others have."""
    return [process.sum(torch.from_numpy(found).to(process.device)).cpu().numpy() for found in factors]


def _kept(path: Path, of: str, loader: Loader) -> Factors | None:
    """Read the factors that an earlier start left, if they are of the same."""
    try:
        with path.open("rb") as stream, np.load(stream) as found:
            factors = [found[f"arr_{at}"] for at in range(len(loader.datasets))]
            return factors if str(found["of"]) == of else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
