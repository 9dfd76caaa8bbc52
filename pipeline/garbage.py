"""Garbage: what lies in a run's folder and no current stage needs."""

from collections.abc import Iterator

from tagmill.pipeline.run_folder import RunFolder
from tagmill.transforms import files


def garbage(run: RunFolder) -> Iterator[tuple[str, int]]:
    """List the folders that can go, with their bytes: old generations, superseded files, work folders."""
    for stage in files.list_folders(run.root):
        current = run.current(stage)
        if current is None:
            continue
        for generation in run.generations(stage):
            folder = run.generation(stage, generation)
            if generation != current:
                yield folder, files.folder_size(folder)
                continue
            for name in ("superseded", "work"):
                leftover = files.join(folder, name)
                if files.exists(leftover):
                    yield leftover, files.folder_size(leftover)
