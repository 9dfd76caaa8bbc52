"""The nodes of a Ray cluster: which live, and how many actors they have room for."""

import time
from collections.abc import Mapping
from typing import Any

import ray

LOOK_SECONDS = 3.0
"""How often the cluster is asked for its nodes."""


class RayNodes:
    """The nodes of the cluster that this process has joined, for actors that all ask the same.

    Args:
        asked: What an actor asks of its node: Ray's options.
    """

    def __init__(self, asked: Mapping[str, float]) -> None:
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        self._asked = {name: amount for name, amount in asked.items() if amount}
        self._wanted = {names[name]: amount for name, amount in self._asked.items()}
        self._nodes: list[dict[str, Any]] = []
        self._looked_at = float("-inf")
        self.most = 0
        """Most nodes that lived at a time: Ray lists the dead ones as well, and ever more of them."""

    def living(self, *, now: bool = False) -> list[dict[str, Any]]:
        """Give what Ray says of each node that lives, as of a moment ago or of now."""
        moment = time.monotonic()
        if now or moment - self._looked_at > LOOK_SECONDS:
            self._nodes, self._looked_at = ray.nodes(), moment
        living = [node for node in self._nodes if node["Alive"]]
        self.most = max(self.most, len(living))
        return living

    def lives(self, node: str) -> bool:
        """Tell whether a node lives now, by its id."""
        return any(one["NodeID"] == node for one in self.living(now=True))

    def address(self, node: str) -> str:
        """Give the address of a node by its id, or the id if Ray does not know it."""
        return next((one["NodeManagerAddress"] for one in self._nodes if one["NodeID"] == node), node)

    def slots(self) -> int:
        """Count the actors that the nodes have room for, if nobody else uses them."""
        return sum(
            int(min(node["Resources"].get(name, 0) / amount for name, amount in self._wanted.items()))
            for node in self.living()
        )

    def shortage(self) -> str:
        """Say what an actor asks for, and why no node gives it."""
        asked = ", ".join(f"{name}={amount:g}" for name, amount in self._asked.items())
        living = self.living(now=True)
        cores, gpus, memory = (
            sum(node["Resources"].get(name, 0) for node in living) for name in ("CPU", "GPU", "memory")
        )
        has = f"{cores:g} CPUs, {gpus:g} GPUs, {memory / 1e9:.1f} GB"
        why = "no node had room for it" if self.slots() > 0 else "no node of the cluster can give that"
        return f"a worker asks for {asked}, and {why} ({len(living)} nodes with {has})"
