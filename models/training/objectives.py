"""From a batch to the losses: the official terms, each over what is known of the batch's rows.

Tagging is a sum over rows and classes, as the official code has it, so its size grows with both; a masked
class or row adds nothing. `LossConfig.reference_batch` keeps its balance with the other terms, which
are means, whatever the batch size. RAM and Tag2Text scale it to the caption loss at every step instead, so
for them its size does not matter.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmill.models.ram.alignment import Alignment
from tagmill.models.ram.losses import alignment_loss, asymmetric_loss, balanced_loss, distillation_loss
from tagmill.models.ram.store import Model
from tagmill.models.ram.streaming import streamed_loss
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.ram.text_side import IGNORED, SMOOTHING
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.models.training import image_text
from tagmill.models.training.batches import Batch
from tagmill.models.training.recipe import LossConfig, Term
from tagmill.models.training.teacher import Teacher
from tagmill.tag_system.core.errors import ConfigError

WORDS = 30
"""To how many words the official code cuts a caption."""


class Objective(nn.Module):
    """The model with its losses: `forward` gives the terms of a batch, and their `total`.

    `teacher` is needed for RAM++'s alignment, and for distillation of batches without features; `pieces` for
    captions and for Tag2Text's alignment, which is two terms, contrastive and matching, and compares with the
    rows of all processes, put together by `all_gather`. `mean` averages values without gradient over all
    processes, so that the caption loss and its balance with tagging are those of all their rows. A term
    without any row to learn from is 0, never NaN, and every trained parameter takes part in every step.
    """

    def __init__(
        self,
        model: Model,
        losses: LossConfig,
        terms: tuple[Term, ...],
        *,
        teacher: Teacher | None = None,
        pieces: WordPieces | None = None,
        all_gather: Callable[[Tensor], Tensor] = lambda rows: rows,
        mean: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self._losses, self._terms, self._teacher, self._pieces = losses, terms, teacher, pieces
        self._all_gather, self._mean = all_gather, mean
        if "caption" not in terms and model.text is not None:
            model.text.requires_grad_(False)
        if "alignment" not in terms and self._branch is not None:
            self._branch.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the terms, float32 scalars."""
        model, captions = self.model, [clean_caption(caption) for caption in batch.captions]
        captioned = torch.tensor([bool(caption) for caption in captions], device=batch.valid.device)
        has_caption = captioned & batch.valid
        tokens = self._encode(batch)
        reference = self._losses.reference_batch
        scale = 1.0 if reference is None else reference / len(batch)
        tagging = streamed_loss(
            model, tokens, lambda logits, classes: self.tagging(logits, batch, has_caption, classes)
        )
        terms = {"tagging": tagging * scale}
        if "distillation" in self._terms:
            terms["distillation"] = self._distillation(tokens, batch)
        if "alignment" in self._terms and self._branch is not None and self._pieces is not None:
            terms |= image_text.terms(
                self._branch, self._pieces, tokens, captions, has_caption, self._all_gather
            )
        elif "alignment" in self._terms and self._teacher is not None:
            with torch.autocast(tokens.device.type, enabled=False):
                texts = torch.from_numpy(self._teacher.sentences(captions)).to(tokens.device)
            terms["alignment"] = alignment_loss(model.align(tokens, texts).float(), has_caption) * scale
        if "caption" in self._terms and self._pieces is not None:
            terms["caption"] = self._caption(self._pieces, tokens, batch, captions, has_caption)
        return terms | {"total": self._total(terms)}

    def scores(self, images: Tensor) -> Tensor:
        """Score images [B, 3, S, S] by the model: logits [B, C]."""
        logits: Tensor = self.model.score(self.model.encode(images))
        return logits

    def _encode(self, batch: Batch) -> Tensor:
        """Encode the images; rows without an image get zeros, and do not count in batch statistics."""
        if batch.valid.all() or not batch.valid.any():
            return self._encoded(batch.images)
        tokens = self._encoded(batch.images[batch.valid])
        rows = batch.valid.nonzero().flatten()
        return tokens.new_zeros(len(batch), *tokens.shape[1:]).index_copy(0, rows, tokens)

    def _encoded(self, images: Tensor) -> Tensor:
        try:
            tokens: Tensor = self.model.encode(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                "the encoder's batch normalisation has no statistics of one small image alone: set "
                "engine.batch_norm: frozen, or a larger data.batch_size"
            ) from error
        return tokens

    @property
    def _branch(self) -> Alignment | None:
        return self.model.alignment if isinstance(self.model, Tag2Text) else None

    def tagging(
        self, logits: Tensor, batch: Batch, has_caption: Tensor | None = None, classes: slice = slice(None)
    ) -> Tensor:
        """Sum the asymmetric loss of the logits [B, C] of some classes, by default all, over what is known.

        `has_caption` bool [B]: whether the row has a caption.
        """
        config, targets, known = self._losses, batch.targets[:, classes], batch.known[:, classes]
        if config.target == "mentioned" and has_caption is not None:
            targets, known = batch.mentioned[:, classes].float(), known * has_caption[:, None]
        return asymmetric_loss(
            logits.float(),
            targets,
            gamma_negative=config.gamma_negative,
            gamma_positive=config.gamma_positive,
            clip=config.clip,
            weights=known,
        )

    def _distillation(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Compare with the features in the batch, if there are any, else with the teacher's of this view."""
        features, valid = batch.features, batch.valid
        if features.shape[1]:
            valid = valid & features.isfinite().all(1)
            features = features.nan_to_num()
        elif self._teacher is not None:
            features = self._teacher.features(batch.images, self.model.config)
        else:
            raise ValueError("distillation needs features or a teacher")
        return distillation_loss(tokens.float(), features, valid)

    def _caption(
        self, pieces: WordPieces, tokens: Tensor, batch: Batch, captions: list[str], has_caption: Tensor
    ) -> Tensor:
        """Mean cross-entropy of the captions' word pieces, guided by the tags that each mentions."""
        text, classes, device = self.model.text, self.model.config.classes, tokens.device
        rows = [[classes[at] for at in row.nonzero().flatten().tolist()] for row in batch.mentioned.cpu()]
        tags = torch.tensor([pieces.tags(row) for row in rows], device=device)
        read = text.read(tags, tags != pieces.padding, tokens)
        written = [torch.tensor(pieces.caption(caption)) for caption in captions]
        ids = nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=pieces.padding).to(device)
        targets = ids.masked_fill((ids == pieces.padding) | ~has_caption[:, None], IGNORED)
        targets[:, : len(pieces.prompt)] = IGNORED
        logits = text.predict(read, ids, ids != pieces.padding)[:, :-1].float()
        wanted = targets[:, 1:]
        total = F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(),
            ignore_index=IGNORED,
            label_smoothing=SMOOTHING,
            reduction="sum",
        )
        # The count of all processes, shared evenly: averaged over them, the loss is the mean over all pieces.
        count = self._mean((wanted != IGNORED).sum().to(total.dtype))
        return total / count.clamp(min=1e-6)

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        if "caption" not in terms:
            return torch.stack(list(terms.values())).sum()
        caption, tagging = terms["caption"], terms["tagging"]
        total = balanced_loss(caption, tagging, self._mean(torch.stack([caption, tagging]).detach()))
        others = [value for name, value in terms.items() if name not in ("caption", "tagging")]
        return total + sum(others)


def clean_caption(text: str) -> str:
    """Bring a caption to what the official code trains on: lower case, no marks, at most 30 words."""
    text = re.sub(r"([.!\"()*#:;~])", " ", text.lower())
    return " ".join(re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ").split(" ")[:WORDS])
