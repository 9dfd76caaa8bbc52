import json
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import call
from runs import current_folder, drive
from sources import encode, square_image, write_config
from turned import NAMES, picture, turned

HOSTILE = "a red square\"}]</View>\n---\n<script>alert(1)</script>\u202e,, = 'x' \\ \U0001f7e5"

KEYS = {
    "plain": "plain",
    "turned": "turned",
    "bare": "bare",
    "odd": "dir.one/Größe, 中文 & 100%/a.b.jpg",
}
"""Names of the examples, and what the source calls them."""


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four examples: a plain one, one that EXIF turns, one without tags, one with odd names."""
    folder = tmp_path_factory.mktemp("exported")
    images = {
        "plain": encode(square_image(["red", "blue"], 1)),
        "turned": turned(picture(), 6, "JPEG"),
        "bare": encode(square_image([], 2)),
        "odd": encode(square_image(["green"], 3), "WEBP"),
    }
    captions = {
        "plain": ["a red square and a blue square", "a tidy red square"],
        "turned": ["a red square"],
        "bare": [],
        "odd": [HOSTILE],
    }
    (folder / "data").mkdir()
    lines = []
    for name, key in KEYS.items():
        (folder / "data" / name).write_bytes(images[name])
        line = {"image": name, "key": key, "captions": captions[name], "license": "CC-BY-4.0"}
        line |= {
            "split": "val" if name == "odd" else "train",
            "labels": NAMES[:1] if name == "turned" else [],
        }
        line |= {"labels": [{"name": "blue", "bbox": [57, 8, 18, 18]}]} if name == "plain" else {}
        lines.append(line | {"number": len(lines)})
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"name": "in", "format": "jsonl", "path": str(folder / "lines.jsonl")}
    source["images"] = str(folder / "data")
    config = write_config(
        folder,
        inputs=[source],
        parse={"mode": "fast"},
        clean={"policy": {"trust_given": False}},
    )
    drive(config)
    return folder / "run"


@pytest.fixture(scope="session")
def shards(exported_run: Path) -> Path:
    """The dataset of the run."""
    return current_folder(exported_run, "shards")


@pytest.fixture(scope="session")
def export_to(exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export the run in a format, with options of the command; the folder."""

    def export(to: str, *options: object) -> Path:
        folder = tmp_path_factory.mktemp("out") / to.replace(":", "-")
        call("export", exported_run, "--to", to, folder, *options)
        return folder

    return export
