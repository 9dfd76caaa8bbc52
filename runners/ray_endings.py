"""How actors end, as far as Ray says: it passes on no signal, and no node's end before it is sure of it."""

import re

from ray.exceptions import RayActorError

from tagmill.tag_system.core.redaction import redacted

LOST = "was lost"
"""How a process ended of which Ray does not say more."""

_NODE_GONE = re.compile(r"node (has )?died|node (was|is) (terminated|dead)|node failure", re.IGNORECASE)


def is_of_node(error: RayActorError) -> bool:
    """Tell whether an actor ended with its node, by what is said of its end."""
    return bool(error.preempted or _NODE_GONE.search(str(error)))


def why_never_began(error: RayActorError) -> str:
    """Say why an actor's class could not be made on its node; empty if it was."""
    if "failed to import" in str(error) or error.actor_init_failed:
        return _last_line(str(error))
    return ""


def how(error: RayActorError) -> str:
    """Say how a process ended."""
    said = str(error)
    if "OUT_OF_MEMORY" in said:
        return "was ended by Ray, since its node ran short of memory"
    if "INTENDED_USER_EXIT" in said:
        return "ended itself"
    return LOST


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b", line)]
    return redacted((errors or lines or ["no reason is given"])[-1][:300])
