"""Licences of images: what a source calls them -> identifiers of SPDX, and what these forbid."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from tagmill.tag_system.core.text import one_line, parse_json

UNKNOWN = "unknown"
"""What images count as of which no licence is known."""

LONGEST = 200
"""Characters that are kept of a licence which is not a known one."""

_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<terms>[a-z+-]+)(?:/(?P<version>\d\.\d)(?:/(?P<port>[a-z]{2,3})\b)?)?"
    r"|publicdomain/(?P<public>zero|mark)/1\.0)"
)
_OTHER_URL = re.compile(
    r"(?:spdx\.org/licenses|opensource\.org/licenses?|apache\.org/licenses|"
    r"opendatacommons\.org/licenses|gnu\.org/licenses)/(.+)"
)
_PUBLIC = {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}

_TERMS = {
    **dict.fromkeys(("by", "attribution"), "BY"),
    **dict.fromkeys(("nc", "noncommercial"), "NC"),
    **dict.fromkeys(("nd", "noderivs", "noderivatives"), "ND"),
    **dict.fromkeys(("sa", "sharealike"), "SA"),
}
_SAYS_NOTHING = frozenset(
    (
        "cc",
        "creative",
        "commons",
        "license",
        "licence",
        "public",
        "international",
        "generic",
        "unported",
        "the",
    )
)
_JOINED = (("non commercial", "noncommercial"), ("no deriv", "noderiv"), ("share alike", "sharealike"))

_ALSO_CALLED = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "license 2.0": "Apache-2.0",
    "cc zero": "CC0-1.0",
    "cc0": "CC0-1.0",
    "cc0 1.0 universal": "CC0-1.0",
    "odbl": "ODbL-1.0",
    "odbl 1 0": "ODbL-1.0",
    "odc by": "ODC-By-1.0",
    "by 1 0": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
    "pddl 1 0": "PDDL-1.0",
    "public domain mark 1.0": "CC-PDM-1.0",
}
"""Usual names of licences that are not an identifier, and the ends of their addresses."""


def licence_name(said: str) -> str | None:
    """Give the identifier of SPDX for a licence's name or address; else what was said, in one line.

    None for what says nothing. A licence of Creative Commons that is named without a version stays without
    one, such as `CC-BY-NC`, which SPDX does not list.
    """
    text = one_line(said)
    if not text or text.lower() in (UNKNOWN, "none", "null", "n/a"):
        return None
    return _of_address(text.lower()) or _identifier(text) or _of_words(text) or text[:LONGEST]


def _of_address(text: str) -> str | None:
    if found := _CREATIVE_COMMONS.search(text):
        if found["public"]:
            return _PUBLIC[found["public"]]
        terms = _of_words(found["terms"])
        rest = [part.upper() for part in (found["version"], found["port"]) if part]
        return "-".join([terms, *rest]) if terms else None
    if found := _OTHER_URL.search(text):
        last = re.sub(r"\.(html?|txt|php)$", "", found[1].strip("/"))
        return _identifier(last) or _of_words(last)
    return None


def _identifier(text: str) -> str | None:
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return None


def _of_words(text: str) -> str | None:
    """Read the words of a licence's name: `CC BY-NC 2.0`, `Attribution-NonCommercial License`."""
    plain = " ".join(re.split(r"[\s_,()/:-]+", text.lower())).strip()
    for parted, joined in _JOINED:
        plain = plain.replace(parted, joined)
    words = [word for word in plain.split() if word not in _SAYS_NOTHING]
    for name in (plain, " ".join(words)):
        if found := _ALSO_CALLED.get(name) or _identifier(name.replace(" ", "-")):
            return found
    versions = {word.removeprefix("v") for word in words if re.fullmatch(r"v?\d\.\d", word)}
    terms = [_TERMS.get(word, "") for word in words if not re.fullmatch(r"v?\d\.\d", word)]
    if not terms or not all(terms) or terms[0] != "BY" or len(versions) > 1:
        return None
    # In SPDX's order, whatever a source's is.
    ordered = [term for term in ("BY", "NC", "ND", "SA") if term in terms]
    return "-".join(["CC", *ordered, *versions])


def forbids(licence: str, term: str) -> bool:
    """Tell whether a licence of Creative Commons has the term `NC` or `ND`; of others nothing is known."""
    found = re.findall(r"\bCC-[A-Z0-9.-]+", licence)
    return any(term in one.split("-") for one in found)


def licence_link(licence: str) -> str | None:
    """Say where a licence can be read; None if that is not known."""
    if found := re.fullmatch(r"CC-(BY[A-Z-]*)-(\d\.\d)(?:-([A-Z]{2,3}))?", licence):
        port = f"{found[3].lower()}/" if found[3] else ""
        return f"https://creativecommons.org/licenses/{found[1].lower()}/{found[2]}/{port}"
    if " " not in licence and _identifier(licence) and not licence.startswith("LicenseRef-"):
        return f"https://spdx.org/licenses/{licence}.html"
    return None


@dataclass(frozen=True)
class LicenceSource:
    """How the licence of an input's images is found.

    Attributes:
        fixed: The licence where an example says none itself.
        said_by: The field of `meta` that holds it; None if none does.
        names: Licences by what the field may say.
    """

    fixed: str | None = None
    said_by: str | None = "license"
    names: Mapping[str, str] = field(default_factory=dict)

    def of(self, meta: str) -> str | None:
        """Give the licence of an example from its `meta`; None if it is not known."""
        said = None if self.said_by is None else _said(meta, self.said_by)
        if said is not None and (name := licence_name(self.names.get(said, said))):
            return name
        return None if self.fixed is None else licence_name(self.fixed)


DEFAULT = LicenceSource()


def licence_of(sources: Mapping[str, LicenceSource], key: str, meta: str) -> str | None:
    """Give the licence of an example, whose key begins with its input; None if it is not known."""
    return sources.get(key.partition("/")[0], DEFAULT).of(meta)


def licence_spec(sources: Mapping[str, LicenceSource]) -> dict[str, Any]:
    """Give what is set of licences, as JSON for a fingerprint: nothing where nothing is."""
    found = {name: vars(source) for name, source in sources.items() if source != DEFAULT}
    return {"licences": found} if found else {}


def _said(meta: str, name: str) -> str | None:
    """Read a field of an example's JSON: a text, a number, or an object with `url`, `name` or `id`."""
    try:
        fields = parse_json(meta)
    except ValueError:
        return None
    value: Any = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, dict):
        value = next((value[part] for part in ("url", "name", "id") if value.get(part) is not None), None)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value)
