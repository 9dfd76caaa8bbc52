"""Word pieces (BERT's, lower case) of tags and captions, as the text side of RAM and Tag2Text reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagmill.tag_system.core import text as texts
from tagmill.tag_system.core.errors import ConfigError

PROMPT = "a picture of "
"""How every caption begins; cut off what is shown."""

TAGS_BETWEEN, TAG_TOKENS = " | ", 40
"""What stands between tags, and to how many word pieces their text is padded or cut."""

SENTENCE_TOKENS = 30
"""To how many word pieces BLIP cuts a text that is compared with images."""

CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
"""Spaces that a decoded text loses, in this order, as transformers does it."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPieces:
    """The vocabulary `vocab.txt`, one piece a line, and two ids after it that mark what a text is.

    Raises ConfigError if the file is missing or lacks one of BERT's special pieces.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import BertWordPieceTokenizer

        try:
            lines = texts.lines(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not a vocabulary of BERT: it is not text in UTF-8") from error
        pieces = {line.rstrip("\n"): i for i, line in enumerate(lines)}
        if missing := [piece for piece in SPECIAL if piece not in pieces]:
            raise ConfigError(f"{path} is not a vocabulary of BERT: it has no {', '.join(missing)}")
        self._tokenizer: Any = BertWordPieceTokenizer(vocab=pieces, lowercase=True)
        self._tokenizer.add_special_tokens(["[DEC]", "[ENC]"])
        self.caption_start, self.tags_start = len(lines), len(lines) + 1
        self._silent = {pieces[piece] for piece in SPECIAL} | {self.caption_start, self.tags_start}
        self.end, self.padding = pieces["[SEP]"], pieces["[PAD]"]

    @property
    def count(self) -> int:
        """Number of ids, with the two that the vocabulary does not list."""
        return self.tags_start + 1

    @property
    def prompt(self) -> list[int]:
        """Ids that each caption starts with."""
        return [self.caption_start, *self._ids(PROMPT)[1:-1]]

    def tags(self, names: Sequence[str]) -> list[int]:
        """Ids of a text of tags, padded or cut to 40, after the mark of tags."""
        ids = self._cut(self._ids(TAGS_BETWEEN.join(names)), TAG_TOKENS)
        return [self.tags_start, *ids[1:], *[self.padding] * (TAG_TOKENS - len(ids))]

    def caption(self, text: str, limit: int = TAG_TOKENS) -> list[int]:
        """Ids of a caption to learn from: prompt, text and end, cut to `limit`."""
        return [self.caption_start, *self._cut(self._ids(PROMPT + text), limit)[1:]]

    def sentence(self, text: str, limit: int = SENTENCE_TOKENS) -> list[int]:
        """Ids of a text to compare with images, cut to `limit`: BERT's own marks, no prompt."""
        return self._cut(self._ids(text), limit)

    def text(self, ids: Sequence[int]) -> str:
        """Decode a caption and cut the prompt off."""
        pieces = [self._tokenizer.id_to_token(i) for i in ids if i not in self._silent]
        text = " ".join(pieces).replace(" ##", "")
        for apart, together in CLEAN_UP:
            text = text.replace(apart, together)
        return text[len(PROMPT) :]

    def _cut(self, ids: list[int], limit: int) -> list[int]:
        return ids if len(ids) <= limit else [*ids[: limit - 1], self.end]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)
