"""The words that the tiny models read: a BERT vocabulary of 1,030 pieces, one token for every word."""

from string import ascii_lowercase, digits
from typing import Any

from demo_recipe import captions
from demo_recipe.things import COLOURS, PLACES, things

FIXED = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
"""Ids of bert-base-uncased that the code of Grounding DINO relies on."""

SIZE = 1_030


def words() -> list[str]:
    """List the world's words, sorted."""
    names = [thing.name for thing in things()]
    phrases = [*names, *map(captions.plural, names), *PLACES, *COLOURS, *captions.NUMBERS]
    phrases += [
        *captions.OPENINGS,
        *captions.NOTHING,
        *(w for where in captions.WHERE.values() for w in where),
    ]
    phrases += ["and", "this", "there", "with", "close up", "drawing", "one", "some"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def pieces() -> dict[str, int]:
    """Give every piece its id: the fixed ones, the words, letters and digits for any other word, commas."""
    known = words()
    letters = [c for c in ascii_lowercase + digits if c not in known]
    free = [*known, *letters, *("##" + c for c in ascii_lowercase + digits), ",", "-", "'"]
    table = [FIXED.get(place, f"[unused{place}]") for place in range(SIZE)]
    places = [place for place in range(104, SIZE) if place not in FIXED]
    for place, piece in zip(places, free, strict=False):
        table[place] = piece
    return {piece: place for place, piece in enumerate(table)}


def tokenizer() -> Any:
    """Make the tokenizer, a BertTokenizer of transformers."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab=pieces())
