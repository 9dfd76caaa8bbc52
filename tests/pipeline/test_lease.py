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
from tagmill.pipeline.lease import Lease, read_lease
from tagmill.pipeline.run import Driver
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError


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


@pytest.fixture
def short(monkeypatch):
    """Have the heartbeats of other machines watched for a moment only."""
    for name in ("WATCH_SECONDS", "CLAIM_SECONDS"):
        monkeypatch.setattr(lease, name, 0.4)


@pytest.mark.parametrize("ahead", [-1e6, -30, 0, 1e6, float("inf")])
def test_a_lease_of_another_host_is_free_when_its_heart_stopped_whatever_its_clock(tmp_path, short, ahead):
    uri = write_lease(tmp_path / "lease.json", heartbeat=time.time() + ahead)
    with Lease(uri):
        assert (read_lease(uri) or {})["host"] == socket.gethostname()


@pytest.mark.parametrize("ahead", [-1e6, 1e6])
def test_a_heart_that_beats_on_another_host_holds_the_lease_whatever_its_clock(tmp_path, short, ahead):
    uri = write_lease(tmp_path / "lease.json", heartbeat=ahead)
    beat = threading.Timer(0.2, lambda: write_lease(tmp_path / "lease.json", heartbeat=ahead + 4))
    beat.start()
    with pytest.raises(ConfigError, match="on elsewhere"):
        Lease(uri).__enter__()
    beat.join()
    assert json.loads(Path(uri).read_text())["host"] == "elsewhere"
    assert not list((tmp_path / "tokens").iterdir())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "{garbage",
        "[" * 100_000,
        '{"host": 1, "pid": 2, "heartbeat": 3}',
        '{"host": "a", "pid": 99999999999999999999, "heartbeat": 3}',
        '{"host": "a", "pid": -1, "heartbeat": 3}',
        '{"host": "a", "pid": 1, "heartbeat": "soon"}',
    ],
)
def test_what_is_not_a_lease_is_one_line_that_says_what_to_do(tmp_path, content):
    (tmp_path / "lease.json").write_text(content)
    with pytest.raises(DamageError, match=r"lease\.json is damaged .*remove it and run again") as raised:
        Lease(str(tmp_path / "lease.json")).__enter__()
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "tokens").iterdir())


@pytest.mark.parametrize("owner", ["ended", "elsewhere", "damaged"])
def test_a_claim_that_a_kill_left_heals(tmp_path, short, owner):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = {"host": socket.gethostname(), "pid": process.pid}
    uri = write_lease(tmp_path / "lease.json", **dead)
    claim = tmp_path / "lease.json.claim"
    write_lease(claim, **(dead if owner == "ended" else {"heartbeat": time.time() + 1e6}))
    if owner == "damaged":
        claim.write_text("{}")
    with Lease(uri):
        assert not claim.exists()


def test_a_claim_whose_owner_lives_is_left(tmp_path, short):
    uri = write_lease(tmp_path / "lease.json")
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    write_lease(tmp_path / "lease.json.claim", host=socket.gethostname(), pid=os.getpid(), process=start)
    with pytest.raises(ConfigError, match=r"another driver is taking over the run.*lease\.json\.claim"):
        Lease(uri).__enter__()


def test_of_many_who_take_over_one_succeeds(tmp_path, short):
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
