"""The model as it learns: its weights, their moving average, the optimizer, and how a step is computed."""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tagmill.models.ram.store import Model
from tagmill.models.training import checkpoint, components, sharding
from tagmill.models.training.batches import Batch
from tagmill.models.training.checkpoint import Saved
from tagmill.models.training.finite import check_finite
from tagmill.models.training.groups import groups_of
from tagmill.models.training.objectives import Objective
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Recipe


class Learner:
    """A model in training; `objective` is over that model. `start` is called once, before the first step."""

    def __init__(self, recipe: Recipe, process: Process, model: Model, objective: Objective) -> None:
        self.model, self._recipe, self._process, self._objective = model, recipe, process, objective
        shared = sharding.is_wanted(recipe.engine, process)
        self._shared = sharding.share_out(objective, process) if shared else None
        self._average = components.average_of(model, recipe.engine)
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._names, self._trained = list(trained), list(trained.values())
        self.groups = groups_of(model, recipe)
        # The optimizer takes several tensors at once, of which then none or all are shared out.
        self._parts = [
            (group, names)
            for group in self.groups
            for kind in (True, False)
            if (names := [name for name in group.parameters if isinstance(trained[name], DTensor) == kind])
        ]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [trained[name] for name in names], "weight_decay": group.decay}
                for group, names in self._parts
            ],
            fused=True if process.device.type == "cuda" else None,
        )
        self._parallel: DistributedDataParallel | None = None

    def start(self) -> None:
        """Prepare the model for how it is to be computed, and on how many processes."""
        components.prepare(self.model, self._recipe.engine)
        if self._process.world > 1 and self._shared is None:
            self._parallel = DistributedDataParallel(self._objective)

    @property
    def _grouped(self) -> list[str]:
        """List the parameters in the order of the optimizer."""
        return [name for _, names in self._parts for name in names]

    @property
    def result(self) -> Model:
        """The model that is validated and saved: the averaged one, if there is one."""
        result: Model = self.model if self._average is None else self._average.module
        return result

    def update(
        self,
        batches: Iterator[Batch],
        count: int,
        *,
        step: int,
        rate: float,
        seed: Callable[[int], int],
        stop: bool,
    ) -> tuple[dict[str, float], bool]:
        """Take a step of the optimizer, of `count` batches, one of which is held at a time.

        `seed` is what chance is drawn from for each batch by its number. Gives the figures of the step, means
        over all processes, and whether any of them is to stop. Raises ConfigError for a loss or gradient that
        is not finite.
        """
        engine, process = self._recipe.engine, self._process
        for options, (group, _) in zip(self._optimizer.param_groups, self._parts, strict=True):
            options["lr"] = rate * group.rate
        self._optimizer.zero_grad()
        terms = []
        for at, batch in enumerate(batches):
            torch.manual_seed(seed(at))
            terms.append(self._backward(batch, at, count))
        norm = self._clip(engine.clip_norm or math.inf)
        names = list(terms[0])
        losses = torch.stack([torch.stack([found[name] for name in names]) for found in terms]).mean(0)
        stops = torch.tensor([float(stop)], device=process.device)
        *means, stopping = process.mean(torch.cat([losses, stops])).tolist()
        figures = dict(zip(names, means, strict=True)) | {"gradient": norm.item(), "rate": rate}
        check_finite(figures, step, engine, saved=self._is_saved)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self.model)
        return figures, stopping > 0

    def _backward(self, batch: Batch, at: int, count: int) -> dict[str, Tensor]:
        """Add a batch's gradient; processes exchange it with the last batch of a step."""
        whole = self._parallel if self._parallel is not None else self._objective
        apart = self._parallel is not None and at < count - 1
        if self._shared is not None:
            self._shared.set_requires_gradient_sync(at == count - 1)
        with self._parallel.no_sync() if apart and self._parallel else contextlib.nullcontext():
            with self.autocast():
                terms = whole(batch.to(self._process.device))
            (terms["total"] / count).backward()
        return {name: value.detach() for name, value in terms.items()}

    def _is_saved(self) -> bool:
        return checkpoint.exists(self._recipe.folder)

    def _clip(self, most: float) -> Tensor:
        if self._shared is not None:
            return sharding.clip(self._trained, most, self._process)
        return nn.utils.clip_grad_norm_(self._trained, most)

    def autocast(self) -> torch.autocast:
        """Compute at the precision of the recipe."""
        half = self._recipe.engine.precision == "bfloat16"
        return torch.autocast(self._process.device.type, torch.bfloat16, enabled=half)

    def weights(self) -> dict[str, Tensor] | None:
        """Put the weights of `result` together in the first process, where they are shared out.

        As `state`, to be called in all processes.
        """
        return None if self._shared is None else sharding.gather(self.model.state_dict(), self._process)

    def state(self) -> dict[str, Tensor]:
        """Give what a checkpoint keeps beside `result`."""
        tensors = checkpoint.pack_optimizer(self._optimizer, self._grouped)
        if self._average is not None:
            moving = dict(zip(self._names, self._trained, strict=True)) | dict(self.model.named_buffers())
            tensors |= {f"model/{name}": value for name, value in moving.items()}
        return tensors if self._shared is None else sharding.gather(tensors, self._process)

    def restore(self, saved: Saved, step: int) -> None:
        """Go on from a checkpoint, whose `result` the model is."""
        checkpoint.unpack_optimizer(self._optimizer, self._grouped, saved)
        if self._average is not None:
            raw = {key[6:]: value for key, value in saved.tensors.items() if key.startswith("model/")}
            self.model.load_state_dict(raw, strict=False)
            self._average.n_averaged.fill_(step)
