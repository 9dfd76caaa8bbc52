"""The card of a model, README.md in its folder, as the Hugging Face hub reads it.

A card is front matter and sections under headings of level 2. What follows from the config alone is written
here; who trains a model adds what it was trained on. Names of classes and the like come from anywhere: they
stand in a card as code, see `markdown`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from tagmill.models.ram.config import CONFIG, RamConfig
from tagmill.models.ram.description import described
from tagmill.tag_system.core import files
from tagmill.tag_system.core.markdown import code, plain, table

if TYPE_CHECKING:
    from tagmill.models.ram.int8 import Agreement

CARD = "README.md"

MARK = "<!-- Written by tagmill, which keeps it up with the model; without this line it leaves it alone. -->"
"""By this line a card is told from what another wrote under its name."""

KEPT = "not a card of tagmill's, so it stays as it is"
"""What to say of a file that `write` left."""

MODEL, LOAD, LIMITS, FILE = "The model", "How to load it", "Limits", "This file"
"""Headings of the sections that every card has, and of the one that a file's has."""

SHOWN = 10
"""Classes that a sentence or a table names."""

NAMES = {"ram_plus": "RAM++", "ram": "RAM", "tag2text": "Tag2Text"}

PAPERS = {"ram_plus": "2310.15200", "ram": "2306.03514", "tag2text": "2303.05657"}
"""On arXiv."""

PUBLISHED_LICENCE = (
    "The published checkpoints of RAM, RAM++ and Tag2Text are under Apache-2.0, as their repository says; "
    "other weights have licences of their own."
)

OF_ALL = (
    "It knows no tags but its classes, and a score says how sure the model is, not how often it is right.",
    "What its data showed seldom, or in one way alone, it finds less well elsewhere: things, places and "
    "people too. Measure it on images of your own (`tagmill models eval`) before its tags decide anything.",
)
"""Limits of every model."""

_CAPTION = """
With the caption that it writes:

```sh
tagmill predict IMAGE.jpg --model FOLDER --captioner FOLDER
```
"""

_FOLDER = """`FOLDER` has `config.json` and `model.safetensors`; `pip install 'tagmill[models]'`.

```sh
tagmill predict IMAGE.jpg --model FOLDER
```
{captions}
```python
import tagmill

model = tagmill.load_model("FOLDER")
(prediction,) = tagmill.predict("IMAGE.jpg", model=model)
print(prediction.tags)
```"""

_ONNX = """It runs without torch: `pip install 'tagmill[onnx]'`. The file itself holds classes and thresholds.

```sh
tagmill predict IMAGE.jpg --model onnx --option path=FILE.onnx
```

```python
import tagmill

model = tagmill.load_model("onnx", path="FILE.onnx")
(prediction,) = tagmill.predict("IMAGE.jpg", model=model)
print(prediction.tags)
```"""

_OPEN = """
Other classes come by the option `labels`, a file of `tagmill vocab embed`."""

_CHECKPOINT = """The official code loads it; the names of the classes are not in it. With a list of them,
one a line, it becomes a folder of tagmill's:

```sh
tagmill models convert FILE FOLDER --classes CLASSES.txt{vocab}
```"""

_PROGRAM = """Images [batch, 3, height, width], resized and normalised, become logits [batch, classes]:

```python
import torch

module = torch.export.load("FILE.pt2").module()
scores = module(torch.zeros(1, 3, {size}, {size})).sigmoid()
```"""


def front_matter(config: RamConfig, **more: Any) -> ModelCardData:
    """Give the front matter of a model; `more` are fields of `ModelCardData` that no config knows."""
    return ModelCardData(
        library_name="tagmill",
        pipeline_tag="image-to-text" if config.kind == "tag2text" else "image-classification",
        tags=["image-tagging", "multi-label", "recognize-anything", config.kind.replace("_", "-")],
        **more,
    )


def write_card(
    config: RamConfig,
    data: ModelCardData,
    title: str,
    sections: Mapping[str, str],
    limits: Sequence[str] = (),
) -> str:
    """Write a card; `sections` and `limits` are those that not every model has."""
    told = "\n".join(f"- {limit}" for limit in (*limits, *OF_ALL))
    whole = {MODEL: the_model(config), **sections, LOAD: _folder(config), LIMITS: told}
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in whole.items())
    return f"---\n{data.to_yaml()}\n---\n\n{MARK}\n\n# {plain(title)}\n\n{_what(config)}\n\n{body}\n"


def card_of_config(config: RamConfig) -> str:
    """Write the card of a model of which nothing but its config is known."""
    title = f"{NAMES[config.kind]} of {len(config.classes):,} classes"
    unknown = f"Data, recipe, figures and licence are not known here. {PUBLISHED_LICENCE}"
    return write_card(config, front_matter(config), title, {"How it was trained": unknown})


