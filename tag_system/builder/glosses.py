"""Descriptions of tags without a language model: what WordNet says of them, filled up with templates.

They are worth less than a language model's: the paper found that WordNet's glosses add little
(arXiv 2310.15200, appendix E). They make RAM++ run on any list of tags, offline.
"""

from collections.abc import Iterator
from typing import Any

from tagmill.tag_system import descriptions
from tagmill.tag_system.builder import wordnet
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Tag

MOST = 1 + len(descriptions.TEMPLATES)
"""Texts that there are for any tag, also one that WordNet does not know."""


def describe(tag: Tag, count: int) -> list[str]:
    """Give so many different texts. Raises ConfigError for more than there are, or if WordNet is missing."""
    if count > MOST:
        raise ConfigError(
            f"without a server there are {MOST} texts for a tag, not {count}: take fewer answers"
        )
    texts = (descriptions.first_sentence(tag.name), *_gloss(tag), *descriptions.sentences(tag.name))
    return list(dict.fromkeys(texts))[:count]


def sense_of(tag: Tag) -> Any | None:
    """The sense that the vocabulary names for a tag, or else the one that its name most likely means."""
    if tag.origin.synset:
        return wordnet.synset(tag.origin.synset)
    return wordnet.sense_of(tag.name, tag.kind)


def _gloss(tag: Tag) -> Iterator[str]:
    sense = sense_of(tag)
    if sense is None:
        return
    gloss = str(sense.definition())
    yield f"{tag.name}: {gloss}."
    yield f"a photo of a {tag.name}, {gloss}."
    for above in wordnet.hypernyms(sense):
        yield f"a photo of a {tag.name}, a sort of {above}."
    for other in dict.fromkeys([*tag.aliases, *wordnet.synonyms(sense)]):
        yield descriptions.first_sentence(other)
    for example in sense.examples():
        yield f"{example}."
