"""The dataset of a run: how shards are cut along the parts, and what is written around them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tagmill.pipeline.plan import Adoption, StagePlan, Stock, Upstream, Wanted
from tagmill.pipeline.records import PartRecord, read_json
from tagmill.pipeline.run_folder import RunFolder, supersede
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.features import Features
from tagmill.transforms.parts import Counts
from tagmill.transforms.shards import Shards, ShardTask, index_uri, tar_uri
from tagmill.transforms.stage import PartTask, Stage, libraries, part_fingerprint

CUT = "cut.json"

Cut = list[dict[str, Any]]
"""One entry a shard, in order: its name, its split and the parts that it takes."""


def extend_cut(cut: Cut, counts: Mapping[str, Mapping[str, int]], size: int) -> Cut:
    """Cut the parts that no shard takes yet, in their order; what was cut before stays.

    `counts` says how many examples of each split a part has; a shard takes whole parts, up to `size`
    examples. Parts without examples leave their shards, and so does what no longer fits.
    """
    kept = [{**shard, "parts": _fitting(shard, counts, size)} for shard in cut]
    kept = [shard for shard in kept if shard["parts"]]
    numbers = {split: 1 + max(_numbers(cut, split), default=-1) for split in contract.SPLITS}
    placed = {(shard["split"], name) for shard in kept for name in shard["parts"]}
    for split in contract.SPLITS:
        filled = size
        for name, found in counts.items():
            count = found.get(split, 0)
            if (split, name) in placed or not count:
                continue
            if filled + count > size:
                shard = contract.shard_name(split, numbers[split])
                kept.append({"name": shard, "split": split, "parts": []})
                numbers[split] += 1
                filled = 0
            kept[-1]["parts"].append(name)
            filled += count
    return kept


def _fitting(shard: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], size: int) -> list[str]:
    """List the parts of a shard that have examples of its split, as far as they fit."""
    fitting, filled = [], 0
    for name in shard["parts"]:
        count = counts.get(name, {}).get(shard["split"], 0)
        if count and filled + count <= size:
            fitting.append(name)
            filled += count
    return fitting


def _numbers(cut: Cut, split: str) -> list[int]:
    return [int(shard["name"].rsplit("-", 1)[1]) for shard in cut if shard["split"] == split]


def plan_shards(stage: Shards, generation: str, inputs: list[str], upstream: Upstream) -> StagePlan:
    """Plan the shards: those that are not there, or whose examples changed."""
    folder = upstream.run.generation(stage.name, generation)
    plan = StagePlan(stage, generation, folder, [], {}, [])
    if upstream.is_open(inputs):
        plan.unknown = True
        return plan
    came = upstream.came()
    counts = _splits(upstream, came)
    cut = extend_cut(_cut_before(stage, folder, counts, upstream), counts, stage.config.size)
    plan.more = {"cut": cut}
    plan.names = [shard["name"] for shard in cut]
    there = _index_headers(folder, plan.names)
    stock = ShardStock(upstream.run, stage, generation, plan.names)
    for shard in cut:
        task = _task(stage, shard, inputs, upstream, came)
        header = there.get(task.name)
        if header and header["fingerprint"] == task.fingerprint:
            plan.done[task.name] = record_of(task.name, header)
        elif found := stock.find(task.name, task.fingerprint):
            plan.done[task.name], plan.adopted[task.name] = found
        else:
            plan.tasks.append(task)
            plan.reasons.append(f"{task.name}: {'its examples changed' if header else 'not written yet'}")
    plan.unfinished = not _is_finished(folder, plan)
    return plan


def _splits(upstream: Upstream, came: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Count the examples of each split that live, by part; clean noted it of those that it let out."""
    counts: dict[str, dict[str, int]] = {}
    ingest = upstream.plans["ingest"].folder
    for name, part in upstream.records["clean"].parts.items():
        counts[name] = part.notes["splits"]
        if part.living != came[name]:  # a filter came after
            table = parquet.read_table(parts.part_uri(ingest, name), ["row", "split"])
            living = [r["split"] for r in table.to_pylist() if came[name] >> r["row"] & 1]
            counts[name] = dict(Counter(living))
    return counts


def _cut_before(
    stage: Shards, folder: str, counts: Mapping[str, Mapping[str, int]], upstream: Upstream
) -> Cut:
    """Read where the parts were cut before; a new generation takes over a cut that is right as it stands."""
    uri = files.join(folder, CUT)
    if files.exists(uri):
        return _read_cut(uri)
    current = upstream.run.current(stage.name)
    uri = files.join(upstream.run.generation(stage.name, current), CUT) if current else ""
    if current and files.exists(uri):
        cut = _read_cut(uri)
        return cut if extend_cut(cut, counts, stage.config.size) == cut else []
    return []


