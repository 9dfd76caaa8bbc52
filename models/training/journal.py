"""What a training writes down: a line of JSON for every so many steps; TensorBoard and W&B if asked."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from tagmill.models.base import Image
from tagmill.tag_system.core import files, secrets
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json

LOG, WANDB_ID = "log.jsonl", "wandb.id"


class Journal:
    """Appends to OUT/log.jsonl; lines of steps after `step`, which are to be taken again, are cut off first.

    So are those of the validation of `step` unless that is over (`is_evaluated`). `wandb` are options of
    `wandb.init`; a training that goes on continues its run there. Raises ConfigError if TensorBoard or W&B is
    asked for and not installed, or does not start. W&B's own files are not for a folder that `goes_away`.
    """

    def __init__(
        self,
        out: Path,
        step: int,
        *,
        is_evaluated: bool = True,
        tensorboard: bool = False,
        wandb: dict[str, Any] | None = None,
        goes_away: bool = False,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / LOG
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        kept = "".join(f"{line}\n" for line in lines if _is_kept(line, step, is_evaluated))
        files.replace_bytes(str(path), kept.encode())
        self._stream = path.open("a", buffering=1)
        self._board = _board(out, step) if tensorboard else None
        self._run = None if wandb is None else _run(out, wandb, {} if goes_away else {"dir": str(out)})

    def write(self, line: dict[str, Any]) -> None:
        """Write a line down; it has a `step`. Raises ConfigError if the disk does not take it."""
        try:
            self._stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise ConfigError(f"cannot write {self._stream.name}: {error.strerror}") from error
        if self._run is not None:
            self._run.log(line, step=line["step"])
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, line["step"])

    @property
    def shows_pictures(self) -> bool:
        """Tell whether there is anything to show pictures on."""
        return self._board is not None or self._run is not None

    def show(self, step: int, pictures: Sequence[tuple[str, Image]]) -> None:
        """Show pictures, uint8 [H, W, 3] with their names, beside the figures of a step."""
        if self._board is not None:
            for name, pixels in pictures:
                self._board.add_image(f"val/{name}", pixels, step, dataformats="HWC")
        if self._run is not None and pictures:
            import wandb

            found = [wandb.Image(pixels, caption=name) for name, pixels in pictures]
            self._run.log({"val": found}, step=step)

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # of a line that could not be written, which was said
            self._stream.close()
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()


def _is_kept(line: str, step: int, is_evaluated: bool) -> bool:
    """Tell whether a line is of what is not done again; one that a dying process broke off is not."""
    try:
        values = parse_json(line)
        of_val = values.get("split") == "val" or any(name.startswith("val_") for name in values)
        return bool(values["step"] < step or (values["step"] == step and (is_evaluated or not of_val)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _run(out: Path, options: dict[str, Any], place: dict[str, str]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("wandb needs `pip install wandb`, or leave it out") from error
    name = out / WANDB_ID
    if not name.exists():
        files.replace_bytes(str(name), (uuid4().hex[:8] + "\n").encode())
    ours = {**place, "id": name.read_text().strip(), "resume": "allow"}
    try:
        return wandb.init(**ours | secrets.resolve(options))
    except (TypeError, ValueError, wandb.Error) as error:
        raise ConfigError(f"wandb: {str(error).splitlines()[0]}") from error


def _board(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("tensorboard: true needs `pip install tensorboard`, or leave it out") from error
    return SummaryWriter(str(out), purge_step=step + 1)
