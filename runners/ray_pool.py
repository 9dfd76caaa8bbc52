"""The actors of one job on a Ray cluster, and how its tasks are dealt out to them.

Ray restarts and retries nothing here: only who knows what an actor was at can tell a task that kills its
process from one whose node went away.
"""

import logging
import os
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from tagmill.pipeline.job import Job
from tagmill.runners.attempts import ATTEMPTS, Death
from tagmill.runners.fork_server import search_path
from tagmill.runners.ray_actor import NodeReport, Outcome, TaskActor, Versions
from tagmill.tag_system.core.errors import ConfigError, StoppedError
from tagmill.tag_system.core.redaction import redacted

MOST_DEATHS = ATTEMPTS
"""Processes that may die before an attempt deals out no more: what kills them may be in every task."""

NODES_IN_A_ROW = 10
"""Nodes that may go, beyond as many as there are, before one task is done: then none will be."""

LOOKS = 10
"""How often a node is asked for the run folder, a second apart: a network file system may be late."""

DOUBT_SECONDS = 60.0
"""How long an actor may be out of reach before its node counts as gone."""

POLL_SECONDS = 1.0
"""How long an answer is waited for, before the cluster is looked at again."""

NODES_SECONDS = 3.0
"""How often the cluster is asked for its nodes."""

HIRE_SECONDS = 5.0
"""How long no actor is asked for after one was lost before it was known where it was."""

