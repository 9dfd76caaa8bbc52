"""The text side against what the official implementation gives, from its image encoder's output on."""

import pytest
import torch

from tagmill.models.ram.beam_search import Search
from tagmill.models.ram.checkpoints import translate
from tagmill.models.ram.losses import balanced_loss, tagging_loss
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.ram.word_pieces import WordPieces


@pytest.fixture(scope="module")
def expected(golden):
    return golden.tensors("tag2text_expected")


@pytest.fixture(scope="module")
def wanted(golden):
    return golden.values("tag2text_expected")


@pytest.fixture(scope="module")
def model(golden):
    return golden.tag2text()


@pytest.fixture(scope="module")
def pieces(golden):
    return WordPieces(golden.path("vocab.txt"))


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() < tolerance


def caption_loss(model, expected):
    tokens = expected["infer.visual.output"]
    read = model.text.read(expected["train.tag_input_ids"], expected["train.tag_attention_mask"], tokens)
    return model.text.loss(
        read, expected["train.decoder_input_ids"], expected["train.decoder_attention_mask"], 4
    )


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_logits(model, expected, gradients):
    tokens = expected["infer.visual.output"]
    with torch.set_grad_enabled(gradients):
        close(model.score(tokens), expected["infer.logits"], 2e-5)
        some = torch.tensor([39, 0, 7])
        close(model.score(tokens, some), expected["infer.logits"][:, some], 2e-5)


def test_tags_are_those_above_the_threshold_that_may_be_told(golden, expected, wanted):
    scores, config = expected["infer.logits"].sigmoid(), golden.tag2text_config()
    found_tags = [
        [i for i, score in enumerate(row) if score > config.thresholds[i] and i not in config.silent]
        for row in scores.tolist()
    ]
    assert [" | ".join(config.classes[i] for i in row) for row in found_tags] == wanted["tags"]


@torch.no_grad()
def test_tag_encoder_and_decoder(model, expected):
    ids, mask = expected["train.tag_input_ids"], expected["train.tag_attention_mask"]
    read = model.text.read(ids, mask, expected["infer.visual.output"])
    close(read, expected["train.tag_encoder_output"], 2e-5)
    texts = expected["train.decoder_input_ids"], expected["train.decoder_attention_mask"]
    close(model.text.predict(read, *texts)[:, :, ::7], expected["train.decoder_logits.every7"], 5e-5)


def test_caption_loss_and_its_gradients(golden, expected, wanted):
    model = golden.tag2text()
    loss = caption_loss(model, expected)
    assert loss.item() == pytest.approx(wanted["loss_t2t"], rel=1e-6)
    loss.backward()
    norms = translate({name: torch.tensor(norm) for name, norm in wanted["grad_norms"].items()}).weights
    ours = {name: value for name, value in model.named_parameters() if name in norms}
    assert len(ours) > 100
    for name, parameter in ours.items():
        assert parameter.grad.norm().item() == pytest.approx(norms[name].item(), rel=1e-3, abs=1e-5), name


def test_both_losses_weigh_the_same(golden, expected, wanted):
    model = golden.tag2text()
    targets = golden.tensors("inputs")["parse_tag"]
    tagging = tagging_loss(model.score(expected["infer.visual.output"]), targets)
    assert tagging.item() == pytest.approx(wanted["loss_tag"], rel=1e-5)
    caption = caption_loss(model, expected)
    assert balanced_loss(caption, tagging).item() == pytest.approx(2 * caption.item(), rel=1e-6)


def written(model, pieces, expected, tags, how, images=(0, 1, 2)):
    ids = torch.tensor([pieces.tags(text.split(" | ")) for text in tags])
    with torch.no_grad():
        read = model.text.read(ids, ids != 0, expected["infer.visual.output"][list(images)])
    return model.text.write(read, pieces.prompt, pieces.end, how)


CASES = ["default", "inference_tag2text", "user_tags", "beam5_min5", "greedy_rep", "short_max", "long_min"]
CASES += ["beam4_rep"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", ["generated", "all"])
def test_captions_in_a_batch_and_alone(model, pieces, expected, wanted, case, length):
    rows = [row for row in wanted["captions"][length] if row["case"] == case]
    assert [row["image"] for row in rows] == [0, 1, 2]
    how = {"beams" if name == "num_beams" else name: value for name, value in rows[0]["args"].items()}
    how = Search(**how, length=length)
    together = written(model, pieces, expected, [row["tags"] for row in rows], how)
    for image, (row, found) in enumerate(zip(rows, together, strict=True)):
        assert found.ids == row["token_ids"]
        assert pieces.text(found.ids) == row["caption"]
        assert found.score == pytest.approx(row["sequence_score"], abs=1e-5)
        assert written(model, pieces, expected, [row["tags"]], how, [image])[0].ids == found.ids


@torch.no_grad()
def test_remembered_tokens_change_nothing(model, expected):
    seen = model.text.decoder.see(expected["train.tag_encoder_output"])
    ids = expected["train.decoder_input_ids"][:, :12]
    whole, _ = model.text.decoder(ids, seen)
    past, parts = [], []
    for part in ids.split([4, 1, 1, 3, 1, 1, 1], 1):
        logits, past = model.text.decoder(part, seen, past)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_a_model_without_text_side_is_refused(golden):
    with pytest.raises(ValueError, match="needs a text side"):
        Tag2Text(golden.config())
