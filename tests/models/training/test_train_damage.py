"""Trainings on samples of which some, or all, cannot be read."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from commands import call
from tagmill.runners.commands.train import train
from tagmill.tag_system.core.errors import ConfigError
from trainings import trainer_of


def skipped(values):
    """What the log says of skipped samples: step, epoch, split, those read and those skipped."""
    rows = [json.loads(line) for line in (Path(values["out"]) / "log.jsonl").read_text().splitlines()]
    return [tuple(row.values()) for row in rows if "skipped" in row]


def test_skipped_samples_are_told_after_each_epoch(values_of, copied, overwrite):
    overwrite(copied, b"{}", 7)
    overwrite(copied, b"no image", 0, "val-000000")
    data = {"datasets": [{"path": str(copied), "name": "squares"}], "batch_size": 7}
    values, said = values_of(data=data), []
    assert not trainer_of(values, say=said.append).run(until=1)
    assert not [line for line in said if "skipped" in line]
    said.clear()
    assert trainer_of(values, say=said.append, resume=True).run()
    train, val = {"record_invalid": 1}, {"image_unreadable": 1}
    assert skipped(values) == [
        (2, 1, "train", 13, train),
        (2, 1, "val", 7, val),
        (4, 2, "train", 13, train),
        (4, 2, "val", 7, val),
    ]
    assert said[1:3] == [
        "epoch 1: 1 of 14 samples of train were skipped: record_invalid 1",
        "epoch 1: 1 of 8 samples of val were skipped: image_unreadable 1",
    ]


def test_an_epoch_without_a_readable_sample_ends_the_training(values_of, tmp_path, capsys):
    values = values_of(epochs=1, data={"max_pixels": 1})
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"no sample of epoch 1 could be read \(image_too_large\)"):
            train(str(config), resume=resume)
    said = capsys.readouterr().out
    assert "epoch 1: 12 of 12 samples of train were skipped: image_too_large 12\n" in said
    assert "done" not in said
    assert json.loads((Path(values["out"]) / "last" / "state.json").read_text())["step"] == 3


def test_a_validation_without_a_readable_sample_makes_nothing_the_best(values_of, copied):
    values, said = values_of(data={"datasets": [{"path": str(copied), "name": "squares"}]}), []
    one = trainer_of(values, say=said.append)
    os.truncate(copied / "val-000000.tar", 0)
    assert one.run()
    assert "epoch 2: no sample of val is left: no figures, and no best" in said
    assert "val_" not in (Path(values["out"]) / "log.jsonl").read_text()
    assert not (Path(values["out"]) / "best").exists()
    assert skipped(values)[1] == (6, 2, "val", 0, {"source_truncated": 8})


def test_a_training_without_a_split_val_says_how_to_do_without(values_of, copied, tmp_path):
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["shards"] = [shard for shard in manifest["shards"] if shard["split"] != "val"]
    del manifest["examples"]["val"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values_of(data={"datasets": [{"path": str(copied)}]})))
    _, err = call("train", config, "--dry-run", code=2)
    assert err == (
        "tagmill: no dataset has examples in the split val: set validate: false, or add one that has\n"
    )
    call("train", config, "--dry-run", "--set", "validate=false")


def test_rows_that_could_not_be_read_do_not_move_the_statistics_of_a_batch(values_of):
    trainer = trainer_of(values_of(data={"batch_size": 8}))
    objective, batch = trainer._objective, next(iter(trainer.loader))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    fewer, blanked = batch._each(lambda value: value[:4]), batch._each(lambda value: value.clone())
    blanked._each(lambda value: value[4:].zero_())
    found = []
    for captions, some in ((4, fewer), (8, blanked)):
        trainer.model.load_state_dict(before)
        torch.manual_seed(0)
        objective(replace(some, captions=some.captions[:captions]))
        found.append({name: value for name, value in trainer.model.state_dict().items() if "running" in name})
        found[-1] = {name: value.clone() for name, value in found[-1].items()}
    assert found[0]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)
        assert not torch.equal(value, before[name])
