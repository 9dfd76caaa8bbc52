"""What the jobs look like that are handed to a runner: steps, hints, and how elements are encoded."""

import io
from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from rich.console import Console

from runs import CountingEngine, Quiet, coders_of, squares_config
from tagmill.pipeline import job as job_module
from tagmill.pipeline.config import load_config
from tagmill.pipeline.job import Job
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import committed_parts
from tagmill.runners.commands import launch
from tagmill.runners.commands.job_view import show_jobs, steps
from tagmill.runners.remote import DEFAULT_HINTS, RemoteEngine, parse_hints
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.ingest import SourceTask
from tagmill.transforms.parts import part_uri, read_header
from tagmill.transforms.shards import ShardTask
from tagmill.transforms.stage import PartTask
from tagmill.transforms.task_file import ReadTasks


class Keeping(CountingEngine):
    """Remembers the jobs themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Job] = {}

    def execute(self, job: Job) -> None:
        self.kept[job.name] = job
        super().execute(job)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> dict[str, Job]:
    engine = Keeping()
    config = squares_config(
        tmp_path_factory.mktemp("jobs"),
        parse={"mode": "fast"},
        caption={"model": "square_models:SquareCaptioner"},
    )
    Driver(load_config(str(config))).run(engine, Quiet())
    return engine.kept


def test_only_model_stages_ask_for_an_accelerator(jobs):
    for name, job in jobs.items():
        asking = [step for step, asked in steps(job, dict(DEFAULT_HINTS)) if "accelerator" in asked]
        assert bool(asking) == (name in ("caption", "tag", "localize", "embed")), name
        assert all(step.startswith(f"{name}/") for step in asking)


def test_hints_reach_the_step_as_they_were_given(jobs):
    found = dict(steps(jobs["tag"], parse_hints(["min_ram=1GB"])))
    assert found["tag/Tag"] == {"min_ram_bytes": "1000000000"}
    assert all(asked == {} for _, asked in steps(jobs["tag"], parse_hints(["none"])))


@pytest.mark.parametrize(("hint", "words"), [("min_ram", "write it as name=value"), ("foo=1", "foo")])
def test_a_bad_hint_is_refused_before_anything_runs(hint, words):
    with pytest.raises(ConfigError, match=words):
        parse_hints([hint])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hints": ["min_ram=1GB"]}, "--hint is for runners on other machines"),
        ({"runner": "dataflow"}, "its workers cannot reach .*run on this machine; set `run` to a folder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(launch, "what_is_missing", lambda runner: None)
    values = {"runner": "local", "workers": 1, "hints": [], "log_format": "plain", "flags": []} | changes
    config = str(squares_config(tmp_path))
    request = launch.RunRequest(
        config=config, overrides=[], accept_changes=False, check_sources=False, **values
    )
    with pytest.raises(ConfigError, match=words):
        launch.run(request, Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


def test_tasks_travel_as_rows_and_nothing_is_pickled(jobs):
    """What runs code when it is read, or only one version can read, never travels."""
    for job in jobs.values():
        pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
        job.build(pipeline)
        found = coders_of(pipeline)
        tasks = [urns for name, urns in found.items() if name.endswith("Map(decode).None")]
        assert tasks, sorted(found)
        assert all("beam:coder:row:v1" in urns for urns in tasks), (job.name, tasks)
    for task in (PartTask, SourceTask, ShardTask):
        assert isinstance(coders.registry.get_coder(task), coders.RowCoder)


def test_what_crosses_a_shuffle_has_a_row_coder_where_it_is_a_task(jobs):
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    jobs["duplicates"].build(pipeline)
    (named,) = [urns for name, urns in coders_of(pipeline).items() if "Name" in name and "Group" not in name]
    assert "beam:coder:row:v1" in named
    assert not any("pickle" in urn for urn in named)


def test_a_task_survives_its_coder(jobs):
    for job in jobs.values():
        coder = coders.registry.get_coder(type(job.tasks[0]))
        for task in job.tasks:
            again = coder.decode(coder.encode(task))
            assert again.name == task.name
            assert again.fingerprint == task.fingerprint


def test_a_dry_run_shows_steps_hints_and_what_waits(tmp_path):
    config = squares_config(tmp_path)
    console = Console(file=io.StringIO(), width=200)
    engine = RemoteEngine("portable", PipelineOptions([]))
    show_jobs(console, Driver(load_config(str(config))), engine)
    text = console.file.getvalue()
    assert "ingest: 2 tasks" in text
    assert "ingest/Ingest" in text
    assert "tag: planned when its inputs are made" in text
    assert not (tmp_path / "run").exists()


def test_the_remote_engine_builds_for_its_runner_without_the_main_session(jobs):
    engine = RemoteEngine("portable", PipelineOptions(["--job_endpoint=localhost:1"]))
    pipeline = engine.pipeline(jobs["tag"])
    assert type(pipeline.runner).__name__ == "PortableRunner"
    assert pipeline.options.get_all_options()["save_main_session"] is False


@pytest.fixture
def all_stored(monkeypatch):
    """Has the tasks of every job go through a file."""
    monkeypatch.setattr(job_module, "MOST_IN_GRAPH", 0)


def test_tasks_that_go_through_a_file_come_out_as_they_were(jobs, all_stored):
    for name in ("ingest", "localize", "shards"):
        job = jobs[name]
        with job.store_tasks() as stored, beam.Pipeline(runner="FnApiRunner") as pipeline:
            found = pipeline | ReadTasks(stored, type(job.tasks[0]), len(job.tasks))
            names = found | beam.Map(lambda task: (task.name, task.fingerprint))
            assert_that(names, equal_to([(task.name, task.fingerprint) for task in job.tasks]))
        assert not files.exists(stored)


def test_a_job_whose_order_goes_through_the_file_makes_the_same(jobs, all_stored):
    job = jobs["duplicates"]
    with job.store_tasks() as stored, beam.Pipeline(runner="FnApiRunner") as pipeline:
        job.build(pipeline, stored=stored)
    generation = files.join(job.folder, "..")
    made = committed_parts(job.folder)
    assert made == {task.name for task in job.tasks}
    for name in made:
        parts_made = [read_header(part_uri(folder, name)).digest for folder in (job.folder, generation)]
        assert parts_made[0] == parts_made[1]


@pytest.mark.parametrize("name", ["duplicates", "clean"])
def test_the_graph_of_many_tasks_does_not_grow_with_them(jobs, name):
    engine = RemoteEngine("portable", PipelineOptions(["--job_endpoint=localhost:1"]))
    sizes = []
    for count in (job_module.MOST_IN_GRAPH + 1, 2 * job_module.MOST_IN_GRAPH):
        names = [f"{number * 0x9E3779B97F4A7C15 % 2**48:012x}-00000" for number in range(count)]
        job = replace(jobs[name], tasks=[replace(jobs[name].tasks[0], name=one) for one in names])
        with job.store_tasks() as stored:
            sizes.append(len(engine.pipeline(job, stored).to_runner_api().SerializeToString()))
    assert sizes[1] - sizes[0] < 100
    assert sizes[0] < 100_000
