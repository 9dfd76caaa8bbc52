"""What is made elsewhere and compared with what is made here: the whole demo; and stores to make it in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from buckets import Store
from commands import tagmill
from faulty_proxy import FaultyProxy
from runs import shard_bytes
from services import Service, free_port, installed
from tagmill.runners.commands.demo import CONFIG, embedded
from tagmill.runners.commands.demo_config import demo_config, demo_models
from tagmill.tag_system.core import files


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


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    port, log = free_port(), tmp_path_factory.mktemp("store") / "log"
    proxy = FaultyProxy(port)
    if request.param == "s3":
        command = [installed("moto_server", "services"), "-p", str(port)]
        env = {"AWS_ENDPOINT_URL": proxy.url, "AWS_DEFAULT_REGION": "us-east-1"}
        env |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    else:
        command = [installed("fake-gcs-server", "services"), "-backend=memory", "-scheme=http"]
        command += ["-host=127.0.0.1", f"-port={port}", f"-external-url={proxy.url}", "-log-level=error"]
        env = {"STORAGE_EMULATOR_HOST": proxy.url}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        service = Service(command, port, log)
        try:
            root = f"{request.param}://bucket"
            type(files.filesystem(root)[0]).clear_instance_cache()  # clients of an earlier server
            files.filesystem(root)[0].mkdir("bucket")
            yield Store(request.param, proxy)
        finally:
            service.kill()
            proxy.shutdown()
