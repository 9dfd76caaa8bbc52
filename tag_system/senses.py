"""Which sense a word has where it stands: compounds, negation, words of several classes."""

import re
from collections.abc import Iterator, Sequence

from tagmill.tag_system.vocabulary import Tag
from tagmill.tag_system.words import ADJECTIVE, ADVERB, NOUN, OTHER, VERB, Form

# Compounds that are not what their words say. After the + stands a head that stays true.
OPAQUE = """
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

NEGATORS = frozenset({"no", "not", "n't", "n\u2019t", "without", "never", "neither", "nor"})
_NO_NEGATION = {"only", "just", "one", "longer", "doubt"}
_DENIED_CLASSES = {"DET", "ADJ", "NUM", "ADV", "VERB", "AUX", "PART", "PRON"}
_COLOR_LEADS = {"in", "wearing", "all"}
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


def fits(tag: Tag, forms: Sequence[Form], start: int, end: int, *, has_color: bool) -> bool:
    """Whether the class of the word lets it name this kind of tag; phrases are taken as they are.

    `has_color`: another tag is the colour of the same name, as with the orange.
    """
    if end - start > 1:
        return True
    form = forms[start]
    if tag.kind == "action":
        return form.group == VERB or (form.group in (NOUN, ADJECTIVE) and form.text not in _NOT_THE_VERB)
    if tag.kind == "attribute":
        return form.group != OTHER and (form.group != VERB or form.text.endswith(("ed", "en")))
    before = forms[start - 1] if start else None
    after = forms[end].group if end < len(forms) else OTHER
    if form.group == NOUN:
        is_color = after == NOUN or (before is not None and before.text in _COLOR_LEADS)
        return not (has_color and is_color)
    if form.group == ADJECTIVE:
        return tag.kind == "scene" or after not in (NOUN, ADJECTIVE)
    if form.group == VERB:  # after an article the model is wrong
        article = before is not None and before.pos == "DET"
        return article and not form.text.endswith(("ed", "ing"))
    return form.group == ADVERB and tag.kind == "scene"


def negated(forms: Sequence[Form]) -> frozenset[int]:
    """The words that "no", "without", "not" deny: those up to the end of the next noun phrase."""
    found: set[int] = set()
    for position, form in enumerate(forms):
        if form.text not in NEGATORS:
            continue
        denied = list(_denied(forms[position + 1 :]))
        # A "no smoking" sign is there all the same.
        if denied and denied[0].text not in _NO_NEGATION and denied[-1].lemma != "sign":
            found.update(range(position + 1, position + 1 + len(denied)))
    return frozenset(found)


def _denied(forms: Sequence[Form]) -> Iterator[Form]:
    in_noun = False
    for form in forms:
        if form.group == NOUN:
            in_noun = True
        elif form.text in ("or", "nor"):
            in_noun = False
        elif in_noun or form.pos not in _DENIED_CLASSES:
            return
        yield form
