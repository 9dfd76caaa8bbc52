import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tagmill.models.ram import checkpoints
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig, TextConfig
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.ram.tag2text import Tag2Text

GOLDEN = Path(__file__).parents[2] / "golden" / "ram"


class Golden:
    """The reference data: `tensors(NAME)` and `values(NAME)`."""

    def tensors(self, name):
        return load_file(GOLDEN / f"{name}.safetensors")

    def values(self, name):
        return json.loads((GOLDEN / f"{name}.json").read_text())

    def path(self, name):
        return GOLDEN / name

    def config(self, window=3, image_size=96, **changes):
        """The small model of the reference data, at any window and image size: RAM++ by default."""
        sizes = self.values("config")
        encoder = {
            "window_size": window,
            "embed_dim": sizes["vision"]["embed_dim"],
            "depths": sizes["vision"]["depths"],
            "num_heads": sizes["vision"]["num_heads"],
        }
        settings = {
            "image_size": image_size,
            "encoder": EncoderConfig(name="swin_large_patch4_window12_384", arguments=encoder, width=64),
            "head": HeadConfig(hidden=48, inner=96),
            "classes": sizes["tag_list"],
            "descriptions": sizes["descriptions_per_class"],
            "thresholds": sizes["thresholds"],
        }
        return RamConfig(**(settings | changes))

    def ram_plus(self, dtype=torch.float32, **sizes):
        """The small model with its weights, in eval mode."""
        model = RamPlus(self.config(**sizes)).to(dtype)
        published = checkpoints.read(self.path("ram_plus.safetensors"))
        checkpoints.load(checkpoints.translate(published).weights, model)
        return model.eval()

    def tag2text_config(self):
        sizes = self.values("config")
        return self.config(
            kind="tag2text",
            descriptions=1,
            thresholds=[sizes["tag2text_threshold"]] * 40,
            silent=sizes["delete_tag_index"],
            text=TextConfig(heads=6, layers=3, inner=96, tokens=370, positions=64),
        )

    def tag2text(self):
        """The small Tag2Text, in eval mode; its image encoder stays random, the rest has its weights."""
        torch.manual_seed(0)
        model = Tag2Text(self.tag2text_config())
        published = checkpoints.read(self.path("tag2text.safetensors"))
        encoder = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
        checkpoints.load(checkpoints.translate(published).weights | encoder, model)
        return model.eval()


@pytest.fixture(scope="session")
def golden():
    return Golden()


def tiny(**changes):
    """A RAM++ that trains in seconds: two stages of a small ResNet at 64 px, 6 classes x 3 descriptions."""
    settings = {
        "image_size": 64,
        "encoder": EncoderConfig(
            name="resnet18",
            arguments={"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
            stages=(3, 4),
            width=32,
        ),
        "dimension": 16,
        "head": HeadConfig(hidden=32, heads=2, inner=64, dropout=0.0),
        "classes": ("red", "green", "blue", "bright", "dark", "wide"),
        "descriptions": 3,
    }
    return RamConfig(**(settings | changes))


@pytest.fixture(scope="session")
def tiny_config():
    return tiny
