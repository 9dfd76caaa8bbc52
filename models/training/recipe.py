"""The recipe of a training: one config, checked whole before anything is read."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tagmill.models.hub_names import is_on_hub
from tagmill.models.training.data import DataConfig
from tagmill.models.training.schedule import MOST, ScheduleConfig
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config

READ_ONLY = ("hf://", "http://", "https://")
"""Stores that take no files."""

Term = Literal["tagging", "distillation", "alignment", "caption"]

Figure = Literal["loss", "map", "cf1", "of1"]
"""What a model can be the best by."""

OFFICIAL_TERMS: dict[str, tuple[Term, ...]] = {
    "ram_plus": ("tagging", "distillation", "alignment"),
    "ram": ("tagging", "distillation", "caption"),
    "tag2text": ("tagging", "caption"),
}
"""What each kind of model is trained with in the official code."""


class LabelsConfig(Config):
    """What describes a class to CLIP, for the label embeddings of RAM and RAM++.

    `templates` are sentences with one `{}` for the name; None are the 63 official ones for RAM and "a photo
    of a {}." for RAM++. `descriptions` is instead a JSON file in the format of RAM++, a list of
    `{"TAG": ["sentence", ...]}`. RAM takes the mean of a class's sentences, RAM++ all of them.
    """

    templates: tuple[str, ...] | None = None
    descriptions: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "LabelsConfig":
        bad = [text for text in self.templates or () if text.count("{}") != 1 or text.count("{") != 1]
        if bad or self.templates == ():
            raise ValueError(f"templates must be sentences with one {{}} for the name, got {bad or 'none'}")
        return self


class LossConfig(Config):
    """What a model learns from; see `objectives` for the formulas.

    `terms` None are the official ones of its kind; `[tagging]` trains from tags only. `target` says which
    tags are true: those that the data engine `decided` on, or those `mentioned` by the caption that was
    drawn, as Tag2Text was trained. The exponents and the shift of easy negatives are those of the
    asymmetric loss on tags.

    `reference_batch`: the official asymmetric losses are sums over the batch of a rank, while the
    other terms are means, so that another batch size would be another balance. Here the sums are scaled
    to what they would be at this batch size; None leaves them as they are.
    """

    terms: tuple[Term, ...] | None = None
    target: Literal["decided", "mentioned"] = "decided"
    gamma_negative: float = Field(7.0, ge=0)
    gamma_positive: float = Field(0.0, ge=0)
    clip: float = Field(0.05, ge=0, lt=1)
    reference_batch: int | None = Field(52, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        if self.terms is not None and ("tagging" not in self.terms or len(set(self.terms)) < len(self.terms)):
            raise ValueError("terms must name tagging, and each term once")
        return self


class EngineConfig(Config):
    """How the steps are computed; the defaults are those of the papers' code.

    A step of the optimizer takes `accumulate` batches of every rank. `clip_norm` bounds the norm of its
    gradient. `ema` is the decay of the averaged weights, which then are the model that is validated and
    saved. `precision` bfloat16 computes in it where autocast does, and keeps weights in float32.
    `checkpointing` computes activations of encoder and text side again, block by block, rather than keep
    them, but for blocks whose batch normalisation is not frozen; of the tagging head none are kept for long
    (see `streaming`).
    `weight_decay` is that of all parameters, as in the papers' code, or of `matrices` alone: of all but
    norms, biases and others of one dimension. `freeze` names parts of the model, by their names in it, that
    do not learn, such as `encoder.trunk`; statistics of batch normalisation stay in them.
    `parallel` ddp has the whole model in each process; fsdp shares weights, gradients and optimizer out over
    them (see `sharding`), for encoders that are too large for one device.
    `batch_norm` frozen keeps the statistics of batch normalisation as they are, which more than one process
    demands (see `batch_norm`).
    `peak_tflops` are those of a device at `precision`, for the MFU in the log; None: of some GPUs they are
    known (see `pace`).
    """

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = Field(1, ge=1)
    clip_norm: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.05, ge=0, le=MOST)
    decayed: Literal["all", "matrices"] = "all"
    freeze: tuple[str, ...] = ()
    ema: float | None = Field(None, gt=0, lt=1)
    compile: bool = False
    checkpointing: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    batch_norm: Literal["train", "frozen"] = "train"
    peak_tflops: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "EngineConfig":
        if self.parallel == "fsdp" and (self.ema is not None or self.compile):
            raise ValueError("parallel: fsdp has neither ema nor compile: leave them out, or take ddp")
        return self


class ValidationConfig(Config):
    """When a training looks at the split val, and what follows from it.

    That is after each epoch, and every `every_steps` steps. `best_by` is the figure by which a model is the
    best: the lowest loss, or the highest mAP, CF1 or OF1 over the classes that have positives in val. After
    `patience` validations in a row without a better one the training ends; None: it does not. So many
    `pictures` with their predictions go to TensorBoard and W&B each time.
    """

    every_steps: int | None = Field(None, ge=1)
    best_by: Figure = "map"
    patience: int | None = Field(None, ge=1)
    pictures: int = Field(8, ge=0, le=64)


class CardConfig(Config):
    """What the card of the model says that no training can know; see `training_card`.

    `name` is its title. `license` is an identifier of SPDX, an address or a name. `base_model` and `datasets`
    are names on the Hugging Face hub, `owner/name`; those that are read from there by `hf://` need not be
    named. `language` of the tags is a code of ISO 639, such as en.
    """

    name: str | None = Field(None, pattern=r"\S", max_length=200)
    license: str | None = Field(None, pattern=r"\S")
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    language: str | None = Field(None, pattern="^[a-z]{2,3}$")

    @field_validator("base_model", "datasets")
    @classmethod
    def _on_hub(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for name in (value,) if isinstance(value, str) else value or ():
            if not is_on_hub(name):
                raise ValueError(f"{name!r} is not a name on the Hugging Face hub, such as owner/name")
        return value


class Recipe(Config):
    """The whole config of a training; paths are relative to the working directory. `out`, datasets, `init`,
    `trunk`, `classes`, `vocab` and the CLIP may be urls; all else lies on this machine.

    `out` is its folder. `init` is a model's folder to start from; `model` are keys of `RamConfig`, all of
    them without `init`, else those that change, in its sections too. `trunk` are start weights for the image
    encoder alone. `classes`: a file with one name a line, or the names; None are those of `init`, or else the
    vocabulary of the first dataset. `allow_unlearnable`: train even with classes that the data cannot teach,
    see `learnable`. `clip` are the options of an `OpenClip`, which embeds new classes and teaches
    distillation and alignment. `vocab` is BERT's vocab.txt for a text side, by default that of `init`.

    A checkpoint is written every `save_every` steps and after each epoch; the last `keep` stay, and the best.
    A line is logged every `log_every`; `wandb` are options of `wandb.init`, such as `{project: tags}`.
    `validate` measures the model on the split val, and keeps the best one; false is for data without it, true
    are the defaults. `card` is for the README.md that each checkpoint has.
    """

    model_config = ConfigDict(protected_namespaces=())

    out: str
    init: str | None = None
    model: dict[str, Any] = {}
    trunk: str | None = None
    classes: str | tuple[str, ...] | None = None
    allow_unlearnable: bool = False
    clip: dict[str, Any] | None = None
    labels: LabelsConfig = LabelsConfig()
    vocab: str | None = None
    data: DataConfig
    losses: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()
    epochs: int = Field(5, ge=1)
    seed: int = Field(0, ge=0)
    save_every: int | None = Field(None, ge=1)
    keep: int = Field(1, ge=1)
    log_every: int = Field(10, ge=1)
    validation: ValidationConfig | None = Field(ValidationConfig(), alias="validate")
    tensorboard: bool = False
    wandb: dict[str, Any] | None = None
    card: CardConfig = CardConfig()

    @field_validator("validation", mode="before")
    @classmethod
    def _switched(cls, value: object) -> object:
        if isinstance(value, bool):
            return ValidationConfig() if value else None
        return value

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.init is None and not self.model:
            raise ValueError("give init, a model's folder to start from, or model, the keys of its config")
        if not self.out.rpartition("://")[2].strip(" /"):
            raise ValueError(f"out: {self.out!r} names no folder: give a path, or a url with a bucket")
        if self.classes is not None and not (self.classes and all(map(str.strip, self.classes))):
            raise ValueError("classes: give a file, or at least one name, none of which is empty")
        if self.out.startswith(READ_ONLY):
            raise ValueError(
                f"out: {self.out} takes no files: name a path, or a url of a store such as s3:// or gs://"
            )
        if self.clip is not None and not isinstance(self.clip.get("model"), str):
            raise ValueError(f"clip.model must name a CLIP, got {self.clip.get('model')!r}")
        if "classes" in self.model:
            raise ValueError("model.classes: name the classes by classes, beside model")
        return self

    @property
    def folder(self) -> Path:
        """The folder on this machine into which a training writes: `out`, or one that stands for its url."""
        if files.is_local(self.out):
            return Path(files.filesystem(self.out)[1] if "://" in self.out else self.out)
        name = hashlib.sha256(self.out.rstrip("/").encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"tagmill-train-{os.getuid()}-{name}")
