import multiprocessing
import os
import pickle
import shutil
import warnings
from collections import Counter

import fsspec
import numpy as np
import pytest
import torch
from torch import distributed

from runs import samples
from tagmill.models.ram.preprocess import prepare
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.loader import _check_agreement
from tagmill.models.training.ranges import RangeReader
from tagmill.tag_system.errors import ConfigError, DamageError
from tagmill.tag_system.shard_contract import Sample, unescape


def ids(batches):
    return [name for batch in batches for name in batch.ids]


def same(first, second):
    """Whether two batches are equal to the last bit."""
    tensors = ("images", "targets", "known", "mentioned", "valid")
    others = ("captions", "ids", "skipped", "unmapped")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors) and all(
        getattr(first, name) == getattr(second, name) for name in others
    )


def by_key(finished):
    return {sample["key"]: Sample.model_validate(sample) for sample in samples(finished / "run")}


def test_a_batch_has_what_a_model_learns_from(finished, shards, loader_of):
    loader = loader_of(shards, batch_size=14, name="squares")
    (batch,) = loader
    known = by_key(finished)
    assert (batch.images.shape, batch.images.dtype) == ((14, 3, 32, 32), torch.float32)
    assert len(batch) == 14
    assert bool(batch.valid.all())
    assert sorted(ids([batch])) == sorted(("squares", k) for k, s in known.items() if s.split == "train")
    for (_, key), target, mask, mentioned, text in zip(
        batch.ids, batch.targets, batch.known, batch.mentioned, batch.captions, strict=True
    ):
        kept = {tag.tag for tag in known[key].tags if tag.verdict == "kept"}
        open_ = {tag.tag for tag in known[key].tags if tag.verdict == "uncertain"}
        names = ["violet", "red", "green", "blue", "yellow", "tidy"]
        assert target.tolist() == [float(name in kept) for name in names]
        assert mask.tolist() == [float(name not in open_ and name != "violet") for name in names]
        (caption,) = [caption for caption in known[key].captions if caption.text == text][:1]
        said = {mention.tag for mention in caption.mentions}
        assert mentioned.tolist() == [name in said for name in names]
    purple = sum(tag.tag == "purple" for s in known.values() for tag in s.tags if s.split == "train")
    assert loader.unmapped == Counter(purple=purple)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 4])
def test_training_resumes_to_the_bit_wherever_it_stopped(shards, loader_of, workers, taken):
    whole = loader_of(shards)
    expected = [*whole, *whole]
    assert len(expected) == 6
    stopped = loader_of(shards, workers=workers)
    given, state = [], None
    while state is None:
        for batch in stopped:
            given.append(batch)
            if len(given) == taken:
                state = pickle.loads(pickle.dumps(stopped.state_dict()))
                break
    resumed = loader_of(shards, workers=workers)
    resumed.load_state_dict(state)
    given += list(resumed)
    while len(given) < 6:
        given += list(resumed)
    assert all(same(*pair) for pair in zip(given, expected, strict=True))
    assert resumed.unmapped == whole.unmapped


def test_a_state_taken_behind_the_last_batch_goes_on_with_the_next_epoch(shards, loader_of):
    loader = loader_of(shards)
    for _ in loader:
        state = loader.state_dict()
    resumed = loader_of(shards)
    resumed.load_state_dict(state)
    assert (resumed.steps_left(), list(resumed), resumed.epoch) == (0, [], 1)


def test_an_iteration_that_was_broken_off_goes_on(shards, loader_of):
    expected = list(loader_of(shards))
    loader = loader_of(shards, workers=1)
    given = [next(iter(loader))]
    assert all(same(*pair) for pair in zip([*given, *loader], expected, strict=True))


