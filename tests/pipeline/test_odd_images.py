"""Images of every kind through a whole run: the models, the trainer and whoever looks see the same pixels."""

import numpy as np
import pytest
import torch

from odd_images import NOISE, ODD_IMAGES
from runs import current_folder, drive, rows_of
from sources import write_config, write_tar
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example, read_pixels
from tagmill.transforms.decode_ahead import Decoder
from turned import ORIENTATIONS, turned

CAP = 10_000
IMAGES = ODD_IMAGES | {f"turned {way}": turned(NOISE, way) for way in ORIENTATIONS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run that tags nothing; its keys are the names of the images."""
    folder = tmp_path_factory.mktemp("odd")
    contents = []
    for name, data in IMAGES.items():
        contents += [(f"{name}.jpg", data), (f"{name}.txt", b"a red square")]
    write_tar(folder / "data" / "a.tar", contents)
    ingest = {"val_fraction": 0, "max_pixels": CAP}
    stages = {"duplicates": None, "parse": None, "localize": None, "embed": None, "cluster": None}
    drive(write_config(folder, ingest=ingest, part_size=100, shards={"size": 100}, **stages))
    return folder


def test_models_and_trainer_see_the_same_pixels(folder):
    run = folder / "run"
    rows = rows_of(run, "ingest")
    assert {row["key"] for row in rows} == {f"squares/{name}" for name in IMAGES}
    with Decoder(1, CAP) as decoder:
        of_models = dict(
            zip([row["key"] for row in rows], decoder.pixels(rows, str(folder / "data")), strict=True)
        )
    shards = current_folder(run, "shards")
    data = {"datasets": [{"path": str(shards)}], "batch_size": len(rows), "workers": 0, "max_pixels": CAP}
    model = RamConfig(encoder=EncoderConfig(name="none", width=8), classes=("red",), image_size=8)
    seen = []

    def view(image, seed):
        seen.append(np.asarray(image))
        return torch.zeros(3, 8, 8)

    opened = RunFolder(str(run))
    (batch,) = open_loader(DataConfig.model_validate(data), model, "train", view=view)
    for (_, key), pixels in zip(batch.ids, seen, strict=True):
        assert np.array_equal(pixels, of_models[key]), key
        assert np.array_equal(pixels, read_pixels(opened, find_example(opened, key))), key
    assert len(seen) == len(IMAGES)
