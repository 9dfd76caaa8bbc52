"""Makes source files for tests: images of coloured squares whose truth is known, tars, JSON lines."""

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 60),
    "blue": (40, 60, 220),
    "yellow": (235, 220, 40),
    "purple": (150, 40, 170),
}
"""Every colour is a thing here: a "red" is a red square. See VOCABULARY."""

VOCABULARY = "".join(f"{name}\tobject\t{name} square\n" for name in COLOURS) + "tidy\tattribute\t\n"


def square_image(names: list[str], seed: int = 0, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Draw one square for each name, side by side, on light grey."""
    generator = random.Random(seed)
    image = Image.new("RGB", size, (235, 235, 235))
    draw = ImageDraw.Draw(image)
    width = size[0] // max(1, len(names))
    for place, name in enumerate(names):
        side = generator.randint(width // 3, width // 2)
        x = place * width + generator.randint(1, width - side - 1)
        y = generator.randint(1, size[1] - side - 1)
        draw.rectangle((x, y, x + side, y + side), fill=COLOURS[name])
    return image


def encode(image: Image.Image, format_: str = "PNG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, format_)
    return sink.getvalue()


def members(
    key: str, seed: int, captions: list[Any] | None = None, truth: list[str] | None = None
) -> dict[str, bytes]:
    """One example of one to three squares: caption and truth name all of them unless others are given."""
    generator = random.Random(seed)
    names = generator.sample(sorted(COLOURS), generator.randint(1, 3))
    if captions is None:
        captions = ["a " + " and a ".join(f"{name} square" for name in names)]
    fields = {"captions": captions, "truth": names if truth is None else truth, "number": seed}
    return {f"{key}.png": encode(square_image(names, seed)), f"{key}.json": json.dumps(fields).encode()}


def write_tar(path: Path, contents: list[tuple[str, bytes]]) -> Path:
    """Write members in their order, names repeated as they come."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in contents:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_squares(path: Path, count: int, first: int = 0) -> Path:
    """Write a webdataset tar of `count` examples with known squares."""
    contents = [item for i in range(first, first + count) for item in members(f"{i:06d}", i).items()]
    return write_tar(path, contents)


def write_config(folder: Path, **changes: Any) -> Path:
    """Write a config over `folder`/data/*.tar with the models of `square_models`, and the vocabulary."""
    (folder / "vocabulary.tsv").write_text(VOCABULARY)
    config: dict[str, Any] = {
        "run": str(folder / "run"),
        "vocabulary": str(folder / "vocabulary.tsv"),
        "part_size": 5,
        "inputs": [{"name": "squares", "format": "webdataset", "path": str(folder / "data" / "*.tar")}],
        "tag": {"model": "square_models:SquareTagger"},
        "localize": {"model": "square_models:SquareLocalizer"},
        "embed": {"model": "square_models:SquareEmbedder"},
        "cluster": {"min_regions": 2},
        "shards": {"size": 10},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config | changes))  # JSON is YAML
    return path
