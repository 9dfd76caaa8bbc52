"""Contrast and matching of a batch's images and captions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from commands import environment
from tagmill.models.ram.alignment import Alignment
from tagmill.models.ram.config import AlignmentConfig, TextConfig
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.models.training import image_text

TEXT = TextConfig(heads=2, layers=2, inner=64, tokens=1032, positions=64, dropout=0.0)
CAPTIONS = ("a dog", "a cat", "a red car", "hot oil", "a fire truck", "a glass of oil", "a photo", "a car")


@pytest.fixture(scope="module")
def pieces(vocab):
    return WordPieces(Path(vocab))


def branch_of(seed=0):
    torch.manual_seed(seed)
    return Alignment(AlignmentConfig(dimension=16), TEXT, 32, 24)


def tokens_of(rows=8, seed=1):
    return torch.randn(rows, 3, 24, generator=torch.Generator().manual_seed(seed))


def has_caption(*rows):
    return torch.tensor([row in rows for row in range(8)])


def test_it_learns_which_caption_is_of_which_image(pieces):
    branch, tokens = branch_of(), tokens_of()
    optimizer = torch.optim.AdamW(branch.parameters(), 3e-3)
    for step in range(200):
        torch.manual_seed(step)
        terms = image_text.terms(branch, pieces, tokens, CAPTIONS, has_caption(*range(8)))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        assert all(value.grad is not None for value in branch.parameters())
        optimizer.step()
    assert terms["contrastive"] < 0.1
    assert terms["matching"] < 0.1
    with torch.no_grad():
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(pieces.sentence(text)) for text in CAPTIONS], batch_first=True
        )
        mask, each = ids != pieces.padding, torch.arange(8)
        alike = branch.text_features(ids, mask) @ branch.image_features(tokens).T
        assert alike.argmax(1).tolist() == alike.argmax(0).tolist() == list(range(8))
        which, shown = each.repeat_interleave(8), each.repeat(8)
        scores = branch.match(ids[which], mask[which], tokens, shown, pieces.tags_start).view(8, 8)
        assert torch.equal(scores > 0, torch.eye(8, dtype=torch.bool))


def test_rows_without_caption_are_in_no_pair(pieces):
    branch, some = branch_of(), [0, 2, 3, 7]
    tokens = tokens_of().requires_grad_()
    captions = [text if row in some else "" for row, text in enumerate(CAPTIONS)]
    terms = image_text.terms(branch, pieces, tokens, captions, has_caption(*some))
    sum(terms.values()).backward()
    rows = tokens.grad.abs().sum((1, 2))
    assert ((rows > 0) == has_caption(*some)).all()
    fewer = image_text.terms(
        branch, pieces, tokens_of()[some], [CAPTIONS[row] for row in some], has_caption(0, 1, 2, 3)[:4]
    )
    assert terms["contrastive"].item() == pytest.approx(fewer["contrastive"].item(), rel=1e-5)
    nothing = image_text.terms(branch, pieces, tokens_of(), [""] * 8, has_caption())
    assert [value.item() for value in nothing.values()] == [0, 0]
    sum(nothing.values()).backward()
    assert all(value.grad.isfinite().all() for value in branch.parameters())


def test_equal_captions_are_no_opposites(pieces):
    branch, tokens = branch_of(), tokens_of()
    same = image_text.terms(branch, pieces, tokens, ["a dog"] * 8, has_caption(*range(8)))
    ids = torch.tensor([pieces.sentence("a dog")] * 8)
    own = branch.match(ids, ids != pieces.padding, tokens, torch.arange(8), pieces.tags_start)
    wanted = torch.nn.functional.softplus(-own).mean()
    assert same["matching"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_what_is_alike_is_drawn_more_often():
    alike = torch.zeros(4, 4)
    alike[0, 2] = 2.0
    keys = torch.tensor([5, 6, 7, 0])
    torch.manual_seed(0)
    drawn = torch.stack([image_text._draw(alike, keys) for _ in range(1000)])
    counts = drawn[:, 0].bincount(minlength=4)
    assert counts[0] == counts[3] == 0
    assert counts[2] / counts[1] == pytest.approx(torch.e**2, rel=0.25)
    assert (drawn[:, 1] != 1).all()
    alike[1] = float("nan")  # the loss is not finite then, which is for others to say
    assert image_text._draw(alike, keys)[1] in (0, 2)


RANKS = """
import json, sys, torch
from tagmill.models.training.process import join_process_group
from tagmill.models.ram.losses import contrastive_loss
torch.set_num_threads(1)
with join_process_group("cpu") as process:
    drawn = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    if process.first:
        alone = drawn.clone().requires_grad_()
        own, every = torch.eye(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
        whole = contrastive_loss(alone[0] @ alone[1].T, own, every)
        whole.backward()
    own = slice(process.rank * 3, process.rank * 3 + 3)
    mine = drawn[:, own].clone().requires_grad_()
    keys = torch.arange(6)
    fits = keys[own, None] == process.all_gather(keys[own])
    loss = contrastive_loss(mine[0] @ process.all_gather(mine[1]).T, fits, torch.ones(6, dtype=torch.bool))
    loss.backward()
    gradients = process.all_gather(mine.grad.transpose(0, 1)).transpose(0, 1) / 2
    mean = process.mean(loss.detach())
    if process.first:
        distance = (gradients - alone.grad).abs().max()
        print(json.dumps([mean.item() - whole.item(), distance.item(), alone.grad.abs().max().item()]))
"""


def test_two_processes_draw_the_contrast_of_one(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "ranks.py")], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    loss, gradient, size = json.loads(done.stdout)
    assert abs(loss) < 1e-6
    assert gradient < 1e-6 < 1e-2 < size
