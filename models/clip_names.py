"""How a CLIP of either backend embeds names: in a sentence, some texts at a time, each name once."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tagmill.models.base import Floats
from tagmill.tag_system.core.errors import ConfigError

TEXTS_AT_ONCE = 256


class EmbeddedNames:
    """The vectors of names: `embed` gives those of texts, (texts, dimension), and `template` is the sentence.

    Raises ConfigError unless the template has its one place for a name.
    """

    def __init__(self, template: str, embed: Callable[[Sequence[str]], Floats]) -> None:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ConfigError(f"template must have {{}} once for the name, got {template!r}")
        self._template, self._embed = template, embed
        self._vectors: dict[str, Floats] = {}

    def vectors(self, names: Sequence[str]) -> list[Floats]:
        """Give the vector of each name, which is computed once."""
        new = [name for name in dict.fromkeys(names) if name not in self._vectors]
        if new:
            found = self._embed([self._template.format(name) for name in new])
            self._vectors.update(zip(new, found, strict=True))
        return [self._vectors[name] for name in names]


def portions(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts into lists that are embedded at a time."""
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        yield list(texts[start : start + TEXTS_AT_ONCE])


def unit(vectors: Floats) -> Floats:
    """Bring rows to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
