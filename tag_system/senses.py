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
|table tennis|hat band|lap dance|belly dance|head first
|bed room|bath room|cross legged|ice cream|no parking|no smoking|tooth brush|hair cut|rain bow
|man hole|sun flower|man made|zip line|snow white|batting tee|golf tee|tee ball|tee box|tee off
|circuit board|double deck
|hot +pink|walking +stick
|stop +sign|stop +light|fire +truck|fire +engine|fire +station|fire +fighter|bus +stop
|bus +station|train +station|train +track|traffic +light|parking +meter|parking +lot
|orange +juice|apple +juice|carrot +cake|banana +bread|cup +cake|toilet +paper|tv +stand
|phone +booth|water +fountain|water +tower|horse +race|dog +park|bear +claw|cow +boy|car +wash
|bird +cage|bed +side|city +bus|hand +bag|hand +rail|head +light|foot +ball|basket +ball
|rock +concert|rock +band|rock +star|rock +music|rock +show|rock +group
|fox +terrier|bull +terrier|rat +terrier|bull +dog|sheep +dog|wolf +hound
"""

# Idioms: a bed of rice is not a bed, a train that makes its way makes nothing.
IDIOMS = """
make its way|make their way|make his way|make her way|take place|take part|bed of|glasses of|foot of the
|couple of|head of lettuce|head of broccoli|head of cauliflower|head of cabbage|ear of corn|body of +water
"""

# Words that mean a tag of another name where the words after the colon are near: track, a train track.
CONTEXTS = """
track = train track: train railroad railway locomotive engine subway tram trolley freight passenger caboose
stop = bus stop: bus
ring = boxing ring: boxing boxer box fighter fight wrestler wrestling wrestle
base = baseball base: baseball player runner batter umpire catcher
plate = home base: batter umpire catcher baseball
plate = home plate: batter umpire catcher baseball
club = golf club: golf golfer
"""

NEGATORS = frozenset({"no", "not", "n't", "n\u2019t", "without", "never", "neither", "nor"})
_NO_NEGATION = {"only", "just", "one", "longer", "doubt"}
_DENIED_CLASSES = {"DET", "ADJ", "NUM", "ADV", "VERB", "AUX", "PART", "PRON"}
_PEOPLE = {"girl", "woman", "man", "guy", "boy", "lady", "chick", "babe", "model"}
_SAID_OF_OTHERS = {"adult"}  # an adult giraffe
_NOT_SAID_OF_PEOPLE = {"hot", "cool"}
# Adjectives spelled as nouns, or formed from them, that name another thing: light blue, a stuffed toy.
_NOT_THE_NOUN = frozenset(
    re.findall(
        r"\w+",
        """
        light back live out go clear cool hot dressed stuffed seated lighted corned diced collected
        lined fashioned missing heated handed crossed boarded legged
        """,
    )
)
# How something is, where its base says what is done or what is there: dressed in red, a wooded hill.
_STATES = {"dressed", "wooded"}
# Things that a verb of the same name is done with.
_DONE_THINGS = {"drink", "smoke", "skateboard", "kayak", "canoe", "sled"}
# Things whose name is a colour too.
_COLORED_THINGS = {"orange", "peach", "olive", "coral", "salmon", "lime", "cream", "rust", "gold", "silver"}
# What is made of such a thing, or a piece of it: orange slices, a salmon dinner.
_MADE_OF = frozenset(
    re.findall(
        r"\w+",
        """
        slice wedge segment half quarter peel rind zest juice jam marmalade sauce soup salad sandwich
        pie tart dinner lunch fillet filet steak sushi cheese smoothie
        """,
    )
)
_SIGNS = {"sign", "signs", "banner", "board", "clock", "kiosk", "letters", "words", "that", "which"}
_COLOR_LEADS = {"in", "wearing", "all"}
# Nouns that are spelled as verbs but name another thing: a fruit stand, a school play.
_NOT_THE_VERB = frozenset(
    re.findall(
        r"\w+",
        """
        stand play show board watch match set block land pass cut cross cover face train
        catch rest lead pet point step line drop sign light brush camp bark film drill
        float shoot look park curl weave type tie saw buck pick bow perch squash step strike
        help mount building railing wedding meeting drawing painting crossing landing
        setting clothing living dining ceiling parking
        wrap types stands blocks cuts curls drops row rows move moves
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
    if form.text in _STATES and form.text not in (tag.name, *tag.aliases):
        return False
    before = forms[start - 1] if start else None
    if tag.kind == "action":
        return _acts(form, before)
    if form.text in _NOT_SAID_OF_PEOPLE and _next_noun(forms, end) in _PEOPLE:
        return False
    if tag.kind == "attribute":
        return form.group != OTHER and (form.group != VERB or form.text.endswith(("ed", "en")))
    after = forms[end].group if end < len(forms) else OTHER
    if has_color and is_color(forms, start):
        return False
    if form.group == NOUN:
        return after != NOUN or form.text not in _SAID_OF_OTHERS
    if form.group == ADJECTIVE:  # a wooden bench, magic tricks
        return tag.kind == "scene" or after not in (NOUN, ADJECTIVE) or form.text not in _NOT_THE_NOUN
    if form.group == VERB:  # after an article the model is wrong
        article = before is not None and before.pos == "DET" and not form.text.endswith(("ed", "ing"))
        return article or is_done(tag, form)
    return form.group == ADVERB and tag.kind == "scene"


def _acts(form: Form, before: Form | None) -> bool:
    """Whether a word says what is done, and not that a sign reads "Stop"."""
    if form.lemma == "read" and before is not None and before.text in _SIGNS:
        return False
    return form.group == VERB or (form.group in (NOUN, ADJECTIVE) and form.text not in _NOT_THE_VERB)


def is_done(tag: Tag, form: Form) -> bool:
    """Whether a thing is said as what is done with it: drinking, skateboarding."""
    return form.group == VERB and tag.name in _DONE_THINGS


def is_color(forms: Sequence[Form], position: int) -> bool:
    """Whether a word such as "orange" stands where it is the colour: an orange vest, in orange, is orange."""
    form = forms[position]
    if form.text not in _COLORED_THINGS:
        return False
    after = forms[position + 1] if position + 1 < len(forms) else None
    if after is not None and after.lemma in _MADE_OF:
        return False
    lead = position > 0 and forms[position - 1].text in _COLOR_LEADS
    return form.group == ADJECTIVE or (after is not None and after.group == NOUN) or lead


def _next_noun(forms: Sequence[Form], start: int) -> str:
    return next((form.lemma for form in forms[start:] if form.group == NOUN), "")


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
