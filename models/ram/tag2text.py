"""Tag2Text (arXiv 2303.05657): tags an image, and writes a caption that its tags guide."""

import torch
from torch import Tensor, nn

from tagmill.models.ram.alignment import Alignment
from tagmill.models.ram.attention import Memory
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.encoder import Encoder
from tagmill.models.ram.tagging_head import Folded, TaggingHead, chunks
from tagmill.models.ram.text_side import TextSide


class Tag2Text(nn.Module):
    """The model of a config, which has a text side; weights are random until they are loaded.

    Each class has a learned query in `label_embed` [classes, hidden], and weights and a bias of its
    own by which its score is read. `alignment` is None unless the config has it.
    """

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        if config.text is None:
            raise ValueError("Tag2Text needs a text side in its config")
        self.config = config
        count, hidden = len(config.classes), config.head.hidden
        self.encoder = Encoder(config.encoder, config.image_size)
        self.head = TaggingHead(config.head, config.encoder.width)
        self.label_embed = nn.Parameter(torch.randn(count, hidden) / 50)
        self.score_weight = nn.Parameter(torch.randn(1, count, hidden) * hidden**-0.5)
        self.score_bias = nn.Parameter(torch.zeros(1, count))
        self.text = TextSide(config.text, self.head, config.encoder.width)
        self.alignment = (
            None
            if config.alignment is None
            else Alignment(config.alignment, config.text, hidden, config.encoder.width)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score every class: normalised images [B, 3, S, S] to logits [B, classes]."""
        return self.score(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """Images to tokens [B, 1 + N, width]."""
        return self.encoder(images)

    def score(self, tokens: Tensor, classes: Tensor | None = None) -> Tensor:
        """Score classes, given by their indices or all, on encoded images: logits [B, C]."""
        if classes is None:
            classes = torch.arange(len(self.label_embed), device=tokens.device)
        memories = self.head.remember(tokens)
        return torch.cat(
            [self.score_part(tokens, memories, part) for part in chunks(classes, len(tokens))], 1
        )

    def score_part(self, tokens: Tensor, memories: list[Memory | Folded], classes: Tensor) -> Tensor:
        """Score some classes by their indices [C]: logits [B, C]."""
        queries = self.label_embed[classes].expand(len(tokens), -1, -1)
        found = (self.head(queries, memories) * self.score_weight[:, classes]).sum(2)
        return found + self.score_bias[:, classes]
