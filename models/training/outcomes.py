"""What became of an epoch's samples: skipped ones are told, and an epoch of which none is left ends all."""

from collections.abc import Callable

from tagmill.models.training.journal import Journal
from tagmill.models.training.loader import READ, Loader
from tagmill.models.training.process import Process
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import Split


def tell_skipped(
    split: Split,
    loader: Loader,
    process: Process,
    say: Callable[[str], None],
    journal: Journal | None,
    *,
    step: int,
    epoch: int,
) -> None:
    """Say and log how many samples of a loader's epoch were skipped in all processes, if any, and why.

    `step` and `epoch` are those of the training.
    """
    found = process.gather(loader.outcomes)
    skipped = {reason: count for reason, count in sorted(found.items()) if reason != READ}
    if not skipped:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.items())
    count = sum(skipped.values())
    say(f"epoch {epoch}: {count} of {found.total()} samples of {split} were skipped: {reasons}")
    if journal is not None:
        position = {"step": step, "epoch": epoch, "split": split}
        journal.write(position | {"read": found[READ], "skipped": skipped})


def check_read(loader: Loader, process: Process) -> None:
    """Raise ConfigError if no sample of the latest epoch could be read: nothing was learned in it."""
    found = process.gather(loader.outcomes)
    if found and not found[READ]:
        raise ConfigError(
            f"no sample of epoch {loader.epoch} could be read ({', '.join(sorted(found))}), so "
            "nothing was learned: repair the dataset, or raise data.max_pixels, and start again"
        )
