"""The shipped demo dataset: scenes with faulty captions as webdataset tars, and the truth beside them."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from demo_recipe.captions import caption
from demo_recipe.things import things
from demo_recipe.world import Scene, World

SCENES_A_TAR = 500

TRUTH = "truth.parquet"

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("kinds", pa.list_(pa.string()), nullable=False),
        pa.field(
            "objects",
            pa.list_(
                pa.struct(
                    [
                        ("tag", pa.string()),
                        ("x1", pa.float32()),
                        ("y1", pa.float32()),
                        ("x2", pa.float32()),
                        ("y2", pa.float32()),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""A row a scene: every true tag with its kind, and every thing with its box in pixels."""


def write(world: World, numbers: range, folder: Path) -> None:
    """Draw the scenes of a range into `folder`: tars of KEY.jpg and KEY.txt, and the table of the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = []
    for start in range(0, len(numbers), SCENES_A_TAR):
        path = folder / f"scenes-{start // SCENES_A_TAR:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in numbers[start : start + SCENES_A_TAR]:
                scene, key = world.scene(number), f"{number:06d}"
                _add(tar, f"{key}.jpg", scene.jpeg)
                _add(tar, f"{key}.txt", caption(scene, number).encode())
                truth.append(_truth(key, scene))
    pq.write_table(pa.Table.from_pylist(truth, SCHEMA), folder / TRUTH, compression="zstd")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _truth(key: str, scene: Scene) -> dict[str, object]:
    objects = [
        {"tag": things()[p.label].name, **dict(zip(("x1", "y1", "x2", "y2"), p.box, strict=True))}
        for p in scene.placed
    ]
    return {"key": key, "tags": list(scene.tags), "kinds": list(scene.tags.values()), "objects": objects}
