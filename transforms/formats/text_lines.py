"""The lines of a file of text, none of which is held that is too long, and what the first of them tells."""

from collections.abc import Iterator
from typing import Any


def other_format(line: bytes) -> str | None:
    """Say what a file is whose first line is no JSON, and which format to use; None if nobody can tell."""
    if line[:1] in (b"{", b"[", b'"') and b"\t" not in line:
        return None
    if b"\t" in line:
        return "TSV: use format tsv"
    return "CSV: use format csv" if b"," in line else None


def bounded_lines(stream: Any, limit: int) -> Iterator[bytes | None]:
    """Give the lines of a file; None for a line longer than `limit`, which is never held whole."""
    pieces: list[bytes] = []
    size = 0
    while chunk := stream.read(1 << 20):
        first, *others = chunk.split(b"\n")
        for number, piece in enumerate((first, *others)):
            if number:
                yield b"".join(pieces) if size <= limit else None
                pieces, size = [], 0
            size += len(piece)
            if size <= limit:
                pieces.append(piece)
            else:
                pieces.clear()
    if size:
        yield b"".join(pieces) if size <= limit else None
