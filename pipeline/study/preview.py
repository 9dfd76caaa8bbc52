"""How the first examples of a run's inputs would be read, by reading them as ingest does, into a folder that
goes again.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tagmill.pipeline.sources import FoundSource, find_sources, source_task
from tagmill.tag_system.core import files
from tagmill.tag_system.label_names import LabelNames
from tagmill.transforms import parquet, parts
from tagmill.transforms.exclusion import Exclusion
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.ingest import Ingest, part_name
from tagmill.transforms.source_worker import ingest_source

Record = dict[str, Any]


@dataclass
class InputPreview:
    """The first examples of an input.

    Attributes:
        name: The input's name.
        format: Its format.
        sources: How many sources it has.
        examples: Rows of ingest; their labels have `tag`, what they stand for, or None.
        dead: Dead letters: of examples, of captions and of fields.
        seen: How many of the examples have each field.
        used: How many of them have captions from each field.
        excluded: How many more there are that `inputs.exclude` takes out.
    """

    name: str
    format: str
    sources: int
    examples: list[Record] = field(default_factory=list)
    dead: list[Record] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    excluded: int = 0

    @property
    def count(self) -> int:
        """How many examples were read, live, dead and excluded."""
        return self.excluded + len(self.examples) + sum(letter["unit"] == "example" for letter in self.dead)


def preview(
    inputs: Sequence[InputConfig], stage: Ingest, labels: LabelNames, count: int
) -> Iterator[InputPreview]:
    """Read the first `count` examples of each input. Raises ConfigError as ingest does.

    What the stage excludes is left out, with those copies that are among these examples.
    """
    made = [_preview(source, stage, count) for source in inputs]
    named = (one for found in made for one in found.examples if _is_named(one, stage.exclusion))
    images = stage.exclusion.images | {one["sha256"] for one in named}
    for found in made:
        before = found.count
        gone = {one["key"] for one in found.examples if one["sha256"] in images}
        found.examples = [one for one in found.examples if one["key"] not in gone]
        found.dead = [
            one for one in found.dead if one["key"] not in gone and not _is_named(one, stage.exclusion)
        ]
        found.excluded = before - found.count
        for example in found.examples:
            for label in example["labels"]:
                tag = labels.resolve(label["name"])
                label["tag"] = tag and tag.name
        yield found


def _is_named(one: Record, exclusion: Exclusion) -> bool:
    """Tell whether an example or a dead letter is excluded by its key or its source."""
    return one["key"] in exclusion.keys or one["source"] in exclusion.sources


def _preview(source: InputConfig, stage: Ingest, count: int) -> InputPreview:
    found = list(find_sources([source]).values())
    made = InputPreview(source.name, source.format, len(found))
    for one in found:
        if made.count >= count:
            break
        _read(made, stage, one, count - made.count)
    return made


def _read(made: InputPreview, stage: Ingest, source: FoundSource, count: int) -> None:
    """Read the first examples of one source, as one part."""
    shared = replace(stage.shared, part_size=count)
    reader = Ingest(stage.config.model_copy(update={"limit": count}), shared)
    with tempfile.TemporaryDirectory() as folder:
        task = source_task(reader, source)
        ingest_source(reader, folder, task)
        uri = parts.part_uri(folder, part_name(task.name, 0))
        if not files.exists(uri):  # a source without examples
            return
        part = parts.read_part(uri)
        made.examples += [{**record, "source": source.uri} for record in part.records]
        made.seen.update(part.header.notes["fields"]["seen"])
        made.used.update(part.header.notes["fields"]["used"])
        dead = parts.dead_uri(folder, part.header.name)
        letters = parquet.read_table(dead).to_pylist() if files.exists(dead) else []
        made.dead += [{**letter, "source": source.uri} for letter in letters]
