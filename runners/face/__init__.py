"""The Python face of tagmill: what a notebook or a script calls.

Importing it is cheap: a name's module is imported when the name is first used.

>>> import tagmill
>>> vocabulary = tagmill.Vocabulary.load()
>>> [mention.tag for mention in tagmill.CaptionParser(vocabulary, mode="fast").parse(["a dog on a sofa"])[0]]
['dog', 'couch']
"""

from typing import TYPE_CHECKING

if __name__ != "tagmill":
    raise ImportError(f"import tagmill, not {__name__}")

if TYPE_CHECKING:
    from tagmill.runners.api.config import load_config, plan
    from tagmill.runners.api.datasets import open_dataset
    from tagmill.runners.api.prediction import load_model, predict
    from tagmill.runners.api.runs import open_run, run
    from tagmill.tag_system.decisions import decide
    from tagmill.tag_system.parser import CaptionParser
    from tagmill.tag_system.vocabulary import Vocabulary

    __version__: str

__all__ = [
    "CaptionParser",
    "Vocabulary",
    "__version__",
    "decide",
    "load_config",
    "load_model",
    "open_dataset",
    "open_run",
    "plan",
    "predict",
    "run",
]

_MODULES = {
    "CaptionParser": "tag_system.parser",
    "Vocabulary": "tag_system.vocabulary",
    "decide": "tag_system.decisions",
    "load_config": "runners.api.config",
    "load_model": "runners.api.prediction",
    "open_dataset": "runners.api.datasets",
    "open_run": "runners.api.runs",
    "plan": "runners.api.config",
    "predict": "runners.api.prediction",
    "run": "runners.api.runs",
}
"""Where each name is defined."""


if not TYPE_CHECKING:  # a type checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        """Import what is asked for."""
        from importlib import import_module, metadata

        if name == "__version__":
            value = metadata.version("tagmill")
        elif name in _MODULES:
            value = getattr(import_module(f"tagmill.{_MODULES[name]}"), name)
        else:
            raise AttributeError(f"module 'tagmill' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
