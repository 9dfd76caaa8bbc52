import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from commands import call, environment, start
from tagmill.models.ram.tagger import RamTagger
from tagmill.models.training import checkpoint, objectives
from tagmill.tag_system.core.errors import ConfigError
from trainings import CLASSES, MODEL, lines, trainer_of, weights


def watched(trainer):
    """Remember the ids of every batch that the trainer takes."""
    seen, backward = [], trainer.learner._backward

    def note(batch, at, count):
        seen.append(batch.ids)
        return backward(batch, at, count)

    trainer.learner._backward = note
    return seen


def test_a_few_steps_lower_the_loss_and_leave_a_tagger(values_of):
    values = values_of(
        epochs=8,
        schedule={"learning_rate": 0.01},
        validate={"best_by": "loss"},
        model={**MODEL, "head": {"hidden": 16, "heads": 2, "layers": 1, "inner": 32, "dropout": 0.0}},
    )
    assert trainer_of(values).run()
    losses = [line["val_tagging"] for line in lines(values) if "val_tagging" in line]
    assert min(losses) < 0.8 * losses[0]
    out = Path(values["out"])
    best = json.loads((out / "best" / "state.json").read_text())
    assert best["best"]["value"] == min(losses)
    tagger = RamTagger(str(out / "last"), device="cpu")
    tagger.load()
    assert list(tagger.classes) == CLASSES
    assert len({path.resolve() for path in (out / "steps").iterdir()}) <= 2
    embeddings = load_file(out / "last" / "model.safetensors")["label_embed"]
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("stop", "engine"),
    [(2, {}), (3, {"ema": 0.9}), (3, {"accumulate": 2, "clip_norm": 1.0}), (4, {"precision": "bfloat16"})],
    ids=["plain", "ema", "accumulated", "half"],
)
def test_resuming_is_exact_to_the_bit(values_of, stop, engine):
    whole, parts = values_of("whole", engine=engine), values_of("parts", engine=engine)
    expected, first = trainer_of(whole), trainer_of(parts)
    wanted, seen = watched(expected), watched(first)
    assert expected.run()
    assert not first.run(until=stop)
    second = trainer_of(parts, resume=True)
    again = watched(second)
    assert second.run()
    assert seen + again == wanted
    assert lines(parts) == lines(whole)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_validation_that_fails_costs_no_epoch(values_of, monkeypatch, epoch):
    whole, parts = values_of("whole", engine={"ema": 0.9}), values_of("parts", engine={"ema": 0.9})
    assert trainer_of(whole).run()
    first = trainer_of(parts)
    measure = first._validator.measure

    def fail(*what):
        return measure(*what) if first.loader.epoch <= epoch else 1 / 0

    monkeypatch.setattr(first._validator, "measure", fail)
    with pytest.raises(ZeroDivisionError):
        first.run()
    assert trainer_of(parts, resume=True).run()
    assert lines(parts) == lines(whole)
    for name in ("last", "best"):
        ours, theirs = Path(parts["out"], name), Path(whole["out"], name)
        assert ours.resolve().name == theirs.resolve().name
        for file in ("state.json", "model.safetensors", "state.safetensors", "tags.parquet"):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes()


def test_accumulated_batches_make_the_gradient_of_one_large_batch(values_of):
    still = {"head": {**MODEL["head"], "dropout": 0.0}}
    rows = []
    for size, accumulate in ((4, 1), (2, 2)):
        values = values_of(
            f"a{size}", model=still, engine={"accumulate": accumulate}, data={"batch_size": size}
        )
        one = trainer_of(values)
        one.model.eval()  # batch statistics are those of a batch
        one.run(until=1)
        rows.append(lines(values)[0])
    assert rows[0]["gradient"] == pytest.approx(rows[1]["gradient"], rel=1e-4)
    assert rows[0]["total"] == pytest.approx(rows[1]["total"], rel=1e-5)


def test_compiled_parts_take_the_same_steps(values_of):
    # Compiled code draws other numbers, and takes its time for each layer.
    still = {"head": {**MODEL["head"], "layers": 1, "dropout": 0.0}}
    rows = []
    for compiled in (False, True):
        engine = {"compile": compiled}
        values = values_of(f"c{compiled}", model=still, epochs=1, validate=False, engine=engine)
        assert trainer_of(values).run()
        rows.append([row["total"] for row in lines(values)])
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)


