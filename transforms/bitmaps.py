"""Sets of small whole numbers, such as the rows of a part, as the bits of one integer: bit i is number i."""

from collections.abc import Iterable

import numpy as np


def of(numbers: Iterable[int]) -> int:
    """Make the set of these numbers."""
    bits = 0
    for number in numbers:
        bits |= 1 << int(number)  # numpy's integers end at 64 bits, in silence
    return bits


def first(count: int) -> int:
    """Make the set of the numbers from 0 to `count` - 1."""
    return (1 << count) - 1


def numbers(bits: int) -> list[int]:
    """List the numbers of a set, ascending."""
    found = np.unpackbits(np.frombuffer(dump(bits), np.uint8), bitorder="little")
    return [int(number) for number in np.flatnonzero(found)]


def dump(bits: int) -> bytes:
    """Write a set as bytes, the lowest numbers first."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def load(data: bytes) -> int:
    """Read back what `dump` wrote."""
    return int.from_bytes(data, "little")
