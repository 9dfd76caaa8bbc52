"""Which checkpoints a training keeps, and what becomes of them when it is killed, or one is damaged."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from commands import call
from disks import full_disk
from forked import run_forked
from tagmill.models.training import checkpoint
from tagmill.tag_system.core.errors import ConfigError
from trainings import lines, trainer_of, weights

EACH_STEP = {"save_every": 1, "keep": 3, "validate": {"best_by": "loss"}}
"""An epoch is 3 steps, the last of which is saved as the epoch's."""


def whole(values):
    """The checkpoints of a training that are as they were saved, the newest last."""
    out = Path(values["out"])
    names = checkpoint.names_of(out)
    for name in names:
        checkpoint.load(out, name)
    return names


def same(ours, theirs):
    assert lines(ours) == lines(theirs)
    one, other = weights(ours), weights(theirs)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_last_checkpoints_and_the_best_are_kept(values_of):
    values = values_of(epochs=3, **EACH_STEP, schedule={"learning_rate": 3.0})  # the first epoch is the best
    trainer_of(values).run()
    out = Path(values["out"])
    assert whole(values) == ["00000003", "00000007", "00000008", "00000009"]
    assert sorted(path.name for path in (out / "steps").iterdir()) == whole(values)
    assert [checkpoint.linked(out, name) for name in ("best", "last")] == ["00000003", "00000009"]


def killer(at):
    """Kill this process at the `at`-th operation that gives a file its name or takes it; count them."""
    done = [0]

    def counted(operation):
        def called(*arguments, **more):
            done[0] += 1
            if done[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **more)

        return called

    for name in ("replace", "rename", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    return done


def test_a_kill_at_any_moment_leaves_as_many_checkpoints(values_of):
    changes = EACH_STEP | {"keep": 2}
    expected, begun = values_of("expected", **changes), values_of("begun", **changes)
    trainer_of(expected).run()
    trainer_of(begun).run(until=3)
    before = whole(begun)
    assert len(before) == 2

    def go_on(values, at):
        trainer, done = trainer_of(values, resume=True), killer(at)
        trainer.run(until=4)
        return done[0]

    counted = values_of("counted", **changes)
    shutil.copytree(begun["out"], counted["out"], symlinks=True)
    total = run_forked(lambda: go_on(counted, 0)).result
    assert total > 20
    for at in range(1, total + 1, 3):
        killed = values_of(f"killed-{at}", **changes)
        shutil.copytree(begun["out"], killed["out"], symlinks=True)
        died = run_forked(lambda killed=killed, at=at: go_on(killed, at))
        assert died.signal == signal.SIGKILL, died.error
        left = whole(killed)
        assert len(left) >= len(before)
        assert trainer_of(killed, resume=True).run()
        same(killed, expected)
        assert len(whole(killed)) <= 3
        assert len(list((Path(killed["out"]) / "steps").iterdir())) == len(whole(killed))


def test_a_disk_that_fills_up_leaves_older_checkpoints(values_of):
    values = values_of(**EACH_STEP)
    trainer_of(values).run(until=2)
    before = whole(values)
    trainer = trainer_of(values, resume=True)
    said = r"^cannot write \S+/steps/00000003: .*File too large"
    with pytest.raises(ConfigError, match=said) as caught, full_disk(60_000):
        trainer.run()
    assert "\n" not in str(caught.value)
    assert whole(values) == before
    assert trainer_of(values, resume=True).run()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "holds other bytes than were written"),
        (lambda path: os.truncate(path, 1000), "has 1,000 bytes instead of"),
        (lambda path: path.unlink(), "is missing"),
    ],
    ids=["bytes", "size", "missing"],
)
def test_a_damaged_checkpoint_is_named_with_the_one_before(values_of, tmp_path, damage, said):
    values = values_of(**EACH_STEP)
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    trainer_of(values).run(until=2)
    steps = Path(values["out"]) / "steps"
    damage(steps / "00000002" / "model.safetensors")
    _, err = call("train", config, "--resume", code=5)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: the checkpoint {steps}/00000002 is damaged (model.safetensors {said}")
    assert line.endswith(f"remove its folder, and --resume goes on from {steps}/00000001")
    shutil.rmtree(steps / "00000002")
    call("train", config, "--resume")
    alone = values_of("alone", **EACH_STEP)
    trainer_of(alone).run()
    same(values, alone)


@pytest.mark.parametrize("state", ["[]", '{"step": 1, "best": {}}'])
def test_a_damaged_checkpoint_that_is_the_only_one(values_of, tmp_path, state):
    values = values_of()
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    trainer_of(values).run(until=1)
    (Path(values["out"]) / "last" / "state.json").write_text(state)
    _, err = call("train", config, "--resume", code=5)
    assert err.endswith("there is no older one: start again in another out\n")
