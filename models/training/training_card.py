"""The card of a training's model: what it was trained on and how, and how good it is, beside its checkpoint.

It follows from the recipe, the data and what the validation found: the same training writes the same card. Of
places it tells what `told_recipe` leaves of them; names from data stand in it as code.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from tagmill.models.hub_names import hub_name
from tagmill.models.ram import model_card
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.model_card import NAMES, PUBLISHED_LICENCE, SHOWN, some_of
from tagmill.models.training import components, told_recipe
from tagmill.models.training.calibration import USUAL
from tagmill.models.training.datasets import Dataset
from tagmill.models.training.learnable import FEW, ClassSupport
from tagmill.models.training.loader import Loader
from tagmill.models.training.metrics import TagMetrics
from tagmill.models.training.recipe import Figure, Recipe
from tagmill.models.training.tag_table import TAGS
from tagmill.models.training.validation import Quality
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.markdown import block, code, table
from tagmill.tag_system.core.text import shown
from tagmill.tag_system.hub import HUB_SPLITS, hub_licence
from tagmill.tag_system.licence_table import licences_told, share
from tagmill.tag_system.licences import UNKNOWN, licence_name
from tagmill.tag_system.reasons import vouched
from tagmill.tag_system.vocabulary import Vocabulary

METRICS: dict[Figure, tuple[str, str]] = {"map": ("mAP", "mAP"), "cf1": ("f1", "CF1"), "of1": ("f1", "OF1")}
"""What the hub calls the figures of a validation, and the field."""

DIGITS = 4

UNCHECKED = (
    "Its labels are what a data engine decided by captions, given labels and other models; nobody has "
    "checked them. Figures that were measured by such labels share their faults."
)

UNLEARNED = (
    "Classes without a positive, which are named above, could not be learned: `allow_unlearnable` let them "
    "be trained, and their scores mean nothing."
)


class TrainingCard:
    """Writes the cards of a training's checkpoints; what holds of all of them is worked out once.

    `held` loads the split val; None for a training without validations. Raises what reading a manifest does.
    """

    def __init__(
        self, recipe: Recipe, config: RamConfig, loader: Loader, held: Loader | None, support: ClassSupport
    ) -> None:
        self._config = config
        self._held = [] if held is None else held.datasets
        self._weights = "the weights" if recipe.engine.ema is None else "the averaged weights"
        self._title = recipe.card.name or f"{NAMES[config.kind]} of {len(config.classes):,} classes"
        self._front = _front(recipe, loader.datasets)
        self._sections = {
            "What it was trained on": _data(recipe, loader.datasets, support),
            "Licences": _licences(recipe, loader.datasets),
            "Recipe": _recipe(recipe, config),
        }
        self._limits = [UNCHECKED, *([UNLEARNED] if support.nowhere or support.negative else [])]

    def text(self, step: int, quality: Quality | None = None) -> str:
        """Write the card of the checkpoint of a step; `quality` is what the first process found of it."""
        good, more = f"This is the model after step {step:,}. How good it is was not measured.", {}
        if quality is not None and quality.metrics is not None and quality.figures:
            good = self._quality(step, quality, quality.metrics.tags)
            more = self._index(quality)
        data = model_card.front_matter(self._config, **self._front, **more)
        sections = self._sections | {"How good it is": good}
        return model_card.write_card(self._config, data, self._title, sections, self._limits)

    def _index(self, quality: Quality) -> dict[str, Any]:
        """Give the fields of the hub's index of results; nothing if there is none that it knows."""
        known = [hub_name(one.folder, dataset=True) for one in self._held]
        results = [
            EvalResult(
                task_type="image-classification",
                task_name="Image tagging",
                dataset_type=known[0] if len(known) == 1 and known[0] else "webdataset",  # what reads shards
                dataset_name=", ".join(shown(one.name) for one in self._held),
                dataset_split=HUB_SPLITS["val"],
                metric_type=kind,
                metric_name=name,
                metric_value=round(quality.figures[figure], DIGITS),
            )
            for figure, (kind, name) in METRICS.items()
            if figure in quality.figures
        ]
        if not results:
            return {}
        kinds = dict.fromkeys(result.metric_type for result in results)
        return {"metrics": list(kinds), "model_name": shown(self._title), "eval_results": results}

    def _quality(self, step: int, quality: Quality, tags: Sequence[TagMetrics]) -> str:
        images = sum(sum(one.counts) for one in self._held)
        decisions, known = images * len(tags), sum(tag.images for tag in tags)
        own = "its threshold" if self._config.thresholds else f"a score of {USUAL:g}"
        found = {name: quality.figures.get(figure) for figure, (_, name) in METRICS.items()}
        found["tagging loss of an image"] = quality.figures["loss"]
        rows = [(name, f"{value:.{DIGITS}f}") for name, value in found.items() if value is not None]
        names = ", ".join(code(one.name) for one in self._held)
        told = [
            f"{self._weights.capitalize()} after step {step:,}, measured on the {images:,} examples of the "
            f"split `val` of {names}, by the tags that the engine decided on:",
            table(("figure", "value"), rows),
            f"mAP, CF1 and OF1 are over the {quality.classes:,} of {len(tags):,} classes that have positives "
            f"there; a class counts as predicted from {own} on. Left out, as unknown, are "
            f"{share(decisions - known, decisions)} of {decisions:,} pairs of image and class: tags of which "
            "the engine is uncertain, classes that a dataset does not know, images that could not be read.",
        ]
        lists = {
            "Unknown for all of these images": [tag.tag for tag in tags if not tag.images],
            "Without a positive among them": [tag.tag for tag in tags if tag.images and not tag.positives],
        }
        told += _listed(lists)
        return "\n\n".join([*told, _best_known(tags)])


