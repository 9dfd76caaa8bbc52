"""Beam's own flags, read strictly: Beam itself only warns of a flag that it does not know."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from tagmill.tag_system.core.errors import ConfigError

OWN = ("--runner", "--direct_num_workers", "--direct_running_mode", "--save_main_session", "--pickle_library")
"""Flags that tagmill sets itself."""


def parse_flags(flags: Sequence[str]) -> PipelineOptions:
    """Read the flags after `--`. Raises ConfigError for one that Beam does not know, or that is not yours."""
    parser = _parser()
    known = {name for action in parser._actions for name in action.option_strings}
    for flag in (part.split("=", 1)[0] for part in flags if part.startswith("--")):
        if flag in OWN:
            raise ConfigError(f"{flag} is set by tagmill; use its own options --runner and --workers")
        if flag not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"Beam does not know the flag {flag}{hint}")
    stray = parser.parse_known_args(flags)[1]
    if stray:
        raise ConfigError(f"{stray[0]} is not a Beam flag; write flags as --name=value")
    return PipelineOptions(list(flags))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"flags after --: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, conflict_handler="resolve")
    # Only options of imported modules are known to Beam; these hold the runners' ones.
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)  # type: ignore[arg-type]  # a plain parser serves
    return parser
