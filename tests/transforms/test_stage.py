import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import apache_beam as beam
import cloudpickle
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to
from pydantic import ValidationError

from flaky_files import FlakyFileSystem
from sources import write_squares
from stage_runs import Bench, shared
from tagmill.transforms import files, parts
from tagmill.transforms.caption import Caption, CaptionConfig
from tagmill.transforms.clean import Clean, CleanConfig
from tagmill.transforms.cluster import Cluster, ClusterConfig
from tagmill.transforms.duplicates import Duplicates, DuplicatesConfig
from tagmill.transforms.embed import Embed, EmbedConfig
from tagmill.transforms.ingest import Ingest, IngestConfig
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.parse import Parse, ParseConfig
from tagmill.transforms.shards import Shards, ShardsConfig
from tagmill.transforms.stage import (
    MakeParts,
    PartStage,
    PartTask,
    StageConfig,
    conform,
    limit_threads,
    make_part,
    part_fingerprint,
)
from tagmill.transforms.tag import Tag, TagConfig

TAGGER = TagConfig(model="square_models:SquareTagger")
STAGES = [
    Ingest(IngestConfig(), shared()),
    Duplicates(DuplicatesConfig(), shared()),
    Parse(ParseConfig(), shared()),
    Caption(CaptionConfig(model="square_models:SquareCaptioner"), shared()),
    Tag(TAGGER, shared()),
    Localize(LocalizeConfig(model="square_models:SquareLocalizer"), shared()),
    Embed(EmbedConfig(model="square_models:SquareEmbedder", region_tagger="all"), shared(), TAGGER),
    Cluster(ClusterConfig(), shared()),
    Clean(CleanConfig(), shared()),
    Shards(ShardsConfig(), shared()),
]
every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def test_importing_the_transforms_loads_no_torch_and_no_model_library():
    code = """
import importlib, pkgutil, sys
import tagmill.transforms
for module in pkgutil.walk_packages(tagmill.transforms.__path__, "tagmill.transforms."):
    importlib.import_module(module.name)
heavy = {"torch", "transformers", "open_clip", "timm", "faiss", "spacy", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
assert "tagmill.transforms.readers.webdataset" in sys.modules
assert not [name for name in sys.modules if name.startswith(("tagmill.pipeline", "tagmill.runners"))]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torch_gets_the_stage_s_number_of_threads_in_every_thread():
    import torch

    before = torch.get_num_threads()
    try:
        limit_threads(before + 1)
        with ThreadPoolExecutor(1) as other:
            assert [torch.get_num_threads(), other.submit(torch.get_num_threads).result()] == [before + 1] * 2
    finally:
        limit_threads(before)


@every_stage
def test_a_stage_travels_to_the_workers_before_it_is_set_up(stage):
    meaning = stage.meaning
    data = cloudpickle.dumps(stage)
    assert len(data) < 100_000
    back = cloudpickle.loads(data)
    assert back.meaning == meaning
    assert part_fingerprint(back, {"a": "b"}) == part_fingerprint(stage, {"a": "b"})
    back.setup()


@every_stage
def test_what_a_stage_means_is_json_and_the_same_for_the_same_config(stage):
    assert json.loads(json.dumps(stage.meaning)) == stage.meaning
    assert stage.version >= 1
    assert "row" in stage.schema.names or stage.name in ("cluster", "shards")


def test_stages_read_only_what_comes_before_them():
    names = [stage.name for stage in STAGES]
    for place, stage in enumerate(STAGES):
        assert set(stage.inputs()) <= set(names[:place])


@every_stage
def test_an_unknown_key_of_a_config_is_an_error(stage):
    with pytest.raises(ValidationError):
        type(stage.config).model_validate({**stage.config.model_dump(), "no_such_key": 1})


def test_the_fingerprint_follows_version_meaning_and_inputs():
    stage, other = STAGES[4], Tag(TAGGER.model_copy(update={"score_floor": 0.2}), shared())
    prints = [
        part_fingerprint(stage, {"ingest": "1"}),
        part_fingerprint(stage, {"ingest": "2"}),
        part_fingerprint(other, {"ingest": "1"}),
        part_fingerprint(STAGES[3], {"ingest": "1"}),
    ]
    assert len(set(prints)) == 4
    assert part_fingerprint(stage, {"b": "2", "a": "1"}) == part_fingerprint(stage, {"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("rows", "error"), [([0, 0, 1], None), ([1, 0], "not ascending"), ([], None)], ids=str
)
def test_tables_must_have_ascending_rows(rows, error):
    table = pa.table({"row": rows, "tag": ["a"] * len(rows), "score": [0.5] * len(rows)})
    table = table.cast(pa.schema([("row", pa.int64()), ("tag", pa.string()), ("score", pa.float64())]))
    if error:
        with pytest.raises(ValueError, match=error):
            conform(table, STAGES[4])
    else:
        assert conform(table, STAGES[4]).schema.equals(STAGES[4].schema)


def test_another_schema_is_a_bug():
    with pytest.raises(ValueError, match="names"):
        conform(pa.table({"row": [1]}), STAGES[4])


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path / "run", part_size=2)
    bench.ingest(write_squares(tmp_path / "a.tar", 8))
    return bench


def digests(bench, folder):
    return [parts.read_header(parts.part_uri(folder, name)).digest for name in bench.names]


@pytest.mark.parametrize("runner", ["FnApiRunner", "BundleBasedDirectRunner"])
def test_beam_makes_the_same_parts(bench, tmp_path, runner):
    stage = Tag(TAGGER, bench.shared)
    expected = [part.header.digest for part in bench.run(stage)]
    bench.stages.pop()
    folder = str(tmp_path / runner)
    for _ in range(2):
        with beam.Pipeline(runner=runner) as pipeline:
            names = pipeline | beam.Create(bench.tasks(stage)) | MakeParts(stage, folder)
            assert_that(names, equal_to(bench.names))
    assert digests(bench, folder) == expected


def test_a_part_that_is_there_is_not_made_again(bench, tmp_path):
    stage = Tag(TAGGER, bench.shared)
    tasks = [replace(task, inputs={"ingest": "/nowhere"}) for task in bench.tasks(stage)]
    for name in bench.names:
        files.create_bytes(parts.part_uri(str(tmp_path / "there"), name), b"made before")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        pipeline | beam.Create(tasks) | MakeParts(stage, str(tmp_path / "there"))


def test_bundles_that_fail_and_are_tried_again_give_the_same_parts(bench):
    stage = Tag(TAGGER, bench.shared)
    expected = [part.header.digest for part in bench.run(stage)]
    bench.stages.pop()
    tasks = []
    for task in bench.tasks(stage):
        uri = f"flaky://stage/{task.name}.parquet"
        files.create_bytes(uri, files.read_bytes(task.inputs["ingest"]))
        tasks.append(replace(task, inputs={"ingest": uri}))
    FlakyFileSystem.failed.clear()
    FlakyFileSystem.bad = f"{bench.names[2]}.parquet"
    try:
        with beam.Pipeline(runner="BundleBasedDirectRunner") as pipeline:
            pipeline | beam.Create(tasks) | MakeParts(stage, "memory://stage-retries")
    finally:
        FlakyFileSystem.bad = "\0"
    assert len(FlakyFileSystem.failed) == 1
    assert digests(bench, "memory://stage-retries") == expected


def test_the_loser_of_two_workers_leaves_the_winners_part(bench, tmp_path):
    folder = str(tmp_path / "both")
    task = bench.tasks(Tag(TAGGER, bench.shared))[0]
    for floor in (0.05, 0.9):
        stage = Tag(TAGGER.model_copy(update={"score_floor": floor}), bench.shared)
        stage.setup()
        make_part(stage, folder, task)
    header = parts.read_header(parts.part_uri(folder, task.name))
    assert header.meaning["config"]["score_floor"] == 0.05
    assert header.libraries.keys() >= {"apache-beam", "numpy", "pyarrow", "pillow"}


def test_tasks_survive_beams_coders():
    task = PartTask("p", "f", {"ingest": "ü/1", "tag": "2"}, "root")
    coder = beam.coders.registry.get_coder(PartTask)
    back = coder.decode(coder.encode(task))
    assert (back.name, back.fingerprint, dict(back.inputs), back.root) == ("p", "f", task.inputs, "root")


def test_a_user_can_write_a_stage(tmp_path, bench):
    class Nothing(PartStage[StageConfig]):
        name, version, schema = "nothing", 1, pa.schema([pa.field("row", pa.int32())])

        def inputs(self):
            return ("ingest",)

        def process(self, inputs):
            return parts.Output(
                self.schema.empty_table(), len(inputs.rows), dropped={inputs.rows[0]: "first"}
            )

    found = bench.run(Nothing(StageConfig(), bench.shared))
    assert [part.header.gone for part in found] == [[0]] * 4


class CountRows(PartStage[StageConfig]):
    """Notes how many rows the cluster table has."""

    name = "count"
    version = 1
    schema = pa.schema([pa.field("row", pa.int32())])
    tables = ("cluster",)

    def inputs(self):
        return ("ingest", "cluster")

    def process(self, inputs):
        notes = {"rows": inputs.tables["cluster"].num_rows}
        return parts.Output(self.schema.empty_table(), len(inputs.rows), notes=notes)


def test_a_table_that_was_replaced_is_read_anew_by_the_same_worker(bench):
    stage = CountRows(StageConfig(), bench.shared)
    table = files.join(bench.uri("cluster"), "clusters.parquet")
    found = []
    for rows, name in enumerate(bench.names[:2]):
        files.replace_bytes(table, parts.table_bytes(pa.table({"tag": ["red"] * rows})))
        inputs = {"ingest": parts.part_uri(bench.uri("ingest"), name), "cluster": table}
        make_part(stage, bench.uri("count"), PartTask(name, "f", inputs, bench.roots[name]))
        found.append(bench.part("count", name).header.notes["rows"])
    assert found == [0, 1]
