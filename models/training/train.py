"""The training loop, in plain torch: one process, or many by DistributedDataParallel.

What a step computes is a function of recipe, step and number of processes alone: the learning rate is one of
the step, and chance (dropout, depth) is drawn again for every batch from seed, place in the order and rank.
So a resumed training repeats no sample and leaves none out, and on a CPU with as many threads goes on to the
same bits.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from tagmill.models.base import Image
from tagmill.models.ram import config as configs
from tagmill.models.ram import store
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.model_card import CARD, KEPT
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.models.training import (
    batch_norm,
    components,
    groups,
    learnable,
    pace,
    repeat_factors,
    resuming,
    sharding,
    start,
)
from tagmill.models.training.checkpoint import LAST, Saved
from tagmill.models.training.data import open_loader
from tagmill.models.training.journal import Journal
from tagmill.models.training.learner import Learner
from tagmill.models.training.loader import COUNTS, Loader
from tagmill.models.training.objectives import Objective
from tagmill.models.training.out_folder import OutFolder
from tagmill.models.training.outcomes import check_read, tell_skipped
from tagmill.models.training.pace import Pace, Report
from tagmill.models.training.process import Process
from tagmill.models.training.profiling import ProfileConfig, open_profiler
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.schedule import learning_rate
from tagmill.models.training.selection import Selection
from tagmill.models.training.training_card import TrainingCard
from tagmill.models.training.validation import Pictured, Quality, Validator
from tagmill.tag_system.core import files
from tagmill.tag_system.shard_contract import Split


class Trainer:
    """One process of a training.

    Args:
        recipe: The training's config.
        process: This process's rank and device.
        folder: Where it writes, which is entered where the recipe's `out` is a url; None: `out`.
        resume: Continue from the last checkpoint.
        stop: Called after every step; True on any process ends the training after a checkpoint.
        watch: Called with a report after every step.
        say: Called with a line of text, for the user.
        draw: Draws an image of val with its predictions, for TensorBoard and W&B: uint8 [H, W, 3].
        profile: Trace some steps.

    Raises:
        ConfigError: The recipe, model, data or checkpoint do not fit together.
    """

    def __init__(
        self,
        recipe: Recipe,
        process: Process,
        *,
        folder: OutFolder | None = None,
        resume: bool = False,
        stop: Callable[[], bool] = lambda: False,
        watch: Callable[[Report], None] = lambda report: None,
        say: Callable[[str], None] = lambda line: None,
        draw: Callable[[Pictured], Image] | None = None,
        profile: ProfileConfig | None = None,
    ) -> None:
        self.recipe, self.process = recipe, process
        self.folder = folder or OutFolder(recipe, process)
        self.out = self.folder.local
        self._stop, self._watch, self._say, self._draw = stop, watch, say, draw
        self.step, self.selection = 0, Selection(recipe.validation)
        self._place = 0
        self._is_evaluated = True
        self._lasting = resuming.lasting_of(recipe)
        saved = self._saved(resume)
        config = self._config_of(saved) if saved else start.resolve(recipe)
        self._terms = components.terms_of(recipe, config)
        self._decisions = components.decisions_of(recipe)
        self.loader = self._open("train", config)
        held = None if recipe.validation is None else self._open("val", config)
        self._support = learnable.check(
            self.loader, recipe, config.classes, process, say, decisions=self._decisions
        )
        teacher = components.teacher_of(recipe, process)
        repeat_factors.lay(self.loader, recipe, config.classes, process, say, decisions=self._decisions)
        torch.manual_seed(recipe.seed)
        model = store.load(self.out / LAST) if saved else start.build(recipe, config, teacher)
        model.config = config
        groups.freeze(model, recipe.engine)
        batch_norm.check(model, recipe.engine, process)
        self.model = model.train()
        if not sharding.is_wanted(recipe.engine, process):  # else it may be too large for the device
            model.to(process.device)
        peak = pace.peak_of(recipe.engine, process.device)
        self._pace = Pace(process, None if peak is None else pace.flops_of(model), peak)
        self._vocab = components.vocab_of(recipe, config)
        pieces = WordPieces(self._vocab) if self._vocab else None
        self._objective = Objective(
            model,
            recipe.losses,
            self._terms,
            teacher=teacher,
            pieces=pieces,
            all_gather=process.all_gather,
            mean=process.mean,
        )
        self._validator = (
            None if held is None else Validator(held, self._objective, config, process, self.out)
        )
        self.learner = Learner(recipe, process, self.model, self._objective)
        self._card = TrainingCard(recipe, config, self.loader, held, self._support) if process.first else None
        self._tell_groups()
        if saved:
            self._restore(saved)
        self._profiler = None if profile is None else open_profiler(profile, process, say)
        self._total: int | None = None
        self.learner.start()

    def run(self, until: int | None = None) -> bool:
        """Train to the end, or until a step; tells whether it came to the end. A checkpoint is left.

        Raises ConfigError, behind a checkpoint too, if no sample of an epoch could be read.
        """
        is_over = self._run(until)
        self.folder.finish()
        return is_over

    def _run(self, until: int | None) -> bool:
        recipe = self.recipe
        journal = (
            Journal(
                self.out,
                self.step,
                is_evaluated=self._is_evaluated,
                tensorboard=recipe.tensorboard,
                wandb=recipe.wandb,
                goes_away=self.folder.is_far,
            )
            if self.process.first
            else None
        )
        with self._closing(journal):
            if journal is not None and not self.step:
                learned = [group.as_json() for group in self.learner.groups]
                support = self._support.as_json()
                journal.write({"step": 0, "epoch": 0, "classes": support, "learned": learned})
            if not self._is_evaluated:
                self._evaluate(journal)
            while self.loader.epoch < self.recipe.epochs and not self.selection.is_over:
                for stopping in self._epoch(journal):
                    if stopping or self.step == until:
                        self._save()
                        return False
                if not self.selection.is_over:
                    self._end_of_epoch(journal)
            check_read(self.loader, self.process)  # no step was left to one that goes on from its end
        return True

    def try_out(self, steps: int) -> bool:
        """Take so many steps, or those that are left of the epoch, and save nothing; gives True."""
        with self._closing(None):
            left = steps if self.loader.epoch < self.recipe.epochs else 0
            for _ in islice(self._epoch(None, saving=False), left):
                pass
        return True

    @contextlib.contextmanager
    def _closing(self, journal: Journal | None) -> Iterator[None]:
        """Profile what is done here, if that is wanted, and close what is open at its end."""
        with contextlib.ExitStack() as stack:
            held = None if self._validator is None else self._validator.loader
            for one in (journal, self.loader, held):
                if one is not None:
                    stack.callback(one.close)
            if self._profiler is not None:
                stack.enter_context(self._profiler)
            yield

    def _epoch(self, journal: Journal | None, *, saving: bool = True) -> Iterator[bool]:
        """Take the steps that are left of an epoch; gives after each whether to stop."""
        recipe = self.recipe
        self._prepare_fork(self.loader)
        batches = self._pace.waiting(iter(self.loader))
        self._pace.start(self.loader.position)
        while left := self.loader.steps_left():
            count = min(recipe.engine.accumulate, left)
            self._place = self.loader.position + count * recipe.data.batch_size * self.process.world
            figures, stopping = self.learner.update(
                islice(batches, count),
                count,
                step=self.step + 1,
                rate=self._rate(left),
                seed=self._chance,
                stop=self._stop(),
            )
            self.step += 1
            self._report(figures, journal)
            if self._profiler is not None:
                self._profiler.step()
            self._is_evaluated = not self._is_due()
            yield stopping
            if saving and not self._is_evaluated:
                self._save()
                self._evaluate(journal)
                if self.selection.is_over:
                    return
                self._pace.start(self.loader.position)  # which is that of steps alone
            elif (
                saving
                and recipe.save_every
                and self.step % recipe.save_every == 0
                and self.loader.steps_left()
            ):
                self._save()
        next(batches, None)  # the loader notes the end of an epoch when it is asked for more

    def _is_due(self) -> bool:
        """Tell whether a validation is due in the middle of an epoch; at its end there is one anyway."""
        config = self.recipe.validation
        if config is None or config.every_steps is None or not self.loader.steps_left():
            return False
        return self.step % config.every_steps == 0

    def _chance(self, at: int) -> int:
        position = [self.recipe.seed, self.loader.epoch, self._place, at, self.process.rank]
        return int.from_bytes(hashlib.blake2b(repr(position).encode(), digest_size=7).digest(), "big")

    def _rate(self, left: int) -> float:
        """Give the learning rate of the step before which so many batches of the epoch are left."""
        loader, recipe = self.loader, self.recipe
        epoch = loader.epoch + 1 - left / loader.steps(loader.epoch)
        return learning_rate(recipe.schedule, self.step, epoch, recipe.epochs)

    def _report(self, figures: dict[str, float], journal: Journal | None) -> None:
        steps, found = self._steps(), self._pace.step(self.loader.position)
        left = (steps - self.step) / found["steps_per_second"]
        self._watch(Report(self.step, steps, self.loader.epoch, figures, found["images_per_second"], left))
        if journal is not None and self.step % self.recipe.log_every == 0:
            position = {"step": self.step, "epoch": self.loader.epoch, "position": self.loader.position}
            journal.write(position | figures | {name: float(f"{value:.6g}") for name, value in found.items()})

    def _steps(self) -> int:
        """Count the steps of the whole training, those done included; that does not change on the way."""
        if self._total is None:
            each, loader = self.recipe.engine.accumulate, self.loader
            later = (loader.steps(epoch) for epoch in range(loader.epoch + 1, self.recipe.epochs))
            self._total = self.step + sum(-(-count // each) for count in (loader.steps_left(), *later))
        return self._total

    def _end_of_epoch(self, journal: Journal | None) -> None:
        """Save, and only then validate: what fails in validation does not cost the epoch."""
        self._tell_skipped("train", self.loader, journal)
        self._is_evaluated = self._validator is None
        self._save()
        check_read(self.loader, self.process)
        if not self._is_evaluated:
            self._evaluate(journal)

    def _tell_skipped(self, split: Split, loader: Loader, journal: Journal | None) -> None:
        position = {"step": self.step, "epoch": self.loader.epoch}
        tell_skipped(split, loader, self.process, self._say, journal, **position)

    def _evaluate(self, journal: Journal | None) -> None:
        """Validate the weights of the last checkpoint, and make it `best` if it is."""
        quality = None if self._validator is None else self._quality(self._validator, journal)
        best = quality is not None and self.selection.note(self.step, quality.figures)
        self._is_evaluated = True
        state = self._state()
        if self.process.first:
            tags = None if quality is None or quality.metrics is None else quality.metrics.tags
            card = None if self._card is None else self._card.text(self.step, quality)
            if not self.folder.record_evaluation(state, tags, best=best, card=card):
                self._say(f"{files.join(self.folder.uri, LAST, CARD)}: {KEPT}")
        self.process.wait()

    def _quality(self, validator: Validator, journal: Journal | None) -> Quality:
        """Validate; say and log what was found, and what could not be measured."""
        config, shows = self.recipe.validation, journal is not None and journal.shows_pictures
        pictures = config.pictures if config is not None and shows and self._draw is not None else 0
        self._prepare_fork(validator.loader)
        found = validator.measure(self.learner.result, self.learner.autocast, pictures)
        self._tell_skipped("val", validator.loader, journal)
        if lack := found.lack(self.selection.figure):
            self._say(f"epoch {self.loader.epoch}: {lack}")
        if journal is not None and found.figures:
            journal.write({"step": self.step, "epoch": self.loader.epoch} | found.as_log())
            if self._draw is not None:
                journal.show(self.step, [(one.key, self._draw(one)) for one in found.pictures])
        return found

    def _save(self) -> None:
        """Write a checkpoint."""
        saved, weights = Saved(self.learner.state(), self._state()), self.learner.weights()
        if self._card is not None:  # so in the first process
            card, result = self._card.text(self.step), self.learner.result
            self.folder.save(self.step, result, saved, vocab=self._vocab, card=card, weights=weights)
        self.process.wait()

    def _prepare_fork(self, loader: Loader) -> None:
        """Let nothing be on its way to a store while a loader forks its workers, which it does once."""
        if loader.starts_workers:
            self.folder.join()

    def _state(self) -> dict[str, Any]:
        """Give a checkpoint's state; counts of skipped samples and the like are those of all processes."""
        gather, loader = self.process.gather, self.loader.state_dict()
        loader |= {name: dict(gather(Counter(loader[name]))) for name in COUNTS}
        return {
            "step": self.step,
            "best": self.selection.state_dict(),
            "evaluated": self._is_evaluated,
            "loader": loader,
            "recipe": self._lasting,
            "changeable": resuming.changeable_of(self.recipe),
            "thresholds": self.model.config.thresholds,
        }

    def _saved(self, resume: bool) -> Saved | None:
        saved = self.folder.begin(resume=resume)
        if saved is not None:
            resuming.check_lasting(saved.state.get("recipe", self._lasting), self._lasting)
        return saved

    def _config_of(self, saved: Saved) -> RamConfig:
        found = configs.read(self.out / LAST)
        config = resuming.config_of(found, saved.state)
        if config.thresholds != found.thresholds:
            place = files.join(self.folder.uri, LAST)
            self._say(f"{place} was given other thresholds: they stay its own, what follows has none of them")
        return config

    def _restore(self, saved: Saved) -> None:
        self.step = int(saved.state["step"])
        if not self.selection.load_state_dict(saved.state["best"]):
            self._say(f"best is by {self.selection.figure} now: the next validation is the first to count")
        if changed := resuming.changes(saved.state.get("changeable", {}), self.recipe):
            self._say(changed)
        self._is_evaluated = bool(saved.state.get("evaluated", True))
        loader = saved.state["loader"]
        if not self.process.first:  # the counts are those of all processes: one of them goes on with them
            loader = loader | {name: {} for name in COUNTS}
        self.loader.load_state_dict(loader)
        self.learner.restore(saved, self.step)

    def _tell_groups(self) -> None:
        """Say how the parameters learn, unless all of them learn alike."""
        if len(self.learner.groups) > 1 or self.recipe.engine.freeze:
            for line in groups.table(self.learner.groups, self.model):
                self._say(line)

    def _open(self, split: Split, config: RamConfig) -> Loader:
        process = self.process
        return open_loader(
            self.recipe.data, config, split, rank=process.rank, world=process.world, decisions=self._decisions
        )
