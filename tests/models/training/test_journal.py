import json

import pytest

from disks import full_disk
from tagmill.models.training.journal import Journal
from tagmill.tag_system.core.errors import ConfigError


def write(out, steps, start=0, **how):
    journal = Journal(out, start, **how)
    for step in steps:
        journal.write({"step": step, "epoch": 0, "total": step / 10})
    journal.close()


def steps(out):
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_full_disk_is_one_line_that_names_the_log(tmp_path):
    with pytest.raises(ConfigError, match=r"^cannot write \S+/log.jsonl: File too large$"), full_disk(100):
        write(tmp_path, range(1, 8))
    whole = (tmp_path / "log.jsonl").read_text().splitlines()[:2]
    assert [json.loads(line)["step"] for line in whole] == [1, 2]


def test_lines_of_steps_that_are_taken_anew_are_cut_off(tmp_path):
    write(tmp_path, range(1, 8))
    with (tmp_path / "log.jsonl").open("ab") as stream:
        stream.write(b'{"step": 3, "\xff": 0\n{"step": 8, "tot')  # as what dies leaves it, process or disk
    write(tmp_path, range(5, 7), start=4)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_lines_of_a_validation_that_is_made_again_are_cut_off(tmp_path):
    journal = Journal(tmp_path, 0)
    for line in ({"total": 1.0}, {"split": "train"}, {"split": "val"}, {"val_map": 0.5}):
        for step in (2, 4):
            journal.write({"step": step} | line)
    journal.close()
    Journal(tmp_path, 4, is_evaluated=True).close()
    assert steps(tmp_path) == [2, 4] * 4
    Journal(tmp_path, 4, is_evaluated=False).close()
    assert steps(tmp_path) == [2, 4, 2, 4, 2, 2]


def test_tensorboard_has_the_same_numbers_and_forgets_steps_that_are_taken_anew(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path, range(1, 6), tensorboard=True)
    write(tmp_path, range(3, 5), start=2, tensorboard=True)
    events = accumulators.EventAccumulator(str(tmp_path))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("total")}
    assert found == pytest.approx({step: step / 10 for step in (1, 2, 3, 4)})


def test_wandb_is_told_to_continue_its_run(tmp_path):
    pytest.importorskip("wandb")
    ids = []
    for start in (0, 3):
        # Disabled, it takes all options and starts no service; the rest is W&B's own.
        journal = Journal(tmp_path, start, wandb={"project": "tags", "mode": "disabled"})
        ids.append(journal._run.id)
        journal.write({"step": start + 1, "epoch": 0, "total": 0.5})
        journal.close()
    assert ids == [(tmp_path / "wandb.id").read_text().strip()] * 2


def test_options_that_wandb_does_not_know_are_one_line(tmp_path):
    pytest.importorskip("wandb")
    with pytest.raises(ConfigError, match=r"wandb: .*speed") as caught:
        Journal(tmp_path, 0, wandb={"speed": 1})
    assert "\n" not in str(caught.value)
