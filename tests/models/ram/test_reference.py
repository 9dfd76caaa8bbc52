"""Whole converted checkpoints against what the official implementation gives, and its full-size key lists.

The tests beside this one take what fits into the repository; this one takes all of ../shared/reference.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tagmill.models.ram import checkpoints, store
from tagmill.models.ram.beam_search import Search
from tagmill.models.ram.convert import convert, infer
from tagmill.models.ram.losses import balanced_loss, distillation_loss, tagging_loss
from tagmill.models.ram.word_pieces import WordPieces

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
MINI = REFERENCE / "mini"

pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="needs the reference values of ../shared")

FULL_SIZE = {"ram": 4585, "ram_plus": 4585, "tag2text": 3429}


def values(path):
    return json.loads(path.read_text())


def close(ours, theirs, tolerance=2e-5):
    """Equal but for rounding, which grows with the numbers and differs between processors."""
    assert ours.shape == theirs.shape
    largest = max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() < tolerance * largest


class Mini:
    """One of the three small models, as `tagmill models convert` makes it, and what it must give."""

    def __init__(self, kind, folder):
        self.folder, sizes = folder, values(MINI / "config.json")
        thresholds = [0.55] * 40 if kind == "tag2text" else sizes["thresholds"]
        self.config = convert(
            MINI / kind / "model.pth",
            folder,
            classes=sizes["tag_list"],
            thresholds=thresholds,
            vocab=MINI / "vocab.txt",
            text_heads=6,
        ).config
        self.silent = sizes["delete_tag_index"]
        self.model = store.load(folder)
        self.inputs = load_file(MINI / "inputs.safetensors")
        self.tensors = load_file(MINI / kind / "expected.safetensors")
        self.values = values(MINI / kind / "expected.json")
        self.pieces = WordPieces(folder / "vocab.txt") if self.config.text else None

    def tags(self, logits):
        limits = torch.tensor(self.config.thresholds)
        seen = logits.sigmoid() > limits
        seen[:, self.silent] = False
        return seen, [" | ".join(self.config.classes[i] for i in row.nonzero().flatten()) for row in seen]

    def read(self, tags):
        ids = torch.tensor([self.pieces.tags(text.split(" | ")) for text in tags])
        return self.model.text.read(ids, ids != self.pieces.padding, self.model.encode(self.inputs["image"]))

    def caption_loss(self, tokens):
        data = self.tensors
        read = self.model.text.read(data["train.tag_input_ids"], data["train.tag_attention_mask"], tokens)
        ids, mask = data["train.decoder_input_ids"], data["train.decoder_attention_mask"]
        return self.model.text.loss(read, ids, mask, len(self.pieces.prompt))


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    found = {}

    def get(kind):
        if kind not in found:
            found[kind] = Mini(kind, tmp_path_factory.mktemp("converted") / kind)
        return found[kind]

    return get


@pytest.mark.parametrize("kind", FULL_SIZE)
def test_every_key_of_the_full_size_model_is_ours(kind):
    listed = values(REFERENCE / f"{kind}_state_dict.json")
    # One number, repeated without memory: names and shapes are all that counts.
    published = {
        key: torch.zeros((), dtype=getattr(torch, row["dtype"])).expand(row["shape"])
        for key, row in listed["tensors"].items()
    }
    translated = checkpoints.translate(published)
    config = infer(translated.weights, [str(i) for i in range(FULL_SIZE[kind])])
    assert (config.kind, config.image_size) == (kind, 384)
    assert config.descriptions == (51 if kind == "ram_plus" else 1)
    with torch.device("meta"):
        ours = store.build(config)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert {name: value.shape for name, value in translated.weights.items()} == shapes
    assert sum(value.numel() for value in ours.parameters()) == listed["n_unique_parameters"]
    lost = {key for key, reason in translated.dropped.items() if not reason.startswith("the same as")}
    assert {listed["tensors"][key]["kind"] for key in lost} <= {"buffer"}


@torch.no_grad()
@pytest.mark.parametrize("kind", FULL_SIZE)
def test_converted_checkpoints_give_the_official_logits_and_tags(mini, kind):
    one = mini(kind)
    logits = one.model(one.inputs["image"])
    close(logits, one.tensors["infer.logits"])
    seen, tags = one.tags(logits)
    assert torch.equal(seen, one.tensors["infer.targets"].bool())
    assert tags == one.values["tags"]
    double = store.load(one.folder).double()(one.inputs["image"].double())
    close(double, one.tensors["infer.logits_float64"], 1e-9)


@torch.no_grad()
def test_ram_scores_other_classes_and_some_of_its_own(mini):
    one = mini("ram")
    tokens = one.model.encode(one.inputs["image"])
    close(
        one.model.score(tokens, one.inputs["label_embed_open_ram"].unsqueeze(1)),
        one.tensors["openset.logits"],
    )
    some = one.values["subset_class_indices"]
    close(one.model.score(tokens, one.model.labels[some]), one.tensors["subset.logits"])


@pytest.mark.parametrize("kind", ["ram", "tag2text"])
def test_losses_of_the_models_with_a_text_side(mini, kind):
    one = mini(kind)
    tokens = one.model.encode(one.inputs["image"])
    targets = one.inputs["image_tag" if kind == "ram" else "parse_tag"]
    found = {
        "loss_t2t": one.caption_loss(tokens),
        "loss_tag": tagging_loss(one.model.score(tokens), targets),
    }
    total = balanced_loss(found["loss_t2t"], found["loss_tag"])
    if kind == "ram":
        found["loss_dis"] = distillation_loss(tokens, one.inputs["clip_feature"])
        total = total + found["loss_dis"]
    for name, loss in (found | {"total": total}).items():
        assert loss.item() == pytest.approx(one.values["losses"][name], rel=2e-6), name
    total.backward()
    head = {first: second for first, second, *_ in one.values["parameter_ties"]}
    norms = one.values["grad_norms"]["train_total"]
    norms = {head.get(name, name): torch.tensor(norm) for name, norm in norms.items()}
    norms = checkpoints.translate(norms).weights
    trained = {name: value for name, value in one.model.named_parameters() if value.requires_grad}
    assert set(norms) == set(trained)
    for name, parameter in trained.items():
        wanted = norms[name].item()
        assert parameter.grad.norm().item() == pytest.approx(wanted, rel=1e-3, abs=1e-4), name


@torch.no_grad()
@pytest.mark.parametrize("length", ["generated", "all"])
@pytest.mark.parametrize(
    ("kind", "listed"), [("tag2text", "captions_official_generate"), ("ram", "captions_composed")]
)
def test_every_caption_from_the_pixels_on(mini, kind, listed, length):
    one = mini(kind)
    rows = one.values[listed if length == "generated" else f"{listed}_transformers_4_25_1"]
    assert len(rows) == {"tag2text": 24, "ram": 6}[kind]
    _, own = one.tags(one.model(one.inputs["image"]))
    for case in dict.fromkeys(row["case"] for row in rows):
        batch = [row for row in rows if row["case"] == case]
        given = [row["tag_input"] for row in batch]
        arguments = {name.replace("num_beams", "beams"): value for name, value in batch[0]["args"].items()}
        found = one.model.text.write(
            one.read([ours if tags is None else tags for tags, ours in zip(given, own, strict=True)]),
            one.pieces.prompt,
            one.pieces.end,
            Search(**arguments, length=length),
        )
        assert [one.pieces.text(text.ids) for text in found] == [row["caption"] for row in batch], case
        assert [text.ids for text in found] == [row["token_ids"] for row in batch], case
        scores = [row["sequence_score"] for row in batch]
        assert [text.score for text in found] == pytest.approx(scores, abs=1e-5)
