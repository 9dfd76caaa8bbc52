"""The image encoder: any model of timm, its maps turned into one row of tokens."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from tagmill.models.ram.config import EncoderConfig
from tagmill.tag_system.core.errors import ConfigError


class Encoder(nn.Module):
    """Images [B, 3, S, S] to tokens [B, 1 + N, width]: their mean, then the tokens themselves.

    Raises ConfigError if timm cannot build what the config says, or not of that width.
    """

    def __init__(self, config: EncoderConfig, image_size: int) -> None:
        super().__init__()
        self._last = not config.stages
        self.trunk = _trunk(config, image_size)
        if self._last:
            if self.trunk.num_features != config.width:
                raise ConfigError(
                    f"encoder {config.name} is {self.trunk.num_features} wide, width says {config.width}"
                )
            return
        channels = self.trunk.feature_info.channels()
        self.projections = nn.ModuleList(nn.Linear(count, config.width) for count in channels)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in channels)

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images; each image's tokens depend on itself alone in eval mode."""
        if self._last:
            tokens = self.trunk.forward_features(images).flatten(1, 2)
        else:
            maps = [_channels_last(self.trunk, found) for found in self.trunk(images)]
            rows = zip(maps, self.projections, self.norms, strict=True)
            tokens = torch.cat([norm(project(found)).flatten(1, 2) for found, project, norm in rows], 1)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


def _trunk(config: EncoderConfig, image_size: int) -> Any:
    extra: dict[str, Any] = {"features_only": True, "out_indices": config.stages}
    if not config.stages:
        extra = {"num_classes": 0, "img_size": image_size}
    try:
        trunk = timm.create_model(config.name, pretrained=False, **config.arguments, **extra)
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise ConfigError(f"timm cannot build the encoder {config.name}: {error}") from error
    if not config.stages and getattr(trunk, "output_fmt", None) != "NHWC":
        raise ConfigError(f"encoder {config.name} has no channels-last map: name its stages")
    return trunk


def _channels_last(trunk: Any, found: Tensor) -> Tensor:
    return found if trunk.output_fmt == "NHWC" else found.permute(0, 2, 3, 1)
