"""CLIP as the teacher of image tokens: features of images, computed as the batches come."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmill.models.open_clip import OpenClip
from tagmill.models.ram.config import RamConfig


class Teacher(OpenClip):
    """An `OpenClip` that sees the batches of a training; its options are the same."""

    @torch.no_grad()
    def features(self, images: Tensor, student: RamConfig) -> Tensor:
        """Embed the very images that the student sees, [B, 3, S, S] in its colours: unscaled [B, D], float32.

        The official fine-tuning shows CLIP another random crop than the student; this is the same one.
        """
        own = self._model.visual.preprocess_cfg
        size = own["size"] if isinstance(own["size"], int) else min(own["size"])
        pixels = images.float() * _colours(student.std, images) + _colours(student.mean, images)
        if size != images.shape[-1]:
            pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
        pixels = (pixels - _colours(own["mean"], images)) / _colours(own["std"], images)
        with torch.autocast(images.device.type, enabled=False):
            return self._model.encode_image(pixels.to(self._input_dtype)).float()


def _colours(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, 3, 1, 1)