def test_workers_do_not_change_a_bit(shards, loader_of):
    alone, helped = loader_of(shards), loader_of(shards, workers=2)
    for _ in range(2):
        assert all(same(*pair) for pair in zip(alone, helped, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_one_order(shards, loader_of, world):
    alone = list(loader_of(shards, batch_size=6))
    ranks = [loader_of(shards, batch_size=6 // world, rank=rank, world=world) for rank in range(world)]
    assert {rank.steps() for rank in ranks} == {2}
    for whole, *parts in zip(alone, *ranks, strict=True):
        for place in range(6):
            part, row = parts[place % world], place // world
            assert part.ids[row] == whole.ids[place]
            assert torch.equal(part.images[row], whole.images[place])
            assert part.captions[row] == whole.captions[place]


def test_training_resumes_on_another_number_of_ranks(shards, loader_of):
    expected = ids(loader_of(shards, batch_size=2))
    first = [loader_of(shards, batch_size=2, rank=rank, world=2) for rank in range(2)]
    given = [name for pair in zip(*(next(iter(rank)).ids for rank in first), strict=True) for name in pair]
    resumed = loader_of(shards, batch_size=2)
    resumed.load_state_dict(first[0].state_dict())
    assert given + ids(resumed) == expected


@pytest.mark.parametrize(("world", "batch_size"), [(1, 4), (3, 2), (5, 1), (2, 7)])
def test_every_rank_takes_as_many_steps_and_padding_shows_each_sample_once(
    shards, loader_of, world, batch_size
):
    found = {"train": [], "val": []}
    for split, batches in found.items():
        for rank in range(world):
            loader = loader_of(shards, split, rank=rank, world=world, batch_size=batch_size)
            batches.append(list(loader))
            assert len(batches[-1]) == loader.steps()
        assert len({len(steps) for steps in batches}) == 1
        assert {len(batch) for steps in batches for batch in steps} == {batch_size}
    real = [
        name
        for steps in found["val"]
        for batch in steps
        for name, valid in zip(batch.ids, batch.valid.tolist(), strict=True)
        if valid
    ]
    assert len(real) == len(set(real)) == 8
    assert all(batch.valid.all() for steps in found["train"] for batch in steps)


def test_padding_teaches_nothing(shards, loader_of):
    *_, last = loader_of(shards, "val", batch_size=5)
    assert last.valid.tolist() == [True] * 3 + [False] * 2
    assert not last.known[3:].any()
    assert not last.images[3:].any()
    assert last.ids[3:] == (("", ""),) * 2
    assert not last.skipped


def test_validation_is_the_same_every_time(shards, loader_of):
    loader = loader_of(shards, "val")
    first, second = list(loader), list(loader)
    assert all(same(*pair) for pair in zip(first, second, strict=True))


def test_epochs_differ_in_order_in_pixels_and_in_captions(finished, shards, loader_of):
    loader = loader_of(shards, batch_size=14)
    epochs = [batch for _ in range(6) for batch in loader]
    assert len({epoch.ids for epoch in epochs}) == 6
    images, captions = {}, {}
    for epoch in epochs:
        for row, name in enumerate(epoch.ids):
            images.setdefault(name, set()).add(epoch.images[row].numpy().tobytes())
            captions.setdefault(name, set()).add(epoch.captions[row])
    assert {len(views) for views in images.values()} == {6}
    known = by_key(finished)
    for (_, key), drawn in captions.items():
        assert drawn <= {caption.text for caption in known[key].captions if caption.text.strip()}
    assert max(map(len, captions.values())) > 1


def test_chance_elsewhere_is_left_alone(shards, loader_of):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(loader_of(shards))
    assert torch.equal(torch.rand(2), expected)


def test_another_order_is_not_resumed(shards, copied, loader_of):
    state = loader_of(shards, name="one").state_dict()
    for change in ({"seed": 1}, {"weight": 2}, {"window": 1}, {"name": "two"}):
        other = loader_of(shards, **({"name": "one"} | change))
        with pytest.raises(ConfigError, match="another sample order"):
            other.load_state_dict(state)
    loader_of(copied, name="one", batch_size=2, verify=True).load_state_dict(state)


def test_damage_is_refused_before_the_first_step_if_asked(copied, overwrite, loader_of):
    overwrite(copied, b"no image")
    loader_of(copied)
    with pytest.raises(DamageError, match="does not match its sha256"):
        loader_of(copied, verify=True)
    with pytest.raises(DamageError, match="does not match its sha256"):
        loader_of(copied, verify=True, rank=0, world=2, batch_size=1)
    loader_of(copied, verify=True, rank=1, world=2, batch_size=1)  # its part is whole; rank 0 stops them all


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_samples_are_skipped_and_counted_by_reason(copied, overwrite, loader_of, workers):
    bad = [overwrite(copied, b"\x89PNG\r\n\x1a\n", member)["key"] for member in (0, 4)]
    bad.append(overwrite(copied, b"{}", 7)["key"])
    loader = loader_of(copied, batch_size=7, workers=workers)
    batches = list(loader)
    assert loader.skipped == {"image_unreadable": 2, "record_invalid": 1}
    assert [len(batch) for batch in batches] == [7, 7]
    assert sum(int(batch.valid.sum()) for batch in batches) == 11
    assert not {key for _, key in ids(batches)} & set(bad)
    assert all(not batch.known[~batch.valid].any() for batch in batches)
    places = [skipped.place for batch in batches for skipped in batch.skipped]
    assert all(place.startswith(f"{copied}/train-000000.tar@") for place in places)
    assert loader.state_dict()["skipped"] == {"image_unreadable": 2, "record_invalid": 1}


def test_images_over_the_cap_are_skipped(shards, loader_of):
    loader = loader_of(shards, batch_size=14, max_pixels=96 * 80 - 1)
    (batch,) = loader
    assert not batch.valid.any()
    assert loader.skipped == {"image_too_large": 14}


def test_a_shard_that_shrinks_under_a_training_costs_its_samples(copied, loader_of):
    loader = loader_of(copied, batch_size=14)
    os.truncate(copied / "train-000001.tar", 0)
    (batch,) = loader
    assert int(batch.valid.sum()) == 9
    assert loader.skipped == {"source_truncated": 5}


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_ever_opened(copied, overwrite, loader_of, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    pickle.loads(trap).close()
    (tmp_path / "sprung").unlink()
    overwrite(copied, trap, 0)
    overwrite(copied, trap, 3)
    loader = loader_of(copied, batch_size=14)
    list(loader)
    assert loader.skipped == {"image_unreadable": 1, "record_invalid": 1}
    assert not (tmp_path / "sprung").exists()


def test_webdataset_reads_the_same_shards_and_sees_the_same_images(shards, loader_of, ram_config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset as wds

        urls = [str(shards / f"{name}.tar") for name in ("val-000000",)]
        theirs = {
            unescape(sample["__key__"]): sample
            for sample in wds.WebDataset(urls, shardshuffle=False).decode("pil")
        }
    (batch,) = loader_of(shards, "val", batch_size=8)
    assert [key for _, key in batch.ids] == list(theirs)
    for (_, key), image in zip(batch.ids, batch.images, strict=True):
        pixels = np.asarray(theirs[key]["png"].convert("RGB"))
        assert torch.equal(image, torch.from_numpy(prepare(pixels, ram_config())))
        assert theirs[key]["json"]["key"] == key


def test_a_mix_shows_each_dataset_by_its_weight(shards, copied, ram_config):
    data = DataConfig.model_validate(
        {
            "datasets": [
                {"path": str(shards), "name": "often", "weight": 2, "tags": "parsed"},
                {"path": str(copied), "name": "seldom", "weight": 0.5},
            ],
            "batch_size": 7,
            "workers": 0,
        }
    )
    loader = open_loader(data, ram_config(), "train")
    assert [loader.steps(epoch) for epoch in (0, 1)] == [5, 5]
    first, second = Counter(ids(loader)), Counter(ids(loader))
    assert {count for (name, _), count in first.items() if name == "often"} == {2}
    seldom = [name for name in [*first, *second] if name[0] == "seldom"]
    assert len(seldom) == len(set(seldom)) == 14


def test_two_showings_in_one_epoch_are_two_views(shards, loader_of):
    (batch,) = loader_of(shards, batch_size=28, weight=2)
    views = {}
    for name, image in zip(batch.ids, batch.images, strict=True):
        views.setdefault(name, set()).add(image.numpy().tobytes())
    assert {len(found) for found in views.values()} == {2}


class Newer:
    """Decisions that call everything tidy, on the images whose key has an even number."""

    @staticmethod
    def has(key):
        return key[-1:].isdigit() and int(key[-1]) % 2 == 0

    def check(self, dataset, vocabulary, keys):
        assert all(key.startswith("squares/") for key in keys)

    def tags_of(self, sample):
        from tagmill.tag_system.shard_contract import SampleTag

        if not self.has(sample.key):
            return None
        return [SampleTag(tag="tidy", kind="attribute", verdict="kept", rule="given", evidence={"given": 1})]


@pytest.mark.parametrize(("tags", "workers"), [("stored", 1), ("adaptive", 0)])
def test_newer_decisions_are_laid_over_those_of_the_shards(shards, loader_of, tags, workers):
    (plain,) = loader_of(shards, "val", batch_size=8)
    (newer,) = loader_of(shards, "val", batch_size=8, decisions=Newer(), tags=tags, workers=workers)
    changed = [Newer().has(key) for _, key in plain.ids]
    assert 0 < sum(changed) < 8
    for row, is_newer in enumerate(changed):
        expected = torch.tensor([0.0, 0, 0, 0, 0, 1]) if is_newer else plain.targets[row]
        assert torch.equal(newer.targets[row], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 15}, "samples of an epoch do not fill one step of 15"),
        ({"batch_size": 8, "world": 2}, "lower batch_size"),
    ],
)
def test_a_batch_that_cannot_be_filled_is_refused(shards, loader_of, settings, message):
    with pytest.raises(ConfigError, match=message):
        loader_of(shards, **settings)


def test_classes_and_names_that_cannot_work_are_refused(shards, copied, loader_of, ram_config):
    with pytest.raises(ConfigError, match="none of the model's 1 classes"):
        loader_of(shards, model=ram_config(classes=("zebra",)))
    twice = DataConfig.model_validate({"datasets": [{"path": str(shards)}] * 2, "batch_size": 1})
    with pytest.raises(ConfigError, match="give each a `name`"):
        open_loader(twice, ram_config(), "train")
    with pytest.raises(ConfigError, match="no dataset has examples in the split test"):
        loader_of(shards, "test")


def test_datasets_without_the_split_are_left_out_of_validation(shards, copied, ram_config):
    manifest = (copied / "manifest.json").read_text().replace('"split": "val"', '"split": "test"')
    (copied / "manifest.json").write_text(manifest.replace('"val": 8', '"test": 8'))
    data = {"datasets": [{"path": str(shards)}, {"path": str(copied)}], "batch_size": 8, "workers": 0}
    (batch,) = open_loader(DataConfig.model_validate(data), ram_config(), "val")
    assert {name for name, _ in batch.ids} == {shards.name}


def test_remote_shards_give_the_same_batches(shards, loader_of):
    fs = fsspec.filesystem("memory")
    fs.put(f"{shards}/", "/far/squares/", recursive=True)
    try:
        far = loader_of("memory://far/squares", name="squares", verify=True)
        assert all(same(*pair) for pair in zip(far, loader_of(shards, name="squares"), strict=True))
    finally:
        fs.rm("/far", recursive=True)


def test_the_loaders_parts_travel_to_workers_that_do_not_fork(shards, loader_of):
    loader = loader_of(shards)
    examples, collate = pickle.loads(pickle.dumps((loader._batches.dataset, loader._batches.collate_fn)))
    found = collate(examples.__getitems__(next(iter(loader._place))))
    assert same(found, next(iter(loader)))


def test_few_files_stay_open(tmp_path, monkeypatch):
    from tagmill.models.training import ranges

    monkeypatch.setattr(ranges, "OPEN_FILES", 3)
    for number in range(10):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 4)
    reader = RangeReader()
    wanted = [(str(tmp_path / str(number % 10)), 1, 3) for number in range(30)]
    before = len(os.listdir("/proc/self/fd"))
    assert reader.read(wanted) == [bytes([number % 10]) * 2 for number in range(30)]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def agree(rank, folder):
    """What a rank learns: nothing while all agree, then that one of them differs."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = distributed.FileStore(str(folder / "store"), 3)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=3)
    _check_agreement("ab" * 32)
    try:
        _check_agreement(("cd" if rank == 1 else "ab") * 32)
    except ConfigError as error:
        (folder / str(rank)).write_text(str(error))
    distributed.destroy_process_group()


def test_ranks_that_read_other_data_stop_before_the_first_step(tmp_path):
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=agree, args=(rank, tmp_path), daemon=True) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for number, rank in enumerate(ranks):
        rank.join(60)
        assert "ranks 1 read other data than rank 0" in (tmp_path / str(number)).read_text()


def test_shards_may_move_between_two_runs(shards, tmp_path, loader_of):
    loader = loader_of(shards, name="squares")
    first = next(iter(loader))
    moved = shutil.copytree(shards, tmp_path / "elsewhere")
    resumed = loader_of(moved, name="squares")
    resumed.load_state_dict(loader.state_dict() | {"position": 0})
    assert same(next(iter(resumed)), first)
