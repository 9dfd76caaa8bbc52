"""What `tagmill train` says at its end: which model is the best, and how good its classes are."""

from typing import TYPE_CHECKING

from rich.console import Console

from tagmill.runners.commands.fitted import FittedTable, columns_of
from tagmill.tag_system.core import files
from tagmill.tag_system.core.text import shown

if TYPE_CHECKING:
    from tagmill.models.training.out_folder import OutFolder
    from tagmill.models.training.selection import Selection

EACH = 5
"""Classes that are shown of the best, and of the worst."""


def show(console: Console, folder: "OutFolder", selection: "Selection") -> None:
    """Print the best and the worst classes of the best model; without one, nothing."""
    from tagmill.models.training.tag_table import TAGS, read_present

    if selection.is_over:
        _say(console, f"ended early: the last {selection.waited} validations found no better one")
    best = folder.best()
    if selection.value is None or best is None or not files.exists(tags := files.join(best, TAGS)):
        return
    found = f"{selection.figure} {selection.value:.4f}"
    _say(console, f"best: {best} is step {selection.step}, {found} on val")
    rows = read_present(tags)
    top, worst = rows[:EACH], rows[EACH:][-EACH:]
    if rows:
        heading = f"{len(rows):,} classes with positives in val, in %: {len(top)} best"
        _say(console, f"{heading}, {len(worst)} worst" if worst else heading)
        table = FittedTable(columns_of(("class",), ("positives", "AP", "precision", "recall", "F1")))
        for row in top + worst:
            rates = [f"{100 * row[name]:.1f}" for name in ("ap", "precision", "recall", "f1")]
            table.add_row(shown(row["tag"]), f"{row['positives']:,}", *rates)
        console.print(table)
        _say(console, f"all: {tags}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
