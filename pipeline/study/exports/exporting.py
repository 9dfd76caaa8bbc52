"""Exports a dataset: one pass over its shards, into a folder that is there whole or not at all."""

import datetime
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tagmill.models.training import datasets
from tagmill.pipeline.study.exports import losses
from tagmill.pipeline.study.exports.base import EXPORTS, Export, ExportContext, ExportOptions
from tagmill.pipeline.study.exports.chosen import ChosenExample, row_of
from tagmill.pipeline.study.exports.reading import Chooser, ShardReader, dataset_folder
from tagmill.tag_system.core import files, plugins
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import SPLITS, ManifestShard
from tagmill.tag_system.where import WhereFilter

_OPTIONS = ("verdicts", "box_score", "classes", "size")
"""Options that not every export takes."""


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote: examples by split, how many `where` left out, and what the format cannot say."""

    folder: str
    examples: Counter[str]
    left_out: int
    lost: Counter[str]


def export(source: str, to: str, folder: str, options: ExportOptions) -> ExportSummary:
    """Write the chosen examples of a run or a dataset, `source`, in the format `to` into a new local folder.

    Raises ConfigError for what is not a dataset, a format, an option of the format or a folder to write into,
    and where nothing is chosen; DamageError for a shard that is not as the manifest says.
    """
    format_ = _format(to)
    options = _resolved(to, format_, options)
    place = dataset_folder(source)
    _check_folder(folder, source)
    manifest, vocabulary = _opened(place)
    date = manifest.date or datetime.datetime.now(datetime.UTC).date()
    context = ExportContext(place, files.absolute(folder), manifest, vocabulary, options, date)
    chooser = _everything if options.where is None else _chooser(WhereFilter(options.where, "--where"))
    with files.replacing(folder) as scratch:
        scratch.mkdir()
        with closing(_Pass(context, chooser)) as walk:
            found = walk.write(to, format_, scratch, folder)
    return found


def _opened(place: str) -> tuple[Any, Any]:
    manifest = datasets.read_manifest(place)
    return manifest, datasets.read_vocabulary(place, manifest)


def _everything(examples: Any) -> Any:
    return examples


def _chooser(where: WhereFilter) -> Chooser:
    def chosen(examples: Sequence[ChosenExample]) -> list[ChosenExample]:
        return [examples[index] for index in where.chosen(list(map(row_of, examples)))]

    return chosen


class _Pass:
    """One pass over the shards of a dataset."""

    def __init__(self, context: ExportContext, chooser: Chooser) -> None:
        self._context, self._chooser = context, chooser
        self._read = 0
        self._export: Export | None = None

    def write(self, to: str, format_: type[Export], scratch: Path, folder: str) -> ExportSummary:
        context, options = self._context, self._context.options
        self._export = export = format_(scratch, context)
        reader = ShardReader(context.folder, options.verdicts or (), options.box_score or 0.0)
        counts: Counter[str] = Counter()
        for shard in self._shards():
            for one in reader.examples(shard, self._chooser, images=export.reads_images):
                export.add(one)
                counts[one.sample.split] += 1
            self._read += shard.examples
        if not counts:
            raise ConfigError(
                f"{context.folder}: none of {self._read} examples is chosen; nothing is written"
            )
        export.close()
        left_out = self._read - counts.total()
        told = losses.told(to, _chosen(options, format_.takes, left_out), export.lost)
        (scratch / losses.LOST).write_text(told, encoding="utf-8")
        return ExportSummary(folder, counts, left_out, +export.lost)

    def _shards(self) -> list[ManifestShard]:
        """List the shards of the chosen splits, split by split, and check that they are there."""
        manifest = self._context.manifest
        found = [
            shard
            for split in SPLITS
            for shard in manifest.shards
            if shard.split == split and split in self._context.options.splits
        ]
        datasets.check_sizes(self._context.folder, found)
        return found

    def close(self) -> None:
        if self._export is not None:
            self._export.stop()


def _format(to: str) -> type[Export]:
    """Find an export. Raises ConfigError for what is not one."""
    found = plugins.find("export", to, EXPORTS)
    if not (isinstance(found, type) and issubclass(found, Export)):
        raise ConfigError(f"export {to!r} must extend tagmill.pipeline.study.exports.base:Export")
    return found


def _resolved(to: str, format_: type[Export], options: ExportOptions) -> ExportOptions:
    """Put the export's defaults in. Raises ConfigError for an option that means nothing to it."""
    given = [name for name in _OPTIONS if getattr(options, name) is not None]
    for name in given:
        if name not in format_.takes:
            raise ConfigError(f"--{name.replace('_', '-')} is not for {to}: leave it out")
    found = {name: getattr(Export.defaults, name) for name in _OPTIONS}
    for chosen in (format_.defaults, options):
        found |= {name: value for name in _OPTIONS if (value := getattr(chosen, name)) is not None}
    return replace(options, **found)


def _check_folder(folder: str, source: str) -> None:
    """Raise ConfigError for a folder that cannot be written into, or would lie in what is exported."""
    if not files.is_local(folder):
        raise ConfigError(f"{folder} is not on this machine: export into a local folder, and copy it there")
    path = Path(files.filesystem(folder)[1])
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError(f"{folder} exists and is not an empty folder: name another, or remove it")
    if files.is_local(source) and path.is_relative_to(files.filesystem(source)[1]):
        raise ConfigError(f"{folder} lies in {source}, which is exported: name a folder outside of it")


def _chosen(options: ExportOptions, takes: Collection[str], left_out: int) -> list[str]:
    """Say in lines what was chosen."""
    lines = [f"splits: {', '.join(options.splits)}", f"verdicts: {', '.join(options.verdicts or ())}"]
    if "box_score" in takes:
        lines.append(f"boxes that score {options.box_score:g} or more")
    if options.classes is not None:
        lines.append(f"classes of {options.classes}")
    if options.where is not None:
        lines.append(f"examples where `{options.where}`: {left_out:,} others are left out")
    return lines
