"""Captions by beam search at the published size of Tag2Text, against the way that the official code takes.

    python tests/benchmarks/captions.py [--threads N] [--rounds N] [--batch 1 4] [--tokens N]

The official code, with transformers 4.36, runs the tag encoder once for every beam, and at each step reads
every beam's whole text anew, with the logits of all its places: nothing is remembered. Ours reads the tags
once an image, and remembers what was read. Both run the same search on the same random weights, turn by turn
in one run, and must write the same tokens; printed are medians of CPU seconds and their ratio. The image
encoder and the tagging head are not part of it.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from figures import say
from torch import Tensor

from tagmill.models.ram.beam_search import Hypothesis, Search, search
from tagmill.models.ram.config import EncoderConfig, RamConfig, TextConfig
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.ram.text_side import TextSide

IMAGE_TOKENS, WIDTH, TAG_TOKENS, END, BEAMS = 145, 1024, 40, 102, 3

PROMPT = (30522, 1037, 3861, 1997)
"""[DEC] a picture of"""


def text_side() -> TextSide:
    """The text side of the published Tag2Text, with random weights."""
    torch.manual_seed(0)
    channels = {"channels": (8, 8, 8, 8)}
    encoder = EncoderConfig(name="resnet18", arguments=channels, stages=(4,), width=WIDTH)
    model = Tag2Text(RamConfig(kind="tag2text", encoder=encoder, classes=("a",), text=TextConfig())).eval()
    for weights in model.text.parameters():
        if weights.ndim > 1:
            weights.data.mul_(2)  # so that texts differ with what they look at
    return model.text


class Forgetful:
    """Fits `beam_search.BeamDecoder` for one image: every beam's text is read as a whole at every step."""

    def __init__(self, side: TextSide, read: Tensor) -> None:
        self._decoder, self._read, self._texts = side.decoder, read, torch.zeros(0, 0, dtype=torch.long)

    def start(self, prompt: Sequence[int]) -> Tensor:
        """Read the prompt for every beam; they all say the same, and the search wants it once an image."""
        self._texts = torch.tensor([list(prompt)] * len(self._read))
        return self._logits()[:1]

    def advance(self, ids: Sequence[int], rows: Sequence[int], images: Sequence[int]) -> Tensor:
        """Go on with the chosen texts."""
        self._texts = torch.cat([self._texts[list(rows)], torch.tensor(ids)[:, None]], 1)
        return self._logits()

    def _logits(self) -> Tensor:
        logits, _ = self._decoder(self._texts, self._decoder.see(self._read))
        return logits[:, -1]


def official(side: TextSide, ids: Tensor, mask: Tensor, tokens: Tensor, how: Search) -> list[Hypothesis]:
    """One image a call, since a batch is wrong: every beam by itself, and nothing kept."""
    found = []
    for row in range(len(ids)):
        repeated = (part[row : row + 1].repeat_interleave(BEAMS, 0) for part in (ids, mask, tokens))
        found += search(Forgetful(side, side.read(*repeated)), PROMPT, 1, END, how)
    return found


def ours(side: TextSide, ids: Tensor, mask: Tensor, tokens: Tensor, how: Search) -> list[Hypothesis]:
    """The batch as one."""
    return side.write(side.read(ids, mask, tokens), PROMPT, END, how)


def seconds(work: Callable[[], list[Hypothesis]]) -> tuple[float, list[list[int]]]:
    """CPU seconds of one call, and what it wrote."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, [one.ids for one in found]


@torch.inference_mode()
def compare(side: TextSide, batch: int, rounds: int, how: Search) -> None:
    """Run both in turn on random tags and image tokens, and say what it took."""
    arguments = (
        torch.randint(1000, 30000, (batch, TAG_TOKENS)),
        torch.arange(TAG_TOKENS).expand(batch, -1) < 25,
        torch.randn(batch, IMAGE_TOKENS, WIDTH),
        how,
    )
    runs = [
        (seconds(lambda: official(side, *arguments)), seconds(lambda: ours(side, *arguments)))
        for _ in range(rounds)
    ]
    differ = sum(a != b for first, second in runs for a, b in zip(first[1], second[1], strict=True))
    plain, quick = (statistics.median(run[i][0] for run in runs) for i in (0, 1))
    ratio = statistics.median(first[0] / second[0] for first, second in runs)
    what = f"images {batch}, tokens {how.max_length}"
    say("captions", f"{what}: official way", plain, "CPU s")
    say("captions", f"{what}: ours", quick, "CPU s")
    say("captions", f"{what}: ours, times as fast", ratio)
    say("captions", f"{what}: captions that differ", differ, "captions")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=30, help="of a caption, the prompt's four included")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    side = text_side()
    how = Search(beams=BEAMS, min_length=options.tokens, max_length=options.tokens)
    for batch in options.batch:
        compare(side, batch, options.rounds, how)


if __name__ == "__main__":
    main()
