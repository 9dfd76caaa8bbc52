"""Names of models and datasets on the Hugging Face hub."""

import re

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not by name

_URI = re.compile(r"hf://(?:(?P<kind>datasets|models|spaces|buckets)/)?(?P<name>[^/@]+/[^/@]+)(?:[/@].*)?")


def is_on_hub(name: str) -> bool:
    """Tell whether the hub could know something by this name; nobody asks it."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def hub_name(uri: str, *, dataset: bool = False) -> str | None:
    """Give the name of the model, or of the dataset, that an `hf://` uri is in; None if it is in none."""
    found = _URI.fullmatch(uri)
    if found is None or (found["kind"] == "datasets") != dataset or found["kind"] in ("spaces", "buckets"):
        return None
    return found["name"] if is_on_hub(found["name"]) else None
