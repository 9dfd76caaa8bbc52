"""The text side's BERTs (arXiv 1810.04805): one reads texts beside an image, one writes captions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.attention import EPS, Attention, FeedForward, Memory
from tagmill.models.ram.config import TextConfig
from tagmill.models.ram.tagging_head import HeadLayer


class Embedding(nn.Module):
    """Word pieces and their positions as vectors."""

    def __init__(self, config: TextConfig, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(config.tokens, hidden, padding_idx=0)
        self.positions = nn.Embedding(config.positions, hidden)
        self.norm = nn.LayerNorm(hidden, EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, first: int = 0) -> Tensor:
        """Embed ids [B, n] that stand from position `first`: [B, n, hidden]."""
        places = torch.arange(first, first + ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.words(ids) + self.positions(places)))


class TextLayer(nn.Module):
    """Self-attention, attention to something else, feed-forward.

    With `shared`, the last two are the modules of a layer of the tagging head, split into this
    layer's own number of heads.
    """

    def __init__(self, config: TextConfig, hidden: int, width: int, shared: HeadLayer | None = None) -> None:
        super().__init__()
        self._heads = config.heads
        self.attention = Attention(hidden, hidden, config.heads, config.dropout)
        if shared is None:
            self.cross = Attention(hidden, width, config.heads, config.dropout)
            self.feed_forward = FeedForward(hidden, config.inner, config.dropout)
            self._rest = (self.cross, self.feed_forward)
        else:
            # A tuple is not searched for parameters: those of the head are saved and trained there.
            self._rest = (shared.attention, shared.feed_forward)

    def see(self, tokens: Tensor) -> Memory:
        """Project what the second attention looks at, [B, N, width]."""
        return self._rest[0].remember(tokens, self._heads)

    def forward(self, rows: Tensor, own: Memory, seen: Memory | None, mask: Tensor | None) -> Tensor:
        """Rows [R, n, hidden] to the same; `own` is the memory of all rows so far.

        `seen` is that of B images, and R a multiple of B: an image's rows stand together and look at
        the same, so nothing of it is repeated for each. Without it the second attention is left out.
        """
        cross, feed_forward = self._rest
        rows = self.attention(rows, own, mask)
        if seen is None:
            return feed_forward(rows)
        by_image = rows.reshape(seen.keys.shape[0], -1, rows.shape[2])
        return feed_forward(cross(by_image, seen)).reshape(rows.shape)


class TextEncoder(nn.Module):
    """Reads a text, with an eye on an image or without; its first layers can share those of the head."""

    def __init__(self, config: TextConfig, hidden: int, width: int, shared: Sequence[HeadLayer] = ()) -> None:
        super().__init__()
        self.embedding = Embedding(config, hidden)
        layers = [*shared, *[None] * (config.layers - len(shared))]
        self.layers: Any = nn.ModuleList(TextLayer(config, hidden, width, layer) for layer in layers)

    def forward(
        self, ids: Tensor, mask: Tensor, tokens: Tensor | None, images: Tensor | None = None
    ) -> Tensor:
        """Ids and mask [R, T], image tokens [B, N, width], to [R, T, hidden].

        `images` [R] says which image each text looks at, by default its own of as many. Without tokens
        the texts are read alone.
        """
        rows, padding = self.embedding(ids), mask.bool()[:, None, None]
        for layer in self.layers:
            seen = None if tokens is None else layer.see(tokens)
            if seen is not None and images is not None:
                seen = seen.pick(images)
            rows = layer(rows, layer.attention.remember(rows), seen, padding)
        return rows


class TextDecoder(nn.Module):
    """Writes a text word piece by word piece, looking at what the tag encoder gave."""

    def __init__(self, config: TextConfig, hidden: int) -> None:
        super().__init__()
        self.embedding = Embedding(config, hidden)
        self.layers: Any = nn.ModuleList(TextLayer(config, hidden, hidden) for _ in range(config.layers))
        self.transform = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden, EPS)
        self.bias = nn.Parameter(torch.zeros(config.tokens))

    def see(self, rows: Tensor) -> list[Memory]:
        """Project the tag encoder's output [B, T, hidden] for each layer, once a caption."""
        return [layer.see(rows) for layer in self.layers]

    def forward(
        self, ids: Tensor, seen: Sequence[Memory], past: Sequence[Memory] = (), mask: Tensor | None = None
    ) -> tuple[Tensor, list[Memory]]:
        """Read ids [R, n] that follow what `past` remembers; return logits [R, n, tokens] and the memory.

        `mask` [R, n] is 0 on padding, for a whole text without past.
        """
        start = past[0].keys.shape[2] if past else 0
        rows, sight, memories = self.embedding(ids, start), _sight(ids.shape[1], start, mask, ids.device), []
        for i, layer in enumerate(self.layers):
            memory = layer.attention.remember(rows)
            if past:
                memory = Memory(*(torch.cat(pair, 2) for pair in zip(past[i], memory, strict=True)))
            memories.append(memory)
            rows = layer(rows, memory, seen[i], sight)
        rows = self.norm(F.gelu(self.transform(rows)))
        return F.linear(rows, self.embedding.words.weight, self.bias), memories


def _sight(count: int, start: int, mask: Tensor | None, device: torch.device) -> Tensor | None:
    """Say what each of the last `count` places may see: itself and those before, but no padding."""
    if count == 1 and mask is None:
        return None
    causal = torch.ones(count, start + count, dtype=torch.bool, device=device).tril(start)
    return causal[None, None] if mask is None else causal & mask.bool()[:, None, None]
