"""A file system in memory that fails now and then, as networks do: `flaky://`.

The first read of every path whose name holds `FlakyFileSystem.bad` raises OSError, and the second succeeds.
"""

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyFileSystem(MemoryFileSystem):
    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    bad: ClassVar[str] = "\0"
    failed: ClassVar[set[str]] = set()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky:"))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb" and self.bad in path and path not in self.failed:
            self.failed.add(path)
            raise OSError(f"connection lost: {path}")
        return super()._open(path, mode, **options)


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
