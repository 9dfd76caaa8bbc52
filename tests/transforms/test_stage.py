import copy
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
from pydantic import ValidationError, create_model

from flaky_files import FlakyFileSystem
from sources import write_squares
from square_models import SquareTagger
from stage_runs import SQUARES, Bench, shared, write_removed
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.decisions import Policy
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.candidates import Asked, Candidates, CandidatesConfig
from tagmill.transforms.caption import Caption, CaptionConfig
from tagmill.transforms.clean import Clean, CleanConfig
from tagmill.transforms.cluster import Cluster, ClusterConfig
from tagmill.transforms.duplicates import Duplicates, DuplicatesConfig
from tagmill.transforms.embed import Embed, EmbedConfig
from tagmill.transforms.features import Features, FeaturesConfig
from tagmill.transforms.ingest import Ingest, IngestConfig
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.on_pixels import UNSAID
from tagmill.transforms.parse import Parse, ParseConfig
from tagmill.transforms.shards import Shards, ShardsConfig
from tagmill.transforms.stage import (
    PartStage,
    PartTask,
    conform,
    limit_threads,
    living,
    make_part,
    part_fingerprint,
    removed_rows,
)
from tagmill.transforms.tag import TagConfig, TagStage
from tagmill.transforms.worker import Deal, PartWorker

