"""Fonts for pictures: the one that Pillow has, those of the extra `fonts`, and those of the system.

Pillow's own has the letters of English alone. The extra has Noto's for most scripts, so that a picture looks
the same everywhere; without it, the system's fonts are looked through.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from threading import Lock
from typing import cast

from PIL import ImageFont, features

SHIPPED = ("manimgx_fonts", "manimgx_fonts_cjk")
"""The packages of the extra `fonts`: nothing but font files."""

ENDINGS = (".ttf", ".otf", ".ttc")

LOOKED_THROUGH = 400
"""Fonts of the system that are opened at most for a letter that none of them may have."""

FAMILIES = (
    "notosans",
    "dejavusans",
    "notoemoji",
    "arial",
    "segoeui",
    "pingfang",
    "msyh",
    "malgun",
    "nirmala",
)
"""Beginnings of the names of files that have many letters, and that look well beside each other."""

STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "serif", "condensed")

NO_LETTERS = ("lastresort", "adobeblank", "fallback")
"""Fonts that claim every character, and draw none."""

REGULAR = 400
"""A font's weight."""

PROBE_SIZE = 24
"""Pixels at which letters are looked for. Fonts of coloured pictures, useless for text, lack this size."""

NO_CHARACTER = "\U0010ffff"
"""What no font has: drawn, it is the font's sign for what it lacks."""


class Face:
    """A font file, or Pillow's own font."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._sizes: dict[tuple[int, ImageFont.Layout], ImageFont.FreeTypeFont] = {}
        self._has: dict[str, bool] = {}
        self._lacks = b""

    def at(self, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
        """Give the font at a size in pixels. Raises OSError for a file that is no font of any size."""
        engine = layout_engine() if layout is None else layout
        if (size, engine) not in self._sizes:
            self._sizes[size, engine] = self._open(size, engine)
        return self._sizes[size, engine]

    def _open(self, size: int, layout: ImageFont.Layout) -> ImageFont.FreeTypeFont:
        if not self.path:
            return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
        font = ImageFont.truetype(self.path, size, layout_engine=layout)
        try:
            axes = font.get_variation_axes()
        except OSError:  # most fonts have one weight
            return font
        font.set_variation_by_axes(
            [REGULAR if axis["name"] == b"Weight" else axis["default"] or 0 for axis in axes]
        )
        return font

    def has(self, character: str) -> bool:
        """Tell whether the font has a glyph that can be seen for this character."""
        if character not in self._has:
            try:
                self._has[character] = self._looks_like(character) not in (b"", self._sign_of_lack())
            except OSError:
                self._has[character] = False
        return self._has[character]

    def _sign_of_lack(self) -> bytes:
        self._lacks = self._lacks or self._looks_like(NO_CHARACTER)
        return self._lacks

    def _looks_like(self, character: str) -> bytes:
        """Give the pixels of a character's glyph with their size; nothing if none is black."""
        mask = self.at(PROBE_SIZE, ImageFont.Layout.BASIC).getmask(character, mode="1")
        pixels = bytes(mask)
        return repr(mask.size).encode() + pixels if any(pixels) else b""


@cache
def layout_engine() -> ImageFont.Layout:
    """Choose what joins letters and orders them: raqm where it is there, and FriBiDi, which it needs."""
    return ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC


class Faces:
    """Pillow's own font, and font files in the order in which letters are looked for in them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.base = Face()
        self._rest = iter(paths)
        self._found = [self.base]
        self._lock = Lock()

    def __iter__(self) -> Iterator[Face]:
        """Give the faces one by one: a file is looked for only if those before it lack a letter."""
        for place in count():
            with self._lock:
                if place == len(self._found):
                    self._found += [Face(path) for path in islice(self._rest, 1)]
                if place == len(self._found):
                    return
            yield self._found[place]

    def of(self, characters: Sequence[str]) -> Face | None:
        """Find the first face that has all of some characters."""
        return next((face for face in self if all(map(face.has, characters))), None)


@cache
def installed() -> Faces:
    """Give all faces of this machine."""
    return Faces(_paths())


def has_extra() -> bool:
    """Tell whether the extra `fonts` is installed."""
    return all(find_spec(name) for name in SHIPPED)


def _paths() -> Iterator[str]:
    for name in SHIPPED:
        spec = find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            found = (path for path in Path(folder).iterdir() if path.suffix in ENDINGS)
            # The shortest name is that of the plain one; emoji have digits too, and go last.
            yield from sorted(
                (str(path) for path in found if "Italic" not in path.name),
                key=lambda path: ("Emoji" in path, len(path), path),
            )
    yield from sorted(_system_files(), key=_preference)[:LOOKED_THROUGH]


def _system_files() -> Iterator[str]:
    for folder in _system_folders():
        for place, _, names in os.walk(folder):
            for name in names:
                if name.lower().endswith(ENDINGS) and not name.lower().startswith(NO_LETTERS):
                    yield os.path.join(place, name)


def _preference(path: str) -> tuple[bool, bool, str]:
    name = os.path.basename(path).lower()
    return any(style in name for style in STYLES), not name.startswith(FAMILIES), name


def _system_folders() -> Iterator[Path]:
    """Name the folders where fonts lie on Linux, macOS and Windows."""
    home = Path(os.path.expanduser("~"))  # also where nobody has a home
    if sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts")
    elif sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"
        yield home / "AppData" / "Local" / "Microsoft" / "Windows" / "Fonts"
    else:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        own = os.environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
        yield from (Path(folder) / "fonts" for folder in (*shared.split(":"), own))
        yield home / ".fonts"
