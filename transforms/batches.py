"""Plans which images of a part go through a model together, so that its batches are full.

A plan is a function of the part and the config alone, never of free memory or of time: the same images share
a batch on any machine and in any attempt, and so the bytes of what is made stay the same.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Load:
    """What one row brings to a batch.

    Attributes:
        row: The row.
        size: Width and height of its prepared image; images of another size never share its batch. None for
            a model that takes any sizes together.
        held: Bytes that its prepared form takes.
        items: How many items the model runs for it, such as regions or texts; at least 1.
        inside: Width and height of what is not padding in `size`; None if all is.
        tokens: Lengths of the texts that it is asked; alike ones share batches, for shorter ones are padded.
        encoded: Bytes of its image as it is stored.
    """

    row: int
    size: tuple[int, int] | None
    held: int
    items: int = 1
    inside: tuple[int, int] | None = None
    tokens: tuple[int, ...] = ()
    encoded: int = 0

    @property
    def longest(self) -> int:
        """The length of its longest text; 0 without any."""
        return max(self.tokens, default=0)


@dataclass
class _Bin:
    """A batch that is being filled; `items` may exceed the limit, and then makes several forwards."""

    rows: list[int] = field(default_factory=list)
    items: int = 0
    held: int = 0

    def takes(self, load: Load, limit: int, most: int) -> bool:
        """Tell whether a row fits into what the last forward has left."""
        free = -self.items % limit
        return self.held <= most and (load.items - 1) % limit < free

    def add(self, load: Load) -> None:
        """Take in a row."""
        self.rows.append(load.row)
        self.items += load.items
        self.held += load.held


def plan(loads: Sequence[Load], limit: int, most: int, huge: Collection[int] = ()) -> list[list[int]]:
    """Deal rows to batches of at most `limit` items a forward: lists of rows, in the order to run them.

    Rows of the same size share batches, those of many items and long texts first, each in the first batch
    that has room for it. Where that would change no row's place, batches are just consecutive rows.

    Args:
        loads: The rows, ascending.
        limit: Most items of one forward.
        most: Bytes. A batch ends with the row whose prepared image exceeds them. And since images are read in
            the order of rows, and wait for their batch, rows are looked over for batches in runs of as many
            bytes of stored images.
        huge: Rows before whose turn nothing must have been read that waits.
    """
    if len({(load.size, load.items, load.longest) for load in loads}) <= 1:
        return _pack(loads, limit, most)
    return [rows for some in _runs(loads, most, huge) for rows in _by_size(some, limit, most)]


def _runs(loads: Sequence[Load], most: int, huge: Collection[int]) -> Iterator[list[Load]]:
    """Cut rows into runs of bounded bytes; a huge image is alone."""
    run: list[Load] = []
    size = 0
    for load in loads:
        if run and (size + load.encoded > most or load.row in huge or run[-1].row in huge):
            yield run
            run, size = [], 0
        run.append(load)
        size += load.encoded
    if run:
        yield run


def _by_size(loads: Sequence[Load], limit: int, most: int) -> list[list[int]]:
    groups: dict[tuple[int, int] | None, list[Load]] = {}
    for load in loads:
        groups.setdefault(load.size, []).append(load)
    found: list[list[int]] = []
    for group in groups.values():
        ordered = sorted(group, key=lambda load: (-load.items, -load.longest))
        found += [sorted(rows) for rows in _pack(ordered, limit, most)]
    return sorted(found)


def _pack(loads: Sequence[Load], limit: int, most: int) -> list[list[int]]:
    """Deal rows in their order to the first batch with room for them."""
    packed: list[_Bin] = []
    is_open: list[_Bin] = []
    least = min(((load.items - 1) % limit for load in loads), default=0)
    for load in loads:
        batch = next((one for one in is_open if one.takes(load, limit, most)), None)
        if batch is None:
            batch = _Bin()
            packed.append(batch)
            is_open.append(batch)
        batch.add(load)
        if batch.held > most or -batch.items % limit <= least:
            is_open.remove(batch)
    return [batch.rows for batch in packed]


@dataclass
class Fill:
    """How full the forwards of a part's batches are; sums, which several parts' add up to.

    Attributes:
        forwards: Calls of the network.
        items: Images, regions or pairs of image and text that they held.
        images: Images that were decoded.
        pixels: Pixels of the prepared images.
        padding: Of them, those that only bring an image to its size.
        texts: Texts that were read.
        tokens: Tokens of the texts.
    """

    forwards: int = 0
    items: int = 0
    images: int = 0
    pixels: int = 0
    padding: int = 0
    texts: int = 0
    tokens: int = 0

    def add(self, loads: Sequence[Load], limit: int) -> None:
        """Count a batch, whose forwards hold at most `limit` items."""
        items = sum(load.items for load in loads)
        self.forwards += -(-items // limit)
        self.items += items
        self.images += len(loads)
        for load in loads:
            wide, high = load.size or (0, 0)
            across, down = load.inside or (wide, high)
            self.pixels += wide * high
            self.padding += wide * high - across * down
            self.texts += len(load.tokens)
            self.tokens += sum(load.tokens)
