"""Many scenes as arrays on disk, rendered once."""

import io
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from demo_recipe.captions import true_caption
from demo_recipe.sprites import Sprites
from demo_recipe.things import COLOURS, PLACES, things
from demo_recipe.world import SIZE, World
from tagmill.tag_system.core import files

CHUNK = 500
"""Scenes that a process renders at a time."""


@dataclass(frozen=True)
class SceneSet:
    """Scenes of one range with their truth.

    `images` (n, SIZE, SIZE, 3) uint8; of each scene `boxes` (k, 4) x1, y1, x2, y2 in pixels and `labels`
    (k,), an index into `names`; `groups` (len(names),) numbers the group of each name; `places` (n,) and
    `colours` (n, 5) bool are indexes into `PLACES` and `COLOURS`; `captions` name all there is.
    """

    images: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]
    places: NDArray[np.int64]
    colours: NDArray[np.bool_]
    captions: list[str]
    names: tuple[str, ...]
    groups: NDArray[np.int64]

    def targets(self) -> NDArray[np.bool_]:
        """True tags of each scene: (n, things + places + colours), in the order of `things.names()`."""
        objects = np.zeros((len(self.images), len(self.names)), dtype=bool)
        for row, labels in enumerate(self.labels):
            objects[row, labels] = True
        places = np.eye(len(PLACES), dtype=bool)[self.places]
        return np.concatenate([objects, places, self.colours], axis=1)


def load(folder: Path, name: str, numbers: range, tar: Path, font: Path | None, processes: int) -> SceneSet:
    """Render the scenes of a range into `folder`, unless they are there, and open them."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels, truth = folder / f"{name}.npy", folder / f"{name}.json"
    if not truth.exists():
        records = []
        images = np.lib.format.open_memmap(
            pixels, mode="w+", dtype=np.uint8, shape=(len(numbers), SIZE, SIZE, 3)
        )
        chunks = [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]
        with ProcessPoolExecutor(processes) as pool:
            jobs = pool.map(_render, chunks, [tar] * len(chunks), [font] * len(chunks))
            for start, (jpegs, found) in zip(range(0, len(numbers), CHUNK), jobs, strict=True):
                for offset, jpeg in enumerate(jpegs):
                    images[start + offset] = np.asarray(PIL.Image.open(io.BytesIO(jpeg)))
                records += found
        images.flush()
        files.replace_bytes(str(truth), json.dumps(records).encode())
    return _open(pixels, truth)


@cache
def _world(tar: Path, font: Path | None) -> World:
    return World(Sprites(tar, font))


def _render(numbers: range, tar: Path, font: Path | None) -> tuple[list[bytes], list[dict[str, object]]]:
    world = _world(tar, font)
    jpegs, records = [], []
    for number in numbers:
        scene = world.scene(number)
        jpegs.append(scene.jpeg)
        records.append(
            {
                "boxes": [placed.box for placed in scene.placed],
                "labels": [placed.label for placed in scene.placed],
                "place": PLACES.index(scene.place),
                "colours": [list(COLOURS).index(p.colour) for p in scene.placed if p.colour],
                "caption": true_caption(scene, number),
            }
        )
    return jpegs, records


def _open(pixels: Path, truth: Path) -> SceneSet:
    records = json.loads(truth.read_text())
    colours = np.zeros((len(records), len(COLOURS)), dtype=bool)
    for row, record in enumerate(records):
        colours[row, record["colours"]] = True
    groups = {group: index for index, group in enumerate(dict.fromkeys(thing.group for thing in things()))}
    return SceneSet(
        images=np.load(pixels, mmap_mode="r"),
        boxes=[np.array(r["boxes"], dtype=np.float32).reshape(-1, 4) for r in records],
        labels=[np.array(r["labels"], dtype=np.int64) for r in records],
        places=np.array([r["place"] for r in records]),
        colours=colours,
        captions=[r["caption"] for r in records],
        names=tuple(thing.name for thing in things()),
        groups=np.array([groups[thing.group] for thing in things()]),
    )
