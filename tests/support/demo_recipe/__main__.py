"""Make the embedded default anew: by python -m demo_recipe --sprites DIR --font FILE --work DIR.

Draws the scenes, trains the backbone, CLIP, the tagger and the detector one after the other on one thread,
measures them on scenes that none of them saw, and writes models, demo dataset, metrics and digests. What is
finished in the work folder is not made again, and training goes on from its last checkpoint.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from demo_recipe import backbone, clip, corpus, detector, scenes, tagger
from demo_recipe.sprites import Sprites
from demo_recipe.words import tokenizer
from demo_recipe.world import RANGES, World
from tagmill.models import clip_export, grounding_dino_export
from tagmill.models.ram import store
from tagmill.models.ram.export import export
from tagmill.tag_system.core import files

THRESHOLDS = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


def main() -> None:
    """Run the recipe."""
    options = _options()
    torch.set_num_threads(1)
    work, data = Path(options.work), Path(options.data)
    work.mkdir(parents=True, exist_ok=True)
    log = _logger(work / "log.jsonl")
    tar, font = Path(options.sprites) / "fluent3d.tar", Path(options.font) if options.font else None

    def render(name: str) -> scenes.SceneSet:
        return scenes.load(work / "scenes", name, RANGES[name], tar, font, options.processes)

    seen = render("pretraining")
    trunk = backbone.train(seen, work / "backbone.safetensors", backbone.BackboneRecipe(), log)
    folders = {name: data / name for name in ("clip", "tagger", "grounding-dino")}
    _once(folders["clip"], lambda to: clip.train(seen, to, clip.ClipRecipe(), log, work / "clip.pt"))
    _once(
        folders["tagger"],
        lambda to: tagger.train(
            seen, trunk, folders["clip"], to, tagger.TaggerRecipe(), log, work / "tagger.pt"
        ),
    )
    _once(
        folders["grounding-dino"],
        lambda to: detector.train(
            seen,
            backbone.to_transformers(trunk),
            tokenizer(),
            to,
            detector.DetectorRecipe(),
            lambda record: log({"model": "grounding-dino", **record}),
            work / "detector",
        ),
    )
    _once(data / "tagger.onnx", lambda to: export(store.load(folders["tagger"]), to))
    _once(data / "clip-onnx", lambda to: clip_export.export(folders["clip"], to))
    _once(
        data / "grounding-dino-onnx", lambda to: grounding_dino_export.export(folders["grounding-dino"], to)
    )
    unseen = render("test")
    metrics = {
        "clip": clip.evaluate(folders["clip"], unseen),
        "tagger": tagger.evaluate(folders["tagger"], unseen),
        "grounding-dino": detector.evaluate(folders["grounding-dino"], unseen, THRESHOLDS),
    }
    corpus.write(World(Sprites(tar, font)), RANGES["engine"], data)
    _write_record(data, metrics)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo_recipe", description=__doc__)
    parser.add_argument(
        "--sprites", required=True, help="folder with fluent3d.tar, Microsoft's Fluent 3D emoji"
    )
    parser.add_argument("--font", help="a colour emoji font with bitmaps, as a second style of drawing")
    parser.add_argument("--work", default="build/demo-work", help="folder for scenes and checkpoints")
    parser.add_argument("--data", default="models/demo/data", help="folder for the results")
    parser.add_argument("--processes", type=int, default=2, help="processes that draw scenes")
    return parser.parse_args()


def _logger(path: Path) -> Callable[[dict[str, Any]], None]:
    """Append lines of JSON with the seconds since the start, wall and CPU."""
    start = time.time()

    def log(record: dict[str, Any]) -> None:
        times = {"wall": round(time.time() - start), "cpu": round(time.process_time())}
        line = json.dumps({**record, **times})
        print(line, flush=True)  # noqa: T201  # what a person watches for half an hour
        with path.open("a") as stream:
            stream.write(line + "\n")

    return log


def _once(folder: Path, make: Callable[[Path], object]) -> None:
    """Make a model's folder unless it is there; it gets its name when it is whole."""
    if not folder.exists():
        with files.replacing(str(folder)) as unfinished:
            make(unfinished)


def _write_record(data: Path, metrics: dict[str, Any]) -> None:
    digests = {
        str(path.relative_to(data)): files.sha256(str(path))
        for path in sorted(data.rglob("*"))
        if path.suffix in (".onnx", ".safetensors", ".tar", ".parquet")
    }
    record = {"metrics": metrics, "sha256": digests}
    files.replace_bytes(str(data / "record.json"), (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