def _best_known(tags: Sequence[TagMetrics]) -> str:
    """Tabulate the classes that have the most positives in val."""
    present = sorted((tag for tag in tags if tag.positives), key=lambda tag: (-tag.positives, tag.tag))
    rows = []
    for tag in present[:SHOWN]:
        rates = (f"{rate:.3f}" for rate in (tag.ap, tag.precision, tag.recall, tag.f1))
        rows.append((code(tag.tag), f"{tag.positives:,}", *rates))
    head = ("class", "positives", "AP", "precision", "recall", "F1")
    return f"Those with the most positives; `{TAGS}` has all:\n\n{table(head, rows)}" if rows else ""


def _listed(lists: Mapping[str, Sequence[str]]) -> list[str]:
    """Write a paragraph of Markdown for lists of names, an item for each that is not empty."""
    found = [f"- {title} ({len(names):,}): {some_of(names)}." for title, names in lists.items() if names]
    return ["\n".join(found)] if found else []


def _front(recipe: Recipe, opened: Sequence[Dataset]) -> dict[str, Any]:
    """Give the fields of front matter that are known without a validation."""
    about = recipe.card
    base = about.base_model or (None if recipe.init is None else hub_name(recipe.init))
    found = [name for one in opened if (name := hub_name(one.folder, dataset=True)) is not None]
    licence = None if about.license is None else licence_name(about.license)
    return {
        **({} if licence is None else hub_licence({licence: 1})),
        "base_model": base,
        "base_model_relation": "finetune" if base is not None and recipe.init is not None else None,
        "datasets": list(dict.fromkeys([*about.datasets, *found])) or None,
        "language": about.language or _language(recipe, opened),
    }


def _language(recipe: Recipe, opened: Sequence[Dataset]) -> str | None:
    """Tell English where the classes are the built-in vocabulary's; of others it is not known."""
    if recipe.classes is not None or recipe.init is not None:
        return None
    return "en" if opened[0].manifest.vocabulary == Vocabulary.load().digest else None


def _data(recipe: Recipe, opened: Sequence[Dataset], support: ClassSupport) -> str:
    """Tell the datasets, and what of the classes they can teach."""
    rows = []
    for one in opened:
        counts = [f"{one.manifest.examples.get(split, 0):,}" for split in ("train", "val")]
        digest = files.sha256(files.join(one.folder, contract.MANIFEST))
        rows.append((code(one.name), *counts, code(digest), code(one.manifest.vocabulary)))
    head = ("dataset", "train", "val", f"sha256 of its {contract.MANIFEST}", "digest of its vocabulary")
    told = [table(head, rows), "\n".join(map(_source, opened))]
    if recipe.data.decisions is not None:
        told.append("The decisions of another run went before those of the shards (`data.decisions`).")
    return "\n\n".join([*told, _learned(support)])


