"""The data card of a dataset: what it is, how to read it, and what made it."""

import json
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.reasons import vouched
from tagmill.transforms.clean import Clean

HUB_SPLITS = {"val": "validation"}
"""What Hugging Face calls a split, where it is another name."""

HUB_TYPES = {str: "string", int: "int64", float: "float64"}
"""What Hugging Face calls a type."""


def data_card(manifest: contract.Manifest) -> str:
    """Describe a dataset to whoever finds it: what it is, how to read it, what made it."""
    shards = {split: sum(s.split == split for s in manifest.shards) for split in manifest.examples}
    rows = "\n".join(f"| {s} | {n:,} | {shards[s]:,} |" for s, n in manifest.examples.items())
    models = "\n".join(
        f"- `{key}`: {model.name}, `{model.fingerprint}`" for key, model in manifest.models.items()
    )
    policy = json.dumps(manifest.made_by["stages"][Clean.name]["config"]["policy"], sort_keys=True)
    return f"""---
{_front_matter(manifest)}---

# Image-tag dataset

Made by tagmill: tags of given captions and labels, and of models as they are listed below. Nobody has checked
the tags by eye: how many are right, and how many are missing, is not known.

| split | examples | shards |
|---|---|---|
{rows}

- Tags are names of the vocabulary in `{contract.VOCABULARY}` ({manifest.tags:,} tags,
  digest `{manifest.vocabulary}`).
- Shards are webdataset tars: the original image and `KEY.json` with captions, their tags, and every
  decision with its evidence. Take the tags whose `verdict` is `kept`; `dropped` and `uncertain` ones are
  there to decide on again. `basis` says what a verdict rests on, from `given` labels to the `tagger` alone;
  tags under `absent` were confirmed not to be there, tags under `implied` follow from kept ones.
- What vouches for the kept tags: {vouched(manifest.kept_by) or "there are none"}.
- `evidence` lists what each model says, by its name in `models` of `{contract.MANIFEST}`. A localizer with
  an empty list of boxes looked in vain; a model without entry was not asked. What is null is left out.
- Width, height and boxes are of the upright image; `orientation` is the EXIF orientation of its bytes.
- `{contract.MANIFEST}` lists the shards with their sha256; each has a Parquet index of its members.
- Keys in member names are percent-escaped; the JSON holds the original.
- The images keep the licences of their sources: look for them in each sample's `meta`, which is JSON in
  one string.

Policy of the verdicts: `{policy}`

Models, by the names that evidence gives them:
{models or "- none: tags come from captions and given labels alone"}

```python
import webdataset as wds

for sample in wds.WebDataset("train-000000.tar", shardshuffle=False).decode("pil"):
    tags = [tag["tag"] for tag in sample["json"]["tags"] if tag["verdict"] == "kept"]
```
"""


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
    sample = {"name": "json", "struct": _fields(contract.Sample)}
    values: dict[str, Any] = {
        "configs": [{"config_name": "default", "data_files": splits}],
        "dataset_info": {"features": [*images, sample, *keys]},
        "task_categories": ["image-classification", "zero-shot-image-classification", "object-detection"],
    }
    return yaml.safe_dump(values if splits else {}, sort_keys=False)


def _fields(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Describe the fields of a part of the contract as Hugging Face's features."""
    return [{"name": name} | _feature(field.annotation) for name, field in model.model_fields.items()]


def _feature(kind: Any) -> dict[str, Any]:
    origin, arguments = get_origin(kind), [one for one in get_args(kind) if one is not type(None)]
    if origin is Literal:
        return {"dtype": "string"}
    if origin in (list, tuple):
        (inner,) = set(arguments)
        feature = _feature(inner)
        return {"list": feature.get("dtype") or feature.get("struct") or feature}
    if origin is not None:  # a type, or null
        return _feature(arguments[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {"struct": _fields(kind)}
    return {"dtype": HUB_TYPES[kind]}
