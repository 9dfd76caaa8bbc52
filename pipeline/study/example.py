"""Everything that a run knows of one example: what came in, what died of what, the verdict on each tag."""

import difflib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tagmill.models.base import Image
from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.current import current_records, living_rows
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import find_sources
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import check_values
from tagmill.tag_system.core.errors import ConfigError, InputChangedError
from tagmill.transforms import images, parquet, parts
from tagmill.transforms.caption import Caption
from tagmill.transforms.clean import Clean
from tagmill.transforms.duplicates import Duplicates
from tagmill.transforms.ingest import Ingest, source_of
from tagmill.transforms.localize import Localize
from tagmill.transforms.parse import Parse

SHOWN_KEYS = 5

Record = dict[str, Any]


@dataclass
class Example:
    """One example in the current generations of a run. What a stage has not made is empty or None.

    Attributes:
        key: The example's key, `<input>/<source key>`.
        part: Name of its part.
        row: Its row in the part.
        ingested: Its row of ingest; None if it died there.
        dead: Its dead letters, and those of its captions.
        dropped: The stage that dropped it, and why.
        duplicate_of: Key of the example that is kept instead, of the same image or key or a near one.
        parsed: Rows of parse, for given captions.
        generated: The captioner's caption.
        regions: Rows of localize, best first.
        decisions: Rows of clean.
    """

    key: str
    part: str
    row: int
    ingested: Record | None = None
    dead: list[Record] = field(default_factory=list)
    dropped: str | None = None
    duplicate_of: str | None = None
    parsed: list[Record] = field(default_factory=list)
    generated: str | None = None
    regions: list[Record] = field(default_factory=list)
    decisions: list[Record] = field(default_factory=list)

    def decided(self, *verdicts: str) -> list[Record]:
        """Give the decisions with one of these verdicts on tags that some source proposed, by tag."""
        found = [d for d in self.decisions if d["verdict"] in verdicts and d["rule"] != "not_proposed"]
        return sorted(found, key=lambda d: str(d["tag"]))

    def not_proposed(self) -> list[Record]:
        """Give the decisions on tags that are under every source's threshold, the best tagger score first."""
        found = [d for d in self.decisions if d["rule"] == "not_proposed"]
        return sorted(found, key=lambda d: (-(d["tagger"] or 0), d["tag"]))


def find_example(run: RunFolder, key: str) -> Example:
    """Gather what a run knows of the example with this key, `<input>/<source key>`.

    Raises ConfigError that names the nearest keys if there is none.
    """
    ingest = _folder(run, Ingest.name)
    part, row = _find(run, ingest, key)
    example = Example(key, part, row)
    _gather(run, part, [example])
    return example


def living_examples(run: RunFolder) -> Iterator[Example]:
    """Gather what a run knows of every example that lives, in order."""
    ingest = _folder(run, Ingest.name)
    for name, living in living_rows(run).items():
        keys = parquet.read_table(parts.part_uri(ingest, name), ["key", "row"]).to_pylist()
        examples = [Example(one["key"], name, one["row"]) for one in keys if living >> one["row"] & 1]
        _gather(run, name, examples)
        yield from examples


def _gather(run: RunFolder, part: str, examples: Sequence[Example]) -> None:
    """Read a part of each stage once, and add what it says of each of the part's examples."""
    ingest = _folder(run, Ingest.name)
    for record in current_records(run):
        stage, folder = record.stage, run.generation(record.stage, record.generation)
        came = record.parts[part].came if part in record.parts else 0
        here = [example for example in examples if came >> example.row & 1]
        if not here:
            continue
        letters: list[Record] = []
        if files.exists(parts.dead_uri(folder, part)):
            letters = parquet.read_table(parts.dead_uri(folder, part)).to_pylist()
        made = parts.read_part(parts.part_uri(folder, part))
        for example in here:
            example.dead += [letter for letter in letters if letter["row"] == example.row]
            for reason, rows in made.header.dropped.items():
                if example.row in rows:
                    example.dropped = f"{stage}: {reason}"
            _add(example, stage, made.of_row(example.row), ingest)


