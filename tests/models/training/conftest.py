import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tiny_models
import trainings
from runs import current_folder
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training.data import DataConfig, open_loader


@pytest.fixture(scope="session")
def shards(finished) -> Path:
    """The dataset of the finished run: 14 samples of `train` in two shards, 8 of `val`. Leave it as it is."""
    return current_folder(finished / "run", "shards")


@pytest.fixture
def copied(shards, tmp_path) -> Path:
    """A copy of the dataset to do damage to."""
    return Path(shutil.copytree(shards, tmp_path / "copied"))


CLASSES = ("violet", "red", "green square", "Blue", "yellow", "tidy")
"""By name, by alias, in other letters; `violet` is no tag of the dataset, its `purple` no class."""


def ram_config(**changes):
    settings = {"encoder": EncoderConfig(name="none", width=8), "classes": CLASSES, "image_size": 32}
    return RamConfig(**(settings | changes))


def loader_of(folder, split="train", *, rank=0, world=1, decisions=None, view=None, model=None, **changes):
    """The loader of one dataset, in this process and by batches of 4 unless said otherwise."""
    dataset = {key: changes.pop(key) for key in ("tags", "weight", "name") if key in changes}
    settings = {"datasets": [{"path": str(folder), **dataset}], "batch_size": 4, "workers": 0} | changes
    data = DataConfig.model_validate(settings)
    return open_loader(
        data, model or ram_config(), split, rank=rank, world=world, view=view, decisions=decisions
    )


def members(folder, shard="train-000000"):
    """The members of a shard: name, offset, size."""
    return pq.read_table(Path(folder) / f"{shard}.index.parquet").to_pylist()


def overwrite(folder, data, member=0, shard="train-000000"):
    """Write other bytes where a member begins, zeros behind them; the tar keeps its size."""
    found = members(folder, shard)[member]
    assert len(data) <= found["size"]
    with open(Path(folder) / f"{shard}.tar", "r+b") as stream:
        stream.seek(found["offset"])
        stream.write(data.ljust(found["size"], b"\0"))
    return found


# Tests of this folder are no package: what they share comes as fixtures.
@pytest.fixture(name="loader_of", scope="session")
def _loader_of():
    return loader_of


@pytest.fixture(name="ram_config", scope="session")
def _ram_config():
    return ram_config


@pytest.fixture(name="overwrite", scope="session")
def _overwrite():
    return overwrite


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> str:
    return f"local-dir:{tiny_models.open_clip(tmp_path_factory.mktemp('clip'))}"


@pytest.fixture(scope="session")
def vocab(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(tiny_models.word_pieces()) + "\n")
    return str(path)


@pytest.fixture
def values_of(shards, clip, tmp_path):
    """Makes recipes as YAML has them: tags only, an epoch is 3 steps of 4 samples."""

    def make(out="out", **changes):
        values = {
            "out": str(tmp_path / out),
            "model": trainings.MODEL,
            "classes": trainings.CLASSES,
            "clip": {"model": clip, "device": "cpu"},
            "data": {"datasets": [{"path": str(shards), "name": "squares"}], "batch_size": 4, "workers": 0},
            "losses": {"terms": ["tagging"]},
            "schedule": {"learning_rate": 0.003, "warmup_steps": 2, "decay": "cosine", "every": "step"},
            "engine": {"device": "cpu"},
            "epochs": 2,
            "log_every": 1,
        }
        for name, value in changes.items():
            merge = isinstance(values.get(name), dict) and isinstance(value, dict)
            values[name] = {**values[name], **value} if merge else value
        return values

    return make
