"""What a RAM model's folder says about its weights: `config.json` beside `model.safetensors`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tagmill.models.ram.word_pieces import TAG_TOKENS
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError

CONFIG, WEIGHTS, VOCAB = "config.json", "model.safetensors", "vocab.txt"
NEEDS = ((CONFIG,), (WEIGHTS,))
"""Files that a model's folder must have, as `pretrained.require_files` takes them."""

METADATA = "tagmill_config"
"""Name of an ONNX file's metadata that holds the model's config, with classes and thresholds, as JSON."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Colour = tuple[float, float, float]
Size = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class EncoderConfig(Config):
    """A model of timm and which of its maps become tokens of `width` numbers.

    `name` and `arguments` go to `timm.create_model`; weights are never downloaded. No `stages`: the
    model's own normalised last map, which must be channels-last and `width` wide, as Swin's is; the
    image size is passed on. Else `stages` are the indices of feature maps, each of which is projected
    to `width` and normalised.
    """

    name: str
    arguments: dict[str, Any] = {}
    stages: tuple[int, ...] = ()
    width: Size

    @field_validator("arguments")
    @classmethod
    def _tuples(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Undo what JSON does: timm takes tuples."""
        return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}


class HeadConfig(Config):
    """Sizes of the tagging head; the defaults are those of the published models."""

    hidden: Size = 768
    heads: Size = 4
    layers: Size = 2
    inner: Size = 3072
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> "HeadConfig":
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class TextConfig(Config):
    """Sizes of the two BERTs of the text side, as wide as the head; the defaults are the published ones.

    `tokens` counts the word pieces of `vocab.txt` and the two that mark the start of a caption and of
    tags.
    """

    heads: Size = 12
    layers: Size = 12
    inner: Size = 3072
    tokens: Size = 30524
    positions: Size = 512
    dropout: float = Field(0.1, ge=0, lt=1)


class AlignmentConfig(Config):
    """The image-text alignment branch: a BERT of the sizes of the text side, which it stands beside.

    `dimension` is the width of the space in which whole images and texts are compared, BLIP's by default.
    """

    dimension: Size = 256


class RamConfig(Config):
    """All that is needed to build the model and to feed it images.

    `dimension` is the width of the space that image tokens and label embeddings share (CLIP's: 512);
    tag2text has none. `descriptions` is the number of label embeddings a class, more than 1 only for
    ram_plus. `thresholds`, one a class, are scores above which a class counts as seen; `silent` are
    indices of classes that never become part of a caption's tags. `text` is the text side, which
    tag2text has and ram can have; its folder holds `vocab.txt` too. `alignment` is the branch that scores
    texts on images, which a tag2text can have; no published checkpoint has it. `vocabulary` is a digest of
    the tag vocabulary that the classes come from, for whoever wants to compare it.
    """

    kind: Literal["ram_plus", "ram", "tag2text"] = "ram_plus"
    image_size: Size = 384
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    resize: Literal["bilinear", "bicubic"] = "bilinear"
    encoder: EncoderConfig
    dimension: Size = 512
    head: HeadConfig = HeadConfig()
    classes: tuple[str, ...] = Field(min_length=1)
    descriptions: Size = 1
    thresholds: tuple[Fraction, ...] | None = None
    silent: tuple[int, ...] = ()
    text: TextConfig | None = None
    alignment: AlignmentConfig | None = None
    vocabulary: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "RamConfig":
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.classes)} classes")
        if self.kind != "ram_plus" and self.descriptions != 1:
            raise ValueError(f"{self.kind} has one embedding a class, not {self.descriptions}")
        if any(not 0 <= index < len(self.classes) for index in self.silent):
            raise ValueError(f"silent has an index outside of the {len(self.classes)} classes")
        if self.kind != "ram" and (self.text is None) == (self.kind == "tag2text"):
            raise ValueError("tag2text has a text side, ram_plus has none")
        if self.alignment is not None and self.kind != "tag2text":
            raise ValueError(f"alignment is a branch of tag2text, not of {self.kind}")
        if self.text is not None:
            _check_text(self.text, self.head)
        return self


def _check_text(text: TextConfig, head: HeadConfig) -> None:
    """The text side's first layers are the head's, so the sizes must agree."""
    if text.positions < TAG_TOKENS:
        raise ValueError(
            f"text must have {TAG_TOKENS} positions or more, to hold the text of an image's tags"
        )
    if head.hidden % text.heads or text.inner != head.inner or text.layers < head.layers:
        raise ValueError(
            f"text must have heads that divide {head.hidden}, inner {head.inner} and at least "
            f"{head.layers} layers, as the head"
        )


def read(folder: Path) -> RamConfig:
    """Read the config of a model's folder. Raises ConfigError if it is missing or does not hold."""
    path = folder / CONFIG
    try:
        return RamConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is not the config of a RAM model: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """Say in one line what first is wrong with a config, and where."""
    first = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def write(config: RamConfig, folder: Path) -> None:
    """Write the config into the folder; one that is there stays as it was until the new one is whole.

    Raises ConfigError if it cannot be written.
    """
    with files.replacing(str(folder / CONFIG)) as partial:
        partial.write_text(config.model_dump_json(indent=1) + "\n")
