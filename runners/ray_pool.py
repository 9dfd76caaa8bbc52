"""The actors of one job on a Ray cluster, and how its tasks are dealt out to them.

Ray restarts and retries nothing here: only who knows what an actor was at can tell a task that kills its
process from one whose node went away.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from tagmill.pipeline.job import Job
from tagmill.runners import ray_endings
from tagmill.runners.attempts import ATTEMPTS, Death
from tagmill.runners.fork_server import search_path
from tagmill.runners.ray_actor import NodeReport, Outcome, TaskActor, Versions
from tagmill.runners.ray_nodes import RayNodes
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

    It may go on to another job, but not to one that loads a model.
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
        spare: Actors of earlier jobs, each with what was dealt out to it; those of this one are left there.
    """

    def __init__(
        self,
        job: Job,
        dealt: Dealt,
        node_timeout: float,
        done: set[str],
        spare: list[tuple[Dealt, PoolMember]],
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
        self._nodes = RayNodes(self._asked)
        self._placed_at = self._hires_at = time.monotonic()
        self._has_said = False
        self._actor = ray.remote(TaskActor).options(max_restarts=0, max_task_retries=0, **self._asked)

    def __enter__(self) -> "ActorPool":
        for dealt, member in self._spare:
            if self._can_use(dealt):
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
                self._spare.append((self._dealt, member))
            else:
                ray.kill(member.handle)

    def _can_use(self, dealt: Dealt) -> bool:
        """Tell whether an actor of another job serves: a model is loaded where no other one was."""
        if self._dealt.is_fresh or dict(dealt.asked) != self._asked:
            return False
        return not self._job.uses_model or dealt.begin == self._dealt.begin

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
        wanted = min(self._dealt.most, self._nodes.slots() + 1 - self._unready)
        wanted = min(
            max(wanted, 1), len(self._left) + sum(member.item is not None for member in self._members)
        )
        for _ in range(wanted - len(self._members)):
            handle: Any = self._actor.remote(search_path(), os.getcwd())
            self._members.append(PoolMember(handle, handle.look.remote(self._dealt.marker)))

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
            self._let_go(member, "was out of reach")  # what became of its call nobody knows
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
                where = f"{report.host} ({self._nodes.address(report.node)})"
                raise ConfigError(
                    f"the node {where} does not see the run folder at {self._job.folder}: set `run` to a "
                    "folder that all nodes share, or to one of an object store"
                )
            time.sleep(1)
            self._call(member, "look", self._dealt.marker)
        elif self._dealt.begin and self._dealt.begin == member.begun:
            self._deal(member)
        else:
            member.begun = ()
            if self._dealt.begin:
                self._call(member, "begin", *self._dealt.begin)
            else:
                self._deal(member)

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
        for member in doubted:
            if member.node and not self._nodes.lives(member.node):
                self._let_go(member)
            elif time.monotonic() - (member.doubted or 0) > DOUBT_SECONDS:
                self._let_go(member, "is out of reach")

    def _lose(self, member: PoolMember, error: RayActorError) -> None:
        """Tell a process that died from one whose node is gone."""
        if why := ray_endings.why_never_began(error):
            raise ConfigError(
                f"a node of the cluster cannot start tagmill: install tagmill {Versions.here().tagmill} with "
                f"the extra `ray` where its Ray runs ({why})"
            ) from error
        if ray_endings.is_of_node(error) or (member.node and not self._nodes.lives(member.node)):
            self._let_go(member)
            return
        self._members.remove(member)
        if member.step == "look" and member.node and not member.looks:
            return  # it had ended before, between two jobs, and was at nothing
        task = member.item[0] if member.item else ""
        self._unready += task == ""
        self._deaths.append(Death(task, self._how(member, error), member.host))

    def _let_go(self, member: PoolMember, what: str = "is gone") -> None:
        """Do without an actor for what its node is, which no task is to blame for. Raises StoppedError."""
        self._members.remove(member)
        ray.kill(member.handle)
        if member.item:
            self._left.appendleft(member.item)
        if member.node not in self._gone | {""}:
            _log.warning(
                "%s: the node %s %s; what it was at goes to another", self._job.name, member.host, what
            )
        if member.node:
            self._gone.add(member.node)
        elif time.monotonic() >= self._hires_at:
            # Ray does not know yet that the node is gone, and would put others there as well.
            self._hires_at = time.monotonic() + HIRE_SECONDS
            self._gone.add(f"unknown, until {self._hires_at}")
        if len(self._gone) > NODES_IN_A_ROW + self._nodes.most:
            raise StoppedError(
                f"{self._job.name}: {len(self._gone)} nodes of the cluster went away one after the other, "
                "and no task was done in between; run the same command again when they stay"
            )

    def _how(self, member: PoolMember, error: RayActorError) -> str:
        found = ray_endings.how(error)
        timeout = getattr(self._job.stage.config, "timeout", None)
        is_late = timeout is not None and member.item and time.monotonic() - member.since >= timeout
        if found == ray_endings.LOST and is_late:
            found += f", most likely since a batch took longer than {self._job.name}.timeout, {timeout} s"
        return found

    def _check_placed(self) -> None:
        """Wait for a node within bounds. Raises StoppedError."""
        if any(member.node for member in self._members):
            self._placed_at = time.monotonic()
            return
        waited = time.monotonic() - self._placed_at
        if waited < min(WORD_SECONDS, self._node_timeout):
            return
        line = f"{self._job.name}: {self._nodes.shortage()}"
        if waited >= self._node_timeout:
            raise StoppedError(f"{line}; waited {self._node_timeout:g} s for a node, see --node-timeout")
        if not self._has_said:
            _log.warning("%s; waiting for a node", line)
            self._has_said = True