def card_of_file(
    folder: Path,
    config: RamConfig,
    name: str,
    *,
    open_set: bool = False,
    agreement: "Agreement | None" = None,
) -> str:
    """Write the card of a file that a model of a folder was exported to: the folder's, with what differs.

    `name` is the file's. A folder without a card that the hub could read has that of its config.
    """
    card = _read(folder / CARD) or ModelCard(card_of_config(config))
    kind = name.rpartition(".")[2]
    held = card.data.get("tags")
    known = held if isinstance(held, list) else []
    added = [kind] * (kind == "onnx") + ["int8"] * (agreement is not None)
    card.data["tags"] = [*known, *(tag for tag in added if tag not in known)]
    if kind in ("onnx", "pt2"):
        card.data["pipeline_tag"] = "image-classification"  # captions are not in these graphs
    vocab = "" if config.text is None else " --vocab VOCAB.txt"
    loads = {"onnx": _ONNX + _OPEN * open_set, "pt2": _PROGRAM.format(size=config.image_size)}
    text = card.text
    for title, section in {
        MODEL: the_model(config),
        FILE: _file(config, name, kind, open_set=open_set, agreement=agreement),
        LOAD: loads.get(kind, _CHECKPOINT.format(vocab=vocab)),
    }.items():
        text = with_section(text, title, section)
    if MARK not in text:
        text = f"\n{MARK}\n{text}"
    return f"---\n{card.data.to_yaml()}\n---\n{text}"


def with_section(text: str, title: str, section: str) -> str:
    """Put a section in the place of the one with its title, else before what every card ends with."""
    written = f"## {title}\n\n{section}\n\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        place = re.search(rf"^## {LOAD}\n|\Z", text, re.MULTILINE)
        at = len(text) if place is None else place.start()
        return f"{text[:at].rstrip()}\n\n{written}{text[at:]}".rstrip() + "\n"
    return f"{text[: found.start()]}{written}{text[found.end() :]}".rstrip() + "\n"


def write(path: Path, text: str) -> bool:
    """Write a card; tells False of a file that is not a card of ours, which is left as it is."""
    if path.exists() and not is_ours(path):
        return False
    files.replace_bytes(str(path), text.encode())
    return True


def is_ours(path: Path) -> bool:
    """Tell whether a file is a card that was written here, and is still to be."""
    return path.is_file() and MARK.encode() in path.read_bytes()


def refresh(folder: Path, config: RamConfig) -> None:
    """Say in a folder's card, if it is ours, what its config has become."""
    path = folder / CARD
    if is_ours(path):
        write(path, with_section(path.read_text(encoding="utf-8"), MODEL, the_model(config)))


def the_model(config: RamConfig) -> str:
    """Tabulate what the config says, and name some classes."""
    rows = [(name, code(said)) for name, said in described(config).items()]
    first = some_of(config.classes)
    return f"{table(('', ''), rows)}\n\nThe classes are {first}; `{CONFIG}` has all."


def some_of(names: Sequence[str]) -> str:
    """Name the first of some names, and count the others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(code, names[:SHOWN])) + more


def _what(config: RamConfig) -> str:
    name, paper = NAMES[config.kind], PAPERS[config.kind]
    does = "tags images and writes captions" if config.kind == "tag2text" else "tags images"
    return (
        f"A model of the kind [{name}](https://arxiv.org/abs/{paper}) that {does}, for `tagmill`. Each class "
        "has a score of its own: an image can have any number of tags."
    )


def _folder(config: RamConfig) -> str:
    return _FOLDER.format(captions=_CAPTION if config.kind == "tag2text" else "")


def _file(config: RamConfig, name: str, kind: str, *, open_set: bool, agreement: "Agreement | None") -> str:
    numbers = "weights of 8 bits" if agreement is not None else "float32"
    told = f"{code(name)} was made of the folder by `tagmill models export`: {numbers}."
    if open_set:
        told += " The label embeddings of its classes are an input, so it takes other classes."
    if config.kind == "tag2text" and kind in ("onnx", "pt2"):
        told += " It has the tags alone, and writes no captions."
    if agreement is not None:
        told += f"\n\nAgainst float32, {agreement.in_words()}. What else this card measures is of float32."
    return told


def _read(path: Path) -> ModelCard | None:
    """Read a card, whoever wrote it; None if it is not there, or if the hub cannot read its front matter."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.startswith("---"):  # of which the hub's library would warn
            return None
        card = ModelCard(text)
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return None
    return card if card.data.to_dict() else None


def licence_in(folder: Path) -> str | None:
    """Give the licence that the front matter of a folder's card names; None if there is none."""
    card = _read(folder / CARD)
    said = None if card is None else card.data.get("license_name") or card.data.get("license")
    return said if isinstance(said, str) else None
