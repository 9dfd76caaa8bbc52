"""How often captions use words and phrases as nouns, verbs and adjectives."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tagmill.tag_system.core import text as texts
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.parser import DEFAULT_SPACY_MODEL

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

CLASSES = ("noun", "verb", "adjective")

_BATCH = 20_000
_LONGEST = 3
_WORDS = re.compile(r"[a-z]+(?:['-][a-z]+)*(?: [a-z]+(?:['-][a-z]+)*)*")


@dataclass
class PhraseCounts:
    """Counts by class, the phrase in lower case; nouns hold phrases of up to three words that end in one."""

    noun: Counter[str] = field(default_factory=Counter)
    verb: Counter[str] = field(default_factory=Counter)
    adjective: Counter[str] = field(default_factory=Counter)

    def of(self, name: str) -> int:
        """All uses of a name."""
        return self.noun[name] + self.verb[name] + self.adjective[name]

    def dump(self, least: int = 2) -> str:
        """A line for each phrase that is used `least` times: class, phrase, count, in order of the phrase."""
        lines = [
            f"{name}\t{phrase}\t{count}"
            for name in CLASSES
            for phrase, count in sorted(getattr(self, name).items())
            if count >= least and _WORDS.fullmatch(phrase)
        ]
        return "\n".join(lines) + "\n"

    @classmethod
    def load(cls, path: str) -> "PhraseCounts":
        """Read what `dump` wrote; ConfigError with the line for anything else."""
        counts = cls()
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"cannot read the counts {path}: make them by `tagmill vocab count`") from exc
        for number, line in enumerate(texts.lines(text), start=1):
            cells = line.split("\t")
            if len(cells) != 3 or cells[0] not in CLASSES or not cells[2].isdecimal():
                raise ConfigError(f"{path}:{number}: not a count; make the file by `tagmill vocab count`")
            getattr(counts, cells[0])[cells[1]] += int(cells[2])
        return counts


def read_captions(paths: Iterable[str], column: str) -> Iterator[str]:
    """The captions of Parquet files, one row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            table = pq.ParquetFile(path)
            if column not in table.schema_arrow.names:
                raise ConfigError(f"{path} has no column {column!r}: name one of its columns by --column")
            kind = table.schema_arrow.field(column).type
            lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
            kind = kind.value_type if lists else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ConfigError(f"{path}: column {column!r} holds {kind}, not texts: give another --column")
            for batch in table.iter_batches(columns=[column]):
                values = batch.column(0).flatten() if lists else batch.column(0)
                yield from (text for text in values.to_pylist() if text is not None)
        except (OSError, pa.ArrowInvalid) as exc:
            raise ConfigError(f"cannot read the captions {path}: {exc}") from exc


def count(captions: Iterable[str], spacy_model: str = DEFAULT_SPACY_MODEL) -> PhraseCounts:
    """Count every different caption once: what is copied over many images is said once.

    Raises ConfigError if the spaCy model is not installed.
    """
    nlp = _load(spacy_model)
    counts = PhraseCounts()
    texts = iter(sorted(set(captions)))
    while batch := list(islice(texts, _BATCH)):
        with nlp.memory_zone():
            for doc in nlp.pipe(batch, batch_size=256):
                _add(counts, doc)
    return counts


def _load(spacy_model: str) -> "Language":
    import spacy

    try:
        return spacy.load(spacy_model, exclude=["parser", "ner", "senter", "entity_linker"])
    except OSError as exc:
        distribution = spacy_model.replace("_", "-")
        raise ConfigError(
            f"the spaCy model {spacy_model} is not installed; run `pip install {distribution}`"
        ) from exc


def _add(counts: PhraseCounts, doc: "Doc") -> None:
    tokens = list(doc)
    for place, token in enumerate(tokens):
        if token.pos_ == "VERB":
            counts.verb[token.lemma_.lower()] += 1
        elif token.pos_ == "ADJ":
            counts.adjective[token.lower_] += 1
        elif token.pos_ == "NOUN" or (token.pos_ == "PROPN" and (token.is_lower or place == 0)):
            # A capital inside a sentence makes a name: `Ben` is not a mountain, `Ford` not a ford.
            phrase = token.lemma_.lower()
            counts.noun[phrase] += 1
            for before in reversed(tokens[max(0, place - _LONGEST + 1) : place]):
                if before.pos_ not in ("NOUN", "PROPN", "ADJ") or not before.is_alpha:
                    break
                phrase = f"{before.lower_} {phrase}"
                counts.noun[phrase] += 1
