"""The data card of a dataset: what it is, how to read it, and what made it."""

import json

from tagmill.tag_system import shard_contract as contract
from tagmill.transforms.clean import Clean


def data_card(manifest: contract.Manifest) -> str:
    """Describe a dataset to whoever finds it: what it is, how to read it, what made it."""
    shards = {split: sum(s.split == split for s in manifest.shards) for split in manifest.examples}
    rows = "\n".join(f"| {s} | {n:,} | {shards[s]:,} |" for s, n in manifest.examples.items())
    models = "\n".join(
        f"- `{key}`: {model.name}, `{model.fingerprint}`" for key, model in manifest.models.items()
    )
    policy = json.dumps(manifest.made_by["stages"][Clean.name]["config"]["policy"], sort_keys=True)
    return f"""# Image-tag dataset

Made by tagmill: captions parsed into tags, missing tags added by a tagger, tags checked on their regions.

| split | examples | shards |
|---|---|---|
{rows}

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