def _read_cut(uri: str) -> Cut:
    cut: Cut = read_json(uri)
    if not isinstance(cut, list) or not all(
        isinstance(shard, dict) and shard.keys() >= {"name", "split", "parts"} for shard in cut
    ):
        raise DamageError(f"{uri} is damaged; remove it and run again")
    return cut


class ShardStock:
    """The shards that other generations of a run have."""

    def __init__(self, run: RunFolder, stage: Shards, generation: str, names: list[str]) -> None:
        self._folders = [
            run.generation(stage.name, other) for other in run.generations(stage.name) if other != generation
        ]
        self._names = names
        self._found: list[tuple[str, dict[str, dict[str, Any]]]] | None = None

    def find(self, name: str, fingerprint: str) -> tuple[PartRecord, Adoption] | None:
        """Find a shard of this name that was made in just this way."""
        if self._found is None:
            self._found = [(folder, _index_headers(folder, self._names)) for folder in self._folders]
        for folder, headers in self._found:
            header = headers.get(name)
            if header and header["fingerprint"] == fingerprint:
                names = (f"{name}.tar", f"{name}.index.parquet")
                return record_of(name, header), Adoption(folder, names, header["bytes"])
        return None


def _is_finished(folder: str, plan: StagePlan) -> bool:
    """Tell whether what is written around the shards is there, and lists just these shards."""
    if not {contract.VOCABULARY, contract.DATA_CARD, contract.MANIFEST} <= set(files.list_names(folder)):
        return False
    try:
        manifest = contract.parse_manifest(files.read_bytes(files.join(folder, contract.MANIFEST)), folder)
    except ConfigError:
        return False
    return {shard.name: shard.sha256 for shard in manifest.shards} == {
        name: record.digest for name, record in plan.done.items()
    }


def _task(
    stage: Shards, shard: dict[str, Any], inputs: list[str], upstream: Upstream, came: Mapping[str, int]
) -> ShardTask:
    digests = [
        [name, upstream.digests(stage, inputs, name) | {"rows": bitmaps.dump(came[name]).hex()}]
        for name in shard["parts"]
    ]
    made_by = {"stage": stage.name, "version": stage.version, "meaning": stage.meaning}
    fingerprint = value_digest({**made_by, "shard": shard["name"], "parts": digests})
    tasks = [upstream.task(stage, inputs, name, fingerprint) for name in shard["parts"]]
    return ShardTask(shard["name"], shard["split"], fingerprint, tasks)


def plan_features(stage: Features, generation: str, upstream: Upstream) -> StagePlan:
    """Plan the features of every shard: those that are not there, or whose shard is another one now."""
    folder = upstream.run.generation(stage.name, generation)
    plan = StagePlan(stage, generation, folder, [], {}, [])
    if upstream.is_open(["shards"]):
        plan.unknown = True
        return plan
    shards, where = upstream.records["shards"].parts, upstream.plans["shards"].folder
    plan.names = list(shards)
    stock = Stock(upstream.run, stage, generation, plan.names)
    for name, shard in shards.items():
        fingerprint = part_fingerprint(stage, {"shards": shard.digest})
        if not stock.serve(plan, Wanted(name, fingerprint, shard.came), dict):
            plan.tasks.append(PartTask(name, fingerprint, {"shards": index_uri(where, name)}, where))
    return plan


def _index_headers(folder: str, names: list[str]) -> dict[str, dict[str, Any]]:
    listed = set(files.list_names(folder))
    there = [name for name in names if {f"{name}.index.parquet", f"{name}.tar"} <= listed]
    with ThreadPoolExecutor(files.THREADS) as pool:
        headers = pool.map(lambda name: read_index_header(folder, name), there)
        return dict(zip(there, headers, strict=True))


def read_index_header(folder: str, name: str) -> dict[str, Any]:
    """Read what a shard's index says of the shard: fingerprint, split, examples, bytes, sha256.

    The seal of the index's own bytes is added. Raises DamageError if it cannot be read, and
    FileNotFoundError.
    """
    uri = index_uri(folder, name)
    try:
        tail = parquet.read_tail(uri)
        header: dict[str, Any] = json.loads(tail.metadata[parquet.METADATA_KEY])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise DamageError(f"{uri} cannot be read ({error}); remove it and run again") from error
    return header | {"seal": tail.seal}


