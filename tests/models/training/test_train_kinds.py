"""Trainings of every kind of model, by all the terms that it has."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from tagmill.models.ram import store
from trainings import MODEL, TEXT, lines, trainer_of, weights

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
    row = json.loads((Path(values["out"]) / "log.jsonl").read_text().splitlines()[1])
    terms = TERMS[name]
    assert all(row[term] > 0 for term in terms)
    balanced = row["tagging"] if kind == "ram_plus" else 2 * row["caption"]
    total = balanced + sum(row[term] for term in terms if term not in ("tagging", "caption"))
    assert row["total"] == pytest.approx(total, rel=1e-4)
    changed = {name for name, value in one.model.named_parameters() if not torch.equal(value, before[name])}
    frozen = set() if kind == "tag2text" else {"label_embed"}
    assert set(before) - changed == frozen
    assert store.load(Path(values["out"]) / "last").config == one.model.config
    card = ModelCard.load(Path(values["out"]) / "last" / "README.md")
    task = "image-to-text" if kind == "tag2text" else "image-classification"
    assert (card.data.pipeline_tag, card.data.eval_results[0].task_type) == (task, "image-classification")
    assert ("--captioner" in card.text) == (kind == "tag2text")
    assert ("losses.t" in card.text) == (name == "aligned")  # all else is as it was published


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
    deeper = values_of("deeper", init=init, losses={"terms": None}, epochs=1)
    deeper["model"] = {"alignment": {"dimension": 8}, "text": {**TEXT, "layers": 3}}
    grown = trainer_of(deeper).model.alignment.encoder.layers
    for layer in (0, 1):
        known = weights(plain)[f"text.tag_encoder.layers.{layer}.attention.key.weight"]
        assert torch.equal(grown[layer].attention.key.weight, known)
    without = values_of("without", init=str(Path(whole["out"]) / "last"), losses={"terms": None}, epochs=1)
    without["model"] = {"alignment": None}
    assert trainer_of(without).model.alignment is None
