"""The kinds of things that tags name."""

from typing import Literal, get_args

Kind = Literal["object", "scene", "attribute", "action"]

KINDS: tuple[Kind, ...] = get_args(Kind)
