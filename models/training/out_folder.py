"""The folder of a training, `out`: on this machine, or in any store that fsspec reaches.

A training writes on this machine. Where `out` is a url, that is into a folder for temporary files on each of
its machines, which goes away with the training: the first process has all brought to the store from there,
see `uploads`, and at the start each machine fetches what it needs.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from tagmill.models import links
from tagmill.models.ram.store import Model
from tagmill.models.training import checkpoint, components, journal, learnable, repeat_factors
from tagmill.models.training.checkpoint import BEST, LAST, STATE, STEPS, Saved
from tagmill.models.training.metrics import TagMetrics
from tagmill.models.training.newer import ABOUT
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.uploads import Uploads, fetch, names_at, send_folder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError

NOTES = (journal.LOG, journal.WANDB_ID, learnable.COUNTS, repeat_factors.KEPT)
"""What the first process goes on with, beside the checkpoints."""


class OutFolder:
    """Where a training writes; for a url it is entered by all processes, when the first one may write there.

    `check` raises if another training has the place now.

    Attributes:
        uri: The place, as the recipe names it.
        local: The folder on this machine.
        is_far: Whether `local` is for temporary files.
    """

    def __init__(self, recipe: Recipe, process: Process, *, check: Callable[[], None] = lambda: None) -> None:
        self.uri, self.local = recipe.out.rstrip("/"), recipe.folder
        self.is_far = not files.is_local(recipe.out)
        self._process, self._decided = process, recipe.data.decisions is not None
        self._keep = 1 if self.is_far else recipe.keep
        self._taken: set[str] = set()
        self._uploads: Uploads | None = None
        if self.is_far and process.first:
            self._uploads = Uploads(self.uri, self.local, keep=recipe.keep, check=check)

    def __enter__(self) -> "OutFolder":
        if self.is_far and self._process.first_here:
            _make_empty(self.local)
        if self._uploads is not None:
            fetch(self.uri, self.local, NOTES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
            elif issubclass(kind, Exception):  # what was on its way comes there, if that can be
                with contextlib.suppress(OSError, ConfigError):
                    self.finish()
        finally:
            if self._uploads is not None:
                self._uploads.close()
            if self.is_far and self._process.first_here:
                shutil.rmtree(self.local, ignore_errors=True)

    def lay_decisions(self, lay: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Have decisions written into the folder, for all processes; gives what is said of them."""
        folder = self.local / components.DECISIONS
        about = lay(folder)
        if self.is_far:
            send_folder(folder, files.join(self.uri, components.DECISIONS), ABOUT)
        return about

    def exists(self) -> bool:
        """Tell whether a training has left a checkpoint here."""
        return bool(self._names())

    def begin(self, *, resume: bool) -> Saved | None:
        """Give what the newest checkpoint holds, which is then `last`; None for a training from the start.

        To be called in all processes. Raises ConfigError if there is none to resume from, or one although
        none is asked for, and DamageError.
        """
        names = self._names()
        if names and not resume:
            raise ConfigError(f"{self.uri} has a training already: go on by --resume, or name another out")
        if resume and not names:
            raise ConfigError(f"{self.uri} has no checkpoint to resume from: leave --resume out")
        self._taken.update(names)
        if self.is_far and self._process.first_here:
            self._fetch(names[-1:])
        self._process.wait()
        if not resume:
            return None
        try:
            saved = checkpoint.load(self.local, names[-1])
        except DamageError as error:
            raise DamageError(self._damaged(names, error)) from error
        if self._process.first and checkpoint.linked(self.local, LAST) != names[-1]:
            checkpoint.link(self.local, LAST, names[-1])
        self._process.wait()
        return saved

    def save(
        self,
        step: int,
        model: Model,
        saved: Saved,
        *,
        vocab: Path | None,
        card: str,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a checkpoint, see `checkpoint.save`; to a store it is brought while the training goes on.

        Raises as well for an earlier one that could not be brought.
        """
        self.join()
        if self.is_far:
            shutil.rmtree(self.local / STEPS, ignore_errors=True)  # those are in the store by now
        name = checkpoint.save(
            self.local,
            step,
            model,
            saved,
            vocab=vocab,
            card=card,
            weights=weights,
            keep=self._keep,
            taken=self._taken,
            lasting=not self.is_far,
        )
        self._taken.add(name)
        if self._uploads is not None:
            self._uploads.send_checkpoint(name, is_new=True)

    def record_evaluation(
        self,
        state: dict[str, Any],
        tags: Sequence[TagMetrics] | None,
        *,
        best: bool,
        card: str | None = None,
    ) -> bool:
        """Say how good the last checkpoint is, see `checkpoint.record_evaluation`."""
        is_told = checkpoint.record_evaluation(self.local, state, tags, best=best, card=card, keep=self._keep)
        name = checkpoint.linked(self.local, LAST)
        if self._uploads is not None and name is not None:
            self._uploads.send_checkpoint(name, is_new=False)
        return is_told

    def best(self) -> str | None:
        """Give where the best checkpoint lies; None without one."""
        if not self.is_far:
            return str(self.local / BEST) if (self.local / BEST).exists() else None
        name = checkpoint.linked(self.local, BEST)
        return None if name is None else files.join(self.uri, STEPS, name)

    def join(self) -> None:
        """Wait until what was written is in the store. Raises StoreError if that cannot be."""
        if self._uploads is not None:
            self._uploads.join()

    def finish(self) -> None:
        """As `join`, with the log and the like as they are now."""
        if self._uploads is not None:
            self._uploads.send_notes()
            self._uploads.join()

    def _names(self) -> list[str]:
        return names_at(self.uri) if self.is_far else checkpoint.names_of(self.local)

    def _fetch(self, names: Sequence[str]) -> None:
        """Bring a checkpoint to this machine, and what lies beside it for all processes."""
        for name in names:
            place = files.join(self.uri, STEPS, name)
            there = files.list_names(place)
            fetch(place, self.local / STEPS / name, sorted(there, key=lambda one: one == STATE))
        best = links.read(files.join(self.uri, BEST))
        if best is not None:
            checkpoint.link(self.local, BEST, best.rpartition("/")[2])
        decisions = self.local / components.DECISIONS
        if self._decided and not decisions.exists():
            place = files.join(self.uri, components.DECISIONS)
            fetch(place, decisions, files.list_names(place))

    def _damaged(self, names: Sequence[str], error: DamageError) -> str:
        newest, *older = (files.join(self.uri, STEPS, name) for name in reversed(names))
        cure = "there is no older one: start again in another out"
        if older:
            cure = f"remove its folder, and --resume goes on from {older[0]}"
        return f"the checkpoint {newest} is damaged ({error}): {cure}"


def _make_empty(folder: Path) -> None:
    """Make a folder that nobody else may look into, in the place of one that a killed training left."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot write into {folder}: {error.strerror}; set TMPDIR to a folder that takes a checkpoint"
        ) from error
    os.chmod(folder, 0o700)
