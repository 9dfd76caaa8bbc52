"""Streams that sources pass through."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any


class HashingStream(io.RawIOBase):
    """Passes a file through, front to end, and hashes it on the way."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._state = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Say that this is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read and hash up to `size` bytes."""
        data: bytes = self._stream.read(size)
        self._state.update(data)
        self.size += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Read and hash as much as the buffer holds, for what wraps this stream."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> str:
        """Read what is left and give the sha256 of the whole file."""
        while self.read(1 << 20):
            pass
        return self._state.hexdigest()


class StreamPart:
    """The next `size` bytes of a stream, as a file that is read once, or passed over."""

    def __init__(self, stream: HashingStream, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Pass over what is left."""
        while self.read(1 << 20):
            pass


class PieceStream(io.RawIOBase):
    """Reads pieces of bytes as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Say that this is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to as many bytes as the buffer holds; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
