"""A trace of some steps by torch's profiler, for chrome://tracing, Perfetto or TensorBoard."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from tagmill.models.training.process import Process
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

WARM_UP = 2
"""Steps before those that are traced: the first is not like the others, the second warms the profiler up."""


@dataclass(frozen=True)
class ProfileConfig:
    """How many steps to trace, and the folder for a trace of each process, a path or a url.

    Raises ConfigError for less than one step.
    """

    steps: int
    folder: str

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"--profile {self.steps}: give the number of steps to trace, 1 or more")


def open_profiler(config: ProfileConfig, process: Process, say: Callable[[str], None]) -> profile:
    """Make a profiler, which is entered, and told of each step. Raises ConfigError if it has no folder."""
    try:
        if files.is_local(config.folder):
            Path(files.filesystem(config.folder)[1]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--profile: cannot write into {config.folder}: {error.strerror}") from error

    def ready(found: profile) -> None:
        name = f"rank{process.rank}.{time.time_ns()}.pt.trace.json"  # TensorBoard looks for such
        with files.replacing(files.join(config.folder, name), lasting=False) as partial:
            found.export_chrome_trace(str(partial))
        say(f"a trace for Perfetto or TensorBoard is in {config.folder}")

    activities = [ProfilerActivity.CPU]
    if process.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return profile(
        activities=activities,
        schedule=schedule(skip_first=WARM_UP - 1, wait=0, warmup=1, active=config.steps, repeat=1),
        on_trace_ready=ready,
    )
