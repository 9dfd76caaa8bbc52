"""RAM++ (arXiv 2310.15200): a tagger whose classes are described in several sentences each.

The image decides how much each description of a class counts; the weighted mean is the class's query
to the tagging head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.attention import Memory
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.encoder import Encoder
from tagmill.models.ram.tagging_head import Folded, TaggingHead

CHUNK = 1024
"""Classes that go through the head at a time: bounds the memory; fewer make the products too small."""

INITIAL_SCALE = math.log(1 / 0.07)
"""Logarithm of the factor on image-description products, as CLIP starts."""


class RamPlus(nn.Module):
    """The model of a config; weights are random, and label embeddings zero, until they are loaded.

    `label_embed` [classes * descriptions, dimension], a class's descriptions in a row, are CLIP text
    features of length 1; they are not trained unless `requires_grad` is set on them.
    """

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.config = config
        hidden, count = config.head.hidden, len(config.classes) * config.descriptions
        self.encoder = Encoder(config.encoder, config.image_size)
        self.image_projection = nn.Linear(config.encoder.width, config.dimension)
        self.label_embed = nn.Parameter(torch.zeros(count, config.dimension), requires_grad=False)
        self.reweight_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.label_projection = nn.Linear(config.dimension, hidden)
        self.head = TaggingHead(config.head, config.dimension)
        self.score_projection = nn.Linear(hidden, 1)

    def set_labels(self, embeddings: Tensor) -> None:
        """Replace the label embeddings; ValueError unless they have the shape of `label_embed`."""
        if embeddings.shape != self.label_embed.shape:
            raise ValueError(
                f"label embeddings must be {tuple(self.label_embed.shape)}, got {tuple(embeddings.shape)}"
            )
        with torch.no_grad():
            self.label_embed.copy_(embeddings)

    @property
    def labels(self) -> Tensor:
        """Label embeddings by class: [classes, descriptions, dimension]; index it to ask some classes."""
        return self.label_embed.unflatten(0, (-1, self.config.descriptions))

    def forward(self, images: Tensor) -> Tensor:
        """Score every class: normalised images [B, 3, S, S] to logits [B, classes]."""
        return self.score(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """Images to tokens [B, 1 + N, dimension]; the first, their mean, is like a CLIP image feature."""
        return self.image_projection(self.encoder(images))

    def score(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score classes on encoded images: logits [B, C].

        `labels` [C, any number of descriptions, dimension] are other classes than the model's own, or
        rows of `self.labels`: a class scores the same whichever others are asked with it.
        """
        labels = self.labels if labels is None else labels
        memories = self.head.remember(tokens)
        # With gradients all that a chunk makes is kept, so that chunks would save nothing.
        size = len(labels) if torch.is_grad_enabled() else CHUNK
        parts = [
            self._decode(self.describe(tokens, part)[0], memories) for part in labels.split(max(size, 1))
        ]
        return torch.cat(parts, 1)

    def describe(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Weight the descriptions of each class by the image.

        Returns the label embeddings [B, C, dimension] and the weights [B, C, descriptions].
        """
        image = F.normalize(tokens[:, 0], dim=-1) * self.reweight_scale.exp()
        weights = (labels @ image.T).softmax(1).transpose(1, 2)
        # One product a class for all images: [C, B, D] x [C, D, K], never [B, C, D, K] in memory.
        return torch.bmm(weights, labels).transpose(0, 1), weights.transpose(0, 1)

    def align(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Score texts on encoded images: unit text features [T, dimension] to logits [B, T]."""
        return self._decode(texts.expand(len(tokens), -1, -1), self.head.remember(tokens))

    def _decode(self, labels: Tensor, memories: list[Memory | Folded]) -> Tensor:
        queries = F.relu(self.label_projection(labels))
        return self.score_projection(self.head(queries, memories)).squeeze(-1)
