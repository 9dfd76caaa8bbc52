"""The tagging loss and its gradient, some classes at a time: the head never holds all classes' activations.

A class's logit depends on no other class, and the loss is a sum over logits. So what the backward pass needs
of some classes can be used up, and forgotten, before the next ones are scored: each is computed once, as
ever, and memory is that of one piece. (Liger's fused cross-entropy, arXiv 2410.10989, does so for words.)
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tagmill.models.ram.attention import Memory
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.store import Model

ROWS = {"cpu": 4096}
"""Queries (images * classes) of a piece by device: enough for products at full rate, few for the memory."""

ROWS_ELSEWHERE = 32_768

LossOf = Callable[[Tensor, slice], Tensor]
"""Logits [B, c] of the classes in a slice -> their part of the loss."""


def streamed_loss(model: Model, tokens: Tensor, loss_of: LossOf) -> Tensor:
    """Sum a loss over all classes of encoded images [B, 1 + N, width], and prepare its gradient.

    The same as `loss_of(model.score(tokens), slice(None))` but for rounding (and for dropout, which is drawn
    piece by piece), where `loss_of` is a sum over logits. It can be differentiated once.
    """
    memories = [memory for layer in model.head.remember(tokens) for memory in layer]
    weights = [value for name, value in model.named_parameters() if value.requires_grad and _scores(name)]
    return _Streamed.apply(_Work(model, loss_of), tokens, *memories, *weights)


def _scores(name: str) -> bool:
    """Tell whether a parameter takes part in scoring encoded images; unused ones of the head do no harm."""
    return not name.startswith(("encoder.", "image_projection.", "text.", "alignment."))


class _Work:
    """Scores the pieces one after the other; gives each one's loss."""

    def __init__(self, model: Model, loss_of: LossOf) -> None:
        self._model: Any = model
        self._loss_of = loss_of

    @property
    def layers(self) -> int:
        """Count the layers of the head."""
        return len(self._model.head.layers)

    def slices(self, images: int, device: torch.device) -> list[slice]:
        """Cut the classes into pieces of nearly the same size."""
        classes = len(self._model.config.classes)
        count = -(-images * classes // ROWS.get(device.type, ROWS_ELSEWHERE))
        ends = [classes * at // count for at in range(count + 1)]
        return [slice(start, stop) for start, stop in pairwise(ends) if stop > start]

    def loss(self, tokens: Tensor, memories: list[Memory], classes: slice) -> Tensor:
        """Score the classes in a slice and take their loss."""
        model = self._model
        if isinstance(model, Ram):
            asked = model.labels[classes]
        else:
            asked = torch.arange(classes.start, classes.stop, device=tokens.device)
        return self._loss_of(model.score_part(tokens, memories, asked), classes)


class _Streamed(torch.autograd.Function):
    """Work, tokens, keys and values of each layer, and weights -> the loss."""

    @staticmethod
    def forward(ctx: Any, work: _Work, tokens: Tensor, *inputs: Tensor) -> Tensor:
        layers = work.layers
        leaves = [
            value.detach().requires_grad_(value.requires_grad) for value in (tokens, *inputs[: 2 * layers])
        ]
        memories = [Memory(*leaves[at : at + 2]) for at in range(1, 1 + 2 * layers, 2)]
        wanted = [value for value in (*leaves, *inputs[2 * layers :]) if value.requires_grad]
        # Sums of many pieces would lose what is small in half precision.
        sums = [
            torch.zeros_like(value, dtype=torch.promote_types(value.dtype, torch.float32)) for value in wanted
        ]
        total: Any = 0.0
        for classes in work.slices(len(tokens), tokens.device):
            with torch.enable_grad():
                loss = work.loss(leaves[0], memories, classes)
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
            for whole, part in zip(sums, found, strict=True):
                if part is not None:
                    whole += part
            total = total + loss.detach()
        ctx.gradients = zip(sums, [value.dtype for value in wanted], strict=True)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = ((whole * gradient).to(dtype) for whole, dtype in ctx.gradients)
        return tuple(next(found) if need else None for need in ctx.needs_input_grad)
