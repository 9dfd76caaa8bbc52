"""Texts that describe a tag to a text encoder: sentences around its name, and descriptions of how it looks.

RAM knows a tag by sentences (arXiv 2306.03514, section 3.3), RAM++ by descriptions that a language model
wrote (arXiv 2310.15200, section 3.3). Descriptions are kept in the format of the official code, a JSON list
of {name: [text, ...]}, as many texts for every tag.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json
from tagmill.tag_system.vocabulary import normalize_name

TEMPLATES = (
    "There is {article} {name} in the scene.",
    "There is the {name} in the scene.",
    "This is a photo of {article} {name} in the scene.",
    "This is a photo of the {name} in the scene.",
    "This is a photo of one {name} in the scene.",
    "itap of {article} {name}.",
    "itap of my {name}.",
    "itap of the {name}.",
    "This is a photo of {article} {name}.",
    "This is a photo of my {name}.",
    "This is a photo of the {name}.",
    "This is a photo of one {name}.",
    "This is a photo of many {name}.",
    "This is a good photo of {article} {name}.",
    "This is a good photo of the {name}.",
    "This is a bad photo of {article} {name}.",
    "This is a bad photo of the {name}.",
    "This is a photo of a nice {name}.",
    "This is a photo of the nice {name}.",
    "This is a photo of a cool {name}.",
    "This is a photo of the cool {name}.",
    "This is a photo of a weird {name}.",
    "This is a photo of the weird {name}.",
    "This is a photo of a small {name}.",
    "This is a photo of the small {name}.",
    "This is a photo of a large {name}.",
    "This is a photo of the large {name}.",
    "This is a photo of a clean {name}.",
    "This is a photo of the clean {name}.",
    "This is a photo of a dirty {name}.",
    "This is a photo of the dirty {name}.",
    "This is a bright photo of {article} {name}.",
    "This is a bright photo of the {name}.",
    "This is a dark photo of {article} {name}.",
    "This is a dark photo of the {name}.",
    "This is a photo of a hard to see {name}.",
    "This is a photo of the hard to see {name}.",
    "This is a low resolution photo of {article} {name}.",
    "This is a low resolution photo of the {name}.",
    "This is a cropped photo of {article} {name}.",
    "This is a cropped photo of the {name}.",
    "This is a close-up photo of {article} {name}.",
    "This is a close-up photo of the {name}.",
    "This is a jpeg corrupted photo of {article} {name}.",
    "This is a jpeg corrupted photo of the {name}.",
    "This is a blurry photo of {article} {name}.",
    "This is a blurry photo of the {name}.",
    "This is a pixelated photo of {article} {name}.",
    "This is a pixelated photo of the {name}.",
    "This is a black and white photo of the {name}.",
    "This is a black and white photo of {article} {name}.",
    "This is a plastic {name}.",
    "This is the plastic {name}.",
    "This is a toy {name}.",
    "This is the toy {name}.",
    "This is a plushie {name}.",
    "This is the plushie {name}.",
    "This is a cartoon {name}.",
    "This is the cartoon {name}.",
    "This is an embroidered {name}.",
    "This is the embroidered {name}.",
    "This is a painting of the {name}.",
    "This is a painting of a {name}.",
)
"""The sentences of the official code."""

PROMPTS = (
    "Describe concisely what a(n) {name} looks like:",
    "How can you identify a(n) {name} concisely?",
    "What does a(n) {name} look like concisely?",
    "What are the identifying characteristics of a(n) {name}:",
    "Please provide a concise description of the visual characteristics of {name}:",
)
"""What the official code asks a language model about a tag."""

ANSWERS = 10
"""Answers to each prompt, so that a tag has 51 texts with the first sentence."""


MIN_WORDS, MAX_WORDS = 3, 200
"""Words of an answer. CLIP reads 77 word pieces; an answer far longer ignored the limit that it was given."""

_REFUSAL = re.compile(
    r"(i am|i'm|we are|we're) (very |so |really )?(sorry|afraid|unable|not able|not sure)"
    r"|(sorry|apologies|unfortunately)\b|<think"
    r"|i (can ?not|can't|could not|do not|don't|apologi[sz]e)\b"
    r"|(as|i am|i'm) an? (ai|large language|language)\b"
)
"""How an answer begins that describes nothing: a refusal, or thoughts that the server should keep apart."""

_APOSTROPHE = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'"})


def first_sentence(name: str) -> str:
    """Give the text that officially comes before what a language model answered."""
    return f"a photo of a {name}."


def sentences(name: str) -> list[str]:
    """Put a class's name into every template; as officially, a capital vowel has the article "a"."""
    words = name.replace("_", " ").replace("/", " or ").lower().rstrip(".")
    article = "an" if name[0] in "aeiou" else "a"
    return [template.format(name=words, article=article) for template in TEMPLATES]


def read(path: Path, names: Sequence[str]) -> list[list[str]]:
    """Read the official format, a JSON list of {name: [text, ...]}, in the order of the names.

    A name that is not there as it is written is found in other letters (Aloe for aloe).

    Raises ConfigError for another format, for a name that is not described, and unless all classes have
    the same number of descriptions.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the descriptions {path}: {error}") from error
    described: dict[str, list[str]] = {}
    for place, item in enumerate(content if isinstance(content, list) else [content]):
        name, texts = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else ("", None)
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f'{path}, entry {place}: expected {{"name": ["description", ...]}}')
        described[name] = texts
    forms = {normalize_name(name): texts for name, texts in reversed(described.items())} | described
    found = {name: forms.get(name) or forms.get(normalize_name(name), []) for name in names}
    if missing := [name for name in names if not found[name]]:
        raise ConfigError(f"{path} does not describe {len(missing)} tags, such as {', '.join(missing[:3])}")
    count = len(found[names[0]])
    if odd := next((name for name in names if len(found[name]) != count), None):
        raise ConfigError(f"{path}: {odd} has {len(found[odd])} descriptions, {names[0]} has {count}")
    return [found[name] for name in names]


def fault(text: str, prompt: str, others: Collection[str]) -> str | None:
    """Say what is wrong with an answer to a prompt, beside the other answers to it; None if it will do.

    An answer that the length cuts off will do: officially most are, and CLIP reads no more of it.
    """
    form = normalize_name(text)
    words = len(form.split())
    if not MIN_WORDS <= words <= MAX_WORDS:
        return "too short" if words < MIN_WORDS else "too long"
    if form.startswith(normalize_name(prompt).rstrip(":?")):
        return "repeats the question"
    if _REFUSAL.match(form.translate(_APOSTROPHE)):
        return "no answer"
    return "the same as another" if form in map(normalize_name, others) else None


def write(described: Mapping[str, Sequence[str]], path: Path) -> None:
    """Write the official format, whole or not at all. Raises ConfigError if that fails."""
    content = [{name: list(texts)} for name, texts in described.items()]
    with files.replacing(str(path)) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
