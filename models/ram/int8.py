"""An exported tagger with weights of 8 bits: how it is made, and what that changes and saves.

onnxruntime quantises the weights of matrix products by channel, and their inputs as they come ("dynamic").
Convolutions stay as they are: in 8 bits onnxruntime's take more CPU time, not less.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmill.models.base import Floats, Image
from tagmill.models.local_copies import OUTSIDE
from tagmill.models.ram import preprocess
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.onnx_tagger import sigmoid
from tagmill.models.ram.open_set import IMAGES

THRESHOLD = 0.5
"""Score above which a tag counts as seen by a model that has no thresholds of its own."""

BATCH = 8

ROUNDS = 3
"""How often the first batch is timed, by turns; the fastest counts."""


@dataclass(frozen=True)
class Agreement:
    """What 8 bits change on some images, against float32, and what they save.

    `equal` of `decisions` at the model's thresholds are the same; of those `seen` by either, `seen_by_both`
    by both. `score` is the largest change of a score, `bytes` are the files' sizes, `seconds` the CPU time of
    the first batch: float32 first, then int8.
    """

    images: int
    decisions: int
    equal: int
    seen: int
    seen_by_both: int
    score: float
    bytes: tuple[int, int]
    seconds: tuple[float, float]

    def in_words(self) -> str:
        """Say how decisions and scores agree."""
        return (
            f"on {self.images} images: {self.equal / self.decisions:.3%} of {self.decisions:,} decisions are "
            f"equal; of {self.seen:,} tags that either sees both see {self.seen_by_both:,}; scores change by "
            f"at most {self.score:.2g}"
        )


def quantise(source: Path, target: Path) -> None:
    """Write a float32 file, none of whose weights are float16, with weights of 8 bits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source, load_external_data=False).graph
    flat = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    held = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    # Label embeddings are not weights but an input, or count as one.
    others = [node.name for node in products if held.intersection(node.input[:2]) - flat]
    logging.disable(logging.WARNING)  # it would have every graph prepared, which changes nothing here
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=others,
            use_external_data_format=source.with_name(source.name + OUTSIDE).exists(),
        )
    finally:
        logging.disable(logging.NOTSET)


def agreement(
    sessions: Sequence[Any], paths: Sequence[Path], config: RamConfig, images: Sequence[Image]
) -> Agreement:
    """Run the float32 and the int8 session on images, at least one."""
    limits = np.asarray(config.thresholds or [THRESHOLD] * len(config.classes), np.float32)
    prepared = [preprocess.prepare(image, config) for image in images]
    batches = [np.stack(prepared[at : at + BATCH]) for at in range(0, len(prepared), BATCH)]
    one, other = (np.concatenate([_scores(session, batch) for batch in batches]) for session in sessions)
    ours, theirs = one > limits, other > limits
    times = [[_seconds(session, batches[0]) for session in sessions] for _ in range(ROUNDS)]
    return Agreement(
        images=len(images),
        decisions=ours.size,
        equal=int((ours == theirs).sum()),
        seen=int((ours | theirs).sum()),
        seen_by_both=int((ours & theirs).sum()),
        score=float(np.abs(one - other).max()),
        bytes=(_size(paths[0]), _size(paths[1])),
        seconds=(min(first for first, _ in times), min(second for _, second in times)),
    )


def _scores(session: Any, batch: Floats) -> NDArray[np.float32]:
    (logits,) = session.run(None, {IMAGES: batch})
    return sigmoid(logits)


def _seconds(session: Any, batch: Floats) -> float:
    start = time.process_time()
    session.run(None, {IMAGES: batch})
    return time.process_time() - start


def _size(path: Path) -> int:
    beside = path.with_name(path.name + OUTSIDE)
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)
