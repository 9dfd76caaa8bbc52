"""What a full disk breaks off leaves the old file as it was, whoever writes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from commands import call
from disks import full_disk
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.ram.config import write as write_config
from tagmill.models.ram.labels import Labels
from tagmill.models.ram.labels import save as save_labels
from tagmill.models.training import checkpoint
from tagmill.models.training.journal import Journal
from tagmill.tag_system import descriptions
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

LONG = ["a word"] * 500
CONFIG = RamConfig(encoder=EncoderConfig(name="none", width=8), classes=tuple(LONG))


def evaluated(path):
    """Make `path` the state of the last checkpoint of a training, and record its evaluation."""
    out = path.parent / "out"
    (out / "steps").mkdir(parents=True)
    (out / "steps" / "1").symlink_to(path.parent)
    (out / "last").symlink_to("steps/1")
    checkpoint.record_evaluation(out, {"long": LONG}, None, best=False)


WRITERS = {
    "text.json": lambda path: files.replace_bytes(str(path), b"a word " * 500),
    "descriptions.json": lambda path: descriptions.write({"dog": LONG}, path),
    "config.json": lambda path: write_config(CONFIG, path.parent),
    "labels.safetensors": lambda path: save_labels(Labels(("dog",), torch.ones(1, 999), "", ""), path),
    "state.json": evaluated,
    "log.jsonl": lambda path: Journal(path.parent, 1),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_is_broken_off_leaves_the_old_file(name, tmp_path):
    old = "".join(json.dumps({"step": 0, "number": number}) + "\n" for number in range(100))
    path = tmp_path / name
    path.write_text(old)
    with pytest.raises((ConfigError, OSError), match="File too large"), full_disk():
        WRITERS[name](path)
    assert path.read_text() == old
    assert files.temporaries(str(tmp_path)) == []


def test_a_command_says_that_it_could_not_write(tmp_path):
    nouns, adjectives = ("dog", "cat", "car", "house", "river", "tree", "table"), ("red", "big", "old", "wet")
    pairs = [f"{adjective} {noun}" for noun in nouns for adjective in adjectives]
    captions = [f"{article} {pair}" for pair in pairs for article in ("a", "the")]
    pq.write_table(pa.table({"caption": captions}), tmp_path / "captions.parquet")
    path = tmp_path / "counts.tsv"
    call("vocab", "count", tmp_path / "captions.parquet", "-o", path)
    old = path.read_text()
    with full_disk(200):
        _, err = call("vocab", "count", tmp_path / "captions.parquet", "-o", path, code=2)
    assert err == f"tagmill: cannot write {path}: File too large\n"
    assert path.read_text() == old
