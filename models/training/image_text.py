"""Tag2Text's alignment of a batch's images and captions (arXiv 2303.05657, 3.3): contrast, then matching.

What a contrast is drawn with are the images and captions of all processes (BLIP adds a queue of older ones,
from a second, slower copy of the model; here the batch is all). Matching scores three pairs a row: its own,
and its image and its caption each with one of this process's batch that does not fit, the likelier the more
alike the two are to contrast.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tagmill.models.ram.alignment import Alignment
from tagmill.models.ram.losses import contrastive_loss, matching_loss
from tagmill.models.ram.word_pieces import WordPieces

FLOOR = 1e-4
"""Least weight of a pair in the draw of those that do not fit, as in BLIP."""


def terms(
    branch: Alignment,
    pieces: WordPieces,
    tokens: Tensor,
    captions: Sequence[str],
    has_caption: Tensor,
    all_gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> dict[str, Tensor]:
    """Compute both losses, means over rows: encoded images [B, 1 + N, width] and a caption each.

    `has_caption` bool [B] is False for a row without caption, which then is in no pair. An image fits all
    captions that say the same as its own.
    """
    written = [torch.tensor(pieces.sentence(caption)) for caption in captions]
    ids = nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=pieces.padding).to(tokens.device)
    mask = ids != pieces.padding
    images, texts = branch.image_features(tokens).float(), branch.text_features(ids, mask).float()
    factor = branch.factor.float()
    keys = torch.tensor([_key(caption) for caption in captions], device=tokens.device) * has_caption
    all_images, all_texts, all_keys = all_gather(images), all_gather(texts), all_gather(keys)
    fits, real = _fits(keys, all_keys), all_keys != 0
    with torch.autocast(tokens.device.type, enabled=False):
        to_texts = contrastive_loss(factor * images @ all_texts.T, fits, real)
        to_images = contrastive_loss(factor * texts @ all_images.T, fits, real)
        alike = (factor * images @ texts.T).detach()
    rows = torch.arange(len(keys), device=tokens.device)
    other_texts, other_images = _draw(alike, keys), _draw(alike.T, keys)
    which = torch.cat([rows, rows, other_texts])
    shown = torch.cat([rows, other_images, rows])
    logits = branch.match(ids[which], mask[which], tokens, shown, pieces.tags_start)
    fits = keys[which] == keys[shown]
    # A row for which there was nothing else to draw got itself or what is empty: only its own pair counts.
    own = torch.arange(len(which), device=tokens.device) < len(rows)
    valid = (keys[which] != 0) & (keys[shown] != 0) & (fits == own)
    return {
        "contrastive": (to_texts + to_images) / 2,
        "matching": matching_loss(logits.float(), fits, valid),
    }


def _key(caption: str) -> int:
    """A number for a caption, the same in every process and never 0, which stands for none."""
    return int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=7).digest(), "big") + 1


def _fits(rows: Tensor, columns: Tensor) -> Tensor:
    """Say which captions, by their keys, say the same: bool [R, C]; one that is not there fits none."""
    return (rows[:, None] == columns) & (rows[:, None] != 0)


def _draw(alike: Tensor, keys: Tensor) -> Tensor:
    """Draw a column for each row of logits [B, B] that does not fit it; any at all where there is none."""
    strange = (keys[:, None] != keys) & (keys != 0)
    weights = (alike.softmax(1).nan_to_num() + FLOOR) * strange  # a loss that is not finite is reported later
    return torch.multinomial(weights + ~strange.any(1, keepdim=True), 1).squeeze(1)
