import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiny_models
from commands import environment, start
from stage_runs import shared
from tagmill.models.ram import store
from tagmill.models.ram.tagger import RamTagger
from tagmill.models.training import objectives
from tagmill.models.training.place import Place
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.schedule import ScheduleConfig, learning_rate
from tagmill.models.training.train import Trainer
from tagmill.runners.train import read_recipe, train
from tagmill.tag_system.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.features import Features, FeaturesConfig
from tagmill.transforms.stage import PartTask, make_part

CLASSES = ["red", "green square", "blue", "yellow"]
MODEL = {
    "image_size": 32,
    "encoder": {
        "name": "resnet18",
        "arguments": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
        "stages": [3, 4],
        "width": 16,
    },
    "dimension": 24,
    "head": {"hidden": 16, "heads": 2, "layers": 1, "inner": 32, "dropout": 0.1},
}
TEXT = {"heads": 2, "layers": 2, "inner": 32, "tokens": 1032, "positions": 64}
HERE = Place(torch.device("cpu"))
EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "train.yaml"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return f"local-dir:{tiny_models.open_clip(tmp_path_factory.mktemp('clip'))}"


@pytest.fixture(scope="module")
def vocab(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(tiny_models.word_pieces()) + "\n")
    return str(path)


@pytest.fixture
def values_of(shards, clip, tmp_path):
    """Makes recipes as YAML has them: tags only, an epoch is 3 steps of 4 samples."""

    def make(out="out", **changes):
        values = {
            "out": str(tmp_path / out),
            "model": MODEL,
            "classes": CLASSES,
            "clip": {"model": clip, "device": "cpu"},
            "data": {"datasets": [{"path": str(shards), "name": "squares"}], "batch_size": 4, "workers": 0},
            "losses": {"terms": ["tagging"]},
            "schedule": {"learning_rate": 0.003, "warmup_steps": 2, "decay": "cosine", "every": "step"},
            "engine": {"device": "cpu"},
            "epochs": 2,
            "log_every": 1,
        }
        for name, value in changes.items():
            merge = isinstance(values.get(name), dict) and isinstance(value, dict)
            values[name] = {**values[name], **value} if merge else value
        return values

    return make


def trainer_of(values, **how):
    return Trainer(Recipe.model_validate(values), HERE, **how)


def watched(trainer):
    """Remember the ids of every batch that the trainer takes."""
    seen, backward = [], trainer._backward

    def note(batch, at, count):
        seen.append(batch.ids)
        return backward(batch, at, count)

    trainer._backward = note
    return seen


