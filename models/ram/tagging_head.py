"""The tagging head: label queries look at the image, and never at each other (arXiv 2107.10834).

So a class's score is the same whichever classes are asked beside it, in whatever chunks.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tagmill.models.ram.attention import Attention, FeedForward, Memory
from tagmill.models.ram.config import HeadConfig

CHUNK, LEAST = 1024, 256
"""Most and fewest classes that go through the head at a time; fewer make the products too small."""

QUERIES = 2048
"""Classes times images that go through the head at a time, between these two: bounds the memory."""


def chunks(labels: Tensor, batch: int) -> tuple[Tensor, ...]:
    """Cut labels [C, ...] into pieces, the smaller the larger the batch of images.

    With gradients there is one piece: all that it makes is kept, so that smaller ones save nothing.
    """
    if torch.is_grad_enabled():
        return labels.split(max(len(labels), 1))
    return labels.split(min(CHUNK, max(LEAST, QUERIES // max(batch, 1))))


class Folded(NamedTuple):
    """An image's memory with the layer's own projections of queries and results multiplied in.

    `keys` [B, hidden, heads * N] and `bias` [B, 1, heads * N] make a query's attention logits,
    `values` [B, heads * N, hidden] the layer's output.
    """

    keys: Tensor
    bias: Tensor
    values: Tensor


class HeadLayer(nn.Module):
    """One layer: cross-attention and feed-forward."""

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        self.attention = Attention(config.hidden, width, config.heads, config.dropout)
        self.feed_forward = FeedForward(config.hidden, config.inner, config.dropout)

    def remember(self, tokens: Tensor) -> Memory | Folded:
        """Project the image tokens [B, N, width] once; folded where that saves work for the queries."""
        memory = self.attention.remember(tokens)
        hidden, count = self.attention.query.in_features, tokens.shape[1]
        folding_saves = self.attention.heads * count < hidden + count
        if folding_saves and not (self.training or torch.is_grad_enabled()):
            return _fold(self.attention, memory)
        return memory

    def forward(self, queries: Tensor, memory: Memory | Folded) -> Tensor:
        """[B, Q, hidden] to the same."""
        if isinstance(memory, Folded):
            return self.feed_forward(_attend(self.attention, queries, memory))
        return self.feed_forward(self.attention(queries, memory))


class TaggingHead(nn.Module):
    """The layers, from label queries and image tokens to what the scores are read from."""

    def __init__(self, config: HeadConfig, width: int) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(HeadLayer(config, width) for _ in range(config.layers))

    def remember(self, tokens: Tensor) -> list[Memory | Folded]:
        """Project the image tokens [B, N, width] for each layer, for any number of queries."""
        return [layer.remember(tokens) for layer in self.layers]

    def forward(self, queries: Tensor, memories: list[Memory | Folded]) -> Tensor:
        """Decode queries [B, Q, hidden] to the same shape."""
        for layer, memory in zip(self.layers, memories, strict=True):
            queries = layer(queries, memory)
        return queries


def _fold(attention: Attention, memory: Memory) -> Folded:
    """Multiply out: few image tokens against thousands of queries make this the cheaper order."""
    heads = attention.heads
    of_query = attention.query.weight.unflatten(0, (heads, -1))
    of_output = attention.output.weight.unflatten(1, (heads, -1))
    keys = memory.keys * memory.keys.shape[-1] ** -0.5
    bias = torch.einsum("bhnd,hd->bhn", keys, attention.query.bias.unflatten(0, (heads, -1)))
    return Folded(
        torch.einsum("bhnd,hdk->bkhn", keys, of_query).flatten(2),
        bias.flatten(1).unsqueeze(1),
        torch.einsum("bhnd,khd->bhnk", memory.values, of_output).flatten(1, 2),
    )


def _attend(attention: Attention, queries: Tensor, folded: Folded) -> Tensor:
    logits = torch.baddbmm(folded.bias, queries, folded.keys)
    weights = logits.unflatten(2, (attention.heads, -1)).softmax(3).flatten(2)
    found = torch.baddbmm(attention.output.bias, weights, folded.values)
    return attention.norm(found.add_(queries))
