"""The whole demo, to be made elsewhere and compared with what is made here."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import tagmill
from runs import shard_bytes
from tagmill.runners.commands.demo import CONFIG, embedded
from tagmill.runners.commands.demo_config import demo_config, demo_models


@dataclass(frozen=True)
class LocalDemo:
    """The demo, run on this machine by one worker."""

    shards: dict[str, str]

    def config(self, folder: Path, run: str) -> Path:
        """Write a config that makes the same in another run folder."""
        path = folder / CONFIG
        path.write_text(demo_config(run, embedded(), None) + demo_models(embedded()))
        return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> LocalDemo:
    run = tmp_path_factory.mktemp("demo") / "run"
    tagmill("demo", "--run", run)
    shards = shard_bytes(run)
    assert len([name for name in shards if name.endswith(".tar")]) > 1
    return LocalDemo(shards)
