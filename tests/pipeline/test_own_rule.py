"""Runs that are cleaned by a rule of somebody's own, which the config names, in a module of its own."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from commands import call
from runs import current_record, damaged, drive, plans, rows_of, samples, squares_config
from sources import members
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.runners.commands.tune import is_held_out
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Policy, decide
from tagmill.tag_system.sample_tags import evidence_of
from tagmill.tag_system.shard_contract import Sample

RULE = """
class Boxed:
    version = 1
    grid = {"least": [0.0, 0.5, 1.0]}

    def __init__(self, least=0.0):
        if not 0 <= least <= 1:
            raise ValueError(f"least is from 0 to 1, got {least}")
        self.least = least

    def decide(self, evidence):
        if evidence.box_score is None:
            return "uncertain", "no_box"
        return ("kept", "regions_agree") if evidence.box_score >= self.least else ("dropped", "weak_box")
"""


class Rules:
    """A module of rules in a folder on the path, which its author changes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions in a second look the same
        self._file, self._monkeypatch = folder / "rules_of_mine.py", monkeypatch
        self.write(RULE)

    def write(self, text: str) -> None:
        """Save another text, as if the next command were a new process."""
        self._file.write_text(text)
        self._monkeypatch.delitem(sys.modules, "rules_of_mine", raising=False)


@pytest.fixture
def rules(tmp_path, monkeypatch):
    return Rules(tmp_path / "mine", monkeypatch)


def config_with(folder, **policy):
    own = {"rule": "rules_of_mine:Boxed", "trust_given": False}
    return squares_config(folder, {"a.tar": (12, 0)}, clean={"policy": own | policy})


def verdicts(run):
    return {(row["verdict"], row["rule"], row["basis"]) for row in rows_of(run, "clean") if row["asked"]}


def test_it_decides_and_what_decides_its_verdicts_makes_them_anew(tmp_path, rules):
    config, run = config_with(tmp_path), tmp_path / "run"
    drive(config)
    assert ("kept", "regions_agree", "region") in verdicts(run)
    assert {verdict for verdict, *_ in verdicts(run)} <= {"kept", "uncertain", "dropped"}
    assert (damaged(run), drive(config).jobs) == ([], [])

    rules.write(RULE.replace('"kept", "regions_agree"', '"uncertain", "doubtful"'))
    assert drive(config).jobs == []  # whoever changes a rule raises its version
    rules.write(
        RULE.replace('"kept", "regions_agree"', '"uncertain", "doubtful"').replace(
            "version = 1", "version = 2"
        )
    )
    said, _ = call("plan", config)
    assert "clean: make 3 of 3 parts\n  (rule_version) 1 -> 2\n" in said
    assert drive(config).stages == ["clean", "shards"]
    assert ("uncertain", "doubtful", "region") in verdicts(run)

    rules.write(RULE)
    config_with(tmp_path, options={"least": 1.0})
    said, _ = call("plan", config)
    assert "policy.options.least null -> 1.0" in said
    assert drive(config).stages == ["clean", "shards"]
    assert ("dropped", "weak_box", "region") in verdicts(run)
    assert current_record(run, "clean").settings["policy"] == {
        "rule": "rules_of_mine:Boxed",
        "options": {"least": 1.0},
        "tagger_threshold": 0.65,
        "unchecked_threshold": None,
        "trust_given": False,
    }


def test_shards_are_decided_by_it_again_as_the_run_decided_them(tmp_path, rules):
    drive(config_with(tmp_path, options={"least": 0.5}))
    (shown,) = Path(tmp_path / "run" / "shards").glob("*/manifest.json")
    policy = json.loads(shown.read_text())["made_by"]["stages"]["clean"]["config"]["policy"]
    for sample in samples(tmp_path / "run"):
        for tag in Sample.model_validate(sample).tags:
            decision = decide(evidence_of(tag), Policy.model_validate(policy))
            assert (decision.verdict, decision.rule, decision.basis) == (tag.verdict, tag.rule, tag.basis)


def test_its_options_are_tuned_and_what_is_found_does_what_it_promises(tmp_path, rules):
    strict, run = config_with(tmp_path, options={"least": 1.0}), tmp_path / "run"
    drive(strict)
    truth, held_out = tmp_path / "truth.jsonl", tmp_path / "held.jsonl"
    rows = [
        {"key": f"squares/{place:06d}", "tags": json.loads(members("x", place)["x.json"])["truth"]}
        for place in range(12)
    ]
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows if is_held_out(row["key"])))
    found, _ = call("tune", run, "--truth", truth)
    policy = yaml.safe_load(found)["clean"]["policy"]
    assert policy["options"]["least"] < 1
    assert "paper" not in policy
    tuned = squares_config(tmp_path, {}, clean={"policy": policy})
    drive(tuned)
    scored, _ = call("score", run, "--truth", held_out, "--json")
    f1 = json.loads(scored)["steps"]["clean"]["kinds"]["all"]["f1"]
    assert f"F1 {f1:.3f}" in next(line for line in found.splitlines() if line.startswith("# after"))
    other, _ = call("tune", run, "--truth", truth, "--rule", "paper")
    assert yaml.safe_load(other)["clean"]["policy"].keys().isdisjoint({"options", "adaptive"})


@pytest.mark.parametrize(
    ("policy", "text", "said"),
    [
        ({"rule": "rules_of_nobody:Boxed"}, RULE, "cannot import rules_of_nobody"),
        ({"rule": "rules_of_mine:Boxd"}, RULE, "module rules_of_mine has no Boxd"),
        ({"options": {"most": 1}}, RULE, "with options {'most': 1}: Boxed.__init__() got an unexpected"),
        ({"options": {"least": 2}}, RULE, "with options {'least': 2}: least is from 0 to 1, got 2"),
        ({}, RULE.replace("def decide", "def other"), "no method decide: add `def decide(self, evidence)`"),
        ({}, RULE.replace("version = 1", ""), "version must be a number, got None; add `version = 1`"),
    ],
)
def test_a_rule_that_cannot_serve_is_one_line_before_anything_is_made(tmp_path, rules, policy, text, said):
    rules.write(text)
    config = config_with(tmp_path, **policy)
    with pytest.raises(ConfigError) as raised:
        Driver(load_config(str(config)))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_verdict_that_is_not_one_stops_the_run_with_what_it_must_be(tmp_path, rules):
    """Met by a worker, and by this process."""
    config = config_with(tmp_path)
    given = {'("perhaps", "no_box")': 1, '("kept", "given")': 0, '"kept"': 0, '("kept", "no_box", 1)': 0}
    for gives, workers in given.items():
        rules.write(RULE.replace('"uncertain", "no_box"', gives).replace("is None", "is not None"))
        _, said = call("run", config, "--log-format", "plain", "--workers", workers, code=2)
        value = str(eval(gives))
        assert f"rule 'rules_of_mine:Boxed': decide gave {value if gives[0] == '(' else repr(value)};" in said
        assert "it must give a verdict (kept, dropped, uncertain) and why (agreed, " in said
        assert plans(config)["clean"].tasks
