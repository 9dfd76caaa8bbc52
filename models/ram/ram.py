"""RAM (arXiv 2306.03514): a tagger that knows its classes by CLIP text features of their names."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.attention import Memory
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.encoder import Encoder
from tagmill.models.ram.tagging_head import Folded, TaggingHead, chunks
from tagmill.models.ram.text_side import TextSide


class Ram(nn.Module):
    """The model of a config; weights are random, and label embeddings zero, until they are loaded.

    `label_embed` [classes * descriptions, dimension], a class's descriptions in a row (RAM has one),
    are CLIP text features; they are not trained unless `requires_grad` is set on them. `text` is None
    unless the config has a text side.
    """

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.config = config
        hidden, count = config.head.hidden, len(config.classes) * config.descriptions
        self.encoder = Encoder(config.encoder, config.image_size)
        self.image_projection = nn.Linear(config.encoder.width, config.dimension)
        self.label_embed = nn.Parameter(torch.zeros(count, config.dimension), requires_grad=False)
        self.label_projection = nn.Linear(config.dimension, hidden)
        self.head = TaggingHead(config.head, config.dimension)
        self.score_projection = nn.Linear(hidden, 1)
        self.text = None if config.text is None else TextSide(config.text, self.head, config.dimension)

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
        memories = self.head.remember(tokens)
        parts = chunks(self.labels if labels is None else labels, len(tokens))
        return torch.cat([self.score_part(tokens, memories, part) for part in parts], 1)

    def score_part(self, tokens: Tensor, memories: list[Memory | Folded], labels: Tensor) -> Tensor:
        """Score some classes by their labels [C, descriptions, dimension]: logits [B, C]."""
        return self.decode(tokens, self.describe(tokens, labels), memories)

    def describe(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Make one vector a class of label embeddings [C, D, dimension]: [1 or B, C, dimension]."""
        return labels.mean(1).unsqueeze(0)

    def decode(self, tokens: Tensor, vectors: Tensor, memories: list[Memory | Folded]) -> Tensor:
        """Score class or text vectors [1 or B, C, dimension] with the head: logits [B, C]."""
        queries = F.relu(self.label_projection(vectors)).expand(len(tokens), -1, -1)
        return self.score_projection(self.head(queries, memories)).squeeze(-1)
