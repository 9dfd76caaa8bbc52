"""What is installed with the extras `models`, `onnx`, `ray`, `sql`, and what to say where it is not there."""

from collections.abc import Iterable
from importlib.util import find_spec

MODELS = (
    "huggingface_hub",
    "open_clip",
    "safetensors",
    "timm",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)
"""The top-level modules that the extra `models` brings; they are imported in many places."""


_EXTRAS = dict.fromkeys(MODELS, "models") | {
    "duckdb": "sql",
    "onnxruntime": "onnx",
    "ray": "ray",
    "safetensors": "onnx",
    "tokenizers": "onnx",
}
"""Which extra brings a module, the smallest of them."""


def lacking(error: ImportError) -> str | None:
    """Say how to install what could not be imported; None if no extra here brings it, which is a bug."""
    module = (error.name or "").partition(".")[0]
    return _said(module) if module in _EXTRAS else None


def missing(modules: Iterable[str]) -> str | None:
    """Say how to install the first of these top-level modules that is not there; None if all are."""
    return next((_said(name) for name in modules if find_spec(name) is None), None)


def _said(module: str) -> str:
    return f"{module} is not installed: pip install 'tagmill[{_EXTRAS.get(module, 'models')}]'"
