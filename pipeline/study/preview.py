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
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.ingest import Ingest, ingest_source, part_name

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
    """

    name: str
    format: str
    sources: int
    examples: list[Record] = field(default_factory=list)
    dead: list[Record] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """How many examples were read, live and dead."""
        return len(self.examples) + sum(letter["unit"] == "example" for letter in self.dead)


def preview(
    inputs: Sequence[InputConfig], stage: Ingest, labels: LabelNames, count: int
) -> Iterator[InputPreview]:
    """Read the first `count` examples of each input. Raises ConfigError as ingest does."""
    for source in inputs:
        found = list(find_sources([source]).values())
        made = InputPreview(source.name, source.format, len(found))
        for one in found:
            if made.count >= count:
                break
            _read(made, stage, one, count - made.count)
        for example in made.examples:
            for label in example["labels"]:
                tag = labels.resolve(label["name"])
                label["tag"] = tag and tag.name
        yield made


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
        made.examples += part.records
        made.seen.update(part.header.notes["fields"]["seen"])
        made.used.update(part.header.notes["fields"]["used"])
        dead = parts.dead_uri(folder, part.header.name)
        made.dead += parquet.read_table(dead).to_pylist() if files.exists(dead) else []
