import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runs import CountingEngine, Quiet, squares_config
from tagmill.pipeline import lease
from tagmill.pipeline.config import load_config
from tagmill.pipeline.lease import STALE_SECONDS, Lease, read_lease
from tagmill.pipeline.run import Driver
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError


def write_lease(path: Path, **changes: object) -> str:
    holder = {"host": "elsewhere", "pid": 1, "process": None, "since": 0.0, "heartbeat": time.time()}
    path.write_text(json.dumps(holder | changes))
    return str(path)


def test_a_second_driver_is_refused_while_the_first_one_lives(tmp_path):
    uri = str(tmp_path / "run" / "lease.json")
    with Lease(uri):
        with pytest.raises(ConfigError, match=f"driven by process {os.getpid()} on {socket.gethostname()}"):
            Lease(uri).__enter__()
        assert (read_lease(uri) or {})["pid"] == os.getpid()
    assert read_lease(uri) is None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tokens"]


def test_the_lease_of_a_process_that_is_gone_is_taken_over(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    uri = write_lease(tmp_path / "lease.json", host=socket.gethostname(), pid=process.pid)
    assert read_lease(uri) is None
    with Lease(uri):
        assert (read_lease(uri) or {})["pid"] == os.getpid()


def test_a_process_that_only_has_the_number_of_the_driver_holds_nothing(tmp_path):
    uri = write_lease(
        tmp_path / "lease.json", host=socket.gethostname(), pid=os.getpid(), process="of another time"
    )
    assert read_lease(uri) is None
    with Lease(uri):
        assert read_lease(uri) is not None


@pytest.mark.parametrize(("age", "is_free"), [(STALE_SECONDS - 20, False), (STALE_SECONDS + 5, True)])
def test_a_lease_of_another_host_is_free_when_its_heart_stopped(tmp_path, age, is_free):
    uri = write_lease(tmp_path / "lease.json", heartbeat=time.time() - age)
    if is_free:
        with Lease(uri):
            assert (read_lease(uri) or {})["host"] == socket.gethostname()
    else:
        with pytest.raises(ConfigError, match="on elsewhere"):
            Lease(uri).__enter__()
        assert json.loads(Path(uri).read_text())["host"] == "elsewhere"


def test_of_many_who_take_over_one_succeeds(tmp_path):
    for _ in range(10):
        uri = write_lease(tmp_path / "lease.json", heartbeat=0)
        barrier = threading.Barrier(8)
        entered: list[Lease] = []

        def enter(
            uri: str = uri, barrier: threading.Barrier = barrier, entered: list[Lease] = entered
        ) -> None:
            one = Lease(uri)
            barrier.wait()
            try:
                one.__enter__()
            except ConfigError:
                return
            entered.append(one)

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(entered) == 1
        entered[0].__exit__()
        assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_the_heart_beats_and_stops_when_another_has_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    uri = str(tmp_path / "lease.json")
    with Lease(uri):
        first = json.loads(Path(uri).read_text())["heartbeat"]
        time.sleep(0.2)
        assert json.loads(Path(uri).read_text())["heartbeat"] > first
        write_lease(tmp_path / "lease.json")
        time.sleep(0.2)
        assert json.loads(Path(uri).read_text())["host"] == "elsewhere"
    assert json.loads(Path(uri).read_text())["host"] == "elsewhere"


def test_the_heart_beats_on_after_a_write_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    write, failed = files.replace_bytes, threading.Event()

    def failing_once(uri: str, data: bytes) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError("connection lost")
        write(uri, data)

    monkeypatch.setattr(files, "replace_bytes", failing_once)
    uri = str(tmp_path / "lease.json")
    with Lease(uri):
        first = json.loads(Path(uri).read_text())["heartbeat"]
        time.sleep(0.2)
        assert failed.is_set()
        assert json.loads(Path(uri).read_text())["heartbeat"] > first


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match=r"lease\.json .* choose another run folder"):
        Lease(str(tmp_path / "run" / "lease.json")).__enter__()


def test_a_driver_that_was_taken_over_does_not_go_on(tmp_path):
    config = squares_config(tmp_path, {"b.tar": (2, 0)})
    with Lease(str(tmp_path / "lease.json")) as held:
        held.check()
        write_lease(tmp_path / "lease.json")
        driver = Driver(load_config(str(config)))
        with pytest.raises(
            ConfigError, match="this process lost the lease of the run to process 1 on elsewhere"
        ):
            driver.run(CountingEngine(), Quiet(), held)
    assert not (tmp_path / "run" / "ingest").exists()
