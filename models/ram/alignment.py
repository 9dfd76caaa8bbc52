"""The image-text alignment branch of Tag2Text (arXiv 2303.05657, 3.3 and A): ITC and ITM, after BLIP.

A text is compared with images twice: as a whole with whole images, by a product of two vectors (image-text
contrast, ITC), and word piece by word piece with an image's tokens (image-text matching, ITM). Both read it
by one BERT, whose attention to the image is left out for the first. The paper shares that attention with the
caption decoder; in the published sizes the decoder looks at 768 numbers and Swin-B gives 1,024, so here it
is the branch's own.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.bert import TextEncoder
from tagmill.models.ram.config import AlignmentConfig, TextConfig

INITIAL_SCALE, LARGEST_SCALE = math.log(1 / 0.07), math.log(100)
"""Logarithms of the factor on image-text products: where it starts, and the bound that CLIP sets it."""


class Alignment(nn.Module):
    """Scores how well texts fit images. Texts are ids [R, T] with a mask, as `WordPieces.sentence` gives."""

    def __init__(self, config: AlignmentConfig, text: TextConfig, hidden: int, width: int) -> None:
        super().__init__()
        self.encoder = TextEncoder(text, hidden, width)
        self.image_projection = nn.Linear(width, config.dimension)
        self.text_projection = nn.Linear(hidden, config.dimension)
        self.matching = nn.Linear(hidden, 1)
        self.scale = nn.Parameter(torch.tensor(INITIAL_SCALE))

    @property
    def factor(self) -> Tensor:
        """What products of features are multiplied by to be logits, at most 100."""
        return self.scale.clamp(max=LARGEST_SCALE).exp()

    def image_features(self, tokens: Tensor) -> Tensor:
        """Encoded images [B, 1 + N, width] as vectors of length 1: [B, dimension]."""
        return F.normalize(self.image_projection(tokens[:, 0]), dim=-1)

    def text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Texts as vectors of length 1: [R, dimension]."""
        return F.normalize(self.text_projection(self.encoder(ids, mask, None)[:, 0]), dim=-1)

    def match(self, ids: Tensor, mask: Tensor, tokens: Tensor, images: Tensor, start: int) -> Tensor:
        """Logits [R] that each text tells what its image shows; `images` [R] are indices of tokens [B, ...].

        `start` is the piece that the texts begin with here, in place of that of a text alone.
        """
        asked = ids.clone()
        asked[:, 0] = start
        return self.matching(self.encoder(asked, mask, tokens, images)[:, 0]).squeeze(-1)