def _licences(recipe: Recipe, opened: Sequence[Dataset]) -> str:
    """Tell the licence of the model, of what it began from, and of the images that it learned from."""
    said = None if recipe.card.license is None else licence_name(recipe.card.license)
    counts = Counter[str]()
    for one in opened:
        counts.update(one.manifest.licenses or {UNKNOWN: sum(one.manifest.examples.values())})
    own = "unknown; who trained it did not say" if said is None else code(said)
    told = [f"The model's own: {own}.", _start(recipe), "Those of the images, of all splits:"]
    return "\n\n".join([*told, licences_told(counts)])


def _source(dataset: Dataset) -> str:
    manifest = dataset.manifest
    at = f" from {code(told_recipe.place_told(dataset.folder))}" if "://" in dataset.folder else ""
    inputs = [
        f"{one.examples:,} of {code(name)} ({code(one.format)})" for name, one in manifest.inputs.items()
    ]
    kept = vouched(manifest.kept_by) or "nothing that it names"
    sources = ", ".join(inputs) or "sources that it does not name"
    return f"- {code(dataset.name)}{at}: examples of {sources}; its kept tags rest on {kept}."


def _start(recipe: Recipe) -> str:
    """Say what the training began from, and under which licence that is."""
    if recipe.init is None and recipe.trunk is None:
        return "All of its weights began at random."
    told = []
    for key, place in (("model", recipe.init), ("image encoder", recipe.trunk)):
        if place is not None:
            name = code(told_recipe.place_told(place))
            told.append(f"The {key} began from {name}, whose licence is {_licence_of(place)}.")
    return " ".join([*told, PUBLISHED_LICENCE])


def _licence_of(place: str) -> str:
    """Say the licence that the card beside a model of this machine names."""
    said = None if "://" in place else model_card.licence_in(Path(place))
    return code(said) if said else UNKNOWN


def _learned(support: ClassSupport) -> str:
    """Tell how many positives classes had, and what could not be learned."""
    pairs = list(zip(support.classes, support.positives, strict=True))
    rows = [(code(name), str(count) if count < FEW else f"{FEW} or more") for name, count in pairs[:SHOWN]]
    some = f"the first {SHOWN} of " if len(pairs) > SHOWN else ""
    told = [
        f"Positives in `train` of {some}its {len(pairs):,} classes, counted up to {FEW}:",
        table(("class", "positives"), rows),
    ]
    told += _listed(
        {
            f"With fewer than {FEW} positives, hardly learned": list(support.few),
            "Without a positive, only learned to be absent": support.negative,
            "In no dataset's vocabulary, not learned at all": support.nowhere,
            **{f"Masked in {code(name)}, which does not know them": v for name, v in support.unknown.items()},
        }
    )
    if support.doubled:
        same = "; ".join(" = ".join(map(code, names)) for names in support.doubled[:SHOWN])
        told.append(f"Classes that are one tag ({len(support.doubled):,}): {same}.")
    return "\n\n".join(told)


def _recipe(recipe: Recipe, config: RamConfig) -> str:
    differing = told_recipe.differences(recipe, config.kind, components.terms_of(recipe, config))
    rows = [[code(value) for value in row] for row in differing]
    pretraining = f"the published pretraining of {NAMES[config.kind]}"
    against = f"Losses, schedule and optimizer are those of {pretraining}."
    if rows:
        against = f"In losses, schedule and optimizer this differs from {pretraining}:\n\n"
        against += table(("key", "here", "published"), rows)
    left = ", ".join(code(key) for key in sorted(told_recipe.LEFT_OUT))
    return (
        f"{against}\n\nThe config of `tagmill train` without {left}; of paths on its machine the last part "
        f"stands here:\n\n{block(told_recipe.as_yaml(recipe), 'yaml')}"
    )
