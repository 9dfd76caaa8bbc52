"""How a model sees an image: augmented for training, or plain for validation.

The training view is the recipe of RAM and Tag2Text, which is BLIP's: a random crop of 0.2 to 1 of the
area, bicubic; a flip; two operations of RandAugment at level 5 of 10, each with probability 0.5.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image as pillow
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.preprocess import prepare

View: TypeAlias = Callable[[pillow.Image, int], Tensor]
"""RGB image and seed -> float32 [3, height, width], the same size for all; the seed decides all chance."""

_GREY = [128, 128, 128]


class _Operation(v2.RandAugment):
    """One operation of the official ten at level 5 of 10, as torchvision does it.

    Brightness and sharpness are not among those here: at level 5 their official factor is exactly 1, so
    they are three identities with `Identity`, and keep their share of the draws as such. Shears and
    rotations are torchvision's own at half of their range; translations are of 5 pixels, not of a share
    of the image. The official AutoContrast overflows, and whitens a channel that has no black; this one
    stretches it.
    """

    _AUGMENTATION_SPACE = {
        **{name: (lambda bins, height, width: None, False) for name in ("AutoContrast", "Equalize")},
        **{name: v2.RandAugment._AUGMENTATION_SPACE[name] for name in ("ShearX", "ShearY", "Rotate")},
        **{
            name: (lambda bins, height, width: torch.linspace(0, 10, bins), True)
            for name in ("TranslateX", "TranslateY")
        },
    }

    def __init__(self) -> None:
        super().__init__(
            num_ops=1,
            magnitude=5,
            num_magnitude_bins=11,
            interpolation=InterpolationMode.BILINEAR,
            fill=_GREY,
        )


class TrainView:
    """The augmenting view; `prepare` is its plain counterpart at the same size and colours."""

    def __init__(self, config: RamConfig) -> None:
        size, mean, std = config.image_size, config.mean, config.std
        # Seven of the ten operations do something, each is applied half of the time.
        operation = v2.RandomApply([_Operation()], p=0.5 * 7 / 10)
        self._steps = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                operation,
                operation,
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __call__(self, image: pillow.Image, seed: int) -> Tensor:
        """Augment an image. Chance elsewhere in the process goes on as if nothing had been drawn."""
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            return self._steps(image).as_subclass(Tensor)


class PlainView:
    """The view of inference: squeezed to the size, nothing by chance."""

    def __init__(self, config: RamConfig) -> None:
        self._config = config

    def __call__(self, image: pillow.Image, seed: int) -> Tensor:
        """Resize and normalise an image."""
        return torch.from_numpy(prepare(np.asarray(image), self._config))