TAGGER = TagConfig(model="square_models:SquareTagger")
STAGES = [
    Ingest(IngestConfig(), shared()),
    Duplicates(DuplicatesConfig(), shared()),
    Caption(CaptionConfig(model="square_models:SquareCaptioner"), shared()),
    Parse(ParseConfig(), shared(), SQUARES),
    TagStage(TAGGER, shared()),
    Candidates(CandidatesConfig(), shared(), SQUARES, Asked(tagger=SquareTagger.classes, localizer=True)),
    Localize(LocalizeConfig(model="square_models:SquareLocalizer"), shared()),
    Embed(EmbedConfig(model="square_models:SquareEmbedder", region_tagger="all"), shared(), TAGGER),
    Cluster(ClusterConfig(), shared()),
    Clean(CleanConfig(), shared()),
    Shards(ShardsConfig(), shared()),
    Features(FeaturesConfig(model="square_models:SquareTeacher"), shared()),
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
assert "tagmill.transforms.formats.webdataset" in sys.modules
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
    spec = stage.spec
    data = cloudpickle.dumps(stage)
    assert len(data) < 100_000
    back = cloudpickle.loads(data)
    assert back.spec == spec
    assert part_fingerprint(back, {"a": "b"}) == part_fingerprint(stage, {"a": "b"})
    back.setup()


@every_stage
def test_what_a_stage_means_is_json_and_the_same_for_the_same_config(stage):
    assert json.loads(json.dumps(stage.spec)) == stage.spec
    assert stage.version >= 1
    assert "row" in stage.schema.names or stage.name in ("cluster", "shards")


def test_stages_read_only_what_comes_before_them():
    names = [stage.name for stage in STAGES]
    for place, stage in enumerate(STAGES):
        assert set(stage.inputs()) <= set(names[:place])


MODEL_MODULES = ("tag", "caption", "localize", "embed", "features", "on_pixels", "stage")


def test_no_stage_with_a_model_knows_the_vocabulary():
    """A word more must cost no model a call: what it is asked, candidates says by its own names."""
    code = f"""
import importlib, sys
for module in {MODEL_MODULES}:
    importlib.import_module(f"tagmill.transforms.{{module}}")
    loaded = [name for name in sys.modules if name.startswith("tagmill.tag_system.")]
    words = {{"vocabulary", "parser", "matching", "lexicon"}} & {{name.split(".")[2] for name in loaded}}
    assert not words, (module, words)
assert "tagmill.transforms.parts" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@every_stage
def test_only_stages_without_a_model_say_the_vocabulary(stage):
    assert not (stage.uses_model and "vocabulary" in stage.spec)
    module = type(stage).__module__.rpartition(".")[2]
    assert module in MODEL_MODULES or not stage.uses_model


@every_stage
def test_a_stage_with_a_model_serves_for_fewer_rows_than_it_was_made_for(stage):
    assert not (stage.uses_model and stage.follows_rows)


def test_stages_that_count_or_write_what_lives_follow_the_rows():
    follow = {stage.name for stage in STAGES if stage.follows_rows}
    assert follow == {"duplicates", "cluster", "clean", "shards"}


@every_stage
def test_the_settings_are_the_whole_config_but_for_what_says_nothing(stage):
    config = stage.config.model_dump(mode="json")
    unsaid = UNSAID if stage.uses_model else ()
    if stage.name == "clean":
        for unused in ("paper", "options"):  # of rules that are not chosen
            del config["policy"][unused]
    assert stage.settings == {name: value for name, value in config.items() if name not in unsaid}
    assert json.loads(json.dumps(stage.settings)) == stage.settings


class TestDefaults:
    """What a stage means is what differs from the defaults, however it is written."""

    def spec(self, stage, config):
        other = copy.copy(stage)
        vars(other).pop("spec", None)
        other.config = config
        return other.spec

    def values(self, stage):
        return stage.config.model_dump(mode="json")

    @every_stage
    def test_a_default_that_is_written_out_changes_nothing(self, stage):
        written = type(stage.config).model_validate(self.values(stage))
        assert written.model_fields_set == set(type(stage.config).model_fields)
        assert self.spec(stage, written) == stage.spec

    @every_stage
    def test_the_order_of_keys_changes_nothing(self, stage):
        turned = type(stage.config).model_validate(reverse(self.values(stage)))
        spec = self.spec(stage, turned)
        assert spec == stage.spec
        assert value_digest(spec) == value_digest(stage.spec)

    @every_stage
    def test_an_optional_new_key_changes_nothing_until_it_is_used(self, stage):
        config = type(stage.config)
        wider = create_model("Wider", __base__=config, one_more=(int | None, None))
        assert self.spec(stage, wider.model_validate(self.values(stage))) == stage.spec
        used = wider.model_validate({**self.values(stage), "one_more": 7})
        if "config" in stage.spec:
            assert self.spec(stage, used)["config"] == stage.spec["config"] | {"one_more": 7}

    def test_a_new_key_of_the_policy_changes_nothing_until_it_is_used(self):
        clean = next(stage for stage in STAGES if stage.name == "clean")
        policy = create_model("WiderPolicy", __base__=Policy, one_more=(int | None, None))
        wider = create_model("Wider", __base__=CleanConfig, policy=(policy, policy()))
        assert self.spec(clean, wider.model_validate(self.values(clean))) == clean.spec
        used = self.spec(clean, wider(policy={"one_more": 7}))
        assert used == {"config": {"policy": {"one_more": 7}}}

    @pytest.mark.parametrize("rule", ["paper", "adaptive"])
    def test_constants_of_a_rule_that_is_not_chosen_change_nothing(self, rule):
        def spec(**policy):
            return Clean(CleanConfig(policy={"rule": rule, **policy}), shared()).spec

        other = {"paper": {"agreeing": 5}, "adaptive": {"outlier_fraction": 0.5}}[rule]
        own = {"adaptive": {"agreeing": 5}, "paper": {"outlier_fraction": 0.5}}[rule]
        assert spec(**{"adaptive" if rule == "paper" else "paper": other}) == spec()
        assert spec(**{rule: own}) != spec()

    def test_what_differs_from_the_defaults_is_said_and_nothing_else(self):
        changed = TagStage(TagConfig(model=TAGGER.model, batch_size=3, score_floor=0.1, options={}), shared())
        assert changed.spec["config"] == {"model": TAGGER.model, "score_floor": 0.1}
        assert TagStage(TAGGER, shared()).spec["config"] == {"model": TAGGER.model}


def reverse(value):
    """Turn round the keys of every object."""
    if not isinstance(value, dict):
        return value
    return {name: reverse(found) for name, found in reversed(value.items())}


@every_stage
def test_an_unknown_key_of_a_config_is_an_error(stage):
    with pytest.raises(ValidationError):
        type(stage.config).model_validate({**stage.config.model_dump(), "no_such_key": 1})


def test_the_fingerprint_follows_version_spec_and_inputs():
    stage, other = STAGES[4], TagStage(TAGGER.model_copy(update={"score_floor": 0.2}), shared())
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
    table = pa.table({"row": rows, "name": ["a"] * len(rows), "score": [0.5] * len(rows)})
    table = table.cast(pa.schema([("row", pa.int64()), ("name", pa.string()), ("score", pa.float64())]))
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
    stage = TagStage(TAGGER, bench.shared)
    expected = [part.header.digest for part in bench.run(stage)]
    bench.stages.pop()
    folder = str(tmp_path / runner)
    for _ in range(2):
        with beam.Pipeline(runner=runner) as pipeline:
            names = pipeline | beam.Create(bench.tasks(stage)) | Deal(PartWorker(stage, folder))
            assert_that(names, equal_to(bench.names))
    assert digests(bench, folder) == expected


def test_a_part_that_is_there_is_not_made_again(bench, tmp_path):
    stage = TagStage(TAGGER, bench.shared)
    tasks = [replace(task, inputs={"ingest": "/nowhere"}) for task in bench.tasks(stage)]
    for name in bench.names:
        files.create_bytes(parts.part_uri(str(tmp_path / "there"), name), b"made before")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        pipeline | beam.Create(tasks) | Deal(PartWorker(stage, str(tmp_path / "there")))


def test_bundles_that_fail_and_are_tried_again_give_the_same_parts(bench):
    stage = TagStage(TAGGER, bench.shared)
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
            pipeline | beam.Create(tasks) | Deal(PartWorker(stage, "memory://stage-retries"))
    finally:
        FlakyFileSystem.bad = "\0"
    assert len(FlakyFileSystem.failed) == 1
    assert digests(bench, "memory://stage-retries") == expected


def test_the_loser_of_two_workers_leaves_the_winners_part(bench, tmp_path):
    folder = str(tmp_path / "both")
    task = bench.tasks(TagStage(TAGGER, bench.shared))[0]
    for floor in (0.1, 0.9):
        stage = TagStage(TAGGER.model_copy(update={"score_floor": floor}), bench.shared)
        stage.setup()
        make_part(stage, folder, task)
    header = parts.read_header(parts.part_uri(folder, task.name))
    assert header.spec["config"]["score_floor"] == 0.1
    assert header.libraries.keys() >= {"apache-beam", "numpy", "pyarrow", "pillow"}


def test_tasks_survive_beams_coders():
    task = PartTask("p", "f", {"ingest": "ü/1", "tag": "2"}, "root", "rows.parquet")
    coder = beam.coders.registry.get_coder(PartTask)
    back = coder.decode(coder.encode(task))
    assert (back.name, back.fingerprint, dict(back.inputs)) == ("p", "f", task.inputs)
    assert (back.root, back.removed) == ("root", "rows.parquet")


def test_a_user_can_write_a_stage(tmp_path, bench):
    class Nothing(PartStage[Config]):
        name, version, schema = "nothing", 1, pa.schema([pa.field("row", pa.int32())])

        def inputs(self):
            return ("ingest",)

        def process(self, inputs):
            return parts.Output(
                self.schema.empty_table(), len(inputs.rows), dropped={inputs.rows[0]: "first"}
            )

    found = bench.run(Nothing(Config(), bench.shared))
    assert [bitmaps.numbers(part.header.lost) for part in found] == [[0]] * 4


class TestGoneRows:
    """Which rows earlier stages took out is a table's matter, and no part's."""

    def task(self, bench, removed="", name=0):
        name = bench.names[name]
        inputs = {"ingest": parts.part_uri(bench.uri("ingest"), name)}
        return PartTask(name, "f", inputs, bench.roots[name], removed)

    def test_without_a_table_all_rows_live(self, bench):
        assert removed_rows(self.task(bench)) == 0
        assert TagStage(TAGGER, bench.shared).read(self.task(bench)).rows == [0, 1]

    def test_rows_of_its_own_part_are_left_out(self, bench, tmp_path):
        bits = [0b01, 0b10, 0, 0b11]
        removed = write_removed(str(tmp_path / "removed.parquet"), dict(zip(bench.names, bits, strict=True)))
        tasks = [self.task(bench, removed, place) for place in range(4)]
        assert [removed_rows(task) for task in tasks] == bits
        stage = TagStage(TAGGER, bench.shared)
        assert [stage.read(task).rows for task in tasks] == [[1], [0], [0, 1], []]

    def test_a_table_keeps_what_lives_whatever_else_it_holds(self, bench, tmp_path):
        removed = write_removed(str(tmp_path / "removed.parquet"), {bench.names[0]: bitmaps.of([0, 3, 70])})
        table = pa.table({"row": pa.array([0, 0, 1, 3, 69, 70, 70], pa.int32()), "tag": list("abcdefg")})
        assert living(table, self.task(bench, removed))["tag"].to_pylist() == ["c", "e"]
        assert living(table, self.task(bench)).equals(table)
        assert living(table, self.task(bench, removed, 1)).equals(table)
        assert living(table.slice(0, 0), self.task(bench, removed)).num_rows == 0

    def test_a_part_says_for_which_rows_it_was_made(self, bench, tmp_path):
        stage = TagStage(TAGGER, bench.shared)
        stage.setup()
        removed = write_removed(str(tmp_path / "removed.parquet"), {bench.names[0]: 0b01})
        make_part(stage, str(tmp_path / "tag"), self.task(bench, removed))
        made = parts.read_part(parts.part_uri(str(tmp_path / "tag"), bench.names[0]))
        assert (made.header.rows, made.header.lost) == (0b10, 0)
        assert made.header.counts.of("example") == {"in": 1, "out": 1, "dropped": 0, "dead": 0}
        assert {r["row"] for r in made.records} == {1}

    def test_a_table_that_was_replaced_is_read_anew_by_the_same_worker(self, bench, tmp_path):
        found = []
        for bits in (0b01, 0b1_0000_0010):
            removed = write_removed(str(tmp_path / "removed.parquet"), {bench.names[0]: bits})
            found.append(removed_rows(self.task(bench, removed)))
        assert found == [0b01, 0b1_0000_0010]

    def test_what_was_made_for_more_rows_serves_those_that_live(self, tmp_path):
        """The tagger ran before the copies went; all that follows is as if it had run after."""
        made = {}
        for order in ("tag first", "duplicates first"):
            bench = Bench(tmp_path / order, part_size=3)
            for name in ("a", "b"):
                bench.ingest(write_squares(tmp_path / order / f"{name}.tar", 3 if name == "a" else 4))
            first = [TagStage(TAGGER, bench.shared), Duplicates(DuplicatesConfig(), bench.shared)]
            for stage in first if order == "tag first" else first[::-1]:
                bench.run(stage)
            bench.candidates(Asked(tagger=SquareTagger.classes, localizer=True))
            bench.run(Localize(LocalizeConfig(model="square_models:SquareLocalizer"), bench.shared))
            bench.run(Clean(CleanConfig(), bench.shared))
            made[order] = {
                stage: [bench.part(stage, name).header for name in bench.names]
                for stage in ("tag", "candidates", "localize", "clean")
            }
        one, other = made["tag first"], made["duplicates first"]
        assert [h.rows for h in one["tag"]] == [0b111, 0b111, 0b1]
        assert [h.rows for h in other["tag"]] == [0b111, 0, 0b1]
        for stage in ("candidates", "localize", "clean"):
            assert [h.rows for h in one[stage]] == [h.rows for h in other[stage]] == [0b111, 0, 0b1]
            assert [h.digest for h in one[stage]] == [h.digest for h in other[stage]]


def test_every_slice_that_a_stage_names_is_written(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 2))
    bench.candidates()
    bench.run(Localize(LocalizeConfig(model="square_models:SquareLocalizer"), bench.shared))
    made = ("ingest", "candidates", "localize")
    slices = {name: bench.part(name).header.slices.keys() for name in made}
    for stage in STAGES:
        for name, part_slice in stage.slices.items():
            assert name in stage.inputs()
            assert part_slice in slices[name]


class CountRows(PartStage[Config]):
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
    stage = CountRows(Config(), bench.shared)
    table = files.join(bench.uri("cluster"), "clusters.parquet")
    found = []
    for rows, name in enumerate(bench.names[:2]):
        files.replace_bytes(table, parquet.table_bytes(pa.table({"tag": ["red"] * rows})))
        inputs = {"ingest": parts.part_uri(bench.uri("ingest"), name), "cluster": table}
        make_part(stage, bench.uri("count"), PartTask(name, "f", inputs, bench.roots[name]))
        found.append(bench.part("count", name).header.notes["rows"])
    assert found == [0, 1]
