"""The components of a training beside its model: terms, teacher, word pieces, and how the model computes."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint as recompute

from tagmill.models.local_copies import local_copy, local_options
from tagmill.models.ram.config import VOCAB, RamConfig
from tagmill.models.ram.store import Model
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.models.training import batch_norm
from tagmill.models.training.blocks import blocks_of
from tagmill.models.training.newer import StoredDecisions
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import OFFICIAL_TERMS, EngineConfig, Recipe, Term
from tagmill.models.training.teacher import Teacher
from tagmill.tag_system.core import secrets
from tagmill.tag_system.core.errors import ConfigError

DECISIONS = "decisions"
"""Folder in `out` for the decisions of another run, as they were when the training began."""

FROM_CLIP: dict[str, set[Term]] = {
    "ram_plus": {"distillation", "alignment"},
    "ram": {"distillation"},
    "tag2text": set(),
}
"""The terms of each kind of model that a teacher is needed for."""


def terms_of(recipe: Recipe, config: RamConfig) -> tuple[Term, ...]:
    """Say what the model learns from. Raises ConfigError if it cannot, or something for it is missing."""
    official = OFFICIAL_TERMS[config.kind]
    if config.alignment is not None:
        official = (*official, "alignment")
    terms = recipe.losses.terms or official
    if foreign := [term for term in terms if term not in official]:
        raise ConfigError(f"losses.terms: a {config.kind} has no {foreign[0]}; it has {', '.join(official)}")
    stored = any(dataset.features is not None for dataset in recipe.data.datasets)
    if stored and "distillation" not in terms:
        raise ConfigError("data: features are for the term distillation, which is off: leave them out")
    from_clip = FROM_CLIP[config.kind] - ({"distillation"} if stored else set())
    if recipe.clip is None and (needy := [term for term in terms if term in from_clip]):
        raise ConfigError(
            f"losses.terms: {', '.join(needy)} needs a teacher: name it by clip, or train from tags only by "
            "terms: [tagging]"
        )
    if "caption" in terms and config.text is None:
        raise ConfigError("losses.terms: caption needs a text side, model.text; or leave it out")
    return terms


def teacher_of(recipe: Recipe, process: Process) -> Teacher | None:
    """Load the CLIP that the recipe names. Raises ConfigError."""
    if recipe.clip is None:
        return None
    try:
        teacher = Teacher(**{"device": str(process.device), **local_options(secrets.resolve(recipe.clip))})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"clip: {error}") from error
    teacher.load()
    return teacher


def vocab_of(recipe: Recipe, config: RamConfig) -> Path | None:
    """Find the word pieces of a text side. Raises ConfigError if they are not those of the config."""
    if config.text is None:
        return None
    if recipe.vocab is None and recipe.init is None:
        raise ConfigError("vocab: a text side needs BERT's vocab.txt")
    path = Path(local_copy(recipe.vocab)) if recipe.vocab else Path(local_copy(str(recipe.init))) / VOCAB
    count = WordPieces(path).count
    if count != config.text.tokens:
        raise ConfigError(
            f"vocab: {path} makes {count} word pieces, model.text.tokens is {config.text.tokens}"
        )
    return path


def decisions_of(recipe: Recipe) -> StoredDecisions | None:
    """Open the decisions that the recipe lays over those of the shards. Raises ConfigError."""
    if recipe.data.decisions is None:
        return None
    if not (recipe.folder / DECISIONS).exists():
        raise ConfigError(
            "data.decisions: a training that began without other decisions goes on without: leave it out, or "
            "start a new training in another out"
        )
    return StoredDecisions(recipe.folder / DECISIONS)


def average_of(model: Model, engine: EngineConfig) -> Any:
    """Make the moving average of the weights, a copy of the model as `module`; None if there is none."""
    if engine.ema is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(engine.ema))


def prepare(model: Model, engine: EngineConfig) -> None:
    """Freeze statistics, recompute activations, compile parts, as asked; names of weights stay the same."""
    batch_norm.freeze(model, engine)
    if engine.checkpointing:
        for layer in _recomputed(model, engine):
            layer.forward = partial(recompute, layer.forward, use_reentrant=False)
    if engine.compile:
        model.encoder.compile()
        model.head.compile()


def _recomputed(model: Model, engine: EngineConfig) -> list[nn.Module]:
    """List the blocks whose activations are computed again. Raises ConfigError for an encoder without any.

    The head keeps little: see `streaming`. Statistics of batches would be counted twice, once for each time
    that they are computed.
    """
    blocks = list(blocks_of(model.encoder.trunk).values())
    if not blocks:
        raise ConfigError(
            f"engine.checkpointing: the encoder {model.config.encoder.name} has no blocks whose activations "
            "could be computed again: leave it out"
        )
    text = [] if model.text is None else [*model.text.tag_encoder.layers, *model.text.decoder.layers]
    if isinstance(model, Tag2Text) and model.alignment is not None:
        text += model.alignment.encoder.layers
    return [block for block in blocks if not batch_norm.moving(block, engine)] + text
