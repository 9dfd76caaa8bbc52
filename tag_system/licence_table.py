"""What a card says of licences: a table of how many images are under which, and what these forbid."""

from collections.abc import Mapping

from tagmill.tag_system.core.markdown import plain, table
from tagmill.tag_system.licences import UNKNOWN, forbids, licence_link

LICENCES_SHOWN = 50
"""Rows of the table of licences; the manifest has more."""


def licences_told(licenses: Mapping[str, int]) -> str:
    """Say under which licences how many images are, and what these forbid."""
    ranked = sorted(licenses, key=lambda name: (-licenses[name], name))
    rows = [(_named(name), f"{licenses[name]:,}") for name in ranked[:LICENCES_SHOWN]]
    if rest := ranked[LICENCES_SHOWN:]:
        rows.append((f"{len(rest):,} others", f"{sum(licenses[name] for name in rest):,}"))
    return f"{table(('licence', 'images'), rows)}\n\n{licence_shares(licenses)}"


def licence_shares(licenses: Mapping[str, int]) -> str:
    """Say of how many images a licence forbids what, and is not known; `licenses` counts them by licence."""
    total, unknown = sum(licenses.values()), licenses.get(UNKNOWN, 0)
    nc, nd = (sum(n for name, n in licenses.items() if forbids(name, term)) for term in ("NC", "ND"))
    told = (
        f"By licences of Creative Commons, {share(nc, total)} of {total:,} images must not be used "
        f"commercially (NonCommercial), and of {share(nd, total)} no changed versions may be shared "
        "(NoDerivs)."
    )
    unsure = f" The licence of {share(unknown, total)} is not known: it may forbid anything."
    return told + unsure if unknown else told


def share(count: int, total: int) -> str:
    """Write a number, and its share of a total."""
    return f"{count:,} ({count / total:.0%})" if total else f"{count:,}"


def _named(licence: str) -> str:
    link = licence_link(licence)
    return f"[{plain(licence)}]({link})" if link else plain(licence)
