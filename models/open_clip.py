"""CLIP (arXiv 2103.00020) through open_clip as an embedder of images and names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tagmill.models.base import Floats, Image, Prepared
from tagmill.models.clip_images import RESIZE, check_fit, thick
from tagmill.models.clip_names import EmbeddedNames, portions
from tagmill.models.pretrained import CheckpointSource, changed, check_dtype, digest, placed, resolve_device
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
HUB_WEIGHTS = ("open_clip*.safetensors",)
PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
IMAGE_SIZE = 224
"""Height and width of a model whose config does not say."""


class OpenClip:
    """A CLIP model that open_clip can read; fits `Embedder`.

    `model`: "local-dir:FOLDER" or "hf-hub:OWNER/NAME" (with `revision`) for a folder with
    open_clip_config.json, weights and tokenizer; else an architecture of open_clip such as
    "ViT-B-32", and then `pretrained` is a weights file or one of open_clip's tags. Only a hub name
    or a tag can lead to a download. Pickled weights are read with `weights_only=True`.

    `fit`: how an image that is not square becomes so. "pad" (default) resizes the long side and
    fills up with the mean colour: nothing is lost. "crop" resizes the short side and cuts the
    middle out: what most CLIP models do, but a region of a train or a giraffe loses its ends.
    "squash" changes the proportions. None does what the checkpoint's own config says. All other
    steps (size, interpolation, normalisation) are the checkpoint's own.

    `template`: the sentence around a name; one `{}`.

    Raises ConfigError for options out of range and for files that are missing.
    """

    version: ClassVar[int] = 1
    """Raised when the same files and options give other vectors."""

    def __init__(
        self,
        model: str,
        *,
        pretrained: str | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        template: str = "a photo of a {}.",
        fit: str | None = "pad",
    ) -> None:
        check_dtype(dtype)
        check_fit(fit)
        self._name, self._weights, self._device = model, pretrained, device
        self._dtype, self._template, self._fit = dtype, template, fit
        self._source = _source(model, revision)
        if self._source is None:
            _check_weights(model, pretrained)
        elif pretrained is not None:
            raise ConfigError(f"model {model!r} brings its own weights: leave pretrained out")
        self._fingerprint: str | None = None
        self._side: tuple[int, int] | None = None
        self._names = EmbeddedNames(template, self.sentences)
        self._model: Any = None

    def fingerprint(self) -> str:
        """Hash the model's files (of a hub name: the name and commit) and the options.

        Of one of open_clip's tags, its name. The device and the batch size are not part of it. A
        hub name that is not in the cache is downloaded here; ConfigError if that fails.
        """
        if self._fingerprint is None:
            options = {"dtype": self._dtype, "template": self._template, "fit": self._fit}
            options = changed(OpenClip, options)
            if self._source is not None:
                self._fingerprint = self._source.fingerprint(options)
            elif Path(str(self._weights)).is_file():
                options["model"] = self._name
                self._fingerprint = digest([Path(str(self._weights))], options)
            else:
                options["model"] = f"{self._name}/{self._weights}"
                self._fingerprint = digest([], options)
        return self._fingerprint

    def load(self) -> None:
        """Read weights, preprocessing and tokenizer. Raises ConfigError if that fails."""
        import open_clip

        name = self._name if self._source is None else f"{LOCAL}{self._source.folder()}"
        self._place = resolve_device(self._device)
        precision = PRECISION[self._dtype]
        try:
            self._model = open_clip.create_model(
                name,
                pretrained=self._weights,
                precision=precision,
                device=self._place,
                require_pretrained=True,
            ).eval()
            self._tokenize = open_clip.get_tokenizer(name)
        except Exception as error:  # of open_clip, of torch, or of the hub's client
            source = self._name if self._weights is None else f"{self._name} ({self._weights})"
            raise ConfigError(f"cannot load CLIP model {source}: {error}") from error
        self._input_dtype = open_clip.get_input_dtype(precision)
        self._preprocess = self._transform()

    def prepare(self, image: Image) -> Prepared:
        """Resize and normalise one image: a tensor, float32 (3, height, width)."""
        import PIL.Image

        return self._preprocess(self._thick(PIL.Image.fromarray(image)))

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of a prepared image, the same for all; read from the model's config."""
        if self._side is None:
            self._side = self._image_size()
        return self._side

    def predict(self, batch: Sequence[Prepared]) -> Floats:
        """Embed the images as one batch: float32 (len(batch), dimension), rows of length 1."""
        import torch

        if not batch:
            return np.zeros((0, self.text(["image"])[0].shape[0]), np.float32)
        with torch.inference_mode():
            return _unit(self._model.encode_image(self._pixels(batch)))

    def image_features(self, batch: Sequence[Prepared]) -> Floats:
        """Give the images' features as CLIP makes them, of any length: float32 (len(batch), dimension)."""
        import torch

        if not batch:
            return np.zeros((0, self.text(["image"])[0].shape[0]), np.float32)
        with torch.inference_mode():
            return _finite(self._model.encode_image(self._pixels(batch)))

    def _pixels(self, batch: Sequence[Prepared]) -> Any:
        return placed(batch, self._place, self._input_dtype)

    def text(self, names: Sequence[str]) -> list[Floats]:
        """Embed each name in the template: float32 (dimension,) of length 1; computed once a name.

        A sentence over the model's context (77 tokens for most) is cut by its tokenizer.
        """
        return self._names.vectors(names)

    def sentences(self, texts: Sequence[str]) -> Floats:
        """Embed texts as they are, at least one: float32 (len(texts), dimension), rows of length 1."""
        import torch

        parts = []
        for some in portions(texts):
            tokens = self._tokenize(some)
            with torch.inference_mode():
                parts.append(_unit(self._model.encode_text(tokens.to(self._place))))
        return np.concatenate(parts)

    def _thick(self, image: Any) -> Any:
        """Widen a side so short that resizing leaves nothing of it, or far too much of the other."""
        size = self._model.visual.preprocess_cfg["size"]
        return thick(image, size if isinstance(size, int) else min(size))

    def _image_size(self) -> tuple[int, int]:
        """Read the width and height of the model's input. Raises ConfigError if no config says it."""
        if self._source is not None:
            file = self._source.folder() / CONFIG
            try:
                config = parse_json(file.read_text(encoding="utf-8"))["model_cfg"]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{file} is not a config of open_clip ({error!r})") from error
        else:
            import open_clip

            config = open_clip.get_model_config(self._name.replace("/", "-"))
            if config is None:
                raise ConfigError(f"open_clip knows no model {self._name!r}")
        size = config["vision_cfg"].get("image_size", IMAGE_SIZE)
        return (size, size) if isinstance(size, int) else (size[1], size[0])

    def _transform(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(**self._model.visual.preprocess_cfg)
        if self._fit is not None:
            config.resize_mode = RESIZE[self._fit]
        if self._fit == "pad":
            config.fill_color = tuple(round(255 * value) for value in config.mean)
        return image_transform_v2(config, is_train=False)


def _unit(vectors: Any) -> Floats:
    """Bring rows to length 1."""
    import torch

    return _finite(torch.nn.functional.normalize(vectors.float(), dim=-1))


def _finite(vectors: Any) -> Floats:
    """Bring vectors to float32 on the CPU; NaN is an error and never a vector."""
    rows = vectors.float().cpu().numpy()
    if np.isnan(rows).any():
        raise FloatingPointError("CLIP gave NaN; float16 can overflow, try bfloat16 or float32")
    return np.asarray(rows, dtype=np.float32)


def _source(model: str, revision: str | None) -> CheckpointSource | None:
    """Say where the model's folder is; None if it is named by its architecture."""
    for prefix, weights in ((LOCAL, WEIGHTS), (HUB, HUB_WEIGHTS)):
        if model.startswith(prefix):
            return CheckpointSource(
                model.removeprefix(prefix),
                on_hub=prefix == HUB,
                revision=revision,
                needs=((CONFIG,), weights),
                fetch=("*.json", "*.txt", "*.model", *weights),
            )
    return None


def _check_weights(model: str, weights: str | None) -> None:
    if weights is None:
        raise ConfigError(
            f"model {model!r} needs pretrained: a weights file or a tag of open_clip; "
            f"a folder is written {LOCAL}FOLDER"
        )
    if ("/" in weights or "." in weights) and not Path(weights).is_file():
        raise ConfigError(f"there is no weights file {weights}")
