"""Train the demo world's detector: a Grounding DINO of about two million weights, on a CPU.

The backbone comes trained on windows around single objects and stays frozen: its features of every
scene, plain and mirrored, are computed once and kept on disk, so that a step of training costs the
transformer alone. Steps draw their scenes and prompts by their own number, so that a training that
was cut off goes on as if it had not been.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from demo_recipe import checkpoints
from demo_recipe.backbone import HF_ARGUMENTS, normalise
from demo_recipe.detector_batches import TEXT_LENGTH, Batch, Batches, Prompts
from demo_recipe.detector_loss import detection_loss
from demo_recipe.scenes import SceneSet
from demo_recipe.world import SIZE
from tagmill.models.base import Boxes, Floats
from tagmill.models.grounding_dino import GroundingDino

BACKBONE = {**HF_ARGUMENTS, "out_features": ["stage3", "stage4"]}
"""Shape of the backbone; its two levels have a place for every 16 and every 32 pixels."""


@dataclass(frozen=True)
class DetectorRecipe:
    """How the detector is made.

    `steps` of `batch` scenes; the learning rate rises over `warmup` steps to `rate`, stays, and from
    the share `flat` of all steps falls to 0 in a cosine. `width`, `forward` and `queries` are the
    transformer's model size, inner size and number of boxes. Prompts have `shortest` to `longest`
    tags; a wrong tag is of the same group as a true one with probability `same_group`; each true tag
    is left out of the prompt with probability `left_out`.
    """

    steps: int = 6000
    batch: int = 32
    rate: float = 1e-3
    warmup: int = 150
    flat: float = 0.6
    weight_decay: float = 1e-3
    clip: float = 1.0
    width: int = 64
    forward: int = 128
    queries: int = 20
    shortest: int = 2
    longest: int = 12
    same_group: float = 0.4
    left_out: float = 0.1
    checkpoint_every: int = 250
    seed: int = 0


def train(
    data: SceneSet,
    backbone: dict[str, Tensor],
    tokenizer: Any,
    folder: Path,
    recipe: DetectorRecipe,
    log: Callable[[dict[str, float]], None],
    work: Path,
) -> None:
    """Train a detector on `data` and save it, with its processor, into `folder` (weights in float16).

    `backbone` are the weights of a ResNetBackbone of the shape `BACKBONE`; `log` gets number and
    loss of every 20th step from 0 on. `work` keeps the features and every few hundred steps a
    checkpoint; the same call goes on from there. Raises RuntimeError if the weights have another shape.
    """
    torch.manual_seed(recipe.seed)
    model = _build(tokenizer, recipe)
    encoder = model.model.backbone.conv_encoder
    frozen = encoder.model
    frozen.load_state_dict({k: v for k, v in backbone.items() if "num_batches_tracked" not in k})
    work = work / _fingerprint(data, backbone)
    encoder.model = _Stored(_features(data, backbone, work))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True
    )
    state = work / f"checkpoint-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}.pt"
    prompts = Prompts((recipe.shortest, recipe.longest), recipe.same_group, recipe.left_out)
    batches = Batches(data, tokenizer, prompts, recipe.batch, recipe.seed)
    start = checkpoints.restore(state, model=model, optimizer=optimizer)
    for step in range(start, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _schedule(step, recipe)
        loss = _step(model, optimizer, batches.draw(step), recipe.clip)
        if (step + 1) % recipe.checkpoint_every == 0:
            checkpoints.keep(state, step + 1, model=model, optimizer=optimizer)
        if step % 20 == 0:
            log({"step": step, "loss": loss})
    encoder.model = frozen
    _save(model, tokenizer, folder)


class _Stored(torch.nn.Module):
    """Stands in for the backbone and answers with stored features of the rows that were set."""

    def __init__(self, levels: Sequence[NDArray[np.float16]]) -> None:
        super().__init__()
        self._levels = levels
        self.rows = np.zeros(1, dtype=np.int64)

    def forward(self, pixels: Tensor, **_: Any) -> SimpleNamespace:
        """Ignore the pixels, read the features."""
        maps = [torch.from_numpy(level[self.rows]).float() for level in self._levels]
        return SimpleNamespace(feature_maps=maps)


def _config(tokenizer: Any, recipe: DetectorRecipe) -> Any:
    from transformers import BertConfig, GroundingDinoConfig, ResNetConfig

    backbone = ResNetConfig(**BACKBONE)
    text = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=TEXT_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=recipe.queries,
        d_model=recipe.width,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=recipe.forward,
        decoder_ffn_dim=recipe.forward,
        num_feature_levels=2,
        max_text_len=TEXT_LENGTH,
        disable_custom_kernels=True,
        dropout=0.0,
        fusion_droppath=0.0,
        fusion_dropout=0.0,
    )


def _build(tokenizer: Any, recipe: DetectorRecipe) -> Any:
    """Make the model, with start values that give every token a low score (about sigmoid(-4)).

    The score is a bare product of two normalised vectors, so without this a fresh model's logits
    are spread as widely as the width's square root. A shared direction with opposite signs on the
    two sides moves them all down.
    """
    from transformers import GroundingDinoForObjectDetection

    model = GroundingDinoForObjectDetection(_config(tokenizer, recipe))
    shift = 2 / math.sqrt(recipe.width)
    layers = model.model.encoder.layers
    with torch.no_grad():
        for norm in (model.model.decoder.layer_norm, model.model.enc_output_norm):
            norm.weight.fill_(0.35)
            norm.bias.fill_(shift)
        layers[-1].text_enhancer_layer.layer_norm_after.bias.fill_(-shift)
        for layer in layers:
            layer.fusion_layer.vision_param.fill_(0.1)
            layer.fusion_layer.text_param.fill_(0.1)
    return model


def _fingerprint(data: SceneSet, backbone: dict[str, Tensor]) -> str:
    """Name what decides the features: the backbone and the scenes, of whose pixels a sample is hashed."""
    digest = hashlib.sha256(np.asarray(data.images[:: max(1, len(data.images) // 64)]).tobytes())
    for part in (*(weights.numpy() for _, weights in sorted(backbone.items())), *data.boxes, *data.labels):
        digest.update(part.tobytes())
    return digest.hexdigest()[:12]


def _features(data: SceneSet, backbone: dict[str, Tensor], folder: Path) -> list[NDArray[np.float16]]:
    """Compute the features of all scenes, then of all mirrored ones: per level (2 * n, c, h, w)."""
    paths = [folder / f"{name}.npy" for name in BACKBONE["out_features"]]
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_features(data, backbone, paths)
        (folder / "complete").touch()
    return [np.load(path, mmap_mode="r") for path in paths]


@torch.inference_mode()
def _write_features(
    data: SceneSet, backbone: dict[str, Tensor], paths: Sequence[Path], batch: int = 64
) -> None:
    from transformers import ResNetBackbone, ResNetConfig

    # Not the copy in the detector: its frozen batch norm takes half as long again.
    network = ResNetBackbone(ResNetConfig(**BACKBONE))
    network.load_state_dict(backbone)
    network.eval().to(torch.bfloat16, memory_format=torch.channels_last)
    count = len(data.images)
    levels: list[np.memmap[Any, np.dtype[np.float16]]] = []
    for start in range(0, 2 * count, batch):
        rows = np.arange(start, min(start + batch, 2 * count))
        images = np.stack([data.images[row % count][:, :: 1 if row < count else -1] for row in rows])
        pixels = normalise(torch.from_numpy(images)).to(torch.bfloat16)
        maps = network(pixels).feature_maps
        if not levels:
            shapes = [(2 * count, *found.shape[1:]) for found in maps]
            levels = [
                np.lib.format.open_memmap(path, "w+", np.float16, shape)
                for path, shape in zip(paths, shapes, strict=True)
            ]
        for level, found in zip(levels, maps, strict=True):
            level[rows] = found.half().numpy()
    for level in levels:
        level.flush()


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: Batch, clip: float) -> float:
    """Do one step of the optimizer; return the loss."""
    model.model.backbone.conv_encoder.model.rows = batch.rows
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model(
            pixel_values=torch.zeros(1).expand(len(batch.ids), 3, SIZE, SIZE),
            input_ids=batch.ids,
            attention_mask=batch.targets.text.long(),
        )
        stages = _stages(model, output)
    loss = detection_loss(output, stages, batch.targets)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def _stages(model: Any, output: Any) -> list[tuple[Tensor, Tensor]]:
    """Give logits and boxes of every decoder layer, as the model's own forward computes the last one's."""
    stages = []
    reference = output.init_reference_points
    text = output.encoder_last_hidden_state_text.transpose(1, 2)
    for layer, head in enumerate(model.bbox_embed):
        hidden = output.intermediate_hidden_states[:, layer]
        boxes = head(hidden).float() + torch.special.logit(reference.float(), eps=1e-5)
        stages.append((hidden @ text, boxes.sigmoid()))
        reference = output.intermediate_reference_points[:, layer]
    return stages


def _schedule(step: int, recipe: DetectorRecipe) -> float:
    """Give the learning rate as a share of the highest one."""
    fall = max(0.0, step / recipe.steps - recipe.flat) / (1 - recipe.flat)
    return min(1.0, (step + 1) / recipe.warmup) * (1 + math.cos(math.pi * fall)) / 2


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

    model.eval().half().save_pretrained(folder)
    size = {"shortest_edge": SIZE, "longest_edge": SIZE}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer).save_pretrained(folder)


def evaluate(
    folder: Path, data: SceneSet, thresholds: Sequence[float], prompt_size: int = 10
) -> list[dict[str, float]]:
    """Measure a saved detector on scenes: one row for each score threshold.

    A scene is asked its true tags and wrong ones to `prompt_size` in all, 40% of the wrong ones of the
    same group. A box is right if it has an IoU of at least 0.5 with a box of its tag that no better
    one has found. Rows hold `threshold`, `precision`, `recall`, and recall by the longest side of the
    true box: `recall_below_36`, `recall_36_to_48`, `recall_from_48` (pixels).
    """
    detector = GroundingDino(str(folder), device="cpu")
    detector.load()
    rng = np.random.default_rng(0)
    prompts = Prompts((prompt_size, prompt_size), same_group=0.4, left_out=0.0)
    scores, right, found_at, sides = [], [], [], []
    for start in range(0, len(data.images), 32):
        rows = range(start, min(start + 32, len(data.images)))
        asked = [prompts.draw(data.labels[row], data.groups, rng) for row in rows]
        images = [detector.prepare(np.asarray(data.images[row])) for row in rows]
        found = detector.predict(images, [[data.names[label] for label in prompt] for prompt in asked])
        for row, prompt, boxes in zip(rows, asked, found, strict=True):
            hits = _hits(boxes, prompt[boxes.tags], data.boxes[row], data.labels[row])
            scores.append(boxes.scores)
            right.append(hits >= 0)
            best = np.zeros(len(data.boxes[row]), dtype=np.float32)
            best[hits[hits >= 0]] = boxes.scores[hits >= 0]
            found_at.append(best)
            sides.append((data.boxes[row][:, 2:] - data.boxes[row][:, :2]).max(axis=1))
    columns = [np.concatenate(column) for column in (scores, right, found_at, sides)]
    return [_measures(threshold, *columns) for threshold in thresholds]


def _hits(
    boxes: Boxes, labels: NDArray[np.int64], truth: Floats, true_labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give for each found box the index of the true box that it finds, or -1; the best score goes first."""
    hits = np.full(len(labels), -1)
    if len(labels) and len(truth):
        overlaps = box_iou(torch.from_numpy(boxes.boxes), torch.from_numpy(truth)).numpy()
        overlaps[labels[:, None] != true_labels] = 0
        for found in np.argsort(-boxes.scores, kind="stable"):
            best = int(overlaps[found].argmax())
            if overlaps[found, best] >= 0.5:
                hits[found] = best
                overlaps[:, best] = 0
    return hits


def _measures(
    threshold: float, scores: Floats, right: NDArray[np.bool_], found_at: Floats, sides: Floats
) -> dict[str, float]:
    kept, found = scores > threshold, found_at > threshold
    sizes = {"below_36": sides < 36, "36_to_48": (sides >= 36) & (sides < 48), "from_48": sides >= 48}
    return {
        "threshold": threshold,
        "precision": float(right[kept].mean()) if kept.any() else 1.0,
        "recall": float(found.mean()),
        **{f"recall_{name}": float(found[chosen].mean()) for name, chosen in sizes.items() if chosen.any()},
    }
