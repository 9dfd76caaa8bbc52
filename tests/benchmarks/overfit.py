r"""Whether RAM, RAM++ and Tag2Text learn at all: each learns 64 of the demo's scenes by heart, on one thread.

    PYTHONPATH=tests/support python tests/benchmarks/overfit.py --out FOLDER \
        [--kinds ram_plus ram tag2text aligned] [--steps N]

The engine runs on the scenes; then the trainer, by the recipe below, trains a small model of each kind on the
shards, with all official terms of its kind and without augmentation. What is printed are the mAP on the 64
images, over all tags that any of them has, the time, and what the trained Tag2Text writes. `aligned` is a
Tag2Text with its alignment branch: how well it finds captions by images and images by captions, and tells the
pairs from all others. The trunk of the image encoder starts from the demo's, all else from random weights.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from figures import say
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from demo_recipe import captions, tagger, words
from demo_recipe.things import names, things
from tagmill.models.base import Image
from tagmill.models.ram import store
from tagmill.models.ram.captioner import Tag2TextCaptioner
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.models.training.batches import Batch
from tagmill.models.training.data import open_loader
from tagmill.models.training.metrics import measure
from tagmill.models.training.objectives import clean_caption
from tagmill.models.training.pace import Report
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.scores import UNKNOWN, ScoreWriter
from tagmill.models.training.train import Trainer
from tagmill.models.training.views import PlainView
from tagmill.pipeline.run_folder import RunFolder
from tagmill.runners.commands.demo import embedded
from tagmill.runners.commands.demo_config import demo_config, demo_models
from tagmill.tag_system.core import pixels

CONSOLE = Console(highlight=False, soft_wrap=True)
SCENES, BATCH = 64, 16
KINDS = ("ram_plus", "ram", "tag2text", "aligned")
SHOWN = 12


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out.absolute()
    shards = _shards(out)
    for kind in options.kinds:
        shutil.rmtree(out / kind, ignore_errors=True)
        recipe = _recipe(kind, out, shards, options.steps)
        start, cpu = time.monotonic(), time.process_time()
        trainer = Trainer(recipe, Process(torch.device("cpu")), watch=_watch)
        # Without augmentation: what is to be learned by heart must look the same every time.
        trainer.loader = open_loader(
            recipe.data, trainer.model.config, "train", view=PlainView(trainer.model.config)
        )
        trainer.run()
        elapsed, spent = time.monotonic() - start, time.process_time() - cpu
        what = f"{kind}, {trainer.step} steps"
        say("overfit", f"{what}: mAP on what was learned", _mean_precision(trainer))
        say("overfit", f"{what}: time", elapsed, "s")
        say("overfit", f"{what}: time of the processor", spent, "CPU s")
        if kind == "tag2text":
            _show_captions(trainer)
        if kind == "aligned":
            _show_alignment(trainer)


def _shards(out: Path) -> Path:
    """Run the engine on the first scenes of the demo."""
    scenes = out / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    with (
        tarfile.open(embedded() / "scenes-000000.tar") as source,
        tarfile.open(scenes / "scenes-000000.tar", "w") as chosen,
    ):
        for member in source.getmembers()[: 2 * SCENES]:
            chosen.addfile(member, source.extractfile(member))
    config = yaml.safe_load(demo_config(str(out / "run"), scenes, None) + demo_models(embedded()))
    config["inputs"][0]["split"] = "train"
    (out / "run.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "tagmill.runners.cli", "run", str(out / "run.yaml")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = RunFolder(str(out / "run"))
    return Path(run.path("shards", run.current("shards") or ""))


def _recipe(kind: str, out: Path, shards: Path, steps: int) -> Recipe:
    """Write the recipe of a kind: one epoch of so many steps, which shows every scene equally often."""
    trunk = store.load(embedded() / "tagger").encoder.trunk.state_dict()
    save_file({name: value.contiguous() for name, value in trunk.items()}, out / "trunk.safetensors")
    (out / "vocab.txt").write_text("\n".join(words.pieces()) + "\n")
    model = tagger.config().model_dump(exclude={"classes", "descriptions"})
    if kind == "ram_plus":
        model |= {"descriptions": len(tagger.DESCRIPTIONS)}
    else:
        sizes = {"heads": 4, "layers": 2, "inner": 256, "positions": 64, "dropout": 0.0}
        model |= {"kind": kind, "text": {**sizes, "tokens": len(words.pieces()) + 2}}
    if kind == "aligned":
        model |= {"kind": "tag2text", "alignment": {"dimension": 64}}
    return Recipe.model_validate(
        {
            "out": str(out / kind),
            "model": model,
            "trunk": str(out / "trunk.safetensors"),
            "classes": names(),
            "allow_unlearnable": True,  # 64 scenes do not show everything
            "clip": None
            if kind in ("tag2text", "aligned")
            else {"model": f"local-dir:{embedded() / 'clip'}"},
            "labels": {"templates": tagger.DESCRIPTIONS},
            "vocab": None if kind == "ram_plus" else str(out / "vocab.txt"),
            "data": {
                "datasets": [{"path": str(shards), "weight": steps * BATCH / SCENES}],
                "batch_size": BATCH,
                "workers": 0,
            },
            "losses": {
                "gamma_negative": 2,
                "clip": 0,
                "reference_batch": 1,
                "target": "mentioned" if kind in ("tag2text", "aligned") else "decided",
            },
            "schedule": {
                "learning_rate": 1e-3,
                "decay": "cosine",
                "every": "step",
                "warmup_steps": 20,
                "floor": 0,
            },
            "engine": {"device": "cpu", "clip_norm": 5.0, "weight_decay": 0.02},
            "epochs": 1,
            "validate": False,
        }
    )


def _watch(report: Report) -> None:
    if report.step % 50 == 0:  # often enough for a person to see that it falls
        terms = ", ".join(f"{name} {value:.3f}" for name, value in report.figures.items())
        CONSOLE.print(f"  step {report.step}: {terms}, {report.images_per_second:.0f} images/s")


def _plain(trainer: Trainer) -> Iterator[Batch]:
    """Read the 64 scenes once, as a model sees them when it is used."""
    config, data = trainer.model.config, trainer.recipe.data
    once = [dataset.model_copy(update={"weight": 1.0}) for dataset in data.datasets]
    data = data.model_copy(update={"datasets": once})
    yield from open_loader(data, config, "train", view=PlainView(config))


def _mean_precision(trainer: Trainer) -> float:
    """Measure mAP against what was learned, over the tags that some scene has."""
    model: Any = trainer.model.eval()
    tags = model.config.classes
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        writer = ScoreWriter(Path(folder), len(tags))
        for batch in _plain(trainer):
            mentioned = trainer.recipe.losses.target == "mentioned"
            targets = batch.mentioned.float() if mentioned else batch.targets
            labels = np.where(batch.known > 0, targets, UNKNOWN).astype(np.uint8)
            scores = model.score(model.encode(batch.images)).sigmoid().numpy()
            writer.add([key for _, key in batch.ids], scores, labels)
        return measure(writer.close(), tags, [0.5] * len(tags)).summary().map_present


def _show_captions(trainer: Trainer) -> None:
    """Print captions beside those that were learned, and count how many name the things."""
    writer = Tag2TextCaptioner(str(trainer.out / "last"), device="cpu", threshold=0.5, min_length=5)
    writer.load()
    scenes = _pictures(trainer.out.parent / "scenes" / "scenes-000000.tar")
    written = writer.predict([writer.prepare(image) for image, _ in scenes.values()])
    truth = pq.read_table(embedded() / "truth.parquet", columns=["key", "tags"])
    true = dict(zip(truth["key"].to_pylist(), map(set, truth["tags"].to_pylist()), strict=True))
    captioned = named = right = said = 0
    for row, (text, (key, (_, given))) in enumerate(zip(written, scenes.items(), strict=True)):
        found, learned = _things(text), _things(given)
        captioned += bool(learned)
        named += bool(learned) and found == learned
        said, right = said + len(found), right + len(found & true[key])
        if row < SHOWN:
            CONSOLE.print(f"  {key}: {text!r}, learned: {given!r}")
    say("overfit", "tag2text: own captions that name things", captioned, "captions")
    say("overfit", "tag2text: captions that name exactly the things of these", named, "captions")
    say("overfit", "tag2text: names of things in captions", said, "names")
    say("overfit", "tag2text: names of what the scene shows", right, "names")


@torch.inference_mode()
def _show_alignment(trainer: Trainer) -> None:
    """Print how often images and captions find one another by ITC, and what ITM says of all pairs."""
    model: Any = trainer.model
    pieces, branch = WordPieces(trainer.out.parent / "vocab.txt"), model.alignment
    batches = list(_plain(trainer))
    tokens = torch.cat([model.encode(batch.images) for batch in batches])
    texts = [clean_caption(text) for batch in batches for text in batch.captions]
    ids = nn.utils.rnn.pad_sequence([torch.tensor(pieces.sentence(text)) for text in texts], batch_first=True)
    mask, count = ids != pieces.padding, len(texts)
    fits = torch.tensor([[one == other for other in texts] for one in texts])
    alike = branch.text_features(ids, mask) @ branch.image_features(tokens).T
    for name, scores in (("images by captions", alike), ("captions by images", alike.T)):
        found = fits[torch.arange(count), scores.argmax(1)].float().mean().item()
        say("overfit", f"aligned: {name}: share found first among {count}", found)
    scores = torch.stack(
        [
            branch.match(ids, mask, tokens, torch.full((count,), image), pieces.tags_start)
            for image in range(count)
        ],
        1,
    )
    right = (scores > 0) == fits
    say("overfit", "aligned: matching: share of pairs", right[fits].float().mean().item())
    say("overfit", "aligned: matching: share of others", right[~fits].float().mean().item())


def _pictures(path: Path) -> dict[str, tuple[Image, str]]:
    """Read the scenes of a tar with their captions, by key."""
    with tarfile.open(path) as tar:
        data = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    keys = [name.removesuffix(".jpg") for name in data if name.endswith(".jpg")]
    return {
        key: (np.asarray(pixels.decode(data[f"{key}.jpg"], 1 << 20)), data[f"{key}.txt"].decode())
        for key in keys
    }


def _things(text: str) -> set[str]:
    """Find the things that a caption names, in singular or plural."""
    return {
        thing.name
        for thing in things()
        if re.search(rf"\b({re.escape(thing.name)}|{re.escape(captions.plural(thing.name))})\b", text)
    }


if __name__ == "__main__":
    main()
