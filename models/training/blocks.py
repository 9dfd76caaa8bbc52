"""The blocks of an image encoder, in the order in which images pass them, found in any model of timm.

timm's own matchers and its checkpointing know whole models only: of one that gives maps of its stages, the
first is missing and the second is by stage, or missing.
"""

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList)


def blocks_of(trunk: nn.Module) -> dict[str, nn.Module]:
    """List the blocks by name: the members of the innermost sequences of modules of one composed kind."""
    found: dict[str, nn.Module] = {}
    for name, module in trunk.named_children():
        found |= {f"{name}.{inner}": block for inner, block in blocks_of(module).items()}
    members = dict(trunk.named_children())
    if found or not members or not isinstance(trunk, CONTAINERS):
        return found
    alike = len({type(member) for member in members.values()}) == 1
    return members if alike and all(any(member.children()) for member in members.values()) else {}


def depths_of(trunk: nn.Module) -> dict[str, int]:
    """Give the depth of each parameter: 0 before the first block, else the number of its block, from 1.

    What lies between two blocks is counted with the second, what lies behind the last one with that.
    """
    blocks, names = blocks_of(trunk), [name for name, _ in trunk.named_parameters()]
    prefixes = {f"{name}.": place for place, name in enumerate(blocks, 1)}
    own = {name: at for name in names for prefix, at in prefixes.items() if name.startswith(prefix)}
    depths: dict[str, int] = {}
    following = len(blocks)
    for name in reversed(names):
        following = own.get(name, following)
        depths[name] = following
    first = next((at for at, name in enumerate(names) if name in own), len(names))
    return {name: 0 if at < first else depths[name] for at, name in enumerate(names)}
