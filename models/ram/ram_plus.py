"""RAM++ (arXiv 2310.15200): a tagger whose classes are described in several sentences each.

The image decides how much each description of a class counts; the weighted mean is the class's query
to the tagging head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.ram import Ram

INITIAL_SCALE = math.log(1 / 0.07)
"""Logarithm of the factor on image-description products, as CLIP starts."""


class RamPlus(Ram):
    """RAM with descriptions: CLIP text features of length 1 in `label_embed`."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__(config)
        self.reweight_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))

    def weigh(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Weight the descriptions [C, D, dimension] of each class by the image: [B, C, D], their sum 1."""
        image = F.normalize(tokens[:, 0], dim=-1) * self.reweight_scale.exp()
        return (labels @ image.T).softmax(1).permute(2, 0, 1)

    def describe(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Make one vector a class of its descriptions [C, D, dimension]: [B, C, dimension]."""
        weights = self.weigh(tokens, labels).transpose(0, 1)
        # One product a class for all images: [C, B, D] x [C, D, K], never [B, C, D, K] in memory.
        return torch.bmm(weights, labels).transpose(0, 1)

    def align(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """Score texts on encoded images: unit text features [T, dimension] to logits [B, T]."""
        return self.decode(tokens, texts.unsqueeze(0), self.head.remember(tokens))