def lines(values):
    kept = ("step", "position", "total", "tagging", "gradient", "rate", "val_tagging")
    rows = [json.loads(line) for line in (Path(values["out"]) / "log.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in kept if name in row} for row in rows]


def weights(values):
    return load_file(Path(values["out"]) / "last" / "model.safetensors")


def test_a_few_steps_lower_the_loss_and_leave_a_tagger(values_of):
    values = values_of(
        epochs=8,
        schedule={"learning_rate": 0.01},
        model={**MODEL, "head": {"hidden": 16, "heads": 2, "layers": 1, "inner": 32, "dropout": 0.0}},
    )
    assert trainer_of(values).run()
    losses = [line["val_tagging"] for line in lines(values) if "val_tagging" in line]
    assert min(losses) < 0.8 * losses[0]
    out = Path(values["out"])
    best = json.loads((out / "best" / "state.json").read_text())
    assert best["best"] == min(losses)
    tagger = RamTagger(str(out / "last"), device="cpu")
    tagger.load()
    assert list(tagger.classes) == CLASSES
    assert len({path.resolve() for path in (out / "steps").iterdir()}) <= 2
    embeddings = load_file(out / "last" / "model.safetensors")["label_embed"]
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("stop", "engine"),
    [(2, {}), (3, {"ema": 0.9}), (3, {"accumulate": 2, "clip_norm": 1.0}), (4, {"precision": "bfloat16"})],
    ids=["plain", "ema", "accumulated", "half"],
)
def test_resuming_is_exact_to_the_bit(values_of, stop, engine):
    whole, parts = values_of("whole", engine=engine), values_of("parts", engine=engine)
    expected, first = trainer_of(whole), trainer_of(parts)
    wanted, seen = watched(expected), watched(first)
    assert expected.run()
    assert not first.run(until=stop)
    second = trainer_of(parts, resume=True)
    again = watched(second)
    assert second.run()
    assert seen + again == wanted
    assert lines(parts) == lines(whole)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_accumulated_batches_make_the_gradient_of_one_large_batch(values_of):
    still = {"head": {**MODEL["head"], "dropout": 0.0}}
    rows = []
    for size, accumulate in ((4, 1), (2, 2)):
        values = values_of(
            f"a{size}", model=still, engine={"accumulate": accumulate}, data={"batch_size": size}
        )
        one = trainer_of(values)
        one.model.eval()  # batch statistics are those of a batch
        one.run(until=1)
        rows.append(lines(values)[0])
    assert rows[0]["gradient"] == pytest.approx(rows[1]["gradient"], rel=1e-4)
    assert rows[0]["total"] == pytest.approx(rows[1]["total"], rel=1e-5)


RANKS = """
import json, sys, torch
from pathlib import Path
from tagmill.models.training.place import take_place
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.train import Trainer
torch.set_num_threads(1)
values = json.loads(Path(sys.argv[1]).read_text())
seen = []
with take_place("cpu") as place:
    trainer = Trainer(Recipe.model_validate(values), place, resume=len(sys.argv) > 2)
    backward = trainer._backward
    trainer._backward = lambda batch, at, count: (seen.append(batch.ids), backward(batch, at, count))[1]
    trainer.run()
    sums = {name: value.double().sum().item() for name, value in trainer.model.named_parameters()}
    Path(values["out"], f"rank{place.rank}.json").write_text(json.dumps([seen, sums]))
"""


def test_two_ranks_take_the_samples_of_one_and_end_alike(values_of, tmp_path):
    alone, both = values_of("alone"), values_of("both", data={"batch_size": 2})
    first = trainer_of(alone)
    wanted = watched(first)
    first.run()
    begun = trainer_of({**both, "data": {**both["data"], "batch_size": 4}})
    before = watched(begun)
    begun.run(until=1)
    (tmp_path / "recipe.json").write_text(json.dumps(both))
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "ranks.py"), str(tmp_path / "recipe.json"), "resume"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((Path(both["out"]) / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0][1] == ranks[1][1]
    seen = [
        sorted(tuple(name) for name in [*left, *right])
        for left, right in zip(ranks[0][0], ranks[1][0], strict=True)
    ]
    assert [sorted(ids) for ids in [*before]] + seen == [sorted(ids) for ids in wanted]


def test_sigterm_saves_and_the_same_command_goes_on(values_of, tmp_path):
    values = values_of(epochs=500, validate=False)
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    process = start("train", config)
    log = Path(values["out"]) / "log.jsonl"
    deadline = time.monotonic() + 200
    while not (log.exists() and len(log.read_text().splitlines()) > 5) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143, err
    step = json.loads((Path(values["out"]) / "last" / "state.json").read_text())["step"]
    assert step == lines(values)[-1]["step"]
    assert f"last is step {step}" in out
    resumed = trainer_of(values, resume=True)
    assert resumed.run(until=step + 2) is False
    assert [line["step"] for line in lines(values)] == list(range(1, step + 3))


def test_a_loss_that_is_not_finite_stops_and_spoils_nothing(values_of, monkeypatch):
    values = values_of(save_every=1)
    monkeypatch.setattr(
        objectives, "asymmetric_loss", lambda logits, *_, **__: logits.sum() * (math.nan if broken else 1.0)
    )
    broken = False
    one = trainer_of(values)
    one.run(until=1)
    kept = weights(values)
    broken = True
    with pytest.raises(ConfigError, match=r"step 2 is not finite \(tagging nan.*--resume"):
        trainer_of(values, resume=True).run()
    assert all(torch.equal(value, weights(values)[name]) for name, value in kept.items())


TERMS = {
    "ram_plus": ["tagging", "distillation", "alignment"],
    "ram": ["tagging", "distillation", "caption"],
    "tag2text": ["tagging", "caption"],
    "aligned": ["tagging", "caption", "contrastive", "matching"],
}


@pytest.mark.parametrize("name", TERMS)
def test_every_kind_learns_all_its_terms(values_of, vocab, name):
    kind = "tag2text" if name == "aligned" else name
    model = {**MODEL, "text": None if kind == "ram_plus" else TEXT, "kind": kind}
    model |= {"alignment": {"dimension": 8}} if name == "aligned" else {}
    losses = {"terms": None, "target": "mentioned" if kind == "tag2text" else "decided"}
    clip = None if kind == "tag2text" else values_of()["clip"]
    values = values_of(
        model=model, losses=losses, vocab=vocab, clip=clip, epochs=1, engine={"checkpointing": True}
    )
    one = trainer_of(values)
    before = {name: value.clone() for name, value in one.model.named_parameters()}
    assert one.run()
    row = json.loads((Path(values["out"]) / "log.jsonl").read_text().splitlines()[0])
    terms = TERMS[name]
    assert all(row[term] > 0 for term in terms)
    balanced = row["tagging"] if kind == "ram_plus" else 2 * row["caption"]
    total = balanced + sum(row[term] for term in terms if term not in ("tagging", "caption"))
    assert row["total"] == pytest.approx(total, rel=1e-4)
    changed = {name for name, value in one.model.named_parameters() if not torch.equal(value, before[name])}
    frozen = set() if kind == "tag2text" else {"label_embed"}
    assert set(before) - changed == frozen
    assert store.load(Path(values["out"]) / "last").config == one.model.config


@pytest.mark.parametrize("kind", ["ram", "tag2text"])
def test_a_few_steps_lower_the_losses_of_the_kinds_that_caption(values_of, vocab, kind):
    values = values_of(
        model={
            **MODEL,
            "head": {**MODEL["head"], "dropout": 0.0},
            "text": {**TEXT, "dropout": 0.0},
            "kind": kind,
        },
        losses={"terms": None},
        vocab=vocab,
        epochs=8,
        schedule={"learning_rate": 0.01},
        engine={"clip_norm": 1.0},
        validate=False,
    )
    assert trainer_of(values).run()
    totals = [row["total"] for row in lines(values)]
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3])


