"""The data card of a dataset: what it is, under which licences, how to read it, and what made it."""

import json
from collections.abc import Iterable
from typing import Any

import yaml

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core.markdown import code, plain, table
from tagmill.tag_system.core.text import one_line
from tagmill.tag_system.hub import HUB_SPLITS, hub_fields, hub_licence
from tagmill.tag_system.licence_table import licences_told, share
from tagmill.tag_system.reasons import vouched
from tagmill.transforms.clean import Clean
from tagmill.transforms.shards import Shards

UNCHECKED = (
    "Nobody has checked the tags by eye: how many are right, and how many are missing, is not known, so no "
    "precision or recall is given."
)

LIMITS = (
    "What no caption, label or tagger names is not decided on: that a tag is missing does not say that the "
    "thing is.",
    "Captions and labels are taken as their sources give them, wrong or biased ones too.",
    "Models know the kinds of things and people that they were trained on, and see others less well.",
    "Images are not looked through for faces, minors, nudity or text: keys and pages of the source may tell.",
    "Each image keeps the licence of its source, which was read from the source and not checked.",
)
"""What holds of every dataset that is made so."""


def data_card(manifest: contract.Manifest) -> str:
    """Describe a dataset to whoever finds it: what it is, how to read it, what made it."""
    shards = {split: sum(s.split == split for s in manifest.shards) for split in manifest.examples}
    splits = ((s, f"{n:,}", f"{shards[s]:,}") for s, n in manifest.examples.items())
    date = f" Dated {manifest.date}." if manifest.date else ""
    limits = "\n".join(f"- {limit}" for limit in LIMITS)
    return f"""---
{_front_matter(manifest)}---

# Image-tag dataset

Made by tagmill: tags of given captions and labels, and of models as they are listed below.{date}

{_table(("split", "examples", "shards"), splits)}

## Quality

{UNCHECKED}

What vouches for the kept tags: {vouched(manifest.kept_by) or "there are none"}.

## Sources

{_sources(manifest)}

## Licences

{licences_told(manifest.licenses)}

## Decisions

{_decisions(manifest)}

Policy of the verdicts: `{policy_of(manifest)}`

Models, by the names that evidence gives them, with the digest of their files and options:
{models_told(manifest)}

## Limits

{limits}

## How to read it

- Tags are names of the vocabulary in `{contract.VOCABULARY}` ({manifest.tags:,} tags,
  digest `{manifest.vocabulary}`).
- Shards are webdataset tars: the original image and `KEY.json` with captions, their tags, and every
  decision with its evidence. Take the tags whose `verdict` is `kept`; `dropped` and `uncertain` ones are
  there to decide on again. `basis` says what a verdict rests on, from `given` labels to the `tagger` alone;
  tags under `absent` were confirmed not to be there, tags under `implied` follow from kept ones.
- `evidence` lists what each model says, by its name in `models` of `{contract.MANIFEST}`. A localizer with
  an empty list of boxes looked in vain; a model without entry was not asked. What is null is left out.
- Width, height and boxes are of the upright image; `orientation` is the EXIF orientation of its bytes.
- `{contract.MANIFEST}` lists the shards with their sha256; each has a Parquet index of its members.
- Keys in member names are percent-escaped; the JSON holds the original.
- `license` of a sample is its image's licence; what else the source says is in `meta`, JSON in one string.

```python
import webdataset as wds

for sample in wds.WebDataset("train-000000.tar", shardshuffle=False).decode("pil"):
    tags = [tag["tag"] for tag in sample["json"]["tags"] if tag["verdict"] == "kept"]
```
"""


def policy_of(manifest: contract.Manifest) -> str:
    """Give the policy of the verdicts as JSON."""
    return json.dumps(settings_of(manifest, Clean.name).get("policy", {}), sort_keys=True)


def settings_of(manifest: contract.Manifest, stage: str) -> dict[str, Any]:
    """Give how a stage of the run was set; nothing if it was not there."""
    found: dict[str, Any] = manifest.made_by.get("stages", {}).get(stage, {}).get("config", {})
    return found


def models_told(manifest: contract.Manifest) -> str:
    """List the models by name and digest."""
    found = (f"- `{key}`: {one.name}, `{one.fingerprint}`" for key, one in manifest.models.items())
    return "\n".join(found) or "- none: tags come from captions and given labels alone"


def collected(manifest: contract.Manifest) -> str:
    """Say in a sentence which inputs the examples come from."""
    told = (f"{one.examples:,} of {name} ({one.format})" for name, one in manifest.inputs.items())
    return f"Examples of sources as they are: {', '.join(told) or 'none'}."


def left_out(manifest: contract.Manifest) -> str:
    """Say in a sentence how many examples of the inputs are not in the dataset, and why."""
    lost = [
        f"{count:,} by {stage} ({reason})"
        for stage, reasons in manifest.left_out.items()
        for reason, count in reasons.items()
    ]
    told = [f"Of the inputs are left out: {', '.join(lost) or 'none'}."]
    if where := settings_of(manifest, Shards.name).get("where"):
        told.append(f"Only examples of which this is true are taken: {code(one_line(where))}.")
    if where := manifest.made_by.get("export", {}).get("where"):
        told.append(f"Exported are those of which this is true: {code(one_line(where))}.")
    return " ".join(told)


def _sources(manifest: contract.Manifest) -> str:
    rows = ((name, one.format, f"{one.examples:,}") for name, one in manifest.inputs.items())
    return f"{_table(('input', 'format', 'examples'), rows)}\n\n{left_out(manifest)}"


def _decisions(manifest: contract.Manifest) -> str:
    """Tabulate which rules decided, without the tags that nobody proposed."""
    found = {name: count for name, count in manifest.rules.items() if not name.endswith("/not_proposed")}
    total = sum(found.values())
    ranked = sorted(found, key=lambda name: (-found[name], name))
    rows = ((*name.split("/", 1), share(found[name], total)) for name in ranked)
    return _table(("verdict", "deciding rule", "decisions"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table of texts that may come from anywhere."""
    return table(head, (map(plain, row) for row in rows))


def _front_matter(manifest: contract.Manifest) -> str:
    """Tell Hugging Face's `load_dataset`, and its viewer, which files are the dataset and what they hold.

    Without it they would take the indexes for the data. All fields are named: they would be guessed from the
    first samples, and others lack some.
    """
    splits = [
        {"split": HUB_SPLITS.get(split, split), "path": f"{split}-*.tar"}
        for split, examples in manifest.examples.items()
        if examples
    ]
    images = [{"name": extension, "dtype": "image"} for extension in sorted(manifest.formats)]
    keys = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    sample = {"name": "json", "struct": hub_fields(contract.Sample)}
    values: dict[str, Any] = {
        **hub_licence(manifest.licenses),
        "configs": [{"config_name": "default", "data_files": splits}],
        "dataset_info": {"features": [*images, sample, *keys]},
        "task_categories": ["image-classification", "zero-shot-image-classification", "object-detection"],
    }
    return yaml.safe_dump(values if splits else {}, sort_keys=False)
