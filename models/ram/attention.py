"""The two halves of a BERT layer (arXiv 1810.04805): attention and feed-forward, normalised after."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12
"""Of every LayerNorm on the text side; that of image encoders is larger."""


class Memory(NamedTuple):
    """What queries attend to: keys and values [B, heads, N, hidden / heads]."""

    keys: Tensor
    values: Tensor

    def pick(self, rows: Tensor) -> "Memory":
        """Take the memories of some of the B, by their indices [R]; one may be taken more than once."""
        return Memory(self.keys.index_select(0, rows), self.values.index_select(0, rows))


class Attention(nn.Module):
    """Multi-head attention to a memory, residual and LayerNorm.

    The number of heads is not part of the weights: it is the memory's, `heads` by default.
    """

    def __init__(self, hidden: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden, EPS)
        self.dropout = nn.Dropout(dropout)

    def remember(self, tokens: Tensor, heads: int | None = None) -> Memory:
        """Project what is attended to, [B, N, width], once for any number of queries."""
        heads = heads or self.heads
        return Memory(_split(self.key(tokens), heads), _split(self.value(tokens), heads))

    def forward(self, queries: Tensor, memory: Memory, mask: Tensor | None = None) -> Tensor:
        """Attend: [B, Q, hidden] to the same; `mask` [B, 1, Q or 1, N] is True where N may be seen."""
        found = F.scaled_dot_product_attention(
            _split(self.query(queries), memory.keys.shape[1]),
            memory.keys,
            memory.values,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        joined = self.output(found.transpose(1, 2).flatten(2))
        return self.norm(queries + self.dropout(joined))


class FeedForward(nn.Module):
    """Two linear layers with the exact GELU between them, residual and LayerNorm."""

    def __init__(self, hidden: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, inner)
        self.output = nn.Linear(inner, hidden)
        self.norm = nn.LayerNorm(hidden, EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, Q, hidden] to the same."""
        inner = self.inner(rows)
        # The largest tensor of the layer: without gradients it is not made a second time.
        inner = F.gelu(inner) if inner.requires_grad else torch.ops.aten.gelu_(inner)
        return self.norm(rows + self.dropout(self.output(inner)))


def _split(rows: Tensor, heads: int) -> Tensor:
    """[B, N, hidden] to [B, heads, N, hidden / heads]."""
    return rows.unflatten(2, (heads, -1)).transpose(1, 2)
