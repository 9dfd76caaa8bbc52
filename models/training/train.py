"""The training loop, in plain torch: one process, or many by DistributedDataParallel.

What a step computes is a function of recipe, step and number of processes alone: the learning rate is one of
the step, and chance (dropout, depth) is drawn again for every batch from seed, place in the order and rank.
So a resumed training repeats no sample and leaves none out, and on a CPU with as many threads goes on to the
same bits.
"""

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tagmill.models.ram import config as configs
from tagmill.models.ram import store
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.store import Model
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.models.training import checkpoint, components, learnable, pace, resuming, start
from tagmill.models.training.batches import Batch
from tagmill.models.training.checkpoint import Saved
from tagmill.models.training.data import open_loader
from tagmill.models.training.journal import Journal
from tagmill.models.training.loader import COUNTS, READ, Loader
from tagmill.models.training.objectives import Objective
from tagmill.models.training.pace import Pace
from tagmill.models.training.process import Process
from tagmill.models.training.profiling import ProfileConfig, open_profiler
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.schedule import learning_rate
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import Split


@dataclass(frozen=True)
class Report:
    """How far a training is after a step of `steps`, and how fast: images of all processes a second.

    `figures` are the losses of the step, the norm of its gradient and its learning rate.
    """

    step: int
    steps: int
    epoch: int
    figures: dict[str, float]
    images_per_second: float
    seconds_left: float


