import shutil

import numpy as np
import pytest
import torch

from stage_runs import shared
from tagmill.models.ram.losses import distillation_loss
from tagmill.models.training.components import terms_of
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.objectives import Objective
from tagmill.models.training.recipe import LossConfig, Recipe
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.transforms.features import Features, FeaturesConfig
from tagmill.transforms.stage import PartTask, make_part

SIZE = 24


@pytest.fixture(scope="module")
def features(shards, clip, tmp_path_factory):
    """Features by a small CLIP, as the stage makes them; leave them as they are."""
    folder = tmp_path_factory.mktemp("features")
    config = FeaturesConfig(model="open-clip", options={"model": clip, "fit": "squash", "device": "cpu"})
    stage = Features(config, shared())
    stage.setup()
    for index in shards.glob("*.index.parquet"):
        name = index.name.removesuffix(".index.parquet")
        make_part(stage, str(folder), PartTask(name, "made-by", {"shards": str(index)}, str(shards)))
    return folder


@pytest.fixture
def other(features, tmp_path):
    return shutil.copytree(features, tmp_path / "features")


def loader(shards, features, ram_config, *, dimension=SIZE, split="train", more=(), **changes):
    first = {"path": str(shards), "features": None if features is None else str(features)}
    data = {"datasets": [first, *more], "batch_size": 7, "workers": 0, **changes}
    return open_loader(DataConfig.model_validate(data), ram_config(dimension=dimension), split)


def rows_by_key(shards, features):
    import pyarrow.parquet as pq

    found = {}
    for path in features.glob("*.npy"):
        keys = pq.read_table(shards / f"{path.stem}.index.parquet")["key"].unique().to_pylist()
        found |= dict(zip(keys, np.load(path).astype(np.float32), strict=True))
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_every_sample_brings_the_features_of_its_image(shards, features, ram_config, workers):
    expected = rows_by_key(shards, features)
    batches = list(loader(shards, features, ram_config, workers=workers))
    assert sum(len(batch) for batch in batches) == 14
    for batch in batches:
        assert batch.features.shape == (7, SIZE)
        for (_, key), row in zip(batch.ids, batch.features, strict=True):
            np.testing.assert_array_equal(row.numpy(), expected[key])


def test_without_features_and_in_validation_there_are_none(shards, features, ram_config):
    assert next(iter(loader(shards, None, ram_config))).features.shape == (7, 0)
    assert next(iter(loader(shards, features, ram_config, split="val"))).features.shape == (7, 0)


def change_row(folder, row, values, name="train-000000"):
    array = np.load(folder / f"{name}.npy")
    array[row] = values
    np.save(folder / f"{name}.npy", array)


class Fixed(torch.nn.Module):
    """Encodes images to fixed tokens; distillation asks for no more."""

    def __init__(self, tokens, config):
        super().__init__()
        self.tokens, self.config, self.text = tokens, config, None


def test_the_loss_is_that_of_the_stored_rows_and_an_image_without_them_counts_not(shards, other, ram_config):
    change_row(other, 3, np.nan)
    (batch,) = loader(shards, other, ram_config, batch_size=14)
    alive = ~batch.features.isnan().any(1)
    assert alive.sum() == 13
    tokens = torch.randn(14, 2, SIZE, requires_grad=True)
    model = Fixed(tokens, ram_config())
    objective = Objective(model, LossConfig(), ("tagging", "distillation"))
    loss = objective._distillation(tokens, batch)
    assert loss.item() == pytest.approx(
        distillation_loss(tokens[alive], batch.features[alive]).item(), rel=1e-6
    )
    loss.backward()
    assert tokens.grad.isfinite().all()
    assert not tokens.grad[~alive].any()


def test_features_that_do_not_belong_or_fit_are_refused(shards, other, ram_config):
    with pytest.raises(ConfigError, match="features have 24 numbers, the model's dimension is 16"):
        loader(shards, other, ram_config, dimension=16)
    twin = {"path": str(shards), "name": "twin"}
    with pytest.raises(ConfigError, match="must be given for all datasets, or for none"):
        loader(shards, other, ram_config, more=[twin])
    shutil.copyfile(other / "train-000001.parquet", other / "train-000000.parquet")
    with pytest.raises(ConfigError, match="has features of another train-000000: run the stage"):
        loader(shards, other, ram_config)
    (other / "train-000000.parquet").unlink()
    with pytest.raises(ConfigError, match=r"no features of train-000000: give the folder"):
        loader(shards, other, ram_config)


def test_an_array_that_was_cut_short_is_damage(shards, other, ram_config):
    data = (other / "train-000001.npy").read_bytes()
    (other / "train-000001.npy").write_bytes(data[:100])
    with pytest.raises(DamageError, match=r"train-000001\.npy is missing or cut short"):
        loader(shards, other, ram_config)


def recipe(shards, **changes):
    data = {"datasets": [{"path": str(shards), "features": "somewhere"}], "batch_size": 1}
    return Recipe.model_validate({"out": "out", "model": {"image_size": 32}, "data": data, **changes})


def test_distillation_needs_no_clip_where_features_are_stored(shards, ram_config):
    terms = {"losses": {"terms": ["tagging", "distillation"]}}
    assert terms_of(recipe(shards, **terms), ram_config()) == ("tagging", "distillation")
    with pytest.raises(ConfigError, match="alignment needs a teacher"):
        terms_of(recipe(shards), ram_config())
    with pytest.raises(ConfigError, match="features are for the term distillation, which is off"):
        terms_of(recipe(shards, losses={"terms": ["tagging"]}), ram_config())
