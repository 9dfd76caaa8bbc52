"""Keeps a few rows of each group out of more tables than memory holds."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BY_CHANCE = ("sha256", "key")
"""The order in which examples are chosen: by the digests of their images, which no score decides. The same
few images are then chosen for most of their tags, so that little shows much."""

AT_LEAST = 20_000
"""Rows that are gathered before they are sifted: sifting sorts them."""


class FirstRows:
    """The first rows of each group by an order, of all tables that are added.

    Which rows they are does not depend on how the rows are dealt to tables, and memory is bounded by the
    number of groups.

    Args:
        groups: Columns whose equal values make a group; none: all rows are one.
        order: Columns by which the first ones come first, rising; what is equal in all is as good as equal.
        most: Rows that are kept of each group.
    """

    def __init__(self, groups: Sequence[str], order: Sequence[str], most: int) -> None:
        self._groups, self._order, self._most = groups, order, most
        self._tables: list[pa.Table] = []
        self._kept = self._waiting = 0

    def add(self, table: pa.Table) -> None:
        """Consider the rows of a table."""
        found = self._sifted(table)
        self._tables.append(found)
        self._waiting += found.num_rows
        if self._waiting > max(AT_LEAST, 3 * self._kept):
            self.table()

    def table(self) -> pa.Table | None:
        """Give the rows that are kept of all so far, ordered by group; None if no table was added."""
        if not self._tables:
            return None
        found = self._sifted(pa.concat_tables(self._tables))
        self._tables, self._kept, self._waiting = [found], found.num_rows, 0
        return found

    def _sifted(self, table: pa.Table) -> pa.Table:
        return first_of_each(table, self._groups, self._order, self._most)


def first_of_each(table: pa.Table, groups: Sequence[str], order: Sequence[str], most: int) -> pa.Table:
    """Give the first rows of each group by an order, ordered by group; see `FirstRows`."""
    table = table.take(pc.sort_indices(table, [(name, "ascending") for name in (*groups, *order)]))
    count = table.num_rows
    is_new = np.zeros(count, bool)
    is_new[:1] = True
    for name in groups:
        column = table[name].combine_chunks()
        if count > 1:
            is_new[1:] |= np.asarray(pc.not_equal(column[1:], column[:-1]))
    places = np.arange(count)
    starts = places[is_new]
    rank = places - starts[np.cumsum(is_new) - 1] if count else places
    return table.filter(pa.array(rank < most))
