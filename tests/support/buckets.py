"""A bucket of an object store, and runs of coloured squares that lie in it."""

from dataclasses import dataclass
from pathlib import Path

from faulty_proxy import FaultyProxy
from runs import shard_bytes, squares_config
from tagmill.tag_system.core import files

TARS = {"b.tar": (8, 0)}


def squares(folder: object) -> list[dict[str, str]]:
    path = f"{folder}/data/*.tar"
    return [{"name": "squares", "format": "webdataset", "path": path, "labels": "truth"}]


@dataclass
class Store:
    """A store of one bucket, behind a proxy."""

    scheme: str
    proxy: FaultyProxy

    def uri(self, *names: str) -> str:
        return files.join(f"{self.scheme}://bucket", *names)

    def config(self, folder: Path, name: str, **changes: object) -> Path:
        """Write a config whose tar and run folder lie in the store."""
        changes |= {"run": self.uri(name, "run"), "inputs": squares(self.uri(name))}
        config = squares_config(folder, TARS, **changes)
        fs, path = files.filesystem(self.uri(name, "data", "b.tar"))
        fs.put_file(str(folder / "data" / "b.tar"), path)
        return config

    def shards(self, folder: Path, name: str) -> dict[str, str]:
        fs, path = files.filesystem(self.uri(name, "run"))
        fs.get(path, str(folder / "copy"), recursive=True)
        return shard_bytes(folder / "copy")
