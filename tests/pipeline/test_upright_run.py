"""One picture, stored in all eight orientations, through a whole run: everything after ingest is the same."""

import json
import tarfile

import numpy as np
import pytest

from runs import current_folder, drive, rows_of, samples
from sources import write_config, write_tar
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.views import PlainView
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example, read_pixels
from tagmill.pipeline.study.picture import draw_example
from tagmill.transforms import images
from turned import NAMES, ORIENTATIONS, picture, turned


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run over the eight, the first of which has the truth as its upright given boxes."""
    folder = tmp_path_factory.mktemp("upright")
    contents = []
    for orientation in ORIENTATIONS:
        contents.append((f"{orientation}.png", turned(picture(), orientation)))
        contents.append((f"{orientation}.json", json.dumps({"truth": NAMES}).encode()))
    write_tar(folder / "data" / "a.tar", contents)
    squares = {"name": "squares", "format": "webdataset", "path": str(folder / "data" / "*.tar")}
    policy = {"policy": {"trust_given": False}}
    features = {"model": "square_models:SquareTeacher"}
    config = {"inputs": [squares | {"labels": "truth"}], "parse": None, "clean": policy, "part_size": 8}
    drive(write_config(folder, **config, features=features, ingest={"val_fraction": 0}))
    return folder


def by_orientation(run, stage):
    """A stage's rows of each orientation, without what tells the examples apart."""
    found = {orientation: [] for orientation in ORIENTATIONS}
    for row in rows_of(run, stage):
        found[row.pop("row") + 1].append(row)
    return found


@pytest.mark.parametrize("stage", ["tag", "localize", "embed", "clean"])
def test_every_stage_says_the_same_of_all_eight(folder, stage):
    upright, *others = by_orientation(folder / "run", stage).values()
    assert {row["name" if stage == "tag" else "tag"] for row in upright} >= set(NAMES)
    assert others == [upright] * 7


def test_boxes_lie_on_the_upright_picture(folder):
    example = find_example(RunFolder(str(folder / "run")), "squares/6")
    for region in example.regions:
        x1, y1, x2, y2 = (int(region[side]) for side in ("x1", "y1", "x2", "y2"))
        inside = np.asarray(picture())[y1:y2, x1:x2]
        assert (inside == inside[0, 0]).all()
    assert len(example.regions) == 3


def test_the_picture_of_inspect_is_the_same(folder):
    run = RunFolder(str(folder / "run"))
    drawn = set()
    for orientation in ORIENTATIONS:
        example = find_example(run, f"squares/{orientation}")
        pixels = read_pixels(run, example)
        example.key = "squares/picture"
        drawn.add(draw_example(example, pixels).tobytes())
    assert len(drawn) == 1


def test_shards_keep_the_bytes_and_the_trainer_turns_them(folder):
    shards = current_folder(folder / "run", "shards")
    with tarfile.open(shards / "train-000000.tar") as archive:
        stored = [archive.extractfile(member).read() for member in archive if member.name.endswith(".png")]
    assert stored == [turned(picture(), orientation) for orientation in ORIENTATIONS]
    assert {(sample["width"], sample["height"]) for sample in samples(folder / "run")} == {(96, 80)}
    model = RamConfig(encoder=EncoderConfig(name="none", width=8), classes=tuple(NAMES), image_size=32)
    data = DataConfig.model_validate({"datasets": [{"path": str(shards)}], "batch_size": 8, "workers": 0})
    (batch,) = open_loader(data, model, "train", view=PlainView(model))
    assert (batch.images == batch.images[0]).all()
    assert np.array_equal(images.decode(stored[5], 10**6), np.asarray(picture()))


def test_features_are_of_the_upright_picture(folder):
    features = np.load(current_folder(folder / "run", "features") / "train-000000.npy")
    assert (features == features[0]).all()
