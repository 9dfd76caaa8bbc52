import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from sources import square_image
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.ram.preprocess import prepare
from tagmill.models.training import views

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "preprocess"
IMAGE = square_image(["red", "blue"], 3)
CONFIG = RamConfig(
    encoder=EncoderConfig(name="none", width=8), classes=("red",), image_size=48, mean=(0.5, 0.4, 0.3)
)


def test_the_seed_alone_decides_what_a_view_draws():
    view = views.TrainView(CONFIG)
    first, other = view(IMAGE, 5), view(IMAGE, 6)
    torch.rand(3)
    assert torch.equal(view(IMAGE, 5), first)
    assert torch.equal(pickle.loads(pickle.dumps(view))(IMAGE, 5), first)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype, type(first)) == ((3, 48, 48), torch.float32, torch.Tensor)


def test_a_view_leaves_the_models_own_chance_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    views.TrainView(CONFIG)(IMAGE, 2**64 - 1)
    assert torch.equal(torch.rand(2), expected)


def test_the_plain_view_is_the_one_of_inference():
    found = views.PlainView(CONFIG)(IMAGE, 0)
    assert torch.equal(found, torch.from_numpy(prepare(np.asarray(IMAGE), CONFIG)))


def test_colours_are_normalised_as_the_model_wants_them():
    plain = Image.new("RGB", (60, 60), (51, 102, 153))
    found = views.TrainView(CONFIG)(plain, 0).mean((1, 2))
    expected = (torch.tensor([0.2, 0.4, 0.6]) - torch.tensor(CONFIG.mean)) / torch.tensor(CONFIG.std)
    assert torch.allclose(found, expected, atol=1e-3) or found.abs().max() > 0.5  # or an operation was drawn
    several = torch.stack([views.TrainView(CONFIG)(plain, seed).mean((1, 2)) for seed in range(9)])
    assert torch.isclose(several, expected, atol=1e-3).all(1).any()


def test_operations_are_drawn_as_often_as_officially():
    """2 draws of 10 operations, 3 of them without effect, each applied half of the time."""
    gradient = Image.fromarray(np.linspace(20, 200, 40 * 40 * 3).reshape(40, 40, 3).astype(np.uint8))
    operations = [step for step in views.TrainView(CONFIG)._steps.transforms if "RandomApply" in repr(step)]
    untouched = 0
    torch.manual_seed(0)
    for _ in range(400):
        found = operations[1](operations[0](gradient))
        untouched += found is gradient or np.array_equal(np.asarray(found), np.asarray(gradient))
    assert abs(untouched / 400 - 0.65**2) < 0.07


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs the reference values of ../shared")
@pytest.mark.parametrize("name", list(views._Operation._AUGMENTATION_SPACE))
def test_operations_do_what_the_official_ones_do(name):
    values = load_file(REFERENCE / "randaugment_level5.safetensors")
    magnitudes, signed = views._Operation._AUGMENTATION_SPACE[name]
    arguments = json.loads((REFERENCE / "randaugment_level5.json").read_text())["args"][name]
    operation = views._Operation()
    found = magnitudes(operation.num_magnitude_bins, 40, 52)
    magnitude = 0.0 if found is None else float(found[operation.magnitude])
    assert magnitude == pytest.approx(arguments[0] if signed else 0)
    ours = [
        np.asarray(
            operation._apply_image_or_video_transform(
                Image.fromarray(values["in"]),
                name,
                sign * magnitude,
                operation.interpolation,
                operation._fill,
            )
        ).astype(int)
        for sign in ((1, -1) if signed else (1,))
    ]
    for official in [f"out.{name}", f"out.{name}.neg"][: len(ours)]:
        expected, image = values[official].astype(int), values["in"].astype(int)
        if name == "AutoContrast":  # of the channels, the first alone has black; see `_Operation`
            ours, expected, image = [own[..., 0] for own in ours], expected[..., 0], image[..., 0]
        # Other rounding of the same geometry: under a tenth of what the operation changes on this noise.
        assert min(abs(own - expected).mean() for own in ours) <= 0.1 * abs(image - expected).mean()
