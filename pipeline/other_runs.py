"""The folders of other runs that a config names, to take from them what is equal."""

from collections.abc import Iterable

from tagmill.pipeline.run_folder import CONFIG, RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError


def is_same(root: str, run: RunFolder) -> bool:
    """Tell whether a path leads to a run's folder."""
    return files.absolute(root).rstrip("/") == files.absolute(run.root)


def open_other(key: str, root: str) -> RunFolder:
    """Open the run's folder that a key of a config names.

    Raises:
        ConfigError: It is not a run's, or of one that another version made.
        DamageError: Its config is damaged.
    """
    run = RunFolder(files.absolute(root))  # workers may have been started in another folder
    if not files.exists(run.path(CONFIG)):
        raise ConfigError(f"{key}: {root} is not a run folder: it has no {CONFIG}; name another, or none")
    try:
        run.saved_config()
    except ConfigError as error:
        raise ConfigError(
            f"{key}: {root} was made by another version of tagmill, which this one cannot read; name another "
            "run, or none"
        ) from error
    except DamageError as error:
        raise DamageError(f"{key}: {error}") from error
    return run


def open_lenders(roots: Iterable[str], own: RunFolder, part_size: int) -> list[RunFolder]:
    """Open the runs that a config names under `reuse`.

    Raises ConfigError also for the run itself, and for one whose parts cannot fit or be brought here.
    """
    found = []
    for root in roots:
        if is_same(root, own):
            raise ConfigError(f"reuse: {root} is this run itself; take it out")
        run = open_other("reuse", root)
        if type(files.filesystem(run.root)[0]) is not type(files.filesystem(own.root)[0]):
            raise ConfigError(f"reuse: {root} lies in another store than {own.root}; copy it, or take it out")
        theirs = (run.saved_config() or {}).get("part_size")
        if theirs != part_size:
            raise ConfigError(
                f"reuse: {root} has part_size {theirs} and this run {part_size}, so no part of it fits; take "
                "it out, or set part_size to that in a new run"
            )
        found.append(run)
    return found
