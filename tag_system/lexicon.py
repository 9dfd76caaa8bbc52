"""How English words are used in captions: their classes, how often, and which class follows which.

The file beside it was learnt from COCO's captions:

    python -m tagmill.tag_system.lexicon CAPTIONS.parquet... > tag_system/lexicon.tsv
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from tagmill.tag_system.core.text import lines

if TYPE_CHECKING:
    from spacy.language import Language

NOTICE = (
    "# Counted in captions of MS COCO (cocodataset.org), CC BY 4.0, as spaCy's en_core_web_sm reads them."
)

START = "START"
"""The class before the first word and after the last."""

_ZONE = 8192
_LEAST = 3
_LEAST_SHARE = 0.02


class Use(NamedTuple):
    """A word as one class: spaCy's name of it, how often, and the lemma it then has."""

    pos: str
    times: int
    lemma: str


@dataclass(frozen=True)
class Lexicon:
    """The uses of each lower-case word, the most frequent first, and how often a class follows a class."""

    words: dict[str, tuple[Use, ...]]
    pairs: dict[tuple[str, str], int]

    def dump(self) -> str:
        """A line for each pair of classes, then one for each word in alphabetical order."""
        lines = [NOTICE, *(f"{a}\t{b}\t{count}" for (a, b), count in sorted(self.pairs.items()))]
        for word, uses in sorted(self.words.items()):
            cells = [f"{use.pos}:{use.times}" + _suffix(use, word) for use in uses]
            lines.append("\t".join([word, *cells]))
        return "\n".join(lines) + "\n"


def _suffix(use: Use, word: str) -> str:
    return "" if use.lemma == word else f":{use.lemma}"


def parse_lexicon(text: str) -> Lexicon:
    """Read what `dump` wrote."""
    words: dict[str, tuple[Use, ...]] = {}
    pairs: dict[tuple[str, str], int] = {}
    for line in lines(text):
        if line.startswith("#"):
            continue
        first, *cells = line.split("\t")
        if ":" not in cells[0]:
            pairs[first, cells[0]] = int(cells[1])
            continue
        uses = []
        for cell in cells:
            pos, count, lemma = [*cell.split(":"), first][:3]
            uses.append(Use(pos, int(count), lemma))
        words[first] = tuple(uses)
    return Lexicon(words, pairs)


@lru_cache(maxsize=1)
def built_in() -> Lexicon:
    """The lexicon of COCO's captions."""
    return parse_lexicon(files("tagmill.tag_system").joinpath("lexicon.tsv").read_text(encoding="utf-8"))


def learn(captions: Iterable[str], nlp: "Language") -> Lexicon:
    """Count the words and classes of different captions; rare words and rare uses are left out."""
    uses: dict[str, Counter[tuple[str, str]]] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    texts = sorted(set(captions))
    for start in range(0, len(texts), _ZONE):
        with nlp.memory_zone():
            for doc in nlp.pipe(texts[start : start + _ZONE]):
                before = START
                for token in doc:
                    if token.is_space:
                        continue
                    pairs[before, token.pos_] += 1
                    before = token.pos_
                    if token.text[0].isalpha() or token.text[0] in "'\u2019":
                        uses.setdefault(token.lower_, Counter())[token.pos_, token.lemma_.lower()] += 1
                pairs[before, START] += 1
    return Lexicon({word: found for word, one in uses.items() if (found := _frequent(one))}, dict(pairs))


def _frequent(counts: Counter[tuple[str, str]]) -> tuple[Use, ...]:
    by_class: dict[str, Use] = {}
    for (pos, lemma), count in counts.most_common():
        old = by_class.get(pos, Use(pos, 0, lemma))
        by_class[pos] = old._replace(times=old.times + count)
    total = sum(counts.values())
    least = max(_LEAST, _LEAST_SHARE * total)
    kept = [use for use in by_class.values() if use.times >= least]
    return tuple(sorted(kept, key=lambda use: (-use.times, use.pos)))


def main(paths: Sequence[str]) -> None:
    """Learn from the column `caption` of Parquet files and write the lexicon to stdout."""
    import pyarrow.parquet as pq

    from tagmill.tag_system.spacy_reader import DEFAULT_SPACY_MODEL, load_pipeline
    from tagmill.tag_system.words import plain_text

    captions = [
        plain_text(text)
        for path in paths
        for text in pq.read_table(path, columns=["caption"]).column("caption").to_pylist()
    ]
    sys.stdout.write(learn(captions, load_pipeline(DEFAULT_SPACY_MODEL)).dump())


if __name__ == "__main__":
    main(sys.argv[1:])
