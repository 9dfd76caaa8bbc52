"""The demo on machines that share nothing but an object store: the same bytes, whatever dies on the way."""

import json
import re
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

import machines
from commands import start
from machines import Machine
from meters import Meter
from ray_machines import BUCKET, TASK, WHOLE, RayMachines
from runs import damaged, parts_there, shard_bytes
from services import wait_until
from tagmill.runners.commands.demo import embedded
from tagmill.runners.commands.demo_config import demo_config, demo_models

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(machines.missing()), reason=machines.missing()),
]

SCENES = 40
PART_SIZE = 4
TAR = "scenes-000000.tar"

SECONDS = 400
"""How long a run may take: it waits until Ray takes a node for dead, and others may use the machine."""


@dataclass(frozen=True)
class Row:
    """A row of the table: what was done, the exit codes, and what it took."""

    what: str
    codes: list[int]
    cpu: float
    wall: float
    parts: Counter[str]
    are_equal: bool

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {count}" for name, count in sorted(self.parts.items()))
        equal = "yes" if self.are_equal else "NO"
        codes = ", then ".join(map(str, self.codes))
        return f"| {self.what} | {codes} | {self.cpu:.0f} | {self.wall:.0f} | {parts} | {equal} |"


HEAD = "| done | exit code | CPU s | wall s | parts committed by | equal bytes |\n|---|---|---|---|---|---|"


def config(run: str, inputs: str) -> str:
    """The demo's config, of smaller parts."""
    values = yaml.safe_load(demo_config(run, embedded(), None) + demo_models(embedded()))
    values["inputs"][0]["path"] = f"{inputs}/{TAR}"
    return json.dumps(values | {"part_size": PART_SIZE})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of the first scenes."""
    path = tmp_path_factory.mktemp("data") / TAR
    with tarfile.open(embedded() / TAR) as source, tarfile.open(path, "w") as tar:
        for member in source.getmembers()[: 2 * SCENES]:
            tar.addfile(member, source.extractfile(member))
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, str]:
    """The shards of a local run."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "demo.yaml").write_text(config(str(folder / "run"), str(data.parent)))
    local = start("run", folder / "demo.yaml", "--workers", 2)
    _, err = local.communicate()
    assert local.returncode == 0, err
    assert len(parts_there(folder / "run", "tag")) == SCENES // PART_SIZE
    return shard_bytes(folder / "run")


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """The rows of the table, which is printed at the end, whatever fails."""
    found: list[Row] = []
    yield found
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        sys.stdout.write("\n\n" + "\n".join([HEAD, *map(str, found)]) + "\n")


@pytest.fixture(scope="module")
def machines_of_ray(
    tmp_path_factory: pytest.TempPathFactory, data: Path, rows: list[Row]
) -> Iterator[RayMachines]:
    with RayMachines(tmp_path_factory.mktemp("logs")) as cluster:
        cluster.put(data, "data", TAR)
        yield cluster
    assert cluster.left() == []


@dataclass
class Case:
    """A run that something is done to."""

    cluster: RayMachines
    name: str
    codes: list[int] = field(default_factory=list)
    cut_off: Machine | None = None

    def begin(self) -> None:
        """Start the driver; once more after it was killed."""
        self.run = self.cluster.drive(self.name, config(f"{BUCKET}/{self.name}/run", f"{BUCKET}/data"))

    def find(self, stage: str, title: str = TASK) -> tuple[Machine, psutil.Process]:
        """Wait until an actor is at a task of a stage; gives its node and its process."""
        found: dict[Machine, psutil.Process] = {}

        def is_at_work() -> bool:
            assert not self.run.has_ended, self.run.said
            if self.run.stage == stage:
                found.update(self.cluster.at_work(title))
            return bool(found)

        wait_until(is_at_work, f"no actor was at a task of {stage}", SECONDS, every=0.005)
        return next(iter(found.items()))

    def finish(self) -> None:
        """Wait for the end of the driver, and of its actors."""
        self.codes.append(self.run.wait(SECONDS))
        if self.cut_off:
            self.cut_off.kill()  # whose actors know nothing of the end
        wait_until(lambda: not self.cluster.actors(), "actors are left")


def nothing(case: Case) -> None:
    """Leave it alone."""


def kill_worker(case: Case) -> None:
    _, process = case.find("localize")
    process.kill()


def kill_driver(case: Case) -> None:
    case.find("tag")
    case.run.kill()
    case.finish()
    case.begin()


def kill_node_in_tag(case: Case) -> None:
    node, _ = case.find("tag")
    node.kill()


def kill_node_in_cluster(case: Case) -> None:
    node, _ = case.find("cluster", WHOLE)
    node.kill()


def kill_node_in_clean(case: Case) -> None:
    node, _ = case.find("clean")
    node.kill()


def cut_node_off(case: Case) -> None:
    case.cut_off, _ = case.find("localize")
    case.cluster.cut(case.cut_off)


def add_node(case: Case) -> None:
    case.find("parse")
    case.cluster.add_node()


GONE = r"{}: the node \S+ is gone; what it was at goes to another"
LOST = r"localize: a worker process was lost on node-\d+ at \S+ \(attempt 1 of 3\)"


@pytest.mark.parametrize(
    ("what", "do", "codes", "warning"),
    [
        pytest.param("nothing", nothing, [0], None, id="whole"),
        pytest.param("kill -9 of a worker in localize", kill_worker, [0], LOST, id="worker"),
        pytest.param("kill -9 of the driver in tag; resumed", kill_driver, [-9, 0], None, id="driver"),
        pytest.param("kill -9 of a node in tag", kill_node_in_tag, [0], GONE.format("tag"), id="tag"),
        pytest.param("one node; another joins in parse", add_node, [0], None, id="late"),
        pytest.param(
            "kill -9 of a node in cluster", kill_node_in_cluster, [0], GONE.format("cluster"), id="cluster"
        ),
        pytest.param(
            "kill -9 of a node in clean", kill_node_in_clean, [0], GONE.format("(clean|shards)"), id="clean"
        ),
        pytest.param(
            "a node's cable pulled in localize", cut_node_off, [0], GONE.format("localize"), id="cable"
        ),
    ],
)
def test_a_run_gives_the_same_bytes_whatever_is_done(
    request, tmp_path, machines_of_ray, expected, rows, what, do, codes, warning
):
    name = request.node.callspec.id
    cluster = machines_of_ray
    nodes = 1 if do is add_node else 2
    for node in cluster.nodes[nodes:]:
        node.kill()
    for _ in range(nodes - len(cluster.nodes)):
        cluster.add_node()
    began = time.monotonic()
    case = Case(cluster, name)
    with Meter(lambda: cluster.accounted) as meter:
        case.begin()
        do(case)
        case.finish()
    seconds, parts = time.monotonic() - began, cluster.parts(name)
    cluster.fetch(tmp_path / "run", name, "run")
    are_equal = shard_bytes(tmp_path / "run") == expected
    rows.append(Row(what, case.codes, meter.taken, seconds, parts, are_equal))
    assert case.codes == codes, case.run.said
    assert are_equal
    assert damaged(tmp_path / "run") == []
    # One that is killed may have been at its first.
    assert all(parts[node.name] for node in cluster.nodes), parts
    assert warning is None or re.search(warning, case.run.said), case.run.said
    assert ("WARNING" in case.run.said.upper()) == (warning is not None), case.run.said