def _find(run: RunFolder, ingest: str, key: str) -> tuple[str, int]:
    """Find the part and row of a key; living ones go before dead ones, which may share a key with them."""
    near: list[str] = []
    dead: tuple[str, int] | None = None
    record = run.read_record(Ingest.name, run.current(Ingest.name) or "")
    names = list(record.parts) if record else []
    with ThreadPoolExecutor(files.THREADS) as pool:
        for name, (living, lost) in zip(
            names, pool.map(lambda name: _keys(ingest, name), names), strict=True
        ):
            if key in living:
                return name, living[key]
            if key in lost and dead is None:
                dead = name, lost[key]
            near += _near(sorted(living), key)
    if dead:
        return dead
    nearest = difflib.get_close_matches(key, sorted(set(near)), n=SHOWN_KEYS, cutoff=0)
    raise ConfigError(f"no example {key} in {run.root}; the nearest keys: {', '.join(nearest)}")


def _keys(ingest: str, name: str) -> tuple[dict[str, int], dict[str, int]]:
    """Read the rows of a part's living and dead examples, by key."""
    living = parquet.read_table(parts.part_uri(ingest, name), ["key", "row"]).to_pydict()
    lost: list[Record] = []
    if files.exists(parts.dead_uri(ingest, name)):
        lost = parquet.read_table(parts.dead_uri(ingest, name), ["key", "row", "unit"]).to_pylist()
    return (
        dict(zip(living["key"], living["row"], strict=True)),
        {letter["key"]: letter["row"] for letter in lost if letter["unit"] == "example"},
    )


def _near(keys: list[str], key: str) -> list[str]:
    """Pick a few of a part's sorted keys that may be meant: neighbours, and those that end in the key."""
    place = bisect_left(keys, key)
    last = key.rpartition("/")[2]
    ending = [other for other in keys if last and other.endswith(last)]
    return [*ending[:SHOWN_KEYS], *keys[max(0, place - 2) : place + 2]]


def _add(example: Example, stage: str, records: list[Record], ingest: str) -> None:
    if stage == Ingest.name:
        example.ingested = next(iter(records), None)
    elif stage == Duplicates.name and records and example.dropped:
        winner = parts.read_part(parts.part_uri(ingest, records[0]["winner_part"]))
        example.duplicate_of = winner.of_row(records[0]["winner_row"])[0]["key"]
    elif stage == Parse.name:
        example.parsed = [record for record in records if record["source"] == "given"]
    elif stage == Caption.name and records:
        example.generated = records[0]["caption"]
    elif stage == Localize.name:
        example.regions = [record for record in records if record["region"] is not None]
    elif stage == Clean.name:
        example.decisions = records


def decided_examples(run: RunFolder) -> Iterator[tuple[Record, list[Record]]]:
    """Give every living example of a finished run in order: ingest's row and clean's decisions."""
    ingest, clean = (_folder(run, stage.name) for stage in (Ingest, Clean))
    for name, living in living_rows(run).items():
        decided = parts.read_part(parts.part_uri(clean, name))
        ingested = parts.read_part(parts.part_uri(ingest, name))
        for example in ingested.records:
            if living >> example["row"] & 1:
                yield example, decided.of_row(example["row"])


def _folder(run: RunFolder, stage: str) -> str:
    generation = run.current(stage)
    if generation is None:
        raise ConfigError(f"{run.root}: the stage {stage} was not run yet")
    return run.generation(stage, generation)


def read_pixels(run: RunFolder, example: Example) -> Image:
    """Decode the image of an example from its source.

    Raises ConfigError if the example died at ingest or its source is not found from the working directory,
    InputChangedError if the source is another one now, DataError if the image cannot be decoded.
    """
    if example.ingested is None:
        raise ConfigError(f"{example.key} died at ingest: there is no image to draw")
    config = check_values(run.root, run.saved_config() or {}, RunConfig)
    source = find_sources(config.inputs).get(source_of(example.part))
    if source is None:
        raise InputChangedError(f"the source of {example.key} was removed after it was ingested; put it back")
    (data,) = images.read_references([example.ingested["image"]], source.images)
    images.check_unchanged(data, example.ingested)
    return images.decode(data, config.ingest.max_pixels)
