"""What a training writes down: a line of JSON for every so many steps, and TensorBoard if asked."""

import json
from pathlib import Path
from typing import Any

from tagmill.tag_system.errors import ConfigError

LOG = "log.jsonl"


class Journal:
    """Appends to OUT/log.jsonl; lines of steps after `step`, which are to be taken anew, are cut off first.

    Raises ConfigError if TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, step: int, *, tensorboard: bool = False) -> None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / LOG
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if _step(line) <= step))
        self._stream = path.open("a", buffering=1)
        self._board = _board(out, step) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        """Write a line down; it has a `step`."""
        self._stream.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    """Give a line's step; one that a dying process broke off is as good as of a later step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")


def _board(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("tensorboard: true needs `pip install tensorboard`, or leave it out") from error
    return SummaryWriter(str(out), purge_step=step + 1)
