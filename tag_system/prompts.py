"""Texts for an open-vocabulary detector, built from tags by tokens and never by characters.

A detector's text encoder reads a fixed number of tokens and drops what is beyond it without a word
(Grounding DINO: 256, arXiv 2303.05499), so tags are packed by their token counts and not by their
number, and each tag's tokens are remembered by position.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """One text: `[CLS] tag . tag . [SEP]` as token ids.

    `ids` are the tokens; `positions` the places in `ids` of all tokens that belong to a tag, dots
    not included; `owners`, of the same length, the place in `tags` of the tag that each belongs
    to; `tags` the indices of the tags as the caller counts them, ascending.
    """

    tags: list[int]
    ids: list[int]
    positions: list[int]
    owners: list[int]


def pack(counts: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Pack tags into prompts, first-fit: each tag joins the first prompt that has room for it.

    `counts[i]` is the number of tokens of tag i with the dot that closes it; `budget` is the number
    of tokens that one prompt has for tags, and `most` that of tags, if it is bounded. Returns the tag
    indices of each prompt: every index once, ascending in its prompt, prompts in the order of their
    first tags. Nothing is ever cut.

    Raises ValueError if a count is below 1, or above the budget: no prompt can hold that tag.
    """
    prompts: list[list[int]] = []
    room: list[int] = []
    for index, count in enumerate(counts):
        if not 1 <= count <= budget:
            raise ValueError(f"tag {index} has {count} tokens; one prompt has room for 1 to {budget}")
        place = next((i for i, free in enumerate(room) if count <= free), len(prompts))
        if place == len(prompts):
            prompts.append([])
            room.append(budget)
        prompts[place].append(index)
        room[place] -= count
        if len(prompts[place]) == most:
            room[place] = 0
    return prompts


def build(
    pieces: Sequence[Sequence[int]],
    max_length: int,
    most: int | None = None,
    *,
    start: int,
    dot: int,
    end: int,
) -> list[Text]:
    """Build the fewest texts of at most `max_length` tokens, and `most` tags, that first-fit packing gives.

    `pieces[i]` are the token ids of tag i alone, without special tokens; `start`, `dot` and `end`
    are the ids that open a text, close every tag (the last one too: without its dot a tag's tokens
    do not see each other) and close the text. No tags give no texts.

    Raises ValueError as `pack` does, and for a tag that has no tokens.
    """
    for index, tokens in enumerate(pieces):
        if not tokens:
            raise ValueError(f"tag {index} has no tokens: give it a name that the tokenizer knows")
    texts = []
    for group in pack([len(tokens) + 1 for tokens in pieces], max_length - 2, most):
        ids = [start]
        positions: list[int] = []
        owners: list[int] = []
        for owner, index in enumerate(group):
            positions.extend(range(len(ids), len(ids) + len(pieces[index])))
            owners.extend([owner] * len(pieces[index]))
            ids.extend([*pieces[index], dot])
        texts.append(Text(group, [*ids, end], positions, owners))
    return texts
