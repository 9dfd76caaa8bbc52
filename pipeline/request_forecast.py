"""How many requests the object stores of a run will get, told by samples of it.

They go with parts rather than with examples: a part is read and written by a few requests, whatever it holds.
The samples have about a part a source; one more, cut into parts of one example, shows what a part asks for.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tagmill.pipeline.trials import Trial
from tagmill.tag_system.core.store_requests import StoreRequests
from tagmill.transforms.ingest import Ingest


def parts_of(total: int, sizes: Sequence[int], part_size: int) -> float:
    """Say into how many parts `total` examples are cut that come from sources of these sizes in bytes."""
    every = max(sum(sizes), 1)
    return sum(max(1, total * size / every / part_size + 0.5) for size in sizes)  # the last is seldom full


def requests_of(stage: str, samples: Sequence[Trial], examples: float, parts: float) -> StoreRequests:
    """Extend what a stage asked for in samples to the whole run, which is cut into so many parts."""
    reads, writes = (
        _extended(stage, samples, kind, examples, parts)
        for kind in (lambda made: made.reads, lambda made: made.writes)
    )
    return StoreRequests(reads, writes)


def _extended(
    stage: str,
    samples: Sequence[Trial],
    kind: Callable[[StoreRequests], float],
    examples: float,
    parts: float,
) -> float:
    """Find what is asked once, for each part and for each example, by least squares."""
    known = [[1, len(one.records[Ingest.name].parts), one.examples(stage)] for one in samples]
    found = np.linalg.lstsq(np.array(known), [kind(one.spent[stage].requests) for one in samples])[0]
    return float(found.clip(0) @ [1, parts, examples])
