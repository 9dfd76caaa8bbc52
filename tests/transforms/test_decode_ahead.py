import threading

import numpy as np
import pytest
import torch

from tagmill.tag_system.core.errors import InputChangedError, Reason
from tagmill.transforms import decode_ahead, images
from tagmill.transforms.decode_ahead import Decoder

CAP = 10**6

kinds = pytest.mark.parametrize("kind", ["file", "range"])


@kinds
@pytest.mark.parametrize("change", ["removed", "cut", "other bytes", "longer"])
def test_a_file_that_changed_since_ingest_stops_the_run(store, kind, change):
    path = store.path / ("0.png" if kind == "file" else "a.tar")
    before = path.read_bytes()
    after = {
        "cut": before[:50],
        "other bytes": before[:-9] + b"x" + before[-8:] if kind == "file" else b"x" * len(before),
        "longer": b"in front" + before,
    }
    path.unlink()
    if change != "removed":
        path.write_bytes(after[change])
    with Decoder(2, CAP) as decoder, pytest.raises(InputChangedError):
        list(decoder.pixels(store.examples(kind), store.root))


@kinds
def test_pixels_are_decoded(store, kind):
    with Decoder(2, CAP) as decoder:
        pixels = list(decoder.pixels(store.examples(kind), store.root))
    for data, found in zip(store.data, pixels, strict=True):
        assert np.array_equal(found, images.decode(data, CAP))
    assert decoder.seconds > 0


def test_decoding_ahead_keeps_the_order_and_bounds_what_waits(store, monkeypatch):
    monkeypatch.setattr(decode_ahead, "AHEAD_IMAGES", 5)
    examples = store.examples("range") * 20
    with Decoder(4, CAP) as decoder:
        stream = decoder.pixels(examples, store.root)
        first = next(stream)
        pixels = [first, *stream]
    expected = [images.decode(data, CAP) for data in store.data]
    assert len(pixels) == 60
    assert all(np.array_equal(found, expected[i % 3]) for i, found in enumerate(pixels))


@pytest.mark.parametrize("count", [1, 4])
def test_huge_images_wait_one_by_one(store, count):
    with Decoder(2, CAP, count * 10 * 96 * 80) as decoder:
        assert len(list(decoder.pixels(store.examples("file") * 4, store.root))) == 12


def test_what_is_made_of_the_pixels_waits_in_bounded_room(store):
    made = []

    def prepare(example, image):
        made.append(image.shape)
        return example["key"], image.shape

    examples = store.examples("file") * 10
    with Decoder(2, CAP) as decoder:
        stream = decoder.pixels(examples, store.root, prepare, held=lambda _: 768 << 20)
        found = [next(stream)]
        assert len(made) <= 2
        found += stream
    assert found == [(example["key"], (80, 96, 3)) for example in examples]
    assert decoder.preparing > 0


def test_each_thread_takes_one_core_and_leaves_the_models_as_they_are(store):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Decoder(2, CAP) as decoder:
            found = decoder.pixels(store.examples("file"), store.root, lambda *_: torch.get_num_threads())
            assert list(found) == [1, 1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_image_that_cannot_be_decoded_gives_its_error_in_its_place(store):
    with Decoder(2, 96 * 80 - 1) as decoder:
        results = list(decoder.pixels(store.examples("file"), store.root))
    assert [result.reason for result in results] == [Reason.IMAGE_TOO_LARGE] * 3


def test_the_threads_end_with_the_decoder(store):
    with Decoder(3, CAP) as decoder:
        next(decoder.pixels(store.examples("file") * 20, store.root))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
