"""The section `data` of a training's config, and the loader that it asks for."""

from collections.abc import Sequence

import torch
from pydantic import Field

from tagmill.models.ram.config import RamConfig
from tagmill.models.training import datasets
from tagmill.models.training.batches import Collate
from tagmill.models.training.datasets import Dataset
from tagmill.models.training.examples import DatasetInfo, Examples
from tagmill.models.training.loader import Loader
from tagmill.models.training.order import DatasetSizes, Order
from tagmill.models.training.shard_cache import CacheConfig, ShardCache
from tagmill.models.training.steps import Share, Steps
from tagmill.models.training.targets import (
    Absent,
    ClassMap,
    Decisions,
    Implied,
    MarkPolicy,
    Preset,
    TagChoice,
    choose,
)
from tagmill.models.training.views import PlainView, TrainView, View
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.pixels import MAX_BYTES
from tagmill.tag_system.shard_contract import Split


class DatasetConfig(Config):
    """One dataset of the mix.

    `path` is its folder, a path or fsspec url; `name` stands in sample ids, by default the folder's. An
    epoch shows each of its samples `weight` times: 2 doubles the dataset's share of the mix, 0.5 halves it,
    and then two epochs show each sample once. `tags` says which decisions become targets, `implied` and
    `absent` how the marks of those names count, see `MarkPolicy`. `features` is the
    folder that the stage features wrote, for distillation without a CLIP at hand.
    """

    path: str
    name: str | None = None
    weight: float = Field(1.0, gt=0)
    tags: Preset | TagChoice = "stored"
    implied: Implied = "negative"
    absent: Absent = "negative"
    features: str | None = None


class RepeatConfig(Config):
    """Which classes are rare, for samples of `train` with them to be shown more often: see `repeat_factors`.

    Those are positive in a smaller share of samples than `threshold`. No factor is above `limit`.
    """

    threshold: float = Field(gt=0, le=1)
    limit: float = Field(10.0, ge=1)


class DataConfig(Config):
    """What a training reads.

    `batch_size` is that of one rank. `window`: see `order`. `cache` is for shards of `train` that are not
    local, see `shard_cache`. `verify` compares the sha256 of all shards first, each rank its part of them.
    `decisions` is the folder of a run over the same inputs, whose decisions go before those of the shards:
    its policy was changed, but no new shards were written. An image of more than `max_pixels`, or that takes
    more than `max_image_bytes` of memory to decode, is skipped. `workers` processes each read `prefetch`
    batches ahead.
    """

    datasets: list[DatasetConfig] = Field(min_length=1)
    batch_size: int = Field(ge=1)
    seed: int = Field(0, ge=0)
    window: int | None = Field(None, ge=1)
    cache: CacheConfig | None = None
    repeat_factor: RepeatConfig | None = None
    verify: bool = False
    decisions: str | None = None
    max_pixels: int = Field(100_000_000, ge=1)
    max_image_bytes: int = Field(MAX_BYTES, ge=1)
    workers: int = Field(4, ge=0)
    prefetch: int = Field(2, ge=1)


def open_loader(
    data: DataConfig,
    model: RamConfig,
    split: Split,
    *,
    rank: int = 0,
    world: int = 1,
    view: View | None = None,
    decisions: Decisions | None = None,
) -> Loader:
    """Open the loader of a split for one of `world` ranks.

    `train` is shuffled and augmented, and its last step dropped unless full. `val` and `test` come in the
    order of the shards, each sample once and plain, the last step padded; datasets without the split
    are left out. `view` replaces the images' own view. Raises ConfigError and DamageError.
    """
    training = split == "train"
    opened = _open(data, split, required=training)
    if data.verify:
        for _, dataset in opened:
            datasets.verify(dataset, range(rank, len(dataset.shards), world))
    if decisions is not None:
        for _, dataset in opened:
            decisions.check(dataset.name, dataset.manifest.vocabulary, datasets.first_keys(dataset))
    sources = [DatasetSizes(dataset.counts, config.weight) for config, dataset in opened]
    cache = ShardCache(data.cache) if data.cache is not None and training else None
    examples = Examples(
        [_origin(config, dataset, model) for config, dataset in opened],
        view or (TrainView(model) if training else PlainView(model)),
        seed=data.seed,
        max_pixels=data.max_pixels,
        max_bytes=data.max_image_bytes,
        decisions=decisions,
        copies=_copies(cache, [dataset for _, dataset in opened], data.window),
    )
    steps = Steps(
        [dataset for _, dataset in opened],
        Order(sources, data.seed, shuffle=training, window=data.window),
        Share(data.batch_size, rank, world),
        drop_last=training,
    )
    return Loader(
        steps,
        examples,
        Collate(len(model.classes), (3, model.image_size, model.image_size), _dimension(opened, model)),
        workers=data.workers,
        prefetch=data.prefetch,
        pin_memory=torch.cuda.is_available(),
        cache=cache,
    )


def _copies(cache: ShardCache | None, opened: Sequence[Dataset], window: int | None) -> dict[str, str]:
    """Name the copies of shards that are not local. Raises ConfigError if those of a window do not fit."""
    if cache is None:
        return {}
    remote = [dataset for dataset in opened if not files.is_local(dataset.folder)]
    cache.check_room([[shard.bytes for shard in dataset.shards] for dataset in remote], window)
    return {
        dataset.shard_uri(at): cache.path(shard.sha256)
        for dataset in remote
        for at, shard in enumerate(dataset.shards)
    }


def _dimension(opened: Sequence[tuple[DatasetConfig, Dataset]], model: RamConfig) -> int:
    """Give the size of the features, 0 without any. Raises ConfigError unless they fit the model."""
    sizes = {dataset.features.dimension if dataset.features else 0 for _, dataset in opened}
    if len(sizes) > 1:
        raise ConfigError("features must be given for all datasets, or for none, and be of one size")
    (size,) = sizes
    if size not in (0, model.dimension):
        raise ConfigError(
            f"features have {size} numbers, the model's dimension is {model.dimension}: make them by its CLIP"
        )
    return size


def _open(data: DataConfig, split: Split, *, required: bool) -> list[tuple[DatasetConfig, Dataset]]:
    """Open the datasets that have the split."""
    opened = []
    for config in data.datasets:
        if required or datasets.read_manifest(config.path).examples.get(split):
            # Nothing but training is distilled.
            features = config.features if split == "train" else None
            dataset = datasets.open_dataset(config.path, split, name=config.name, features=features)
            opened.append((config, dataset))
    names = [dataset.name for _, dataset in opened]
    if not opened:
        cure = "set validate: false" if split == "val" else "leave it out"
        raise ConfigError(f"no dataset has examples in the split {split}: {cure}, or add one that has")
    if len(set(names)) < len(names):
        raise ConfigError(
            f"two datasets have the same name ({', '.join(names)}): give each a `name` of its own"
        )
    return opened


def _origin(config: DatasetConfig, dataset: Dataset, model: RamConfig) -> DatasetInfo:
    classes = ClassMap(model.classes, dataset.vocabulary)
    if len(classes.unknown) == len(model.classes):
        raise ConfigError(
            f"{dataset.folder}: its vocabulary has none of the model's {len(model.classes)} classes: take "
            "another dataset or another list of classes"
        )
    shards = tuple(dataset.shard_uri(shard) for shard in range(len(dataset.shards)))
    choice, marks = choose(config.tags, dataset.manifest), MarkPolicy(config.implied, config.absent)
    return DatasetInfo(dataset.name, shards, classes, choice, dataset.features, marks)
