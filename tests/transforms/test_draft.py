"""JPEGs that are decoded at a fraction of their size, for models that take less."""

import io

import numpy as np
import pytest
from PIL import Image

from odd_models import SmallTagger
from sources import write_tar
from stage_runs import Bench, as_json
from tagmill.tag_system.core.pixels import decode_array
from tagmill.transforms.candidates import Asked
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.tag import TagConfig, TagStage

ROTATED = 6
"""The EXIF orientation of a picture that is stored lying on its left side."""


def jpeg(size, orientation=1, red=(0.25, 0.5)):
    """A picture that is red between two shares of its stored width, and else white."""
    picture = np.full((size[1], size[0], 3), 255, np.uint8)
    picture[:, int(red[0] * size[0]) : int(red[1] * size[0])] = (220, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=95, exif=exif)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("size", "least", "shape"),
    [
        ((801, 400), (100, 50), (50, 101, 3)),
        ((801, 400), (101, 50), (100, 201, 3)),
        ((801, 400), (10, 51), (100, 201, 3)),
        ((801, 400), (801, 400), (400, 801, 3)),
        ((801, 400), (1000, 1000), (400, 801, 3)),
        ((801, 400), (1, 1), (50, 101, 3)),
    ],
    ids=str,
)
def test_the_smallest_fraction_is_taken_in_which_no_side_is_too_short(size, least, shape):
    assert decode_array(jpeg(size), 10**6, least=least).shape == shape


def test_the_size_that_is_wanted_is_that_of_the_upright_image():
    lying = jpeg((800, 400), ROTATED)
    assert decode_array(lying, 10**6, least=(100, 200)).shape == (200, 100, 3)
    assert decode_array(lying, 10**6, least=(200, 100)).shape == (400, 200, 3)


@pytest.mark.parametrize(("draft", "side"), [(None, 800), (1, 100), (2, 200), (3.9, 400)], ids=str)
def test_a_stage_decodes_what_its_model_takes_so_many_times(tmp_path, draft, side):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_tar(tmp_path / "a.tar", [("a.jpg", jpeg((800, 800)))]))
    SmallTagger.given.clear()
    config = TagConfig(model="odd_models:SmallTagger", draft=draft)
    (part,) = bench.run(TagStage(config, bench.shared))
    assert SmallTagger.given == [(side, side, 3)]
    assert [record["name"] for record in part.records] == ["red"]
    assert TagStage(config, bench.shared).spec["config"].get("draft") == draft


@pytest.mark.parametrize("draft", [None, 1], ids=str)
def test_boxes_are_in_pixels_of_the_image_as_it_is(tmp_path, draft):
    bench = Bench(tmp_path / "run")
    contents = [("a.jpg", jpeg((804, 400), ROTATED)), ("a.json", as_json({"labels": ["red"]}))]
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    bench.candidates(Asked(localizer=True))
    config = LocalizeConfig(model="odd_models:SmallLocalizer", draft=draft)
    (part,) = bench.run(Localize(config, bench.shared))
    (box,) = part.records
    corners = [box[name] for name in ("x1", "y1", "x2", "y2")]
    assert np.allclose(corners, [0, 201, 400, 402], atol=8)
