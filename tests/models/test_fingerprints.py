"""What a change of a built-in model's options does to its fingerprint."""

import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

from tagmill.models import base, pretrained

GOLDEN = Path(__file__).parents[1] / "golden" / "model_defaults.json"
WHERE = {"device", "revision"}
"""Options that say where a model runs, or which files are meant: the fingerprint has the files themselves."""


def built_in(name):
    module, _, cls = base.BUILT_IN[name].partition(":")
    return getattr(import_module(module), cls)


def defaults(cls):
    found = inspect.signature(cls).parameters.values()
    return {one.name: one.default for one in found if one.default is not one.empty and one.name not in WHERE}


@pytest.mark.parametrize("name", sorted(base.BUILT_IN))
def test_a_changed_default_raises_the_version(name):
    """Equal options must mean equal output, and a default is no part of the fingerprint: the version is.

    If this fails, raise the class's `version` and add its defaults to the file under the new number; an
    option that is new is added under the present one.
    """
    cls = built_in(name)
    assert json.loads(GOLDEN.read_text())[name][str(cls.version)] == defaults(cls)


class Now:
    version = 1

    def __init__(self, path, *, fit="pad", scale=1):
        pass


class Later:
    version = 1

    def __init__(self, path, *, fit="pad", scale=1, tiles=None):
        pass


class Changed(Now):
    version = 2


def test_an_option_counts_where_it_is_not_the_default():
    plain = {"fit": "pad", "scale": 1.0}
    assert pretrained.changed(Now, plain) == pretrained.changed(Later, plain | {"tiles": None})
    used = [plain, {"fit": "crop", "scale": 1}, {"fit": "pad", "scale": 2}]
    kinds = [pretrained.changed(Later, one | {"tiles": tiles}) for one in used for tiles in (None, 4)]
    kinds.append(pretrained.changed(Changed, plain))
    assert len({json.dumps(kind, sort_keys=True) for kind in kinds}) == 7
