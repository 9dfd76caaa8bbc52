"""WordNet as the tests find it: in the shared data, where that is there, or where nltk looks."""

import os
from pathlib import Path

import pytest

from tagmill.tag_system.builder.wordnet import reader
from tagmill.tag_system.core.errors import ConfigError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("NLTK_DATA", str(SHARED / "nltk_data"))


def is_there() -> bool:
    try:
        reader()
    except ConfigError:
        return False
    return True


needs_wordnet = pytest.mark.skipif(not is_there(), reason="the WordNet corpus is not here")