def test_a_new_alignment_branch_reads_as_the_tag_encoder_does(values_of, vocab):
    plain = values_of(
        "plain",
        model={**MODEL, "text": TEXT, "kind": "tag2text"},
        losses={"terms": None},
        vocab=vocab,
        epochs=1,
    )
    trainer_of(plain).run()
    init = str(Path(plain["out"]) / "last")
    aligned = values_of("aligned", init=init, losses={"terms": None}, epochs=1)
    aligned["model"] = {"alignment": {"dimension": 8}}
    one = trainer_of(aligned)
    model = one.model.eval()
    ids, tokens = torch.tensor([[5, 6, 7]]), torch.randn(1, 4, 16)
    read = model.text.read(ids, ids > 0, tokens)
    assert torch.equal(model.alignment.encoder(ids, ids > 0, tokens), read)
    model.train()
    assert not one.run(until=1)
    resumed = trainer_of(aligned, resume=True)
    assert resumed.run()
    whole = {**aligned, "out": aligned["out"] + "-whole"}
    assert trainer_of(whole).run()
    ours, theirs = weights(aligned), weights(whole)
    assert any(name.startswith("alignment.") for name in theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    without = values_of("without", init=str(Path(whole["out"]) / "last"), losses={"terms": None}, epochs=1)
    without["model"] = {"alignment": None}
    assert trainer_of(without).model.alignment is None


def test_new_tags_are_added_to_a_trained_model(values_of):
    first = values_of("first", epochs=1)
    trainer_of(first).run()
    init = str(Path(first["out"]) / "last")
    second = values_of("second", init=init, model={}, classes=["tidy", "Green_Square", "red"], epochs=1)
    second["model"] = {}
    one = trainer_of(second)
    old, new = weights(first)["label_embed"], one.model.label_embed
    assert torch.equal(new[1:], old[[1, 0]])
    assert new[0].norm().item() == pytest.approx(1, abs=1e-5)
    without = {name: value for name, value in second.items() if name != "clip"}
    with pytest.raises(ConfigError, match=r"1 classes have no label embedding yet \(tidy\): name by clip"):
        trainer_of(without)


def test_classes_are_by_default_the_dataset_s(values_of, shards):
    values = values_of(epochs=1)
    del values["classes"]
    one = trainer_of(values)
    assert list(one.model.config.classes) == [t.name for t in Vocabulary.load(str(shards / "vocabulary.tsv"))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, "unknown key speed"),
        ({"engine": {"precision": "float8"}}, "engine.precision"),
        ({"losses": {"terms": ["caption", "tagging"]}}, "a ram_plus has no caption"),
        ({"losses": {"terms": None}, "clip": None}, "needs a teacher"),
        ({"labels": {"templates": ["a {}", "the {}"]}}, "labels give 2 sentences a class"),
        ({"model": {**MODEL, "dimension": 16}}, "clip gives 24 numbers a text, the model's dimension is 16"),
        ({"model": {**MODEL, "kind": "ram", "text": TEXT}}, "vocab: a text side needs"),
        ({"trunk": "nothing.safetensors"}, "cannot read the checkpoint"),
        ({"model": {**MODEL, "heads": 3}}, "model: heads"),
    ],
)
def test_a_bad_recipe_is_one_line(values_of, tmp_path, changes, message):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values_of(**changes)))
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")) as caught:
        Trainer(read_recipe(str(config), []), HERE)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_a_folder_with_a_training(values_of, tmp_path):
    values = values_of(epochs=1)
    trainer_of(values).run()
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="has a training already: go on by --resume"):
        train(str(config))


