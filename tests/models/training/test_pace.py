"""What a training says of its speed, and of steps that fail, by the command that a user types."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from commands import call
from tagmill.models.ram import store
from trainings import trainer_of


@pytest.fixture
def config(values_of, tmp_path):
    """A recipe as a file: an epoch is 3 batches of 4 samples."""
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(values_of(validate=False, schedule={"warmup_steps": 0})))
    return path


def multiplied(folder):
    """Multiplications, and as many additions, of all convolutions and linear layers on one image."""
    model, found = store.load(Path(folder)), []

    def note(module, given, made):
        inner = module.weight[0].numel()
        found.append(2 * inner * made.numel())

    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        model.score(model.encode(torch.zeros(1, 3, 32, 32)))
    return sum(found)


def test_the_log_has_speed_waiting_memory_and_mfu(config, tmp_path):
    changes = ["engine.accumulate=1000", "engine.peak_tflops=1.0e-6", "epochs=4"]
    options = [option for change in changes for option in ("--set", change)]
    said, _ = call("train", config, *options, "--profile", "1", tmp_path / "traces")
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()][1:]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    flops = multiplied(tmp_path / "out" / "last")
    for row in rows:  # a step is the epoch, of 3 batches, not of 1000
        assert row["images_per_second"] == pytest.approx(12 * row["steps_per_second"], rel=1e-3)
        assert 0 < row["data_wait"] < 1
        assert 0.1 < row["peak_memory_gb"] < 64
        assert 1 <= row["mfu"] * 1e6 / row["images_per_second"] / 3 / flops < 1.2
    assert f"a trace for Perfetto or TensorBoard is in {tmp_path / 'traces'}" in said.splitlines()
    (trace,) = (tmp_path / "traces").iterdir()
    _, err = call(
        "train", config, "--profile", "0", tmp_path / "traces", "--set", f"out={tmp_path}/b", code=2
    )
    assert err == "tagmill: --profile 0: give the number of steps to trace, 1 or more\n"
    assert not (tmp_path / "b").exists()
    events = json.loads(trace.read_text())["traceEvents"]
    assert sum(event["name"] == "Optimizer.step#AdamW.step" for event in events) == 1


def test_a_step_that_fails_says_what_helps(config, tmp_path):
    changes = ("--set", "schedule.learning_rate=1.0e+6")
    _, err = call("train", config, *changes, code=2)
    assert err.startswith("tagmill: step 2 is not finite (")
    cures = "with a lower schedule.learning_rate or engine.clip_norm\n"
    assert err.endswith(f" and was not taken: start again {cures}")
    _, err = call(
        "train", config, *changes, "--set", "save_every=1", "--set", "engine.precision=bfloat16", code=2
    )
    assert "go on from the last checkpoint by --resume with a lower schedule.learning_rate, " in err
    assert err.endswith("engine.clip_norm or engine.precision float32\n")


def test_steps_are_counted_once(values_of):
    trainer = trainer_of(values_of(epochs=1000))
    asked, count = [], trainer.loader.steps
    trainer.loader.steps = lambda epoch: asked.append(epoch) or count(epoch)
    reports = []
    trainer._watch = reports.append
    trainer.run(until=4)
    assert {report.steps for report in reports} == {3000}
    assert len(asked) < 1010
