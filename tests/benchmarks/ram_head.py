"""The head of RAM++ at its published size against the published formula written down plainly.

    python tests/benchmarks/ram_head.py [--threads N] [--rounds N] [--batch 1 4] [--classes N]

Both use the same weights (random) and the same image tokens, turn by turn in one run; printed are medians
of the CPU seconds, their ratio, what each adds to the peak of memory, and the largest differences of logits
and gradients. A training step is the tagging loss and its gradients, without optimizer. Ratios
hold for one machine and one number of threads.
"""

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from figures import say
from torch import Tensor

from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.ram.losses import tagging_loss
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.ram.streaming import streamed_loss

DESCRIPTIONS, TOKENS = 51, 145
SHOWN = 0.005
"""Share of the classes that an image shows, as in the published training data."""


def model_of(classes: int) -> RamPlus:
    """RAM++ with a head of the published size behind a tiny encoder, which is not run."""
    torch.manual_seed(0)
    encoder = EncoderConfig(name="resnet18", arguments={"channels": (8, 8, 8, 8)}, stages=(4,), width=8)
    names = [str(i) for i in range(classes)]
    model = RamPlus(RamConfig(encoder=encoder, classes=names, descriptions=DESCRIPTIONS)).eval()
    model.set_labels(F.normalize(torch.randn(classes * DESCRIPTIONS, 512), dim=1))
    return model


def plain_describe(model: RamPlus, tokens: Tensor) -> Tensor:
    """Weight the descriptions image by image, in products of the size of all label embeddings."""
    described = []
    for image in tokens[:, 0]:
        products = model.reweight_scale.exp() * (image / image.norm()) @ model.label_embed.T
        weights = products.view(-1, DESCRIPTIONS).softmax(1)
        described.append((weights[:, :, None] * model.labels).sum(1))
    return torch.stack(described)


def plain_score(model: RamPlus, tokens: Tensor) -> Tensor:
    """Every class through every layer at once, each projection by itself."""
    rows = F.relu(model.label_projection(plain_describe(model, tokens)))
    for layer in model.head.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        query, key, value = (
            part.unflatten(2, (attention.heads, -1)).transpose(1, 2)
            for part in (attention.query(rows), attention.key(tokens), attention.value(tokens))
        )
        weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(3)
        rows = attention.norm(rows + attention.output((weights @ value).transpose(1, 2).flatten(2)))
        rows = feed_forward.norm(rows + feed_forward.output(F.gelu(feed_forward.inner(rows))))
    return model.score_projection(rows).squeeze(2)


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Run once; return the CPU seconds and by how many MB the peak of resident memory rose (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _kilobytes("VmRSS"), time.process_time()
    work()
    seconds = time.process_time() - start
    return seconds, (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def compare(name: str, plain: Callable[[], object], ours: Callable[[], object], rounds: int) -> None:
    """Run both in turn and say what they took."""
    runs = [(measure(plain), measure(ours)) for _ in range(rounds)]
    seconds, memory = ([statistics.median(pair[side][i] for pair in runs) for side in (0, 1)] for i in (0, 1))
    ratio = statistics.median(first[0] / second[0] for first, second in runs)
    for way, spent, used in zip(("plain", "ours"), seconds, memory, strict=True):
        say("ram_head", f"{name}: {way}", spent, "CPU s")
        say("ram_head", f"{name}: {way}, memory", used, "MB")
    say("ram_head", f"{name}: times as fast", ratio)
    say("ram_head", f"{name}: memory, times less", memory[0] / max(memory[1], 1))


def plain_step(model: RamPlus, tokens: Tensor, targets: Tensor) -> None:
    """One tagging loss and its gradients, by autograd through all classes at once; labels are frozen."""
    model.zero_grad()
    tagging_loss(plain_score(model, tokens.clone().requires_grad_()), targets).backward()


def our_step(model: RamPlus, tokens: Tensor, targets: Tensor) -> None:
    """The same as the trainer does it."""
    model.zero_grad()
    leaf = tokens.clone().requires_grad_()
    streamed_loss(model, leaf, lambda logits, some: tagging_loss(logits, targets[:, some])).backward()


def largest_difference(model: RamPlus, tokens: Tensor, targets: Tensor) -> float:
    """Compare both steps: each gradient's difference by its norm (that of keys' biases is but noise)."""
    found = []
    for step in (plain_step, our_step):
        step(model, tokens, targets)
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    norms = (
        (value - found[1][name]).norm() / value.norm()
        for name, value in found[0].items()
        if "key.bias" not in name
    )
    return float(max(norms))


def compare_all(model: RamPlus, tokens: Tensor, rounds: int) -> None:
    """Compare describing, scoring and training on the tokens of a batch."""
    batch = f"{len(tokens)} images"
    with torch.no_grad():
        difference = (plain_score(model, tokens) - model.score(tokens)).abs().max()
        say("ram_head", f"{batch}: largest difference of a logit", float(difference))
        describe = partial(plain_describe, model, tokens), partial(model.describe, tokens, model.labels)
        compare(f"descriptions, {batch}", *describe, rounds)
        compare(f"head, {batch}", partial(plain_score, model, tokens), partial(model.score, tokens), rounds)
    targets = (torch.rand(len(tokens), len(model.config.classes)) < SHOWN).float()
    difference = largest_difference(model, tokens, targets)
    say("ram_head", f"{batch}: largest relative difference of a gradient", difference)
    steps = partial(plain_step, model, tokens, targets), partial(our_step, model, tokens, targets)
    compare(f"training step, {batch}", *steps, rounds)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--classes", type=int, default=4585)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = model_of(options.classes)
    for batch in options.batch:
        compare_all(model, torch.randn(batch, TOKENS, 512), options.rounds)


if __name__ == "__main__":
    main()
