"""Files and folders of models that are there whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tagmill.tag_system.core.errors import ConfigError


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a folder beside `path`; at the end all in that folder is moved here.

    The parents of `path` are made. Raises ConfigError if something cannot be written; then nothing is left.
    """
    folder = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder / path.name
        for made in folder.iterdir():
            made.replace(path.with_name(made.name))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
