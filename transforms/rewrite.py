"""Rewrites parts without some of their rows, as if these had never come in: no model is called for it."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import row_digests, table_digest, without_rows
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.parts import Header, Part
from tagmill.transforms.stage import PartStage, PartTask, Stage
from tagmill.transforms.worker import Worker


@dataclass(frozen=True)
class Rewritten:
    """The files of a part without some of its rows; `dead` is None where no dead letter is left."""

    header: Header
    data: bytes
    dead: bytes | None

    def create(self, folder: str) -> None:
        """Commit the part into the folder of a generation, where it is not."""
        if self.dead is not None:
            files.create_bytes(parts.dead_uri(folder, self.header.name), self.dead)
        files.create_bytes(parts.part_uri(folder, self.header.name), self.data)

    def replace(self, folder: str) -> None:
        """Take the place of the part as it was. For the one driver of a run.

        The part goes first: whoever begins again after an interruption in between still finds the rows among
        its dead letters.
        """
        files.replace_bytes(parts.part_uri(folder, self.header.name), self.data)
        if self.dead is not None:
            files.replace_bytes(parts.dead_uri(folder, self.header.name), self.dead)
        else:
            files.remove(parts.dead_uri(folder, self.header.name))


class RewriteWorker(Worker[PartStage[Any], PartTask]):
    """Rewrites the parts of a `PartStage` without the rows that ingest does not have any more."""

    uses_model = False

    def setup(self) -> None:
        """Load nothing."""

    def is_done(self, task: PartTask) -> bool:
        """Look for the part: it is the last of its files."""
        return files.exists(parts.part_uri(self.folder, task.name))

    def make(self, task: PartTask) -> None:
        """Rewrite a part and commit it."""
        ingested = parts.read_part(task.inputs["ingest"], ["row", "captions"])
        part = parts.read_part(parts.part_uri(task.origin, task.name))
        dead = read_dead(task.origin, part.header)
        gone = part.header.rows & ~ingested.header.rows
        made = replace(part.header, fingerprint=task.fingerprint, base=task.base or part.header.base)
        if part.header.captions and not part.header.captions_of:
            made = replace(made, captions=_count_captions(ingested.table, part.header.rows))
        rewrite(self.stage, replace(part, header=made), dead, gone).create(self.folder)


def _count_captions(examples: pa.Table, rows: int) -> int:
    """Count the captions of the examples in some rows that a parser is given."""
    return sum(
        text is not None
        for example in examples.to_pylist()
        if rows >> example["row"] & 1
        for text in example["captions"]
    )


def read_dead(folder: str, header: Header) -> pa.Table | None:
    """Read the dead letters of a part; None if it has none."""
    return parquet.read_table(parts.dead_uri(folder, header.name)) if "dead" in header.files else None


def rewrite(
    stage: Stage[Any],
    part: Part,
    dead: pa.Table | None,
    gone: int,
    notes: Mapping[str, Any] | None = None,
    beside: Mapping[str, str] | None = None,
) -> Rewritten:
    """Make a part without some of its rows.

    Args:
        stage: The stage that made it.
        part: The part.
        dead: Its dead letters.
        gone: Bitmap of the rows.
        notes: Notes that change with them.
        beside: Digests of files beside the part that changed with them.

    Returns:
        The part. Its header says what its digests were: what was made of those rows that are left, before,
        can be rewritten likewise.
    """
    rows = bitmaps.numbers(gone)
    before, table = part.header, _without(part.table, rows)
    letters = None if dead is None else _without(dead, rows)
    data = parquet.table_bytes(letters) if letters is not None and letters.num_rows else None
    letters_digest = {} if data is None else {"dead": hashlib.sha256(data).hexdigest()}
    kept = {name: digest for name, digest in before.files.items() if name != "dead"}
    slices = stage.cut_slices(table)
    lost = [_left(reasons, gone) for reasons in (before.dropped, before.dead, before.dead_captions)]
    captions_of = {row: count for row, count in before.captions_of.items() if not gone >> row & 1}
    header = replace(
        before,
        digest=parts.part_digest(table, *lost),
        rows=before.rows & ~gone,
        captions=sum(captions_of.values()) if before.captions_of else before.captions,
        dropped=lost[0],
        dead=lost[1],
        dead_captions=lost[2],
        files=kept | dict(beside or {}) | letters_digest,
        slices={name: table_digest(one) for name, one in slices.items()},
        by_row={name: row_digests(one) for name, one in slices.items()},
        read={name: without_rows(digests, rows) for name, digests in before.read.items()},
        tags=stage.tags_of(table),
        notes=_counted_fields(before.notes, letters) | dict(notes or {}),
        captions_of=captions_of,
        was=before.slices | {parts.WHOLE: before.digest},
    )
    return Rewritten(header, parquet.table_bytes(table, header.to_json()), data)


def _counted_fields(notes: Mapping[str, Any], letters: pa.Table | None) -> dict[str, Any]:
    """Count the fields again that examples lost and live on, where ingest notes them."""
    if "fields" not in notes or letters is None:
        return dict(notes)
    lost = Counter(one["reason"] for one in letters.to_pylist() if one["unit"] == "field")
    return {**notes, "fields": notes["fields"] | {"lost": dict(sorted(lost.items()))}}


def _without(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["row"], pa.array(rows, pa.int32()))))


def _left(reasons: Mapping[str, Sequence[int]], gone: int) -> dict[str, list[int]]:
    left = {reason: [row for row in rows if not gone >> row & 1] for reason, rows in reasons.items()}
    return {reason: rows for reason, rows in left.items() if rows}
