"""Tag2Text's alignment branch against BLIP as transformers has it, and its losses against open_clip's."""

import pytest
import torch
from open_clip.loss import ClipLoss
from pydantic import ValidationError
from transformers.models.blip.configuration_blip import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextModel

from tagmill.models.ram.alignment import Alignment
from tagmill.models.ram.checkpoints import translate
from tagmill.models.ram.config import AlignmentConfig, RamConfig, TextConfig
from tagmill.models.ram.losses import contrastive_loss, matching_loss
from tagmill.models.ram.word_pieces import WordPieces

TEXT = TextConfig(heads=6, layers=3, inner=96, tokens=370, positions=64)
HIDDEN, WIDTH = 48, 64
ENCODE = 369


@pytest.fixture(scope="module")
def blip():
    torch.manual_seed(1)
    config = BlipTextConfig(
        vocab_size=TEXT.tokens,
        hidden_size=HIDDEN,
        encoder_hidden_size=WIDTH,
        intermediate_size=TEXT.inner,
        num_hidden_layers=TEXT.layers,
        num_attention_heads=TEXT.heads,
        max_position_embeddings=TEXT.positions,
        initializer_range=0.3,
        is_decoder=True,
        bos_token_id=1,
        sep_token_id=2,
    )
    return BlipTextModel(config, add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def branch(blip):
    """A branch with the weights of the BLIP, in eval mode; its heads are random."""
    torch.manual_seed(2)
    model = Alignment(AlignmentConfig(dimension=16), TEXT, HIDDEN, WIDTH)
    named = {f"tag_encoder.{name}": value for name, value in blip.state_dict().items()}
    ours = translate(named).weights  # our names for the same modules of another encoder
    weights = {key.replace("text.tag_encoder.", "encoder."): value for key, value in ours.items()}
    missing, extra = model.load_state_dict(weights, strict=False)
    assert extra == []
    heads = {"image_projection", "text_projection", "matching", "scale"}
    assert {name.split(".")[0] for name in missing} == heads
    return model.eval()


@pytest.fixture(scope="module")
def texts(golden):
    """Three captions of different length: ids and their mask."""
    pieces = WordPieces(golden.path("vocab.txt"))
    ids = [torch.tensor(pieces.sentence(text)) for text in ("a dog", "a red car on the road", "two cats")]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return padded, padded != 0


@pytest.fixture(scope="module")
def tokens():
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(3))


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_text_alone_is_read_as_blip_reads_it(branch, blip, texts):
    ids, mask = texts
    theirs = blip(ids, mask.long(), is_decoder=False).last_hidden_state
    close(branch.encoder(ids, mask, None)[mask], theirs[mask])
    features = branch.text_features(ids, mask)
    close(features, torch.nn.functional.normalize(branch.text_projection(theirs[:, 0]), dim=-1))
    close(features.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_a_text_beside_an_image_is_read_as_blip_reads_it(branch, blip, texts, tokens):
    ids, mask = texts
    images = torch.tensor([1, 0, 1])
    asked = torch.cat([torch.full((3, 1), ENCODE), ids[:, 1:]], 1)
    theirs = blip(asked, mask.long(), encoder_hidden_states=tokens[images], is_decoder=False)
    wanted = branch.matching(theirs.last_hidden_state[:, 0])[:, 0]
    ours = branch.match(ids, mask, tokens, images, ENCODE)
    close(ours, wanted)
    alone = [
        branch.match(ids[[i]], mask[[i]], tokens[[image]], torch.tensor([0]), ENCODE)
        for i, image in enumerate(images.tolist())
    ]
    close(ours, torch.cat(alone))
    assert (ours - branch.match(ids, mask, tokens, 1 - images, ENCODE)).abs().min() > 1e-3


def test_sentences_have_berts_own_marks_and_no_prompt(golden):
    pieces = WordPieces(golden.path("vocab.txt"))
    with_prompt, ids = pieces.caption("a dog"), pieces.sentence("a dog")
    assert ids[1:] == with_prompt[len(pieces.prompt) :]
    assert ids[0] not in (pieces.caption_start, pieces.tags_start)
    long = pieces.sentence("a dog " * 40)
    assert (len(long), long[-1]) == (30, pieces.end)


def features(seed, rows=6):
    drawn = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def test_contrast_of_different_captions_is_the_loss_of_clip():
    images, texts, every = features(1), features(2), torch.ones(6, dtype=torch.bool)
    wanted = ClipLoss()(images, texts, torch.tensor(20.0))
    logits, own = 20 * images @ texts.T, torch.eye(6, dtype=torch.bool)
    ours = (contrastive_loss(logits, own, every) + contrastive_loss(logits.T, own, every)) / 2
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_rows_without_text_change_nothing_and_get_no_gradient():
    logits = (20 * features(1) @ features(2).T).requires_grad_()
    has_caption = torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool)
    loss = contrastive_loss(logits, torch.eye(6, dtype=torch.bool) & has_caption, has_caption)
    some = torch.tensor([0, 1, 3, 5])
    fewer = contrastive_loss(logits[some][:, some], torch.eye(4, dtype=torch.bool), has_caption[some])
    assert loss.item() == pytest.approx(fewer.item(), rel=1e-6)
    loss.backward()
    assert logits.grad[~has_caption].abs().sum() == logits.grad[:, ~has_caption].abs().sum() == 0
    assert logits.grad[has_caption][:, has_caption].abs().min() > 0
    none = torch.zeros(6, dtype=torch.bool)
    nothing = contrastive_loss(logits, torch.zeros(6, 6, dtype=torch.bool), none)
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert nothing.item() == gradient.abs().sum().item() == 0


def test_columns_that_fit_alike_share_the_target():
    fits = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    logits, every = 20 * features(4, 3) @ features(5, 3).T, torch.ones(3, dtype=torch.bool)
    wanted = torch.nn.functional.cross_entropy(logits, fits / fits.sum(1, keepdim=True))
    assert contrastive_loss(logits, fits, every).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_matching_is_the_mean_over_valid_pairs():
    logits = torch.tensor([2.0, -1.0, 50.0])
    fits, valid = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    wanted = torch.nn.functional.softplus(torch.tensor([-2.0, -1.0])).mean()
    assert matching_loss(logits, fits, valid).item() == pytest.approx(wanted.item())
    assert matching_loss(logits, fits, ~valid & fits).item() == 0


def test_a_text_side_has_room_for_the_text_of_tags():
    with pytest.raises(ValidationError, match="text must have 40 positions or more"):
        RamConfig(
            kind="tag2text",
            encoder={"name": "resnet18", "stages": (3, 4), "width": 32},
            classes=("dog",),
            text=TextConfig(positions=39),
        )


def test_only_a_tag2text_can_have_it():
    encoder = {"name": "resnet18", "stages": (3, 4), "width": 32}
    with pytest.raises(ValidationError, match="alignment is a branch of tag2text, not of ram"):
        RamConfig(kind="ram", encoder=encoder, classes=("dog",), text=TextConfig(), alignment={})
