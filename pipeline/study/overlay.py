"""Writes the decisions of a finished run into a folder, for a training on older shards."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagmill.models.training.newer import COUNTS, FLAGS, SCORES, DecisionWriter
from tagmill.pipeline.current import living_rows
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.candidates import Candidates
from tagmill.transforms.clean import Clean
from tagmill.transforms.ingest import Ingest

NAMES = ("verdict", "rule", "basis")


def lay_decisions(run: RunFolder, folder: Path) -> dict[str, Any]:
    """Write the current decisions of a run into a folder for `StoredDecisions`; gives what it says of them.

    Raises ConfigError if the run has no decisions yet, or its vocabulary cannot be found any more.
    """
    record = _record(run)
    vocabulary = _vocabulary(run)
    tags = [tag.name for tag in vocabulary]
    writer, names = DecisionWriter(folder, tags), pa.array(tags)
    for examples, decided in decision_tables(run):
        keys, images = examples["key"].to_pylist(), examples["sha256"].to_pylist()
        rows = examples["row"].to_numpy()
        places = np.searchsorted(rows, decided["row"].to_numpy())
        counts = np.bincount(places, minlength=len(rows)).astype(np.int64)
        columns = {name: decided[name].to_numpy() for name in (*COUNTS, *FLAGS, *SCORES)}
        columns["tag"] = pc.index_in(decided["tag"], names).to_numpy()
        columns |= {name: np.array(decided[name].to_pylist(), object) for name in NAMES}
        writer.add(keys, images, counts, columns)
    about = {"run": run.root, "generation": record.generation, "vocabulary": vocabulary.digest}
    return about | {"examples": writer.close(about)}


def _record(run: RunFolder) -> StageRecord:
    generation = run.current(Clean.name)
    record = run.read_record(Clean.name, generation) if generation else None
    if record is None:
        raise ConfigError(
            f"{run.root} has no decisions: give a run's folder, in which the stage clean is done"
        )
    return record


def _vocabulary(run: RunFolder) -> Vocabulary:
    """Load the vocabulary of a run, and check that it is still the one that the run had."""
    saved = run.saved_config() or {}
    vocabulary = Vocabulary.load(saved.get("vocabulary"))
    candidates = run.read_record(Candidates.name, run.current(Candidates.name) or "")
    if candidates is None or vocabulary.digest != candidates.spec["vocabulary"]:
        raise ConfigError(f"the vocabulary of {run.root} has changed since: run it again")
    return vocabulary


def decision_tables(run: RunFolder) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Give, part by part, the examples that live after clean, and the decisions on them.

    Raises ConfigError if the run has no decisions yet.
    """
    record = _record(run)
    ingest = run.generation(Ingest.name, run.current(Ingest.name) or "")
    clean = run.generation(Clean.name, record.generation)

    rows = living_rows(run)

    def read(name: str) -> tuple[pa.Table, pa.Table]:
        decided = parts.read_part(parts.part_uri(clean, name))
        examples = parquet.read_table(parts.part_uri(ingest, name), ["row", "key", "sha256"])
        living = pa.array(bitmaps.numbers(rows[name]), pa.int32())
        return tuple(t.filter(pc.is_in(t["row"], living)) for t in (examples, decided.table))

    with ThreadPoolExecutor(files.THREADS) as pool:
        names = list(record.parts)
        for start in range(0, len(names), files.THREADS):  # as many parts in memory as there are threads
            yield from pool.map(read, names[start : start + files.THREADS])
