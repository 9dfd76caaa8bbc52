"""Trainings of two processes: they are those of one, of every kind of model."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from commands import environment
from tagmill.models.training import checkpoint
from tagmill.runners.commands.train import train
from trainings import FIGURES, MODEL, TEXT, lines, weights

TERMS = {
    "ram_plus": ["tagging", "distillation"],
    "ram": ["tagging", "distillation", "caption"],
    "tag2text": ["tagging", "caption"],
}
"""Terms that are means over rows. The pairs of an alignment are those of a process's own batch."""

TRAININGS = """
import os, sys
from pathlib import Path
import slow_store  # which registers the store
from tagmill.models.training import checkpoint
from tagmill.runners.commands.train import train
from tagmill.tag_system.core.errors import ConfigError
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # that is of one group alone
for argument in sys.argv[1:]:
    config, os.environ["MASTER_PORT"], again = argument.split("@")
    try:
        train(config, resume=bool(again))
    except ConfigError as error:
        Path(config).with_suffix("." + os.environ["RANK"]).write_text(str(error))
"""


def free_ports(count):
    """Find ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in found]


@pytest.fixture
def two(tmp_path):
    """Runs the command on recipes, one after the other, in two processes; gives what each refused.

    One whose `out` came before is resumed.
    """

    def run(recipes):
        outs = [values["out"] for values in recipes]
        again = ["again" if out in outs[:at] else "" for at, out in enumerate(outs)]
        paths = []
        for at, values in enumerate(recipes):
            paths.append(tmp_path / f"recipe-{at}.yaml")
            paths[-1].write_text(yaml.safe_dump(values))
        (tmp_path / "trainings.py").write_text(TRAININGS)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        each = zip(paths, free_ports(len(paths)), again, strict=True)
        command += [str(tmp_path / "trainings.py"), *("@".join(map(str, one)) for one in each)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        found = [[path.with_suffix(f".{rank}") for rank in (0, 1)] for path in paths]
        return [[one.read_text() for one in both if one.exists()] for both in found]

    return run


def still(values_of, vocab, kind, name, **changes):
    """A recipe of a kind of model, in which nothing is left to chance."""
    head, text = ({**section, "dropout": 0.0} for section in (MODEL["head"], TEXT))
    model = {**MODEL, "kind": kind, "head": head, "text": None if kind == "ram_plus" else text}
    return values_of(
        name, model=model, losses={"terms": TERMS[kind]}, vocab=vocab, epochs=1, seed=3, **changes
    )


def test_two_processes_train_and_measure_as_one_does(values_of, vocab, two, tmp_path):
    frozen = {"batch_norm": "frozen"}
    alone = {kind: still(values_of, vocab, kind, f"{kind}-1", engine=frozen) for kind in TERMS}
    half, again = {"batch_size": 2}, {**frozen, "checkpointing": True}  # which frozen statistics allow
    both = {kind: still(values_of, vocab, kind, f"{kind}-2", engine=again, data=half) for kind in TERMS}
    moving = still(values_of, vocab, "ram", "moving", data=half)
    # One more writes into a store, its weights shared out, and goes on from there.
    shared = {**both["ram_plus"], "engine": {"device": "cpu", **frozen, "parallel": "fsdp"}, "save_every": 1}
    far = {**shared, "out": f"slow://{tmp_path}/far"}
    refused = two([moving, *both.values(), far, {**far, "epochs": 2}])
    line = (
        "resnet18 has batch normalisation, and each of 2 processes would take its statistics from its own "
        "batches alone: set engine.batch_norm: frozen, or take an encoder without it, such as a Swin"
    )
    assert refused == [[line, line], [], [], [], [], []]
    assert not (Path(moving["out"]) / "last").exists()
    for kind in TERMS:
        config = tmp_path / "alone.yaml"
        config.write_text(yaml.safe_dump(alone[kind]))
        train(str(config))
        ours, theirs = lines(both[kind]), lines(alone[kind])
        assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [1, 2, 3, 3]
        for mine, other in zip(ours, theirs, strict=True):
            assert mine == pytest.approx(other, rel=1e-5), kind
        assert set(FIGURES) < set(ours[-1])
        moments = [value for name, value in weights(both[kind]).items() if "running_mean" in name]
        assert moments
        assert not any(value.any() for value in moments)
    place = tmp_path / "far"
    found = lines({"out": place})
    assert [row["step"] for row in found] == [1, 2, 3, 3, 4, 5, 6, 6]
    for mine, other in zip(found[:4], lines(alone["ram_plus"]), strict=True):
        assert mine == pytest.approx(other, rel=1e-5)
    assert (place / "last").read_text() == "link: steps/00000006\n"
    assert checkpoint.load(place, "00000006").state["step"] == 6
