"""Runs jobs on a Ray cluster: tasks are dealt out to actors, one a GPU or as many as there are cores."""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc  # type: ignore[import-untyped]  # has no stubs

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import cloudpickle

from tagmill.pipeline.job import Job
from tagmill.runners.attempts import Death, PersistentEngine
from tagmill.runners.ray_flags import RayFlags, RayHints
from tagmill.runners.ray_pool import ActorPool, Dealt, PoolMember
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms import failures, task_file
from tagmill.transforms.worker import Probe

ANSWER_SECONDS = 10.0
"""How long the head of a cluster may take to answer."""

STORE_BYTES = 80 * 2**20
"""Ray's object store, where Ray is started here: no data goes through it."""

NOBODY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
"""What is answered where no cluster's head listens."""

_log = logging.getLogger(__name__)


@dataclass
class RayEngine(PersistentEngine):
    """Runs each job on the nodes of a cluster, which is joined for the first job.

    The tasks of a job are dealt out one by one to actors, each of which loads the model once. A job whose
    tasks depend on each other runs as a whole in one actor.
    """

    relief = "ask for more by --hint memory=8GB, or use a smaller batch_size"

    flags: RayFlags
    hints: RayHints
    _done: set[str] = field(default_factory=set, init=False, repr=False)
    _spare: list[tuple[Dealt, PoolMember]] = field(default_factory=list, init=False, repr=False)
    _has_gpus: bool = field(default=False, init=False, repr=False)
    _is_joined: bool = field(default=False, init=False, repr=False)
    _scratch: str = field(default="", init=False, repr=False)

    def execute(self, job: Job) -> None:
        """Run one job, as all of these engines do; what is done is not dealt out again."""
        if not self._is_joined:
            self._join()
        self._done = set()
        super().execute(job)

    def close(self) -> None:
        """Leave the cluster, which ends what was started for it, and end a Ray that was started here."""
        if self._is_joined:
            self._spare.clear()
            ray.shutdown()
            self._is_joined = False
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def asked(self, job: Job) -> dict[str, float]:
        """Give what an actor of a job asks of its node, as Ray's options."""
        threads = job.stage.shared.threads
        if not job.uses_model:
            return {"num_cpus": threads, "num_gpus": 0}
        hints = self.hints
        gpus = hints.num_gpus
        if gpus is None:
            # Once there were some they are waited for: a model on a CPU would take days, and differ in bits.
            self._has_gpus = self._has_gpus or bool(ray.cluster_resources().get("GPU"))
            gpus = int(self._has_gpus)
        asked = {"num_cpus": threads if hints.num_cpus is None else hints.num_cpus, "num_gpus": gpus}
        return asked if hints.memory is None else asked | {"memory": hints.memory}

    def _attempt(self, job: Job) -> list[Death]:
        failures.forget(job.folder)
        is_probe = isinstance(job.worker, Probe)
        done = set[str]() if is_probe else self._done
        with _marker(job.folder) as marker:
            calls, begin = _calls(job, done)
            dealt = Dealt(calls, begin, marker, len(calls), self.asked(job), is_fresh=is_probe)
            with ActorPool(job, dealt, self.flags.node_timeout, done, self._spare) as pool:
                return pool.work()

    def _join(self) -> None:
        address = self.flags.address or _running()
        logging.getLogger("ray").setLevel(logging.ERROR)
        with _undisturbed():
            if address:
                self._join_at(address)
            else:
                self._start()
        self._is_joined = True

    def _join_at(self, address: str) -> None:
        if not _answers(address):
            raise ConfigError(
                f"--runner ray: no Ray cluster answers at {address}; give --address=HOST:PORT of its head, "
                "as `ray start --head` says it"
            )
        try:
            ray.init(address, log_to_driver=False, configure_logging=False)
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"--runner ray: cannot join the cluster at {address}: {said}; run this on one of its nodes: "
                f"`ray start --address={address} --num-cpus=0` makes this machine one"
            ) from error

    def _start(self) -> None:
        _log.warning(
            "no Ray cluster runs here, and no --address=HOST:PORT is given: starting Ray on this machine"
        )
        self._scratch = tempfile.mkdtemp(prefix="tagmill-ray-")
        ray.init(
            "local",
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=self._scratch,
        )


def _calls(job: Job, done: set[str]) -> tuple[list[tuple[str | None, str, Any]], tuple[Any, ...]]:
    """Give what actors are called for, and what gets them ready."""
    if job.worker is None:
        return [(None, "run", cloudpickle.dumps(job))], ()
    begin = (cloudpickle.dumps(job.worker), dict(job.stage.imports_alone))
    return [(task.name, "do", task) for task in job.tasks if task.name not in done], begin


@contextmanager
def _marker(folder: str) -> Iterator[str]:
    """Give a new file in a folder, by which a node shows that it sees the folder."""
    uri = files.join(folder, task_file.FOLDER, f"{uuid4().hex}.seen")
    files.create_bytes(uri, b"", lasting=False)
    try:
        yield uri
    finally:
        files.remove(uri, lasting=False)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Ray from changing how this process ends, and from printing into what it prints."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def _running() -> str:
    """Find the cluster that this machine is a node of; empty if there is none."""
    address = os.environ.get("RAY_ADDRESS", "") or ray._private.services.find_bootstrap_address(None) or ""
    return address if address and _answers(address) else ""


def _answers(address: str) -> bool:
    """Tell whether a cluster's head listens: Ray itself would try for two minutes, and end the process."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            check(b"", timeout=ANSWER_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.code() not in NOBODY
    return True