def test_the_decisions_of_another_run_are_those_of_the_start(values_of, finished, tmp_path, capsys):
    values = values_of(epochs=1, data={"decisions": str(finished / "run")})
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    assert train(str(config)) == 0
    assert "on 22 examples go before those of the shards" in capsys.readouterr().out
    laid = Path(values["out"]) / "decisions" / "decisions.json"
    before = laid.stat()
    assert train(str(config), resume=True) == 0
    assert laid.stat() == before
    stranger = yaml.safe_dump({**values, "out": str(tmp_path / "b"), "classes": ["red"]})
    config.write_text(stranger.replace(str(finished / "run"), str(tmp_path)))
    with pytest.raises(ConfigError, match="in which the stage clean is done"):
        train(str(config))


def test_stored_features_train_without_a_clip(values_of, shards, clip, tmp_path):
    first = values_of("first", epochs=1)
    trainer_of(first).run()
    options = {"model": clip, "device": "cpu"}
    stage = Features(FeaturesConfig(model="open-clip", options=options), shared())
    stage.setup()
    for index in shards.glob("train-*.index.parquet"):
        name = index.name.removesuffix(".index.parquet")
        make_part(stage, str(tmp_path / "f"), PartTask(name, "f", {"shards": str(index)}, str(shards)))
    datasets = [{"path": str(shards), "features": str(tmp_path / "f")}]
    losses = {"terms": ["tagging", "distillation"]}
    init = str(Path(first["out"]) / "last")
    values = values_of("second", init=init, clip=None, losses=losses, data={"datasets": datasets}, epochs=1)
    values["model"] = {}
    assert trainer_of(values).run()
    rows = [json.loads(row) for row in (Path(values["out"]) / "log.jsonl").read_text().splitlines()]
    assert all(row["distillation"] > 0 for row in rows if "distillation" in row)
    assert sum("distillation" in row for row in rows) == 3


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the documents are not beside the tests")
def test_the_documented_recipe_is_one():
    recipe = read_recipe(str(EXAMPLE), [])
    assert (recipe.losses.terms, recipe.engine.ema) == (None, 0.99)


def test_the_learning_rates_are_the_official_ones():
    paper = ScheduleConfig()
    official = {0: 5e-7, 1: 5.331666666666666e-07, 1500: 5.025000000000001e-05, 3000: 1e-4, 5000: 1e-4}
    for step, rate in official.items():
        assert learning_rate(paper, step, step / 10_000, 5) == pytest.approx(rate)
    for epoch, rate in {1: 9e-5, 2: 8.1e-5, 4: 6.561e-5, 60: 5e-7}.items():
        assert learning_rate(paper, 10_000 * epoch, epoch, 5) == pytest.approx(rate)
    cosine = ScheduleConfig(learning_rate=5e-6, decay="cosine", floor=0, warmup_steps=0)
    for epoch, rate in {0: 5e-6, 1: 2.5e-6, 2: 0.0}.items():
        assert learning_rate(cosine, 100 * epoch, epoch, 2) == pytest.approx(rate)
