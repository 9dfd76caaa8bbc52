"""Weights shared out over two processes: the steps are those of whole ones, and so are checkpoints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands import call, environment
from tagmill.models.training.recipe import Recipe
from trainings import MODEL, TEXT, lines, trainer_of, weights

TRAININGS = """
import json, sys, torch
from tagmill.models.training.process import join_process_group
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.train import Trainer
torch.set_num_threads(1)
with join_process_group("cpu") as process:
    for values, resume, until in json.loads(sys.argv[1]):
        trainer = Trainer(Recipe.model_validate(values), process, resume=resume)
        trainer.run(until=until)
        held = sum(getattr(value, "_local_tensor", value).numel() for value in trainer.learner._trained)
        if process.first:
            print("held", held, sum(value.numel() for value in trainer.learner._trained))
"""

SWIN = {
    "name": "swin_tiny_patch4_window7_224",
    "width": 64,
    "arguments": {
        "embed_dim": 8,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "drop_path_rate": 0,
    },
}
ENGINE = {"device": "cpu", "clip_norm": 1.0, "decayed": "matrices", "batch_norm": "frozen"}


def in_two(trainings):
    """Run trainings one after the other in two processes: recipe, whether to resume, and until which step."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--no-python", sys.executable, "-c", TRAININGS, json.dumps(trainings)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("held ")]


def files_of(values):
    folder = Path(values["out"]) / "last"
    return load_file(folder / "model.safetensors") | load_file(folder / "state.safetensors")


def same(ours, theirs):
    for mine, other in zip(lines(ours), lines(theirs), strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-7)
    assert files_of(ours).keys() == files_of(theirs).keys()
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], value, rtol=1e-3, atol=1e-4)


def test_shared_weights_take_the_steps_of_whole_ones_and_go_on_as_either(values_of, vocab):
    def recipe(name, parallel, *, kind="ram_plus", size=2, encoder=SWIN, **engine):
        head = {**MODEL["head"], "dropout": 0.0}
        text = {**TEXT, "dropout": 0.0} if kind == "tag2text" else None
        model = {**MODEL, "kind": kind, "encoder": encoder, "head": head, "text": text}
        terms = ["tagging", "caption", "alignment"] if text else ["tagging", "distillation"]
        model |= {"alignment": {"dimension": 8}} if text else {}
        engine = {**ENGINE, "parallel": parallel, **engine}
        data = {"batch_size": size}
        return values_of(
            name,
            model=model,
            losses={"terms": terms},
            vocab=vocab,
            engine=engine,
            data=data,
            epochs=1 if text else 2,
            seed=5,
        )

    again = {"checkpointing": True, "accumulate": 2}
    whole, shared = recipe("whole", "ddp"), recipe("shared", "fsdp")
    others = [
        recipe(f"{parallel}-t", parallel, kind="tag2text", encoder=MODEL["encoder"], **again)
        for parallel in ("ddp", "fsdp")
    ]
    first, then, back = recipe("first", "fsdp"), recipe("then", "ddp"), recipe("then", "fsdp")
    alone = recipe("first", "fsdp", size=4)
    parts = ["encoder", "image_projection", "label_projection", "head", "score_projection"]
    few = recipe("few", "fsdp", freeze=parts)  # a number is left, which all processes have
    runs = [(whole, False, None), (shared, False, None), *((other, False, None) for other in others)]
    held = in_two([*runs, (first, False, 4), (then, False, 2), (back, True, None), (few, False, 1)])
    for line, part in zip(held, [1, 0.5, 1, 0.5, 0.5, 1, 0.5, 1], strict=True):
        _, mine, every = line.split()
        assert int(mine) == pytest.approx(part * int(every), rel=0.05), line
    same(shared, whole)
    same(others[1], others[0])
    same(back, whole)
    assert trainer_of(alone, resume=True).run()
    same(alone, whole)


def test_what_does_not_go_with_shared_weights_is_refused_in_a_line(values_of, tmp_path):
    for option in ({"ema": 0.9}, {"compile": True}):
        (tmp_path / "train.yaml").write_text(json.dumps(values_of(engine={"parallel": "fsdp", **option})))
        _, err = call("train", tmp_path / "train.yaml", code=2)
        (line,) = err.splitlines()
        assert "parallel: fsdp has neither ema nor compile" in line
    alone = Recipe.model_validate(values_of(epochs=1, engine={"parallel": "fsdp"}))
    assert trainer_of(alone.model_dump(by_alias=True)).run()
