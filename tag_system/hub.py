"""What Hugging Face calls splits, types and licences, in the front matter of a card."""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from tagmill.tag_system.licences import UNKNOWN, licence_link

HUB_SPLITS = {"val": "validation"}
"""What Hugging Face calls a split, where it is another name."""

HUB_TYPES = {str: "string", int: "int64", float: "float64"}
"""What Hugging Face calls a type."""

_CREATIVE_COMMONS = {
    "by": ("2.0", "2.5", "3.0", "4.0"),
    "by-sa": ("3.0", "4.0"),
    "by-nc": ("2.0", "3.0", "4.0"),
    "by-nd": ("4.0",),
    "by-nc-nd": ("3.0", "4.0"),
    "by-nc-sa": ("2.0", "3.0", "4.0"),
}

_AS_WRITTEN = (
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0"),
    *("CDLA-Sharing-1.0", "ISC", "MIT", "MPL-2.0", "Unlicense"),
)

HUB_LICENCES = {
    **{
        f"CC-{terms.upper()}-{version}": f"cc-{terms}-{version}"
        for terms, versions in _CREATIVE_COMMONS.items()
        for version in versions
    },
    **{name: name.lower() for name in _AS_WRITTEN},
    "C-UDA-1.0": "c-uda",
    "ODbL-1.0": "odbl",
    "ODC-By-1.0": "odc-by",
    "PDDL-1.0": "pddl",
}
"""What Hugging Face calls licences; of others it takes the name and the address."""


def hub_licence(licenses: Mapping[str, int]) -> dict[str, str]:
    """Give the fields of front matter for the licences of the images, which are counted by name."""
    names = list(licenses)
    if names in ([], [UNKNOWN]):
        return {"license": "unknown"}
    if len(names) > 1:
        return {"license": "other", "license_name": "several"}
    if names[0] in HUB_LICENCES:
        return {"license": HUB_LICENCES[names[0]]}
    link = licence_link(names[0])
    told = {"license": "other", "license_name": names[0].lower().replace(" ", "-")}
    return told | ({} if link is None else {"license_link": link})


def hub_fields(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Describe the fields of a part of the shard contract as features."""
    return [{"name": name} | _feature(field.annotation) for name, field in model.model_fields.items()]


def _feature(kind: Any) -> dict[str, Any]:
    origin, arguments = get_origin(kind), [one for one in get_args(kind) if one is not type(None)]
    if origin is Literal:
        return {"dtype": "string"}
    if origin in (list, tuple):
        (inner,) = set(arguments)
        feature = _feature(inner)
        return {"list": feature.get("dtype") or feature.get("struct") or feature}
    if origin is not None:  # a type, or null
        return _feature(arguments[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {"struct": hub_fields(kind)}
    return {"dtype": HUB_TYPES[kind]}
