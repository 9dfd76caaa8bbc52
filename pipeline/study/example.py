"""Everything that a run knows of one example: what came in, what died of what, the verdict on each tag."""

import difflib
import logging
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from tagmill.models.base import Image
from tagmill.pipeline import key_index, records
from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.current import living_rows
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import FoundSource, find_sources
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import check_values
from tagmill.tag_system.core.errors import ConfigError, InputChangedError
from tagmill.tag_system.decisions import Policy
from tagmill.transforms import images, parquet, parts
from tagmill.transforms.caption import Caption
from tagmill.transforms.clean import Clean, region_records
from tagmill.transforms.duplicates import Duplicates
from tagmill.transforms.embed import Embed
from tagmill.transforms.ingest import Ingest, source_of
from tagmill.transforms.localize import Localize
from tagmill.transforms.parse import Parse

SHOWN_KEYS = 5

LOOKED_THROUGH = 200
"""Parts in which keys are looked for that are like one that is not there."""

_log = logging.getLogger(__name__)

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
        generated_mentions: Its words that gave tags, as in `parsed`.
        regions: Rows of localize, best first.
        embedded: Rows of embed, with embeddings as float16 arrays (dimension,); None before that stage.
        decisions: Rows of clean.
        policy: The policy that they were made under.
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
    generated_mentions: list[Record] = field(default_factory=list)
    regions: list[Record] = field(default_factory=list)
    embedded: list[Record] | None = field(default=None, compare=False)  # arrays have no one truth
    decisions: list[Record] = field(default_factory=list)
    policy: Policy = field(default_factory=Policy)

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
    _gather(_passed(run), ingest, part, [example])
    return example


def living_examples(run: RunFolder) -> Iterator[Example]:
    """Gather what a run knows of every example that lives, in order."""
    ingest, passed = _folder(run, Ingest.name), _passed(run)
    for name, living in living_rows(run).items():
        keys = parquet.read_table(parts.part_uri(ingest, name), ["key", "row"]).to_pylist()
        examples = [Example(one["key"], name, one["row"]) for one in keys if living >> one["row"] & 1]
        _gather(passed, ingest, name, examples)
        yield from examples


def gather_examples(run: RunFolder, chosen: Mapping[str, Sequence[tuple[int, str]]]) -> Iterator[Example]:
    """Gather what a run knows of some examples: rows and keys of those that are meant, by part."""
    ingest, passed = _folder(run, Ingest.name), _passed(run)
    for name, rows in chosen.items():
        examples = [Example(key, name, row) for row, key in rows]
        _gather(passed, ingest, name, examples)
        yield from examples


@dataclass(frozen=True)
class _Passed:
    """A stage that examples passed: its current generation's folder, and which rows came into each part."""

    stage: str
    folder: str
    came: Mapping[str, int]

    def read(self, part: str, examples: Sequence[Example]) -> tuple[list[Record], parts.Part] | None:
        """Read the dead letters and the table of a part; None if none of the examples came in."""
        if not any(self.came.get(part, 0) >> example.row & 1 for example in examples):
            return None
        try:
            letters = parquet.read_table(parts.dead_uri(self.folder, part)).to_pylist()
        except FileNotFoundError:
            letters = []
        return letters, parts.read_part(parts.part_uri(self.folder, part))


def _passed(run: RunFolder) -> list[_Passed]:
    """List the stages that were finished, in order."""

    def read(stage: str) -> _Passed | None:
        generation = run.current(stage)
        folder = run.generation(stage, generation) if generation else ""
        came = records.read_came(folder) if generation else None
        return None if came is None else _Passed(stage, folder, came)

    with ThreadPoolExecutor(files.THREADS) as pool:
        return list(filter(None, pool.map(read, run.stages())))


def _gather(passed: Sequence[_Passed], ingest: str, part: str, examples: Sequence[Example]) -> None:
    """Read a part of each stage once, and add what it says of each of the part's examples."""
    with ThreadPoolExecutor(files.THREADS) as pool:
        found = zip(passed, pool.map(lambda stage: stage.read(part, examples), passed), strict=True)
    for stage, read in found:
        if read is None:
            continue
        letters, made = read
        for example in examples:
            if not stage.came[part] >> example.row & 1:
                continue
            example.dead += [letter for letter in letters if letter["row"] == example.row]
            for reason, rows in made.header.dropped.items():
                if example.row in rows:
                    example.dropped = f"{stage.stage}: {reason}"
            _add(example, stage.stage, made, ingest)
            if stage.stage == Clean.name:
                example.policy = Policy(**made.header.spec["config"].get("policy", {}))


