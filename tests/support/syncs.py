"""Watches in which order files reach the disk and get their names in this process."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMING = ("link", "rename", "replace")


@dataclass
class Syncs:
    """What happened, in order: what was synced, by inode, and what got a name, with its path."""

    events: list[tuple[str, int, str]] = field(default_factory=list)

    def problems(self, folder: Path) -> Iterator[str]:
        """Say which files below a folder a power failure might take, or leave without their bytes."""
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                continue
            own, parent = path.stat().st_ino, path.parent.stat().st_ino
            named = [place for place, event in enumerate(self.events) if event[1:] == (own, str(path))]
            if path.is_dir():
                if ("sync", parent, "") not in self.events:
                    yield f"{path}: its name was not synced"
            elif not named:
                yield f"{path} was written in its place"
            elif ("sync", own, "") not in self.events[: named[-1]]:
                yield f"{path} got its name before its bytes were synced"
            elif ("sync", parent, "") not in self.events[named[-1] :]:
                yield f"{path}: its name was not synced"


@contextmanager
def watched() -> Iterator[Syncs]:
    """Watch what this process does, in whatever thread."""
    found = Syncs()
    saved = {name: getattr(os, name) for name in ("fsync", *NAMING)}

    def sync(handle: int) -> None:
        saved["fsync"](handle)
        found.events.append(("sync", os.fstat(handle).st_ino, ""))

    def naming(operation: Callable[..., Any]) -> Callable[..., Any]:
        def called(source: Any, target: Any, **more: Any) -> Any:
            result = operation(source, target, **more)
            found.events.append(("name", os.lstat(target).st_ino, os.path.abspath(target)))
            return result

        return called

    os.fsync = sync
    for name in NAMING:
        setattr(os, name, naming(saved[name]))
    try:
        yield found
    finally:
        for name, operation in saved.items():
            setattr(os, name, operation)
