"""How many examples a run has, told by a sample of its sources."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import FoundSource
from tagmill.pipeline.trials import Trial
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms import parquet, parts
from tagmill.transforms.ingest import Ingest, source_of


def count_examples(
    sample: Trial, found: Mapping[str, FoundSource], sampled: Mapping[str, FoundSource], folder: str
) -> tuple[int, bool]:
    """Tell how many examples there are, by the bytes that a sample's took, and whether that is exact.

    Raises ConfigError where the format does not tell.
    """
    total, is_exact = 0.0, True
    read = _read_of(sample, sampled, folder)
    for name in dict.fromkeys(source.config.name for source in found.values()):
        every, sources = (
            [source for source in some.values() if source.config.name == name] for some in (found, sampled)
        )
        examples = used = 0.0
        for source in sources:
            seen = read.get(source.name, _SourceShare())
            share = seen.share(source, sample.limit)
            if share is None:
                raise ConfigError(
                    f"input {name}: nobody can tell how many examples {source.uri} has without reading it; "
                    "say with --total how many the whole run has"
                )
            is_exact &= share == 1
            examples += seen.examples
            used += share * source.size
        is_exact &= len(sources) == len(every)
        total += examples * sum(source.size for source in every) / max(used, 1)
    return round(total), is_exact


@dataclass
class _SourceShare:
    """What was read of a source: examples, dead ones too, and the bytes of the source that these took."""

    examples: int = 0
    bytes: int = 0

    def share(self, source: FoundSource, limit: int) -> float | None:
        """Tell what share of a source was read, 1 for all of it; None if nobody can tell."""
        if self.examples < limit:
            return 1
        if not self.bytes or not source.size:
            return None
        return min(1, self.bytes / source.size)


def _read_of(sample: Trial, sampled: Mapping[str, FoundSource], folder: str) -> dict[str, _SourceShare]:
    """Tell what was read of each source, by its name.

    Of a tar these are how far its images lie apart, elsewhere the images' bytes, if they lie in the source.
    """
    record = sample.records[Ingest.name]
    ingest = RunFolder(folder).generation(record.stage, record.generation)
    found: dict[str, _SourceShare] = defaultdict(_SourceShare)
    offsets: dict[str, list[int]] = defaultdict(list)
    folders = {name: files.is_folder(source.uri) for name, source in sampled.items()}
    for name, part in record.parts.items():
        source = sampled[source_of(name)]
        seen = found[source.name]
        seen.examples += part.came.bit_count()
        for image in parquet.read_table(parts.part_uri(ingest, name), ["image"])["image"].to_pylist():
            if image["uri"] == source.path and image["kind"] == "range":
                offsets[source.name].append(image["offset"])
            elif image["uri"] == source.path or folders[source.name]:
                seen.bytes += image["size"]
    for name, places in offsets.items():
        apart = (max(places) - min(places)) / max(len(places) - 1, 1)
        found[name].bytes += round(apart * found[name].examples)
    return found
