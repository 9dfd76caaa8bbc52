"""Finds files in a run's folder that no current stage needs."""

from collections.abc import Iterable, Iterator

from tagmill.pipeline import ledger, records
from tagmill.pipeline.run_folder import UNNEEDED, RunFolder
from tagmill.tag_system.core import files


def garbage(run: RunFolder) -> Iterator[tuple[str, int]]:
    """List what can be removed: old generations, superseded files, work folders, half-written files.

    A generation that an interrupted run has begun is kept, and so is the last one of a stage that is off.

    Returns:
        URI and size in bytes of each file or folder.
    """
    yield from _sized(ledger.old_tokens(run.root))
    for stage in files.list_folders(run.root):
        needed = run.needed(stage)
        if needed is None:
            continue
        yield from _sized(ledger.superseded(run.path(stage)))
        for generation in run.generations(stage):
            folder = run.generation(stage, generation)
            if generation in needed:
                yield from _leftovers(folder)
            else:
                yield folder, files.folder_size(folder)


def _leftovers(folder: str) -> Iterator[tuple[str, int]]:
    """List what can be removed from the folder of a generation that is kept."""
    for name in UNNEEDED:
        leftover = files.join(folder, name)
        if files.exists(leftover):
            yield leftover, files.folder_size(leftover)
    for within in (folder, *(files.join(folder, name) for name in ("dead", "sources", records.FOLDER))):
        yield from _sized(files.temporaries(within))
    yield from _sized(records.superseded(folder))


def _sized(uris: Iterable[str]) -> Iterator[tuple[str, int]]:
    for uri in uris:
        yield uri, files.size_and_stamp(uri)[0]
