"""Fills the templates of the site: everything that a run holds is escaped, also what is invisible."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tagmill.pipeline.study.site.base import Links, Sheet
from tagmill.pipeline.study.site.charts import percent, short
from tagmill.tag_system.core.text import shown
from tagmill.tag_system.reasons import VOUCHERS, why

PACKAGE = "tagmill.pipeline.study.site"
"""Where the templates and assets lie that all pages share."""

STYLE, SCRIPT = "site.css", "site.js"


@dataclass(frozen=True)
class House:
    """What the pages of one folder have in common.

    Attributes:
        name: What they are about, as their head says.
        menu: Files that the menu leads to, with their names there.
        links: Where other pages and the pictures lie.
        command: The command of `tagmill` that makes them.
        package: Where templates and styles of their own lie, in `templates` and `assets`.
        styles: Their style sheets, `site.css` and those of their own.
    """

    name: str
    menu: Mapping[str, str]
    links: Links
    command: str = "report"
    package: str = PACKAGE
    styles: Sequence[str] = (STYLE,)

    def assets(self) -> dict[str, str]:
        """Read the files that the pages need beside themselves, by name."""
        own = {name: asset(name, PACKAGE if name == STYLE else self.package) for name in self.styles}
        return own | {SCRIPT: asset(SCRIPT)}


def asset(name: str, package: str = PACKAGE) -> str:
    """Read a style or script."""
    return resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")


@cache
def environment(package: str) -> jinja2.Environment:
    """Make the environment of a package's templates; a name that a template misspells is an error."""
    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name, "templates") for name in dict.fromkeys((package, PACKAGE))]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "n": _count,
        "pct": percent,
        "score": _score,
        "words": _words,
        "short": short,
        "exact": _exact,
    }
    found.filters |= {"why": why, "setting": _setting, "total_seconds": _total_seconds}
    found.globals["vouchers"] = VOUCHERS
    return found


def _readable(value: Any) -> Any:
    """Show characters that cannot be seen, or turn the direction of reading, as escapes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return shown(value, keep="\n")
    return value


def _count(value: int) -> str:
    return f"{value:,}"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _exact(value: float) -> str:
    """Write a share whose last percent counts."""
    return f"{value:.1%}".replace("%", " %")


def _words(value: str) -> str:
    return value.replace("_", " ")


def _setting(value: Any) -> str:
    """Write a setting as a config file has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _total_seconds(seconds: Any) -> str:
    found = dict(seconds).get("total")
    return "" if found is None else f"{found:,.1f}"


def linked(sheet: Sheet, house: House) -> bytes:
    """Make a file of the site, which finds its style, its script and other pages by relative links."""
    root = "../" * sheet.path.count("/")
    policy = "default-src 'none'; img-src 'self' file:; style-src 'self' file:; script-src 'self' file:"
    return _filled(sheet, {"root": root, "security": policy, "style": None, "script": None}, house)


def alone(sheet: Sheet, name: str, pictures: Mapping[str, bytes]) -> bytes:
    """Make a page that needs no other file: its pictures, by their paths, style and script are part of it."""
    style, script = asset(STYLE), asset(SCRIPT)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    shell = {"root": "", "security": policy, "style": Markup(style), "script": Markup(script)}
    page = _filled(sheet, shell, House(name, {}, Links()))
    for path, data in pictures.items():
        inlined = b"data:image/webp;base64," + base64.b64encode(data)
        page = page.replace(f'src="{path}"'.encode(), b'src="' + inlined + b'"')
    return page


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filled(sheet: Sheet, shell: Mapping[str, Any], house: House) -> bytes:
    template = environment(house.package).get_template(sheet.template)
    about = {"title": sheet.title, "path": sheet.path, "queries": sheet.queries}
    common = {"run": house.name, "menu": house.menu, "links": house.links, "command": house.command}
    return template.render(**shell, **about, **common, styles=house.styles, **sheet.values).encode()
