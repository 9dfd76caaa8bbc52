"""The two sides of a Grounding DINO, until they meet: an image is seen once, and a text read once.

The network of transformers runs both for each pair of an image and a text. Here its two backbones are
wrapped, so that the pairs of one image share what it looks like, and those of one text what it says.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Ids = tuple[int, ...]
"""The tokens of a text, without padding."""


class ImagesOnce(nn.Module):
    """Stands for the image backbone: gives its features of the chosen rows of what was seen last."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self._backbone = backbone
        self.position_embedding = backbone.position_embedding
        self._seen: Any = None
        self._rows: list[int] = []

    def see(self, pixels: Tensor, inside: Tensor) -> None:
        """Look at images: pixels (n, 3, height, width), and where they are not padding (n, height, width)."""
        self._seen = self._backbone(pixels, inside)

    def choose(self, rows: Sequence[int]) -> None:
        """Choose the images of the next forward, in its order."""
        self._rows = list(rows)

    def forget(self) -> None:
        """Let the features go."""
        self._seen = None

    def forward(self, pixels: Tensor, inside: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """Give features and masks, and position embeddings, by level; what is passed was seen before."""
        features, positions = self._seen
        if self._rows == list(range(len(positions[0]))):
            return list(features), list(positions)
        return [(one[self._rows], mask[self._rows]) for one, mask in features], [
            one[self._rows] for one in positions
        ]


@dataclass(frozen=True)
class _Read:
    last_hidden_state: Tensor


class TextsOnce(nn.Module):
    """Stands for the text backbone: reads a forward's distinct texts, and keeps those that come again."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self._backbone = backbone
        self._expected: Counter[Ids] = Counter()
        self._kept: dict[Ids, Tensor] = {}
        self._texts: list[Ids] = []

    def expect(self, texts: Iterable[Ids]) -> None:
        """Say which texts are to come, each as often as it does; what was kept for others is let go."""
        self._expected = Counter(texts)
        self._kept.clear()

    def choose(self, texts: Sequence[Ids]) -> None:
        """Say the texts of the next forward, in its order."""
        self._texts = list(texts)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor, positions: Tensor, **_: Any) -> _Read:
        """Give what each text says, a vector a token: (texts, tokens, width); zeros for padding."""
        new = {text: row for row, text in enumerate(self._texts) if text not in self._kept}
        read: dict[Ids, Tensor] = dict(self._kept)
        if new:
            rows = list(new.values())
            states = self._backbone(ids[rows], mask[rows], types[rows], positions[rows]).last_hidden_state
            read |= {text: state[: len(text)] for text, state in zip(new, states, strict=True)}
        found = nn.utils.rnn.pad_sequence([read[text] for text in self._texts], batch_first=True)
        self._keep({text: read[text] for text in new})
        return _Read(found)

    def _keep(self, new: dict[Ids, Tensor]) -> None:
        """Keep what comes again, and nothing that does not."""
        self._expected.subtract(text for text in self._texts if text in self._expected)
        self._kept = {text: state for text, state in self._kept.items() if self._expected[text] > 0}
        # A copy, since a row of the forward's states would hold all of them.
        self._kept |= {text: state.clone() for text, state in new.items() if self._expected[text] > 0}


def take_sides(model: Any) -> tuple[ImagesOnce, TextsOnce]:
    """Put a side in the place of each backbone of a network of transformers."""
    network = model.model
    network.backbone, network.text_backbone = ImagesOnce(network.backbone), TextsOnce(network.text_backbone)
    return network.backbone, network.text_backbone
