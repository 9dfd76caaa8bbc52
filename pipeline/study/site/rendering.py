"""Fills the templates of the site: everything that a run holds is escaped, also what is invisible."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tagmill.pipeline.study.site.base import Links, Sheet
from tagmill.pipeline.study.site.charts import percent, short
from tagmill.tag_system.core.text import shown
from tagmill.tag_system.reasons import VOUCHERS, why

ASSETS = ("site.css", "site.js")


def asset(name: str) -> str:
    """Read a file that pages need beside themselves."""
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


@cache
def environment() -> jinja2.Environment:
    """Make the environment of the templates; a name that a template misspells is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("tagmill.pipeline.study.site", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"n": _count, "pct": percent, "score": _score, "words": _words, "short": short}
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


def _words(value: str) -> str:
    return value.replace("_", " ")


def _setting(value: Any) -> str:
    """Write a setting as a config file has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _total_seconds(seconds: Any) -> str:
    found = dict(seconds).get("total")
    return "" if found is None else f"{found:,.1f}"


def linked(sheet: Sheet, menu: Mapping[str, str], name: str, links: Links) -> bytes:
    """Make a file of the site, which finds its style, its script and other pages by relative links."""
    root = "../" * sheet.path.count("/")
    policy = "default-src 'none'; img-src 'self' file:; style-src 'self' file:; script-src 'self' file:"
    shell = {"root": root, "security": policy, "menu": menu, "style": None, "script": None}
    return _filled(sheet, shell, name, links)


def alone(sheet: Sheet, name: str, links: Links, pictures: Mapping[str, bytes]) -> bytes:
    """Make a page that needs no other file: its pictures, by their paths, style and script are part of it."""
    style, script = map(asset, ASSETS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    shell = {"root": "", "security": policy, "menu": {}, "style": Markup(style), "script": Markup(script)}
    page = _filled(sheet, shell, name, links)
    for path, data in pictures.items():
        inlined = b"data:image/webp;base64," + base64.b64encode(data)
        page = page.replace(f'src="{path}"'.encode(), b'src="' + inlined + b'"')
    return page


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filled(sheet: Sheet, shell: Mapping[str, Any], name: str, links: Links) -> bytes:
    template = environment().get_template(sheet.template)
    about = {"title": sheet.title, "path": sheet.path, "queries": sheet.queries, "run": name, "links": links}
    return template.render(**shell, **about, **sheet.values).encode()
