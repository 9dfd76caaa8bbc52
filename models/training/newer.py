"""Newer decisions than those in the shards, on disk, found by the key of a sample.

    FOLDER/keys.npy        uint64 [examples], rising: a hash of each key
    FOLDER/examples.npy    where each example's decisions lie, and of which image they speak
    FOLDER/decisions.npy   the decisions, 44 bytes each
    FOLDER/decisions.json  whose they are, and the names behind the numbers; written last

The arrays are mapped, not read: processes share them, and what a training has at hand is what it asked for
last. 14M images with 30 candidates each are 19 GB of disk.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tagmill.models.training.targets import NewerTag
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json
from tagmill.tag_system.decisions import Basis, Evidence, Verdict
from tagmill.tag_system.shard_contract import Sample

KEYS, EXAMPLES, DECISIONS, ABOUT = "keys.npy", "examples.npy", "decisions.npy", "decisions.json"

COUNTS = ("given", "parsed", "generated", "boxes")
FLAGS = ("asked",)
SCORES = tuple(field.name for field in fields(Evidence) if field.name not in (*COUNTS, *FLAGS))
"""Evidence by its type; a score that is not known is NaN."""

EXAMPLE = np.dtype([("image", "u8"), ("start", "i8"), ("count", "u4")])
DECISION = np.dtype(
    [("tag", "u4"), ("verdict", "u1"), ("rule", "u1"), ("basis", "u1")]
    + [(name, "u2") for name in COUNTS]
    + [(name, "?") for name in FLAGS]
    + [(name, "f4") for name in SCORES]
)

VERDICTS: tuple[str, ...] = get_args(Verdict)
BASES: tuple[str, ...] = get_args(Basis)

Columns = dict[str, NDArray[Any]]


class DecisionWriter:
    """Writes the decisions of a run, some examples at a time; `tags` are the names behind the numbers.

    The folder is made, and what it held before is replaced.
    """

    def __init__(self, folder: Path, tags: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).unlink(missing_ok=True)
        self._folder, self._tags = folder, list(tags)
        self._rules: dict[str, int] = {}
        self._stream = (folder / (DECISIONS + ".part")).open("wb")
        self._keys: list[NDArray[np.uint64]] = []
        self._examples: list[NDArray[np.void]] = []
        self._count = 0

    def add(
        self, keys: Sequence[str], images: Sequence[str], counts: NDArray[np.int64], some: Columns
    ) -> None:
        """Add examples by their keys and their images' sha256, with `counts` decisions each, in order.

        `some` are the columns of the decisions: `tag` by number, `verdict`, `rule` and `basis` by name,
        evidence.
        """
        rows = np.zeros(int(counts.sum()), DECISION)
        for name in ("tag", *COUNTS, *FLAGS, *SCORES):
            rows[name] = some[name]
        rows["verdict"] = [VERDICTS.index(verdict) for verdict in some["verdict"]]
        rows["basis"] = [BASES.index(basis) for basis in some["basis"]]
        rows["rule"] = [self._rules.setdefault(rule, len(self._rules)) for rule in some["rule"]]
        self._stream.write(rows.tobytes())
        examples = np.zeros(len(keys), EXAMPLE)
        examples["image"] = [_of_image(digest) for digest in images]
        examples["start"] = self._count + np.cumsum(counts) - counts
        examples["count"] = counts
        self._keys.append(np.array([_hash(key) for key in keys], np.uint64))
        self._examples.append(examples)
        self._count += len(rows)

    def close(self, about: dict[str, Any]) -> int:
        """Sort and write what is left; `about` says whose decisions these are. Counts the examples."""
        self._stream.close()
        raw = np.memmap(self._stream.name, DECISION, "r") if self._count else np.zeros(0, DECISION)
        np.save(self._folder / DECISIONS, raw)
        Path(self._stream.name).unlink()
        keys = np.concatenate([np.zeros(0, np.uint64), *self._keys])
        examples = np.concatenate([np.zeros(0, EXAMPLE), *self._examples])
        order = np.argsort(keys, kind="stable")
        np.save(self._folder / KEYS, keys[order])
        np.save(self._folder / EXAMPLES, examples[order])
        named = {"tags": self._tags, "rules": list(self._rules), "examples": len(keys)}
        files.replace_bytes(str(self._folder / ABOUT), (json.dumps(about | named) + "\n").encode())
        return len(keys)


class StoredDecisions:
    """What a `DecisionWriter` left in a folder; fits `Decisions`. Raises ConfigError if it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.about: dict[str, Any] = parse_json((folder / ABOUT).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder} is not a folder of a run's decisions: {error}") from error
        self._open()

    def _open(self) -> None:
        self._keys, self._examples, self._decisions = (
            np.load(self.folder / name, mmap_mode="r") for name in (KEYS, EXAMPLES, DECISIONS)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "about": self.about}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def check(self, dataset: str, vocabulary: str, keys: Sequence[str]) -> None:
        """Compare with a dataset, by its vocabulary's digest and some keys. Raises ConfigError."""
        run = self.about["run"]
        if self.about["vocabulary"] != vocabulary:
            raise ConfigError(
                f"data.decisions: {run} has another vocabulary than {dataset}: give a run with the same"
            )
        if not any(self._find(key) is not None for key in keys):
            raise ConfigError(
                f"data.decisions: {run} knows none of the keys of {dataset} (such as {keys[0]}): give a run "
                "over the same inputs, under the same names"
            )

    def tags_of(self, sample: Sample) -> list[NewerTag] | None:
        """Give all decisions on an example; None if the run has none on this very image under its key."""
        place = self._find(sample.key)
        if place is None:
            return None
        example = self._examples[place]
        if int(example["image"]) != _of_image(sample.sha256):
            return None
        start = int(example["start"])
        rows = self._decisions[start : start + int(example["count"])]
        return [self._tag(dict(zip(DECISION.names or (), row, strict=True))) for row in rows.tolist()]

    def _find(self, key: str) -> int | None:
        wanted = np.uint64(_hash(key))
        place = int(np.searchsorted(self._keys, wanted))
        return place if place < len(self._keys) and self._keys[place] == wanted else None

    def _tag(self, row: dict[str, Any]) -> NewerTag:
        evidence = {field: row[field] for field in (*COUNTS, *FLAGS)}
        # Not a number is what is not known: it alone differs from itself.
        evidence |= {field: row[field] for field in SCORES if row[field] == row[field]}
        return NewerTag(
            tag=self.about["tags"][row["tag"]],
            verdict=VERDICTS[row["verdict"]],
            rule=self.about["rules"][row["rule"]],
            basis=BASES[row["basis"]],
            evidence=Evidence(**evidence),
        )


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def _of_image(sha256: str) -> int:
    return int(sha256[:16], 16)
