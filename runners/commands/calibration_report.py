"""What `tagmill models calibrate` writes: the thresholds, and how they did on the images that were held out.

OUT/thresholds.txt        a threshold a line, in the order of the tags, as the official list has them
OUT/calibration.parquet   a row a tag: its threshold, why it is not its own, counts, 95 percent intervals
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from tagmill.models.training.calibration import Aim, Calibrated, Calibration, Check
from tagmill.tag_system.core import files

_COUNTS = [
    pa.field(f"{part}_{name}", pa.int64(), nullable=False)
    for part in ("fitted", "check", "before")
    for name in ("positives", "predicted", "right")
]
_INTERVALS = [
    pa.field(f"{name}_{end}", pa.float64(), nullable=False)
    for name in ("precision", "recall", "f1")
    for end in ("low", "high")
]
SCHEMA = pa.schema(
    [
        pa.field("tag", pa.string(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("fallback", pa.string(), nullable=False),
        *_COUNTS,
        *_INTERVALS,
    ]
)
"""`fallback` is empty, or few_positives, or unreachable. `fitted` counts the images that chose the threshold,
`check` the others, `before` these by the threshold before; intervals are those of `check`."""


def write(out: str, found: Calibration) -> None:
    """Write both files into a folder, which is made. Raises ConfigError if that cannot be done."""
    table = pa.Table.from_pylist([_record(tag) for tag in found.tags], SCHEMA)
    with files.replacing(files.join(out, "thresholds.txt")) as partial:
        partial.write_text("".join(f"{tag.threshold!r}\n" for tag in found.tags))
    with files.replacing(files.join(out, "calibration.parquet")) as partial:
        pq.write_table(table, partial, compression="zstd")


def show(console: Console, found: Calibration, aim: Aim, fallback: str) -> None:
    """Print what was chosen, what fell back to what, and what the held-out images say."""
    fallbacks = Counter(tag.fallback for tag in found.tags)
    fitting, checking = found.images
    low, high = found.of1_interval
    lines = [
        f"{fallbacks['']:,} of {len(found.tags):,} tags have a threshold of their own, chosen on "
        f"{fitting:,} images and checked on {checking:,}",
        f"{fallbacks['few_positives']:,} have fewer than {aim.min_positives} positives there: they take "
        f"{fallback}",
    ]
    if aim.precision is not None:
        lines.append(f"{fallbacks['unreachable']:,} reach {aim.precision:g} nowhere and are never predicted")
    lines += [
        f"mean F1 of tags on the held-out images: {_macro(found, 'before'):.4f} before, "
        f"{_macro(found, 'check'):.4f} now",
        f"F1 of all decisions there: {found.of1:.4f}, between {low:.4f} and {high:.4f}",
    ]
    if aim.precision is not None:
        short = [tag for tag in found.tags if not tag.fallback and tag.check.precision[1] < aim.precision]
        lines.append(
            f"{len(short):,} tags stay under {aim.precision:g} there by more than chance{_first(short)}"
        )
    rare = sorted(
        (tag for tag in found.tags if tag.fallback == "few_positives"), key=_positives, reverse=True
    )
    if rare:
        lines.append(f"label more images with{_first(rare)}" + (", ..." if len(rare) > 5 else ""))
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _positives(tag: Calibrated) -> int:
    return tag.fitted.positives


def _first(tags: Sequence[Calibrated]) -> str:
    names = [f"{tag.tag} ({tag.fitted.positives})" for tag in tags[:5]]
    return ": " + ", ".join(names) if names else ""


def _macro(found: Calibration, part: str) -> float:
    """Average F1 over tags that the held-out images have."""
    checks: list[Check] = [getattr(tag, part) for tag in found.tags]
    values = [check.point or 0.0 for check in checks if check.positives]
    return sum(values) / len(values) if values else 0.0


def _record(tag: Calibrated) -> dict[str, Any]:
    record: dict[str, Any] = {"tag": tag.tag, "threshold": tag.threshold, "fallback": tag.fallback}
    for part in ("fitted", "check", "before"):
        check: Check = getattr(tag, part)
        for name in ("positives", "predicted", "right"):
            record[f"{part}_{name}"] = getattr(check, name)
    for name in ("precision", "recall", "f1"):
        record[f"{name}_low"], record[f"{name}_high"] = getattr(tag.check, name)
    return record
