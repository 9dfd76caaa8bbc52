"""Reads a site as a browser would, as far as that needs none: its elements, links and lists."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runs import drive, squares_config
from sources import encode, square_image, write_tar

HOSTILE = "<script>document.title = 'taken'</script>"
TAG = "<img src=x onerror=document.title='taken'>"


def hostile_run(folder: Path) -> tuple[Path, str]:
    """Make a run of one example whose key, caption, label and meta want to run as code; gives its key."""
    folder.mkdir(exist_ok=True)
    config = squares_config(folder, {}, part_size=2)
    image = encode(square_image(["red"], 3))
    about = {"captions": [f"a red square {HOSTILE} \u202eevil\u202c"], "truth": ["red", TAG], "meta": TAG}
    key = "'\"><img src=x onerror=alert(1)>"
    write_tar(folder / "data" / "b.tar", [(f"{key}.png", image), (f"{key}.json", json.dumps(about).encode())])
    drive(config)
    return folder / "run", f"squares/{key}"


VOID = {"meta", "link", "img", "input"}


@dataclass
class SitePage(HTMLParser):
    """A page: its elements with their attributes, the keys on its cards, its tables' cells, and its text."""

    path: Path
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._table, self._is_cell = "", False
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(dict(attrs).get("class") or tag)
        if tag == "pre":
            self.queries.append("")
        if tag == "table":
            self._table = dict(attrs).get("id") or ""
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._is_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()
        if tag in ("td", "th"):
            self._is_cell = False

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._is_cell:
            self.tables[self._table][-1][-1] += data
        if self._open and self._open[-1] == "more":
            self.keys.append(data)
        if self._open and self._open[-1] == "pre":
            self.queries[-1] += data

    def links(self) -> list[tuple[str, str]]:
        """Give what the page leads to or shows: the file, and the place in it or ""."""
        found = []
        for _, attributes in self.elements:
            for name in ("href", "src"):
                if name in attributes:
                    parts = urlsplit(attributes[name] or "")
                    assert not parts.scheme, attributes
                    assert not parts.netloc, attributes
                    target = (self.path.parent / unquote(parts.path)).resolve() if parts.path else self.path
                    found.append((str(target), parts.fragment))
        return found

    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.elements if "id" in attributes}


def pages_of(folder: Path) -> dict[str, SitePage]:
    """Read all pages of a site, by their path in it."""
    return {str(path.relative_to(folder)): SitePage(path) for path in sorted(folder.rglob("*.html"))}


def check_links(folder: Path) -> int:
    """Check that all that pages lead to is in the site, and all of it is led to; gives the count."""
    pages = {str(page.path.resolve()): page for page in pages_of(folder).values()}
    led = set()
    for page in pages.values():
        for target, place in page.links():
            assert Path(target).is_relative_to(folder.resolve()), (page.path, target)
            assert Path(target).is_file(), (page.path, target)
            assert not place or place in pages[target].ids(), (page.path, target, place)
            led.add(target)
    there = {str(path.resolve()) for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"}
    assert there - led <= {str((folder / "index.html").resolve())}
    return len(led)
