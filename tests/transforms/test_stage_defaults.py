"""The defaults of every stage, by its version: a snapshot in tests/golden/stage_defaults.json.

A fingerprint holds what differs from the defaults. So parts that were made with an old default look as if
they had been made with the new one, and would serve for it, unless the version says otherwise.
"""

import copy
import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import tagmill.transforms
from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.stages import STAGE_NAMES
from tagmill.tag_system.core.config import Config
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.on_pixels import UNSAID, ModelConfig
from tagmill.transforms.stage import Stage

SNAPSHOT = Path(__file__).parents[1] / "golden" / "stage_defaults.json"

IN_NO_FINGERPRINT = {"localize": {"kinds"}, "cluster": {"from"}, "inputs": {"path", "images"}}
"""Keys that decide nothing of the stage itself, besides those of every model; their defaults are free."""

Said = dict[str, Any]
"""Version and defaults of a stage; the version is None where a changed default needs none."""


def found() -> dict[str, Said]:
    """What the code says."""
    stages = {name: said(name, stage.version, config_of(stage)) for name, stage in stage_classes().items()}
    sections = {name for name, field in RunConfig.model_fields.items() if holds_section(field.annotation)}
    return {
        **stages,
        "inputs": said("inputs", Ingest.version, InputConfig),
        "run": {"version": None, "defaults": defaults_of(RunConfig, sections)},
    }


def stage_classes() -> dict[str, type[Stage[Any]]]:
    for module in pkgutil.walk_packages(tagmill.transforms.__path__, "tagmill.transforms."):
        importlib.import_module(module.name)
    waiting, classes = [Stage], {}
    while waiting:
        stage = waiting.pop()
        waiting += stage.__subclasses__()
        if stage.__module__.startswith("tagmill.transforms.") and "name" in vars(stage):
            classes[stage.name] = stage
    return classes


def config_of(stage: type[Stage[Any]]) -> type[Config]:
    """The class of a stage's config: the argument of its base."""
    (base,) = vars(stage)["__orig_bases__"]
    (config,) = get_args(base)
    return config


def said(name: str, version: int, config: type[Config]) -> Said:
    unsaid = UNSAID if issubclass(config, ModelConfig) else ()
    return {
        "version": version,
        "defaults": defaults_of(config, {*unsaid, *IN_NO_FINGERPRINT.get(name, ())}),
    }


def defaults_of(config: type[BaseModel], without: set[str]) -> dict[str, Any]:
    """The defaults of the fields that have one, as JSON values."""
    fields = {name: field for name, field in config.model_fields.items() if name not in without}
    optional = {n: f.get_default(call_default_factory=True) for n, f in fields.items() if not f.is_required()}
    return config.model_construct(**optional).model_dump(mode="json", include=set(optional))


def holds_section(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(holds_section, get_args(annotation)))


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Keys with dots for what is nested."""
    keys = {}
    for name, value in values.items():
        keys |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return keys


def problems(snapshot: dict[str, Said], code: dict[str, Said]) -> Iterator[str]:
    """Say what is wrong with the snapshot, and what to do about it."""
    for name in sorted(snapshot.keys() | code.keys()):
        if name not in snapshot:
            yield f"{name} is not in the snapshot: add {json.dumps({name: code[name]})}"
        elif name not in code:
            yield f"{name} is in the snapshot and not in the code: remove it from the snapshot"
        else:
            yield from _changes(name, snapshot[name], code[name])


def _changes(name: str, before: Said, now: Said) -> Iterator[str]:
    old, new = flat(before["defaults"]), flat(now["defaults"])
    free = now["version"] is None
    raised = not free and now["version"] > (before["version"] or 0)
    for key in sorted(old.keys() | new.keys()):
        if key not in old:
            yield f"{name}.{key} is new: add {json.dumps(new[key])} to the snapshot; it needs no new version"
        elif key not in new or old[key] != new[key]:
            what = f"is {json.dumps(new[key])} now" if key in new else "was removed"
            do = "" if free or raised else f"raise the version of {name}, then "
            yield f"the default {name}.{key} was {json.dumps(old[key])} and {what}: {do}update the snapshot"
    if before["version"] != now["version"]:
        if raised or free:
            yield f"{name} has version {now['version']} now: update the snapshot"
        else:
            yield f"the version of {name} fell to {now['version']}: none is ever used twice"


def test_no_default_changes_without_a_new_version():
    wrong = list(problems(json.loads(SNAPSHOT.read_text()), found()))
    assert not wrong, f"{SNAPSHOT} and the code differ:\n" + "\n".join(wrong)


def test_every_stage_is_found_with_its_own_config():
    assert stage_classes().keys() == set(STAGE_NAMES)
    configs = [config_of(stage) for stage in stage_classes().values()]
    assert len(set(configs)) == len(configs)
    assert all(issubclass(config, Config) for config in configs)


def test_the_snapshot_holds_what_is_nested_and_nothing_that_is_required():
    snapshot = json.loads(SNAPSHOT.read_text())
    assert "paper.outlier_fraction" in flat(snapshot["clean"]["defaults"]["policy"])
    assert not {"model", "options", "batch_size"} & snapshot["tag"]["defaults"].keys()
    assert not {"run", "inputs", "clean"} & snapshot["run"]["defaults"].keys()
    assert "part_size" in snapshot["run"]["defaults"]


def edited(path: str, value: Any = None) -> dict[str, Said]:
    """The code's defaults with another value, or without it."""
    values = copy.deepcopy(found())
    *steps, last = path.split("/")
    place = values
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tag/defaults/score_floor", 0.1, "was 0.1 and is 0.05 now: raise the version of tag, then update"),
        ("clean/defaults/policy/paper/region_threshold", 0.2, "raise the version of clean"),
        (
            "clean/defaults/policy/rule",
            "paper",
            'was "paper" and is "adaptive" now: raise the version of clean',
        ),
        ("candidates/defaults/kinds", [], r"candidates.kinds was \[\] and is \[\"object\"\] now: raise"),
        ("cluster/defaults/old_key", 3, "cluster.old_key was 3 and was removed: raise the version"),
        ("inputs/defaults/labels", "tags", "raise the version of inputs"),
        ("run/defaults/threads", 2, "run.threads was 2 and is 1 now: update the snapshot"),
        ("embed/defaults/padding", None, "embed.padding is new: add 0.1 to the snapshot; it needs no new"),
        ("shards", None, r"shards is not in the snapshot: add \{"),
        ("other", {"version": 1, "defaults": {}}, "other is in the snapshot and not in the code"),
        ("tag/version", 1, "tag has version 2 now: update the snapshot"),
        ("tag/version", 9, "the version of tag fell to 2"),
    ],
    ids=str,
)
def test_what_differs_from_the_snapshot_is_told_with_what_to_do(path, value, message):
    (problem,) = problems(edited(path, value), found())
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)


def test_a_default_that_changed_with_its_version_needs_no_other():
    before = edited("tag/defaults/score_floor", 0.1)
    before["tag"]["version"] -= 1
    default, version = problems(before, found())
    assert default == "the default tag.score_floor was 0.1 and is 0.05 now: update the snapshot"
    assert version == f"tag has version {found()['tag']['version']} now: update the snapshot"