def _find(run: RunFolder, ingest: str, key: str) -> tuple[str, int]:
    """Find the part and row of a key; living ones go before dead ones, which may share a key with them."""
    names = list(records.read_came(ingest) or ())
    index = records.table_uri(ingest, key_index.TABLE)
    try:
        named = key_index.look_up(index, key) if index else None
    except FileNotFoundError:
        named = None
    if named is None:
        _log.warning("%s has no index of keys yet, as `tagmill run` writes: all parts are read", run.root)
        looked = names
    else:
        found, _ = _look(ingest, [names[number] for number in named], key)
        if found:
            return found
        looked = names[:: max(1, -(-len(names) // LOOKED_THROUGH))]
    found, near = _look(ingest, looked, key)
    if found:
        return found
    nearest = difflib.get_close_matches(key, sorted(set(near)), n=SHOWN_KEYS, cutoff=0)
    among = f" among those of {len(looked)} of its {len(names)} parts" if len(looked) < len(names) else ""
    raise ConfigError(f"no example {key} in {run.root}; the nearest keys{among}: {', '.join(nearest)}")


def _look(ingest: str, names: Sequence[str], key: str) -> tuple[tuple[str, int] | None, list[str]]:
    """Look for a key in parts: gives its part and row, if it is there, and keys that are like it."""
    near: list[str] = []
    dead: tuple[str, int] | None = None
    with ThreadPoolExecutor(files.THREADS) as pool:
        living = pool.map(lambda name: key_index.living_keys(ingest, name), names)
        lost = pool.map(lambda name: key_index.dead_keys(ingest, name), names)
        for name, here, gone in zip(names, living, lost, strict=True):
            if key in here:
                pool.shutdown(wait=False, cancel_futures=True)
                return (name, here[key]), []
            if key in gone and dead is None:
                dead = name, gone[key]
            near += _near(sorted(here), key)
    return dead, near


def _near(keys: list[str], key: str) -> list[str]:
    """Pick a few of a part's sorted keys that may be meant: neighbours, and those that end in the key."""
    place = bisect_left(keys, key)
    last = key.rpartition("/")[2]
    ending = [other for other in keys if last and other.endswith(last)]
    return [*ending[:SHOWN_KEYS], *keys[max(0, place - 2) : place + 2]]


def _add(example: Example, stage: str, made: parts.Part, ingest: str) -> None:
    """Add what a stage says of an example; stages that nobody asks here are not turned into records."""
    row = example.row
    if stage == Ingest.name:
        example.ingested = next(iter(made.of_row(row)), None)
    elif stage == Duplicates.name and example.dropped and (found := made.of_row(row)):
        winner = parts.read_part(parts.part_uri(ingest, found[0]["winner_part"]))
        example.duplicate_of = winner.of_row(found[0]["winner_row"])[0]["key"]
    elif stage == Parse.name:
        found = made.of_row(row)
        example.parsed = [record for record in found if record["source"] == "given"]
        generated = [record["mentions"] for record in found if record["source"] == "generated"]
        example.generated_mentions = [mention for mentions in generated for mention in mentions]
    elif stage == Caption.name and (found := made.of_row(row)):
        example.generated = found[0]["caption"]
    elif stage == Localize.name:
        example.regions = [record for record in made.of_row(row) if record["region"] is not None]
    elif stage == Embed.name:
        example.embedded = _embedded(made.table_of_row(row))
    elif stage == Clean.name:
        example.decisions = made.of_row(row)


def _embedded(table: pa.Table) -> list[Record]:
    """Give rows of embed as records that do not hold the memory of the part."""
    return [one | {"embedding": one["embedding"].copy()} for one in region_records(table)]


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
    """Decode the image of an example from its source; raises as `PixelReader.read` does."""
    return PixelReader(run).read(example)


class PixelReader:
    """Decodes images of a run's examples from their sources, which are looked for once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    @cached_property
    def _config(self) -> RunConfig:
        return check_values(self._run.root, self._run.saved_config() or {}, RunConfig)

    @cached_property
    def _sources(self) -> Mapping[str, FoundSource]:
        return find_sources(self._config.inputs)

    def read(self, example: Example) -> Image:
        """Decode the image of an example.

        Raises ConfigError if the example died at ingest or its source is not found from the working
        directory, InputChangedError if the source is another one now, DataError if the image cannot be
        decoded.
        """
        if example.ingested is None:
            raise ConfigError(f"{example.key} died at ingest: there is no image to draw")
        source = self._sources.get(source_of(example.part))
        if source is None:
            raise InputChangedError(
                f"the source of {example.key} was removed after it was ingested; put it back"
            )
        (data,) = images.read_references([example.ingested["image"]], source.images)
        images.check_unchanged(data, example.ingested)
        return images.decode(data, self._config.ingest.max_pixels)
