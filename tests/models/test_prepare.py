"""How the built-in models prepare images: of what size, and from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tiny_models
from tagmill.models.base import create_for_pixels

OPTIONS = {
    "grounding-dino": [
        {},
        {"pad_to": 32},
        {"shortest": 50, "longest": 90, "pad_to": 24},
        {"shortest": 300, "longest": 500},
    ],
    "open-clip": [{"fit": fit} for fit in ("pad", "squash", "crop", None)],
    "ram": [{}, {"shortlist": 2}],
    "tag2text": [{}],
}
CASES = [(name, options) for name, every in OPTIONS.items() for options in every]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_models.grounding_dino(folder / "grounding-dino")
    tiny_models.open_clip(folder / "open-clip")
    tiny_models.tag2text(folder / "tag2text")
    return folder


def made(folders, name, options):
    """A model that is not loaded."""
    clip = {"model": f"local-dir:{folders / 'open-clip'}"}
    folder = folders / ("tag2text" if name == "ram" else name)
    where = clip if name == "open-clip" else {"path": str(folder)}
    return create_for_pixels(
        name, {**where, **options, "device": "cpu"} | ({"clip": clip} if "shortlist" in options else {})
    )


def arrays(prepared):
    """All arrays in what a model prepared."""
    if isinstance(prepared, (np.ndarray, torch.Tensor)):
        return [np.asarray(prepared)]
    return [one for value in vars(prepared).values() if value is not None for one in _inner(value)]


def _inner(value):
    return [np.array(value)] if isinstance(value, tuple) else arrays(value)


@pytest.fixture(scope="module")
def pairs(folders):
    """Of each case the model twice: not loaded, and loaded."""
    found = {}
    for name, options in CASES:
        loaded = made(folders, name, options)
        loaded.load()
        found[name, str(options)] = made(folders, name, options), loaded
    return found


side = st.one_of(st.integers(1, 40), st.integers(1, 400))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@settings(max_examples=60, deadline=None)
@given(width=side, height=side)
@example(width=4000, height=1)
@example(width=1, height=4000)
@example(width=3999, height=31)
def test_the_size_is_known_before_the_weights_are_read(pairs, name, options, width, height):
    new, loaded = pairs[name, str(options)]
    prepared = arrays(loaded.prepare(np.zeros((height, width, 3), np.uint8)))[0]
    assert prepared.dtype == np.float32
    assert new.size_of(width, height) == prepared.shape[:0:-1]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_threads_prepare_the_same_as_one(pairs, name, options):
    _, model = pairs[name, str(options)]
    rng = np.random.default_rng(0)
    sizes = [(20 + 7 * i, 90 - 5 * i) for i in range(12)]
    images = [rng.integers(0, 256, (high, wide, 3)).astype(np.uint8) for high, wide in sizes] * 4
    expected = [arrays(model.prepare(image)) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(map(arrays, pool.map(model.prepare, images)))
    for one, other in zip(expected, found, strict=True):
        assert [a.tobytes() for a in one] == [a.tobytes() for a in other]


def test_the_size_of_an_architectures_images_is_open_clips():
    from tagmill.models.open_clip import OpenClip

    assert OpenClip("ViT-L-14-336", pretrained="openai").size_of(640, 480) == (336, 336)