class Trainer:
    """One process of a training.

    Args:
        recipe: The training's config.
        process: This process's rank and device.
        resume: Continue from the last checkpoint.
        stop: Called after every step; True on any process ends the training after a checkpoint.
        watch: Called with a report after every step.
        say: Called with a line of text, for the user.
        profile: Trace some steps.

    Raises:
        ConfigError: The recipe, model, data or checkpoint do not fit together.
    """

    def __init__(
        self,
        recipe: Recipe,
        process: Process,
        *,
        resume: bool = False,
        stop: Callable[[], bool] = lambda: False,
        watch: Callable[[Report], None] = lambda report: None,
        say: Callable[[str], None] = lambda line: None,
        profile: ProfileConfig | None = None,
    ) -> None:
        self.recipe, self.process, self.out = recipe, process, Path(recipe.out)
        self._stop, self._watch, self._say = stop, watch, say
        self.step, self.best = 0, math.inf
        self._place = 0
        self._is_evaluated = True
        self._lasting = resuming.lasting_of(recipe)
        saved = self._saved(resume)
        config = configs.read(self.out / checkpoint.LAST) if saved else start.resolve(recipe)
        self._terms = components.terms_of(recipe, config)
        self._decisions = components.decisions_of(recipe)
        self.loader = self._open("train", config)
        self._held = self._held_out(config)
        self._support = learnable.check(
            self.loader, recipe, config.classes, process, say, decisions=self._decisions
        )
        teacher = components.teacher_of(recipe, process)
        torch.manual_seed(recipe.seed)
        model = store.load(self.out / checkpoint.LAST) if saved else start.build(recipe, config, teacher)
        self.model = model.to(process.device).train()
        self._vocab = components.vocab_of(recipe, config)
        pieces = WordPieces(self._vocab) if self._vocab else None
        self._objective = Objective(
            model, recipe.losses, self._terms, teacher=teacher, pieces=pieces, all_gather=process.all_gather
        )
        self._average = components.average_of(model, recipe.engine)
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._names, self._trained = list(trained), list(trained.values())
        self._optimizer = torch.optim.AdamW(
            self._trained,
            weight_decay=recipe.engine.weight_decay,
            fused=True if process.device.type == "cuda" else None,
        )
        if saved:
            self._restore(saved)
        peak = pace.peak_of(recipe.engine, process.device)
        flops = None if peak is None else pace.flops_of(model, process.device)
        self._pace = Pace(process, flops, peak)
        self._profiler = None if profile is None else open_profiler(profile, process, say)
        self._total: int | None = None
        components.prepare(model, recipe.engine)
        self._parallel = DistributedDataParallel(self._objective) if process.world > 1 else None

    def run(self, until: int | None = None) -> bool:
        """Train to the end, or until a step; tells whether it came to the end. A checkpoint is left.

        Raises ConfigError, behind a checkpoint too, if no sample of an epoch could be read.
        """
        recipe = self.recipe
        journal = (
            Journal(self.out, self.step, tensorboard=recipe.tensorboard, wandb=recipe.wandb)
            if self.process.first
            else None
        )
        with self._closing(journal):
            if journal is not None and not self.step:
                journal.write({"step": 0, "epoch": 0, "classes": self._support.as_json()})
            if not self._is_evaluated:
                self._evaluate(journal)
            while self.loader.epoch < self.recipe.epochs:
                for stopping in self._epoch(journal):
                    if stopping or self.step == until:
                        self._save()
                        return False
                self._end_of_epoch(journal)
            self._check_read()  # no step was left to one that goes on from its end
        return True

    def try_out(self, steps: int) -> bool:
        """Take so many steps, or those that are left of the epoch, and save nothing; gives True."""
        with self._closing(None):
            for _ in islice(self._epoch(None, saving=False), steps):
                pass
        return True

    @contextlib.contextmanager
    def _closing(self, journal: Journal | None) -> Iterator[None]:
        """Profile what is done here, if that is wanted, and close what is open at its end."""
        with contextlib.ExitStack() as stack:
            for one in (journal, self.loader, self._held):
                if one is not None:
                    stack.callback(one.close)
            if self._profiler is not None:
                stack.enter_context(self._profiler)
            yield

    def _epoch(self, journal: Journal | None, *, saving: bool = True) -> Iterator[bool]:
        """Take the steps that are left of an epoch; gives after each whether to stop."""
        recipe = self.recipe
        batches = self._pace.waiting(iter(self.loader))
        self._pace.start(self.loader.position)
        while left := self.loader.steps_left():
            count = min(recipe.engine.accumulate, left)
            rate = self._rate(left)
            figures, stopping = self._update(islice(batches, count), count, rate)
            self._report(figures, journal)
            if self._profiler is not None:
                self._profiler.step()
            yield stopping
            if (
                saving
                and recipe.save_every
                and self.step % recipe.save_every == 0
                and self.loader.steps_left()
            ):
                self._save()
        next(batches, None)  # the loader notes the end of an epoch when it is asked for more

    def _update(self, batches: Iterator[Batch], count: int, rate: float) -> tuple[dict[str, float], bool]:
        """Take one step of the optimizer, of `count` batches, one of which is held at a time.

        Raises ConfigError for a loss or gradient that is not finite.
        """
        engine, process = self.recipe.engine, self.process
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        self._place = self.loader.position + count * self.recipe.data.batch_size * process.world
        terms = [self._backward(batch, at, count) for at, batch in enumerate(batches)]
        norm = nn.utils.clip_grad_norm_(self._trained, engine.clip_norm or math.inf)
        names = list(terms[0])
        losses = torch.stack([torch.stack([found[name] for name in names]) for found in terms]).mean(0)
        stop = torch.tensor([float(self._stop())], device=process.device)
        *means, stopping = process.mean(torch.cat([losses, stop])).tolist()
        figures = dict(zip(names, means, strict=True)) | {"gradient": norm.item(), "rate": rate}
        self._check(figures)
        self._optimizer.step()
        self.step += 1
        if self._average is not None:
            self._average.update_parameters(self.model)
        return figures, stopping > 0

    def _backward(self, batch: Batch, at: int, count: int) -> dict[str, Tensor]:
        """Add a batch's gradient; processes exchange it with the last batch of a step."""
        process = self.process
        torch.manual_seed(self._chance(at))
        whole = self._parallel if self._parallel is not None else self._objective
        apart = self._parallel is not None and at < count - 1
        with self._parallel.no_sync() if apart and self._parallel else contextlib.nullcontext():
            with self._autocast():
                terms = whole(batch.to(process.device))
            (terms["total"] / count).backward()
        return {name: value.detach() for name, value in terms.items()}

    def _autocast(self) -> torch.autocast:
        half = self.recipe.engine.precision == "bfloat16"
        return torch.autocast(self.process.device.type, torch.bfloat16, enabled=half)

    def _chance(self, at: int) -> int:
        position = [self.recipe.seed, self.loader.epoch, self._place, at, self.process.rank]
        return int.from_bytes(hashlib.blake2b(repr(position).encode(), digest_size=7).digest(), "big")

    def _rate(self, left: int) -> float:
        """Give the learning rate of the step before which so many batches of the epoch are left."""
        loader, recipe = self.loader, self.recipe
        epoch = loader.epoch + 1 - left / loader.steps(loader.epoch)
        return learning_rate(recipe.schedule, self.step, epoch, recipe.epochs)

    def _check(self, figures: dict[str, float]) -> None:
        bad = {name: value for name, value in figures.items() if not math.isfinite(value)}
        if bad:
            names = ", ".join(f"{name} {value}" for name, value in bad.items())
            engine = self.recipe.engine
            cures = ["a lower schedule.learning_rate"]
            cures.append("engine.clip_norm" if engine.clip_norm is None else "a lower engine.clip_norm")
            cures += ["engine.precision float32"] if engine.precision != "float32" else []
            way = "start again"
            if checkpoint.exists(self.out):
                way = "go on from the last checkpoint by --resume"
            raise ConfigError(
                f"step {self.step + 1} is not finite ({names}) and was not taken: {way} "
                f"with {', '.join(cures[:-1])} or {cures[-1]}"
            )

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
        self._is_evaluated = self._held is None
        self._save()
        self._check_read()
        if not self._is_evaluated:
            self._evaluate(journal)

    def _tell_skipped(self, split: Split, loader: Loader, journal: Journal | None) -> None:
        """Say and log how many samples of an epoch were skipped, if any, and why."""
        found = self.process.gather(loader.outcomes)
        skipped = {reason: count for reason, count in sorted(found.items()) if reason != READ}
        if not skipped:
            return
        reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.items())
        count, epoch = sum(skipped.values()), self.loader.epoch
        self._say(f"epoch {epoch}: {count} of {found.total()} samples of {split} were skipped: {reasons}")
        if journal is not None:
            position = {"step": self.step, "epoch": epoch, "split": split}
            journal.write(position | {"read": found[READ], "skipped": skipped})

    def _check_read(self) -> None:
        """Raise ConfigError if no sample of the latest epoch could be read: nothing was learned in it."""
        found = self.process.gather(self.loader.outcomes)
        if found and not found[READ]:
            raise ConfigError(
                f"no sample of epoch {self.loader.epoch} could be read ({', '.join(sorted(found))}), so "
                "nothing was learned: repair the dataset, or raise data.max_pixels, and start again"
            )

    def _evaluate(self, journal: Journal | None) -> None:
        """Validate the weights of the last checkpoint, and make it `best` if it is."""
        best = self._held is not None and self._is_best(self._held, journal)
        self._is_evaluated = True
        state = self._state()
        if self.process.first:
            checkpoint.record_evaluation(self.out, state, best=best)
        self.process.wait()

    def _is_best(self, held: Loader, journal: Journal | None) -> bool:
        """Validate; tells whether the loss is the lowest yet, which it is not where none can be measured."""
        loss = self._validate(held)
        self._tell_skipped("val", held, journal)
        if loss is None:
            self._say(f"epoch {self.loader.epoch}: no sample of val is left: no val_tagging, and no best")
            return False
        if journal is not None:
            journal.write({"step": self.step, "epoch": self.loader.epoch, "val_tagging": loss})
        if best := loss < self.best:
            self.best = loss
        return best

    @torch.no_grad()
    def _validate(self, loader: Loader) -> float | None:
        """Measure the mean tagging loss of an example, by the weights that are saved; None without any."""
        model = self._result().eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.process.device)
        for given in loader:
            batch = given.to(self.process.device)
            with self._autocast():
                logits = model.score(model.encode(batch.images))
            has_caption = torch.tensor([bool(text) for text in batch.captions], device=self.process.device)
            sums[0] += self._objective.tagging(logits, batch, has_caption)
            sums[1] += batch.valid.sum()
        model.train()
        total, count = self.process.sum(sums).tolist()
        return total / count if count else None

    def _result(self) -> Model:
        """Give the model that is validated and saved: the averaged one, if there is one."""
        return self.model if self._average is None else self._average.module

    def _save(self) -> None:
        """Write a checkpoint."""
        state = self._state()
        if self.process.first:
            tensors = checkpoint.pack_optimizer(self._optimizer, self._names)
            if self._average is not None:
                moving = dict(zip(self._names, self._trained, strict=True)) | dict(self.model.named_buffers())
                tensors |= {f"model/{name}": value for name, value in moving.items()}
            checkpoint.save(self.out, self.step, self._result(), Saved(tensors, state), vocab=self._vocab)
        self.process.wait()

    def _state(self) -> dict[str, Any]:
        """Give a checkpoint's state; counts of skipped samples and the like are those of all processes."""
        gather, loader = self.process.gather, self.loader.state_dict()
        loader |= {name: dict(gather(Counter(loader[name]))) for name in COUNTS}
        return {
            "step": self.step,
            "best": self.best,
            "evaluated": self._is_evaluated,
            "loader": loader,
            "recipe": self._lasting,
        }

    def _saved(self, resume: bool) -> Saved | None:
        if resume:
            saved = checkpoint.load(self.out)
            resuming.check_lasting(saved.state.get("recipe", self._lasting), self._lasting)
            return saved
        if checkpoint.exists(self.out):
            raise ConfigError(f"{self.out} has a training already: go on by --resume, or name another out")
        return None

    def _restore(self, saved: Saved) -> None:
        self.step, self.best = int(saved.state["step"]), float(saved.state["best"])
        self._is_evaluated = bool(saved.state.get("evaluated", True))
        loader = saved.state["loader"]
        if not self.process.first:  # the counts are those of all processes: one of them goes on with them
            loader = loader | {name: {} for name in COUNTS}
        self.loader.load_state_dict(loader)
        checkpoint.unpack_optimizer(self._optimizer, self._names, saved)
        if self._average is not None:
            raw = {key[6:]: value for key, value in saved.tensors.items() if key.startswith("model/")}
            self.model.load_state_dict(raw, strict=False)
            self._average.n_averaged.fill_(self.step)

    def _held_out(self, config: RamConfig) -> Loader | None:
        if not self.recipe.validation:
            return None
        return self._open("val", config)

    def _open(self, split: Split, config: RamConfig) -> Loader:
        process = self.process
        return open_loader(
            self.recipe.data, config, split, rank=process.rank, world=process.world, decisions=self._decisions
        )
