import json

import numpy as np
import pytest

from runs import current_folder
from square_models import SquareTeacher, shares
from stage_runs import shared
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import FeatureNotes
from tagmill.transforms import parquet, parts
from tagmill.transforms.features import SCHEMA, Features, FeaturesConfig
from tagmill.transforms.images import decode
from tagmill.transforms.stage import PartTask, make_part

NAME = "train-000000"


def images(folder):
    """The images of a shard, in its order."""
    index = parquet.read_table(str(folder / f"{NAME}.index.parquet")).to_pylist()
    data = (folder / f"{NAME}.tar").read_bytes()
    return [
        decode(data[m["offset"] :][: m["size"]], 10**6) for m in index if not m["member"].endswith(".json")
    ]


def make(shards, folder, *, model=None):
    stage = Features(FeaturesConfig(model="square_models:SquareTeacher", batch_size=4), shared())
    stage.setup()
    stage.model = model or stage.model
    where = {"shards": str(shards / f"{NAME}.index.parquet")}
    make_part(stage, str(folder), PartTask(NAME, "made-by", where, str(shards)))
    return parts.read_part(parts.part_uri(str(folder), NAME)), np.load(folder / f"{NAME}.npy")


@pytest.fixture(scope="module")
def shards(finished):
    return current_folder(finished / "run", "shards")


def test_every_image_of_a_shard_has_its_features_in_order(shards, tmp_path):
    part, array = make(shards, tmp_path)
    expected = np.stack([10 * shares(image) for image in images(shards)])
    assert array.dtype == np.float16
    np.testing.assert_allclose(array, expected, rtol=1e-3)
    assert part.table.schema.equals(SCHEMA)
    np.testing.assert_allclose(part.table["length"], np.linalg.norm(expected, axis=1), rtol=1e-6)
    keys = parquet.read_table(str(shards / f"{NAME}.index.parquet"))["key"].unique().to_pylist()
    assert part.table["key"].to_pylist() == keys
    notes = FeatureNotes.model_validate(part.header.notes)
    manifest = json.loads((shards / "manifest.json").read_text())
    assert notes.shard == next(shard["sha256"] for shard in manifest["shards"] if shard["name"] == NAME)
    assert (notes.dimension, notes.model) == (array.shape[1], SquareTeacher().fingerprint())


class Blind(SquareTeacher):
    """Fails on one image."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def image_features(self, batch):
        if any(np.array_equal(image, self.image) for image in batch):
            raise ValueError("I cannot see this")
        return super().image_features(batch)


def test_an_image_without_features_is_a_dead_letter_and_a_row_of_nan(shards, tmp_path):
    part, array = make(shards, tmp_path, model=Blind(images(shards)[2]))
    assert np.isnan(array[2]).all()
    assert not np.isnan(np.delete(array, 2, axis=0)).any()
    assert 2 not in part.table["row"].to_pylist()
    assert part.header.counts.of("example") == {"in": 9, "out": 8, "dropped": 0, "dead": 1}
    (letter,) = parquet.read_table(parts.dead_uri(str(tmp_path), NAME)).to_pylist()
    assert (letter["row"], letter["stage"], letter["reason"]) == (2, "features", "model_failed")


def test_a_model_that_gives_no_features_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="has no method image_features"):
        _ = Features(FeaturesConfig(model="square_models:SquareEmbedder"), shared()).spec
