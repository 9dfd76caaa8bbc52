"""The demo: the whole engine, offline, on drawn scenes with a known truth, or on a user's own photographs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from tagmill.pipeline.run_folder import RunFolder
from tagmill.runners.commands import demo_report, launch
from tagmill.runners.commands.demo_config import demo_config, demo_models
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

CONFIG = "demo.yaml"
PIECES = ("scenes-*.tar", "truth.parquet", "tagger.onnx", "grounding-dino-onnx", "clip-onnx")

NEEDS = ("faiss", "onnxruntime", "tokenizers")
"""Modules that its stages import; the extra `demo` brings them."""

SCENES = (
    "The whole engine, on this machine and offline: drawn scenes whose captions forget and err, as people's "
    "do, and three tiny models of the kinds that the engine is made for. The truth is known, so that the "
    "tags can be measured."
)

PHOTOS = (
    "These are your photographs, but the demo's models: they were trained on drawings of about a hundred "
    "things and have never seen a photograph. You see how the engine goes; its tags on photographs mean "
    "nothing."
)

INSTEAD = (
    "For tags that mean something, configure the official models: RAM++ (ram_plus_swin_large_14m) as `ram`, "
    "IDEA-Research/grounding-dino-base as `grounding-dino`, ViT-B-16 as `open-clip`. A config of them, with "
    "a word on every key, is docs/examples/official.yaml of the repository."
)


@dataclass(frozen=True)
class Demo:
    """What the user asked for: a folder of photographs (None: the scenes), the run's folder (None: one under
    `runs`), worker processes.
    """

    photos: str | None
    run: str | None
    workers: int

    @property
    def folder(self) -> str:
        """The run's folder."""
        return self.run or ("runs/demo" if self.photos is None else "runs/demo-photos")


def embedded() -> Path:
    """Say where the demo's scenes and models lie in the installed package."""
    return Path(str(resources.files("tagmill.models").joinpath("demo", "data")))


def show_demo(console: Console, demo: Demo, data: Path, models: Callable[[Path], str] = demo_models) -> None:
    """Run the engine with the models in `data`, and print what came out and what to look at.

    Raises ConfigError for a missing folder of photographs, incomplete data, and a run's folder
    that belongs to another run.
    """
    _check(demo, data)
    _say(console, SCENES if demo.photos is None else PHOTOS)
    config = files.join(demo.folder, CONFIG)
    photos = None if demo.photos is None else Path(demo.photos).absolute()
    text = demo_config(os.path.abspath(demo.folder), data, photos) + models(data)
    files.replace_bytes(config, text.encode())
    launch.run(
        launch.RunRequest(
            config=config,
            overrides=[],
            runner="local",
            workers=demo.workers,
            hints=[],
            accept_changes=True,
            check_sources=False,
            log_format="auto",
            flags=[],
        ),
        console,
    )
    run = RunFolder(demo.folder)
    demo_report.show(console, run, config, None if photos else data / "truth.parquet")
    if photos:
        _say(console, f"{PHOTOS} {INSTEAD}", style="yellow")


def _check(demo: Demo, data: Path) -> None:
    if demo.photos is not None and not Path(demo.photos).is_dir():
        raise ConfigError(f"{demo.photos} is not a folder; give a folder of jpg, png or webp files")
    if lacks := [module for module in NEEDS if find_spec(module) is None]:
        raise ConfigError(f"the demo: {', '.join(lacks)} is not installed: pip install 'tagmill[demo]'")
    missing = [piece for piece in PIECES if not any(data.glob(piece))]
    if missing:
        raise ConfigError(f"the demo needs {', '.join(missing)} in {data}; install tagmill again")
    run = Path(demo.folder)
    if demo.photos is not None and run.resolve().is_relative_to(Path(demo.photos).resolve()):
        raise ConfigError(f"{run} lies among the photographs, and its pictures would be read; choose --run")
    if (run / "run.yaml").exists() and not (run / CONFIG).exists():
        raise ConfigError(f"{run} is the folder of another run; choose one with --run")


def _say(console: Console, text: str, style: str = "") -> None:
    """Print a paragraph, broken between words, with an empty line around it."""
    console.print()
    console.print(text, style=style, highlight=False, soft_wrap=not console.is_terminal)
    console.print()