WORD_SECONDS = 15.0
"""After how long a job says that it waits for a node."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dealt:
    """What a pool deals out.

    Attributes:
        calls: Of each task its name, None for a whole job; the actor's method; and its argument.
        begin: The arguments by which an actor gets ready; empty if there is nothing to get ready.
        marker: A file in the run folder that every node must see.
        most: Most actors at a time.
        asked: What an actor asks of its node: Ray's options.
        is_fresh: Whether it has to be done by new processes, which do nothing else.
    """

    calls: Sequence[tuple[str | None, str, Any]]
    begin: tuple[Any, ...]
    marker: str
    most: int
    asked: Mapping[str, float]
    is_fresh: bool


@dataclass(eq=False)
class PoolMember:
    """An actor, what it was last called for, and since when.

    It may go on to another job, but no model stays where another is loaded.
    """

    handle: Any
    call: Any
    step: str = "look"
    item: tuple[str | None, str, Any] | None = None
    since: float = field(default_factory=time.monotonic)
    node: str = ""
    host: str = ""
    begun: tuple[Any, ...] = ()
    looks: int = 0
    doubted: float | None = None


class ActorPool:
    """Runs what is dealt out, once; open it as a context, at whose end all actors are ended.

    Args:
        job: The job.
        dealt: What is dealt out.
        node_timeout: Seconds to wait for a node that can take an actor.
        done: Names of finished tasks, which is added to.
        spare: Actors of earlier jobs, each with the job and what it asked; those of this one are left there.
    """

    def __init__(
        self,
        job: Job,
        dealt: Dealt,
        node_timeout: float,
        done: set[str],
        spare: list[tuple[Job, Dealt, PoolMember]],
    ) -> None:
        self._job = job
        self._dealt = dealt
        self._asked = dict(dealt.asked)
        self._spare = spare
        self._node_timeout = node_timeout
        self._done = done
        self._left = deque(dealt.calls)
        self._members: list[PoolMember] = []
        self._deaths: list[Death] = []
        self._unready = 0
        self._gone: set[str] = set()
        self._nodes: list[dict[str, Any]] = []
        self._asked_at = 0.0
        self._placed_at = self._hires_at = time.monotonic()
        self._has_said = False
        self._actor = ray.remote(TaskActor).options(max_restarts=0, max_task_retries=0, **self._asked)

    def __enter__(self) -> "ActorPool":
        for job, dealt, member in self._spare:
            if self._can_use(job, dealt):
                self._call(member, "look", self._dealt.marker)
                self._members.append(member)
            else:
                ray.kill(member.handle)
        self._spare.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for member in self._members:
            is_idle = member.step == "do" and member.call is None
            if is_idle and kind is None and not self._dealt.is_fresh:
                member.looks = 0
                self._spare.append((self._job, self._dealt, member))
            else:
                ray.kill(member.handle)

    def _can_use(self, job: Job, dealt: Dealt) -> bool:
        """Tell whether an actor of another job serves: without models, or with the same one."""
        if self._dealt.is_fresh or dict(dealt.asked) != self._asked:
            return False
        if job.uses_model or self._job.uses_model:
            return dealt.begin == self._dealt.begin
        return True

    def work(self) -> list[Death]:
        """Deal until all is done; gives the processes that died, if that left something undone.

        Raises RuntimeError with the traceback of a task that failed, ConfigError for a node that cannot take
        part, StoppedError if there is no node for this or if node after node goes.
        """
        while self._is_unfinished():
            self._hire()
            for member in self._members:
                if member.step == "do" and member.call is None:
                    self._deal(member)
            calls = {member.call: member for member in self._members if member.call is not None}
            if calls:
                ready, _ = ray.wait(list(calls), timeout=POLL_SECONDS)
                for call in ready:
                    self._hear(calls[call])
            else:
                time.sleep(POLL_SECONDS)
            self._check_doubted()
            self._check_placed()
        undone = self._left or any(death.task != "" for death in self._deaths)
        return self._deaths if undone else []

    def _is_unfinished(self) -> bool:
        busy = any(member.item for member in self._members)
        if self._is_stopping():
            return busy
        return busy or bool(self._left)

    def _is_stopping(self) -> bool:
        """Tell whether nothing more is dealt out: too much dies."""
        at_tasks = len(self._deaths) - self._unready
        is_none_placed = not any(member.node for member in self._members)
        return at_tasks >= MOST_DEATHS or (self._unready >= ATTEMPTS and is_none_placed)

    def _hire(self) -> None:
        """Ask for one actor more than there is room for: a node that comes later is then used."""
        if not self._left or self._is_stopping() or time.monotonic() < self._hires_at:
            return
        wanted = min(self._dealt.most, self._slots() + 1 - self._unready)
        wanted = min(
            max(wanted, 1), len(self._left) + sum(member.item is not None for member in self._members)
        )
        for _ in range(wanted - len(self._members)):
            handle: Any = self._actor.remote(search_path(), os.getcwd())
            self._members.append(PoolMember(handle, handle.look.remote(self._dealt.marker)))

    def _slots(self) -> int:
        """Count the actors that the nodes have room for, if nobody else uses them."""
        wanted = _resources(self._asked)
        total = 0
        for node in self._living():
            has = node["Resources"]
            total += int(min(has.get(name, 0) / amount for name, amount in wanted.items()))
        return total

    def _living(self, *, now: bool = False) -> list[dict[str, Any]]:
        moment = time.monotonic()
        if now or moment - self._asked_at > NODES_SECONDS:
            self._nodes, self._asked_at = ray.nodes(), moment
        return [node for node in self._nodes if node["Alive"]]

    def _hear(self, member: PoolMember) -> None:
        """Take the answer of an actor, and give it what comes next."""
        try:
            answer = ray.get(member.call)
        except ActorUnavailableError:
            self._doubt(member)
            return
        except RayActorError as error:
            self._lose(member, error)
            return
        except RayError as error:
            raise RuntimeError(redacted(f"{self._job.name}: Ray could not run it: {error}")) from error
        if member.doubted is not None:
            self._let_go(member)  # it lives, but what became of its call nobody knows
        elif isinstance(answer, NodeReport):
            self._welcome(member, answer)
        else:
            self._take(member, answer)

    def _welcome(self, member: PoolMember, report: NodeReport) -> None:
        """Check the node of an actor that was placed, and let the actor get ready. Raises ConfigError."""
        member.node, member.host = report.node, report.host
        self._placed_at = time.monotonic()
        here = Versions.here()
        if report.versions != here:
            raise ConfigError(
                f"the node {report.host} has tagmill {report.versions.tagmill} on Python "
                f"{report.versions.python}, this machine {here.tagmill} on {here.python}: install the same"
            )
        if not report.sees_run:
            member.looks += 1
            if member.looks == LOOKS:
                raise ConfigError(
                    f"the node {report.host} ({self._address(report.node)}) does not see the run folder at "
                    f"{self._job.folder}: set `run` to a folder that all nodes share, or to one of an object "
                    "store"
                )
            time.sleep(1)
            self._call(member, "look", self._dealt.marker)
        elif self._dealt.begin not in ((), member.begun):
            member.begun = ()
            self._call(member, "begin", *self._dealt.begin)
        else:
            self._deal(member)

    def _address(self, node: str) -> str:
        return next((one["NodeManagerAddress"] for one in self._nodes if one["NodeID"] == node), node)

    def _take(self, member: PoolMember, outcome: Outcome) -> None:
        for name, level, message in outcome.warnings:
            logging.getLogger(name).log(level, "%s", message)
        if outcome.failure:
            raise RuntimeError(redacted(f"on {member.host}: {outcome.failure}"))
        if member.step == "begin":
            member.begun = self._dealt.begin
        if member.item:
            self._done.add(member.item[0] or "")
            self._gone.clear()
        self._deal(member)

    def _deal(self, member: PoolMember) -> None:
        member.item, member.call, member.step = None, None, "do"
        if self._left and not self._is_stopping():
            member.item = self._left.popleft()
            _, method, argument = member.item
            self._call(member, method, argument)
            member.step = "do"

    def _call(self, member: PoolMember, method: str, *arguments: Any) -> None:
        member.call, member.step = getattr(member.handle, method).remote(*arguments), method
        member.since = time.monotonic()

    def _doubt(self, member: PoolMember) -> None:
        """Ask an actor that is out of reach whether it lives: its process or its node may be gone."""
        member.doubted = member.doubted or time.monotonic()
        time.sleep(0.2)
        member.call = member.handle.look.remote(self._dealt.marker)

    def _check_doubted(self) -> None:
        doubted = [member for member in self._members if member.doubted is not None]
        if not doubted:
            return
        living = {node["NodeID"] for node in self._living(now=True)}
        for member in doubted:
            is_late = time.monotonic() - (member.doubted or 0) > DOUBT_SECONDS
            if is_late or (member.node and member.node not in living):
                self._let_go(member)

    def _lose(self, member: PoolMember, error: RayActorError) -> None:
        """Tell a process that died from one whose node is gone."""
        if "failed to import" in str(error) or error.actor_init_failed:
            raise ConfigError(
                f"a node of the cluster cannot start tagmill: install tagmill {Versions.here().tagmill} with "
                f"the extra `ray` where its Ray runs ({_last_line(str(error))})"
            ) from error
        living = {node["NodeID"] for node in self._living(now=True)}
        if error.preempted or _NODE_GONE.search(str(error)) or (member.node and member.node not in living):
            self._let_go(member)
            return
        self._members.remove(member)
        task = member.item[0] if member.item else ""
        self._unready += task == ""
        self._deaths.append(Death(task, self._how(member, error), member.host))

    def _let_go(self, member: PoolMember) -> None:
        """Do without an actor whose node is gone, which is not the fault of its task. Raises StoppedError."""
        self._members.remove(member)
        ray.kill(member.handle)
        if member.item:
            self._left.appendleft(member.item)
        if member.node not in self._gone | {""}:
            _log.warning(
                "%s: the node %s is gone; what it was at goes to another", self._job.name, member.host
            )
        self._gone.add(member.node)
        if not member.node and time.monotonic() >= self._hires_at:
            # Ray does not know yet that the node is gone, and would put others there as well.
            self._hires_at = time.monotonic() + HIRE_SECONDS
            self._gone.add(f"unknown, until {self._hires_at}")
        if len(self._gone) > NODES_IN_A_ROW + len(self._nodes):
            raise StoppedError(
                f"{self._job.name}: {len(self._gone)} nodes of the cluster went away one after the other, "
                "and no task was done in between; run the same command again when they stay"
            )

    def _how(self, member: PoolMember, error: RayActorError) -> str:
        """Say how a process ended, as far as Ray knows: it passes on no signal."""
        said = str(error)
        timeout = getattr(self._job.stage.config, "timeout", None)
        if "OUT_OF_MEMORY" in said:
            return "was ended by Ray, since its node ran short of memory"
        if "INTENDED_USER_EXIT" in said:
            return "ended itself"
        if timeout is not None and member.item and time.monotonic() - member.since >= timeout:
            return (
                f"was lost, most likely since a batch took longer than {self._job.name}.timeout, {timeout} s"
            )
        return "was lost"

    def _check_placed(self) -> None:
        """Wait for a node within bounds. Raises StoppedError."""
        if any(member.node for member in self._members):
            self._placed_at = time.monotonic()
            return
        waited = time.monotonic() - self._placed_at
        if waited < min(WORD_SECONDS, self._node_timeout):
            return
        line = f"{self._job.name}: {self._want()}"
        if waited >= self._node_timeout:
            raise StoppedError(f"{line}; waited {self._node_timeout:g} s for a node, see --node-timeout")
        if not self._has_said:
            _log.warning("%s; waiting for a node", line)
            self._has_said = True

    def _want(self) -> str:
        asked = ", ".join(f"{name}={amount:g}" for name, amount in self._asked.items() if amount)
        living = self._living(now=True)
        total: dict[str, float] = {}
        for node in living:
            for name in ("CPU", "GPU", "memory"):
                total[name] = total.get(name, 0) + node["Resources"].get(name, 0)
        cores, gpus, memory = (total.get(name, 0) for name in ("CPU", "GPU", "memory"))
        has = f"{cores:g} CPUs, {gpus:g} GPUs, {memory / 1e9:.1f} GB"
        is_taken = self._slots() > 0
        why = "no node had room for it" if is_taken else "no node of the cluster can give that"
        return f"a worker asks for {asked}, and {why} ({len(living)} nodes with {has})"


_NODE_GONE = re.compile(r"node (has )?died|node (was|is) (terminated|dead)|node failure", re.IGNORECASE)


def _resources(asked: Mapping[str, float]) -> dict[str, float]:
    """Give what is asked for by the names of a node's resources."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return {names[name]: amount for name, amount in asked.items() if amount}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b", line)]
    return redacted((errors or lines or [""])[-1][:300])
