"""The text side of RAM and Tag2Text: an image's tags, read beside the image, become a caption."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.attention import Memory
from tagmill.models.ram.beam_search import Hypothesis, Search, search
from tagmill.models.ram.bert import TextDecoder, TextEncoder
from tagmill.models.ram.config import TextConfig
from tagmill.models.ram.tagging_head import TaggingHead

IGNORED = -100
"""Target where nothing is to be predicted."""

SMOOTHING = 0.1


class TextSide(nn.Module):
    """Tag encoder, whose first layers are those of the tagging head, and text decoder."""

    def __init__(self, config: TextConfig, head: TaggingHead, width: int) -> None:
        super().__init__()
        hidden = head.layers[0].attention.query.in_features
        self.tag_encoder = TextEncoder(config, hidden, width, list(head.layers))
        self.decoder = TextDecoder(config, hidden)

    def read(self, ids: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
        """Encode tag texts [B, T] with their mask beside image tokens [B, N, width]: [B, T, hidden]."""
        return self.tag_encoder(ids, mask, tokens)

    def predict(self, read: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, L, tokens] of what follows each place of the texts [B, L]."""
        return self.decoder(ids, self.decoder.see(read), mask=mask)[0]

    def loss(self, read: Tensor, ids: Tensor, mask: Tensor, prompt: int) -> Tensor:
        """Cross-entropy, smoothed by 0.1, of the texts' tokens after the first `prompt`: their mean."""
        targets = ids.masked_fill(mask == 0, IGNORED)
        targets[:, :prompt] = IGNORED
        logits = self.predict(read, ids, mask)[:, :-1]
        return F.cross_entropy(
            logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED, label_smoothing=SMOOTHING
        )

    @torch.no_grad()
    def write(self, read: Tensor, prompt: Sequence[int], end: int, how: Search) -> list[Hypothesis]:
        """Write a text for each image from what `read` gave; it begins with the prompt."""
        return search(_CachedDecoder(self.decoder, self.decoder.see(read)), prompt, len(read), end, how)


class _CachedDecoder:
    """Fits `beam_search.BeamDecoder`: a text's past is remembered by row, what it looks at by image."""

    def __init__(self, decoder: TextDecoder, seen: list[Memory]) -> None:
        self._decoder, self._seen = decoder, seen
        self._past: list[Memory] = []

    def start(self, prompt: Sequence[int]) -> Tensor:
        count = self._seen[0].keys.shape[0]
        return self._read(torch.tensor([list(prompt)] * count))

    def advance(self, ids: Sequence[int], rows: Sequence[int], images: Sequence[int]) -> Tensor:
        device = self._seen[0].keys.device
        kept = torch.tensor(rows, device=device)
        self._past = [memory.pick(kept) for memory in self._past]
        if len(images) < self._seen[0].keys.shape[0]:
            left = torch.tensor(images, device=device)
            self._seen = [memory.pick(left) for memory in self._seen]
        return self._read(torch.tensor(ids)[:, None])

    def _read(self, ids: Tensor) -> Tensor:
        device = self._seen[0].keys.device
        logits, self._past = self._decoder(ids.to(device), self._seen, self._past)
        return logits[:, -1]