def record_of(name: str, header: Mapping[str, Any]) -> PartRecord:
    """Make a shard's record; its digest is the sha256 of the tar, its seal that of the index."""
    rows = bitmaps.first(header["examples"])
    return PartRecord(
        name,
        header["fingerprint"],
        header["sha256"],
        header["seal"],
        header["bytes"],
        beside={},
        base="",
        slices={},
        counts=Counts(header["examples"], 0, {}, {}, {}),
        notes={},
        seconds={},
        made_for=rows,
        came=rows,
    )


def make_way_for_shards(plan: StagePlan) -> None:
    """Before the job: the dataset is no longer whole, stale shards and tars without index make way."""
    files.remove(files.join(plan.folder, contract.MANIFEST))
    for name in [*(task.name for task in plan.tasks), *plan.adopted]:
        supersede(plan.folder, index_uri(plan.folder, name), tar_uri(plan.folder, name))
    files.replace_bytes(files.join(plan.folder, CUT), json.dumps(plan.more["cut"], indent=1).encode())


def finish_dataset(
    plan: StagePlan, vocabulary: Vocabulary, stages: Sequence[Stage[Any]]
) -> dict[str, PartRecord]:
    """Write vocabulary, data card and, last, the manifest, which says how `stages` were set.

    Returns the shards' records.
    """
    headers = _index_headers(plan.folder, plan.names)
    listed = set(plan.names)
    for name in files.list_names(plan.folder, ".tar"):
        if name.removesuffix(".tar") not in listed:
            stale = name.removesuffix(".tar")
            supersede(plan.folder, index_uri(plan.folder, stale), tar_uri(plan.folder, stale))
    shards = [
        contract.ManifestShard(
            name=name,
            split=headers[name]["split"],
            examples=headers[name]["examples"],
            bytes=headers[name]["bytes"],
            sha256=headers[name]["sha256"],
        )
        for name in plan.names
    ]
    examples: dict[str, int] = {}
    for shard in shards:
        examples[shard.split] = examples.get(shard.split, 0) + shard.examples
    manifest = contract.Manifest(
        layout=contract.LAYOUT,
        vocabulary=vocabulary.digest,
        tags=len(vocabulary),
        examples=examples,
        shards=shards,
        models=_models(stages),
        made_by={
            "stages": {stage.name: stage.meaning | {"config": stage.settings} for stage in stages},
            "libraries": libraries(),
        },
    )
    write = {
        contract.VOCABULARY: vocabulary.dump(),
        contract.DATA_CARD: data_card(manifest),
        contract.MANIFEST: manifest.model_dump_json(indent=1) + "\n",
    }
    for name, text in write.items():
        files.replace_bytes(files.join(plan.folder, name), text.encode())
    return {name: record_of(name, headers[name]) for name in plan.names}


def _models(stages: Iterable[Stage[Any]]) -> dict[str, contract.ManifestModel]:
    """Name the models that gave evidence: each by its stage, as samples do."""
    return {
        stage.name: contract.ManifestModel(
            stage=stage.name, name=stage.settings["model"], fingerprint=stage.meaning["model"]
        )
        for stage in stages
        if "model" in stage.meaning
    }


def data_card(manifest: contract.Manifest) -> str:
    """Describe a dataset to whoever finds it: what it is, how to read it, what made it."""
    shards = {split: sum(s.split == split for s in manifest.shards) for split in manifest.examples}
    rows = "\n".join(f"| {s} | {n:,} | {shards[s]:,} |" for s, n in manifest.examples.items())
    models = "\n".join(
        f"- `{key}`: {model.name}, `{model.fingerprint}`" for key, model in manifest.models.items()
    )
    policy = json.dumps(manifest.made_by["stages"]["clean"]["config"]["policy"], sort_keys=True)
    return f"""# Image-tag dataset

Made by tagmill: captions parsed into tags, missing tags added by a tagger, tags checked on their regions.

| split | examples | shards |
|---|---|---|
{rows}

- Tags are names of the vocabulary in `{contract.VOCABULARY}` ({manifest.tags:,} tags,
  digest `{manifest.vocabulary}`).
- Shards are webdataset tars: the original image and `KEY.json` with captions, their tags, and every
  decision with its evidence. Take the tags whose `verdict` is `kept`; `dropped` and `uncertain` ones are
  there to judge again. `basis` says what a verdict rests on, from `given` labels to the `tagger` alone;
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
