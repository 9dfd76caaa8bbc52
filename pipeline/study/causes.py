"""What made a dataset: its stages' keys as the config has them, and which of them differ between two."""

from collections.abc import Collection, Mapping
from typing import Any

from tagmill.tag_system.core.config import flatten

VERSION = "version"
"""What the version of a stage is called among what made a dataset; folders of shards do not know it."""

MadeBy = Mapping[str, Mapping[str, object]]
"""What made a dataset, by stage: settings, fingerprints of models and vocabulary, the version."""


def made_by(stage: str, spec: Mapping[str, Any]) -> dict[str, object]:
    """Name what made a stage's parts: its keys as the config has them, the rest in brackets."""
    others = {f"{stage} ({name})": value for name, value in spec.items() if name != "config"}
    return flatten({stage: spec.get("config", {})}) | flatten(others)


def changes(was: MadeBy, now: MadeBy, unknown: Collection[str] = ()) -> dict[str, tuple[object, object]]:
    """Name what made two datasets otherwise, with both values.

    A version is no cause where one does not know it, and of the stages `unknown` nothing is said.
    """
    found: dict[str, tuple[object, object]] = {}
    for stage in dict.fromkeys([*was, *now]):
        before, after = was.get(stage), now.get(stage)
        if stage in unknown:
            continue
        if before is None or after is None:
            found[stage] = ("off" if before is None else "on", "off" if after is None else "on")
            continue
        for name in sorted(before.keys() | after.keys()):
            is_version = name == f"{stage} ({VERSION})" and not (name in before and name in after)
            if before.get(name) != after.get(name) and not is_version:
                found[name] = (before.get(name), after.get(name))
    return found