RANKS = """
import json, sys, torch
from pathlib import Path
from tagmill.models.training.process import join_process_group
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.train import Trainer
torch.set_num_threads(1)
values = json.loads(Path(sys.argv[1]).read_text())
seen = []
with join_process_group("cpu") as process:
    trainer = Trainer(Recipe.model_validate(values), process, resume=len(sys.argv) > 2)
    learner, backward = trainer.learner, trainer.learner._backward
    learner._backward = lambda batch, at, count: (seen.append(batch.ids), backward(batch, at, count))[1]
    trainer.run()
    sums = {name: value.double().sum().item() for name, value in trainer.model.named_parameters()}
    Path(values["out"], f"rank{process.rank}.json").write_text(json.dumps([seen, sums]))
"""


def test_two_ranks_take_the_samples_of_one_and_end_alike(values_of, tmp_path):
    frozen = {"batch_norm": "frozen"}
    rare = {"repeat_factor": {"threshold": 1.0}}
    alone, both = (values_of(name, engine=frozen, data=rare) for name in ("alone", "both"))
    both["data"] = {**both["data"], "batch_size": 2}
    first = trainer_of(alone)
    wanted = watched(first)
    first.run()
    begun = trainer_of({**both, "data": {**both["data"], "batch_size": 4}})
    before = watched(begun)
    begun.run(until=1)
    (tmp_path / "recipe.json").write_text(json.dumps(both))
    counts = Path(both["out"]) / "positives.json"
    counted = counts.read_text()
    counts.unlink()
    factors = counts.with_name("repeat_factors.npz")
    shown_more = factors.read_bytes()
    factors.unlink()
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "ranks.py"), str(tmp_path / "recipe.json"), "resume"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((Path(both["out"]) / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0][1] == ranks[1][1]
    assert counts.read_text() == counted
    assert factors.read_bytes() == shown_more
    seen = [
        sorted(tuple(name) for name in [*left, *right])
        for left, right in zip(ranks[0][0], ranks[1][0], strict=True)
    ]
    assert [sorted(ids) for ids in [*before]] + seen == [sorted(ids) for ids in wanted]


def started(values, tmp_path):
    """Start the command on the recipe, as the first of its own group, and wait until it has taken steps."""
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tagmill.runners.cli", "train", str(config)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = Path(values["out"]) / "log.jsonl"
    deadline = time.monotonic() + 200
    while not (log.exists() and len(log.read_text().splitlines()) > 5) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("send", "workers"), [(os.kill, 0), (os.killpg, 1)], ids=["process", "group"])
def test_sigterm_saves_and_the_same_command_goes_on(values_of, tmp_path, send, workers):
    values = values_of(epochs=500, validate=False, data={"workers": workers})
    process = started(values, tmp_path)
    send(process.pid, signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143, err
    step = json.loads((Path(values["out"]) / "last" / "state.json").read_text())["step"]
    assert step == lines(values)[-1]["step"]
    assert f"last is step {step}" in out
    resumed = trainer_of(values, resume=True)
    assert resumed.run(until=step + 2) is False
    assert [line["step"] for line in lines(values)] == list(range(1, step + 3))


@pytest.mark.timeout(90)
def test_a_full_disk_ends_a_training_and_its_workers_in_one_line(values_of, tmp_path):
    values = values_of(epochs=1, validate=True, data={"workers": 2})
    (tmp_path / "train.yaml").write_text(json.dumps(values))
    process = start("train", tmp_path / "train.yaml", most=60_000)
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert re.fullmatch(r"tagmill: cannot write \S+: .*File too large.*\n", err)


def test_a_folder_is_trained_into_by_one_process_alone(values_of, tmp_path):
    values = values_of(epochs=500, validate=False, data={"workers": 1})
    first = started(values, tmp_path)
    _, err = call("train", tmp_path / "train.yaml", code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: another process is training into {values['out']}: ")
    first.kill()
    first.wait()
    with checkpoint.locked(Path(values["out"])):  # though the worker lives on until it notices
        pass
    first.communicate()


def test_a_loss_that_is_not_finite_stops_and_spoils_nothing(values_of, monkeypatch):
    values = values_of(save_every=1)
    monkeypatch.setattr(
        objectives, "asymmetric_loss", lambda logits, *_, **__: logits.sum() * (math.nan if broken else 1.0)
    )
    broken = False
    one = trainer_of(values)
    one.run(until=1)
    kept = weights(values)
    broken = True
    with pytest.raises(ConfigError, match=r"step 2 is not finite \(tagging nan.*--resume"):
        trainer_of(values, resume=True).run()
    assert all(torch.equal(value, weights(values)[name]) for name, value in kept.items())


def test_batch_normalisation_of_one_small_image_alone_is_refused_in_a_line(values_of):
    values = values_of(data={"batch_size": 1}, epochs=1)
    with pytest.raises(ConfigError, match="no statistics of one small image alone: set") as caught:
        trainer_of(values).run()
    assert "\n" not in str(caught.value)
    assert trainer_of(values | {"engine": values["engine"] | {"batch_norm": "frozen"}}).run()
