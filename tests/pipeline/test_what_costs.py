"""What a change of config, vocabulary or filters costs: which parts are made, which models run."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from counted_models import calls, counted
from runs import damaged, drive, plans, rows_of, samples, shard_bytes, squares_config
from sources import VOCABULARY, members, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example
from tagmill.runners.commands.inspection import config_changes, show_plan
from tagmill.transforms import stage
from tagmill.transforms.tag import TagConfig

PARTS = 20

ODD = 9
"""An example that shows no red, and is labelled `Scarlet`."""


def to_make(config: Path, *overrides: str) -> list[str]:
    return [name for name, plan in plans(config, *overrides).items() if not plan.is_whole]


class TestKeysThatAreNotUsed:
    @pytest.mark.parametrize(
        "written",
        [
            ["clean.policy.paper.outlier_fraction=0.3", "clean.policy.paper.region_threshold=0.5"],
            [
                "tag.score_floor=0.05",
                "cluster.max_k=8",
                "clean.policy.rule=adaptive",
                "ingest.val_fraction=0.01",
            ],
            [
                "clean.policy.unchecked_threshold=null",
                "cluster.k=null",
                "candidate_floor=0.3",
                "duplicates={}",
            ],
            ["localize.kinds=[object]", "clean.policy.adaptive={agreeing: 2}", "embed.region_tagger='off'"],
            ["tag.batch_size=3", "localize.batch_size=1"],
        ],
        ids=["unchosen rule", "default", "null", "list", "batch"],
    )
    def test_cost_nothing(self, copy, written):
        drive(copy)
        assert to_make(copy, *written) == []

    def test_a_new_optional_key_costs_nothing_until_it_is_set(self, copy):
        class NewTagConfig(TagConfig):
            flip: bool = False
            scales: list[float] | None = None

        drive(copy)
        config = load_config(str(copy))
        assert config.tag is not None

        def planned(**values: object) -> list[str]:
            tag = NewTagConfig(**config.tag.model_dump(), **values)
            driver = Driver(config.model_copy(update={"tag": tag}))
            return [plan.stage.name for plan in driver.plan() if not plan.is_whole]

        assert planned() == []
        assert planned(flip=True)[0] == "tag"
        changed = config.model_copy(update={"tag": NewTagConfig(**config.tag.model_dump(), flip=True)})
        driver = Driver(changed)
        (tag,) = [plan for plan in driver.plan() if plan.stage.name == "tag"]
        assert config_changes(driver, tag) == ["flip false -> true"]

    def test_cost_nothing_in_another_order(self, copy):
        drive(copy)

        def turned(value):
            return {k: turned(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

        config = json.loads(copy.read_text())
        copy.write_text(json.dumps(turned(config)))
        assert to_make(copy) == []

    def test_of_the_chosen_rule_count(self, copy):
        drive(copy)
        assert to_make(copy, "clean.policy.adaptive.weak_box=0.95") == ["clean", "shards"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.k=3", "k null -> 3"),
        ("clean.policy.unchecked_threshold=0.9", "policy.unchecked_threshold null -> 0.9"),
        ("tag.score_floor=0.2", "score_floor 0.05 -> 0.2"),
        ("clean.policy.trust_given=true", "policy.trust_given false -> true"),
        ("candidate_floor=0.5", "candidate_floor 0.3 -> 0.5"),
        ("clean.policy.rule=paper", "policy.rule adaptive -> paper"),
    ],
    ids=str,
)
def test_plan_names_the_key_with_its_old_and_new_value(copy, override, said):
    drive(copy)
    console = Console(width=200, record=True, quiet=False)
    with console.capture() as shown:
        show_plan(console, Driver(load_config(str(copy), [override])))
    lines = [line.strip() for line in shown.get().splitlines()]
    assert said in lines
    # And back: what was set is what is named.
    drive(copy, override)
    with console.capture() as shown:
        show_plan(console, Driver(load_config(str(copy))))
    key, _, values = said.partition(" ")
    old, _, new = values.partition(" -> ")
    assert f"{key} {new} -> {old}" in [line.strip() for line in shown.get().splitlines()]


@pytest.fixture(scope="module")
def costly(tmp_path_factory):
    """A run of one example a part, whose labels and captions are the source's own; models count their images.

    Example `ODD` is labelled `Scarlet` besides, which is not a tag yet.
    """
    folder = tmp_path_factory.mktemp("costs") / "it"
    contents = []
    for i in range(PARTS):
        example = members(f"{i:06d}", i)
        fields = json.loads(example[f"{i:06d}.json"])
        assert i != ODD or "red" not in fields["truth"]
        fields["labels"] = [*fields["truth"], "Scarlet"] if i == ODD else fields["truth"]
        contents += [
            (f"{i:06d}.png", example[f"{i:06d}.png"]),
            (f"{i:06d}.json", json.dumps(fields).encode()),
        ]
    write_tar(folder / "data" / "a.tar", contents)
    config = costs_config(folder)
    drive(config)
    assert set(calls(folder / "log")) == {"Tagger", "Localizer", "Embedder", "Captioner"}
    return folder


def costs_config(folder: Path, **changes: object) -> Path:
    inputs = [{"name": "squares", "format": "webdataset", "path": str(folder / "data" / "*.tar")}]
    parse = {"mode": "fast"}
    values = {"inputs": inputs, "parse": parse, "part_size": 1, "shards": {"size": 5}}
    return squares_config(folder, {}, **(values | counted(folder / "log") | changes))


@pytest.fixture
def costs(costly, tmp_path):
    """A copy of the run, whose log is empty."""
    shutil.copytree(costly, tmp_path / "it")
    config = costs_config(tmp_path / "it")
    drive(config)
    assert calls(tmp_path / "it" / "log") == {}
    return config


def add_alias(config: Path, tag: str, alias: str) -> None:
    lines = VOCABULARY.replace(f"{tag} square\n", f"{tag} square|{alias}\n")
    assert lines != VOCABULARY
    (config.parent / "vocabulary.tsv").write_text(lines)


def test_other_versions_of_the_libraries_make_everything_anew_if_that_is_asked(costs, monkeypatch):
    strict = "strict_versions=true"
    drive(costs, strict)
    assert drive(costs, strict).jobs == []
    calls(costs.parent / "log")
    monkeypatch.setattr(stage, "libraries", lambda: {"numpy": "99.0"})
    assert to_make(costs) == []
    made = drive(costs, strict)
    assert {name for name, _ in made.jobs} >= {"ingest", "tag", "localize", "embed", "clean", "shards"}
    assert calls(costs.parent / "log")["Tagger"] == PARTS


class TestAWordInTheVocabulary:
    def test_that_no_part_has_costs_no_model_a_call(self, costs):
        shards = shard_bytes(costs.parent / "run")
        add_alias(costs, "red", "vermilion")
        engine = drive(costs)
        assert set(engine.stages) <= {"parse", "candidates"}
        assert calls(costs.parent / "log") == {}
        assert shard_bytes(costs.parent / "run") == shards
        assert damaged(costs.parent / "run") == []

    def test_that_one_part_has_costs_the_calls_of_that_part(self, costs):
        run = costs.parent / "run"
        red = [
            row for row in rows_of(run, "clean") if row["part"].endswith(f"{ODD:05d}") and row["tag"] == "red"
        ]
        assert red == []
        add_alias(costs, "red", "Scarlet")
        engine = drive(costs)
        called = calls(costs.parent / "log")
        assert called["Localizer"] == 1
        assert "Tagger" not in called
        assert "Captioner" not in called
        (touched,) = engine.tasks("localize")
        assert touched.endswith(f"{ODD:05d}")
        assert engine.tasks("embed") == [touched]
        (red,) = [r for r in rows_of(run, "clean") if r["part"] == touched and r["tag"] == "red"]
        assert red["given"] == 1
        assert damaged(run) == []

    def test_that_goes_again_costs_nothing(self, costs):
        run = costs.parent / "run"
        shards = shard_bytes(run)
        add_alias(costs, "red", "Scarlet")
        drive(costs)
        calls(costs.parent / "log")
        (costs.parent / "vocabulary.tsv").write_text(VOCABULARY)
        assert drive(costs).jobs == []
        assert calls(costs.parent / "log") == {}
        assert shard_bytes(run) == shards

    def test_leaves_whole_folders_that_share_their_bytes(self, costs):
        run = costs.parent / "run"
        before = {path.name: path.stat().st_ino for path in (run / "tag").glob("*/*.parquet")}
        add_alias(costs, "red", "Scarlet")
        planned = plans(costs)
        assert planned["tag"].is_whole
        drive(costs)
        assert {path.name: path.stat().st_ino for path in (run / "tag").glob("*/*.parquet")} == before
        for generation in (run / "localize").iterdir():
            if generation.is_dir():
                assert len(list(generation.glob("*.parquet"))) == PARTS
        embeds = [path.stat().st_nlink for path in (run / "embed").glob("*/*.parquet")]
        assert sorted(embeds) == [1, 1] + [2] * (2 * PARTS - 2)


def test_parts_are_taken_over_on_a_store_too(costly, tmp_path):
    (tmp_path / "data").symlink_to(costly / "data")
    run = f"memory://costs-{tmp_path.name}"
    config = costs_config(tmp_path, run=run)
    drive(config)
    calls(tmp_path / "log")
    add_alias(config, "red", "Scarlet")
    engine = drive(config)
    assert calls(tmp_path / "log") == {"Embedder": 2, "Localizer": 1}
    assert engine.tasks("localize") == engine.tasks("embed")
    assert damaged(run) == []
    assert drive(config).jobs == []


def filtered(after: str) -> str:
    """The override that puts a filter after a stage."""
    return f"stages=[{{stage: 'own_stages:Unwanted', after: {after}}}]"


def dropped_keys() -> set[str]:
    return {f"squares/{number:06d}" for number in (3, 4, 11)}


def stage_counts(folder: Path) -> dict[str, tuple[int, int]]:
    rows = pq.read_table(folder / "report" / "stages.parquet").to_pylist()
    return {r["stage"]: (r["examples_in"], r["examples_out"]) for r in rows if r["stage"] != "cluster"}


class TestAFilter:
    @pytest.mark.parametrize("after", ["ingest", "duplicates", "candidates"])
    def test_is_heeded_by_every_later_stage_account_and_shard(self, tmp_path, costly, after):
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "data").symlink_to(costly / "data")
        config = costs_config(tmp_path / "it", part_size=5)
        drive(config, filtered(after))
        folder = tmp_path / "it" / "run"
        assert {sample["key"] for sample in samples(folder)}.isdisjoint(dropped_keys())
        counts = stage_counts(folder)
        place = list(counts).index("unwanted")
        assert list(counts)[place - 1] == after
        for number, (name, found) in enumerate(counts.items()):
            came, out = PARTS - 3 * (number > place), PARTS - 3 * (number >= place)
            assert found == (came, out), name
        removed = {row for row in range(PARTS) if f"squares/{row:06d}" in dropped_keys()}
        for name in ("localize", "embed", "clean"):
            rows = rows_of(folder, name)
            assert {int(row["part"][-5:]) * 5 + row["row"] for row in rows}.isdisjoint(removed)
        assert damaged(folder) == []
        assert drive(config, filtered(after)).jobs == []

    def test_that_comes_later_and_goes_again_costs_no_model_a_call(self, costs):
        folder = costs.parent / "run"
        shards, log = shard_bytes(folder), costs.parent / "log"
        filter_ = filtered("duplicates")
        engine = drive(costs, filter_)
        assert calls(log) == {}
        assert not {"tag", "localize", "embed", "caption", "parse", "candidates"} & set(engine.stages)
        assert {sample["key"] for sample in samples(folder)}.isdisjoint(dropped_keys())
        assert len(samples(folder)) == PARTS - 3
        counts = stage_counts(folder)
        assert counts["unwanted"] == (PARTS, PARTS - 3)
        assert {counts[s] for s in ("tag", "localize", "embed", "clean", "shards")} == {(PARTS - 3,) * 2}
        assert damaged(folder) == []
        assert drive(costs, filter_).jobs == []
        example = find_example(RunFolder(str(folder)), "squares/000003")
        assert (example.dropped, example.regions, example.decisions) == ("unwanted: not_wanted", [], [])
        assert drive(costs).jobs == []
        assert calls(log) == {}
        assert shard_bytes(folder) == shards
        assert stage_counts(folder)["tag"] == (PARTS, PARTS)

    def test_that_came_later_makes_no_word_and_no_threshold_dearer(self, costs):
        log, filter_ = costs.parent / "log", filtered("duplicates")
        config = costs_config(costs.parent, part_size=1)
        drive(config, filter_)
        add_alias(config, "red", "vermilion")  # nobody's
        drive(config, filter_)
        assert calls(log) == {}
        drive(config, filter_, "candidate_floor=0.31")  # no other candidates
        assert calls(log) == {}
        add_alias(config, "red", "Scarlet")
        drive(config, filter_)
        assert calls(log) == {"Embedder": 2, "Localizer": 1}
        assert damaged(config.parent / "run") == []

    def test_that_was_there_from_the_start_and_goes_costs_what_it_hid(self, tmp_path, costly):
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "data").symlink_to(costly / "data")
        config = costs_config(tmp_path / "it")
        drive(config, filtered("duplicates"))
        calls(tmp_path / "it" / "log")
        console = Console(width=200)
        with console.capture() as shown:
            show_plan(console, Driver(load_config(str(config))))
        said = shown.get()
        assert "made when 1 of its rows were filtered out" in said
        assert "tag: make 3 of 20 parts" in said
        assert "candidates: up to 3 of 20 parts, as its inputs are made" in said
        assert "cluster: up to 3 of 20 parts" in said
        engine = drive(config)
        assert calls(tmp_path / "it" / "log")["Tagger"] == 3
        assert {task[-5:] for task in engine.tasks("tag")} == {"00003", "00004", "00011"}
        assert len(samples(tmp_path / "it" / "run")) == PARTS
        assert shard_bytes(tmp_path / "it" / "run") == shard_bytes(costly / "run")
