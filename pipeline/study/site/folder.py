"""Writes pages into a folder, which is there whole or as it was, and takes no other's place."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tagmill.pipeline.study.site import rendering
from tagmill.pipeline.study.site.base import Sheet
from tagmill.pipeline.study.site.pictures import ShownExample
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError


@dataclass(frozen=True)
class SiteMade:
    """What was written: pages, pictures of images, bytes in all; images without one, and why one has none."""

    pages: int
    pictures: int
    bytes: int
    lacking: int
    lack: str


@dataclass(frozen=True)
class FolderRule:
    """How a folder of pages is told from others: what it is, which file says so, which option names it."""

    what: str
    mark: str
    command: str
    option: str

    def target(self, folder: str) -> Path:
        """Check that a folder may be written. Raises ConfigError."""
        if not files.is_local(folder):
            raise ConfigError(f"{folder} is not on this machine: name a local folder with {self.option}")
        path = Path(files.filesystem(folder)[1])
        holds = path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))
        if holds and not (path / self.mark).is_file():
            raise ConfigError(
                f"{folder} exists and is not a {self.what}: name another folder with {self.option}, or "
                "remove it"
            )
        return path

    def mark_text(self) -> str:
        """Say in the folder itself whose it is."""
        return (
            f"`tagmill {self.command}` wrote this folder, and replaces it: keep nothing of your own here.\n"
        )


class SiteWriter:
    """Writes files of a folder of pages."""

    def __init__(self, root: Path, house: rendering.House) -> None:
        self.root, self.house = root, house
        self._count = 0

    def write(self, sheet: Sheet) -> None:
        """Write a page."""
        path = self.root / sheet.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendering.linked(sheet, self.house))
        self._count += 1

    def made(self, shown: Collection[ShownExample], *, private: bool) -> SiteMade:
        """Sum up what lies in the folder, with these examples shown."""
        lacking = [one for one in shown if one.picture is None and not private]
        size = sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
        lack = f"{lacking[0].key}: {lacking[0].lack}" if lacking else ""
        pictures = sum(one.picture is not None for one in shown)
        return SiteMade(self._count, pictures, size, len(lacking), lack)


@contextmanager
def replaced_folder(folder: str, rule: FolderRule, house: rendering.House) -> Iterator[SiteWriter]:
    """Give a writer of pages; at the end the folder has them, and what pages need beside themselves.

    Raises ConfigError for a folder that may not be written.
    """
    target = rule.target(folder)
    with files.replacing(folder, lasting=False) as scratch:
        scratch.mkdir()
        for name, text in house.assets().items():
            (scratch / name).write_text(text, encoding="utf-8")
        (scratch / rule.mark).write_text(rule.mark_text(), encoding="utf-8")
        yield SiteWriter(scratch, house)
        if target.is_dir():
            shutil.rmtree(target)


def plain(name: str) -> str:
    """Write a name so that any file system takes it as part of a file's."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:40]
