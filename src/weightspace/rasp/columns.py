"""S-ops on a batch as small whole numbers: a code for each value, so that a function is called once for each.

Every operation on a batch makes an index that says which case each place of each input is; `renumbered` turns it into a
column again by asking once for each case that occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from weightspace.rasp.functions import Value


class Column(NamedTuple):
    """An S-op on a batch, place by place: codes (length, n), 0 for None and padding, else 1 + a position in `values`.

    Places come first because then each pair of a key's and a query's place is one long row of inputs. Every value
    occurs, and no two are equal.
    """

    codes: np.ndarray
    values: tuple[Value, ...]


def renumbered(index: np.ndarray, size: int, value_at: Callable[[int], Value]) -> Column:
    """The column that has `value_at(i)` where `index` is i, which is from 0 to `size` - 1; called once for each i."""
    if size <= max(1 << 16, 2 * index.size):
        occurs = np.zeros(size, bool)
        occurs[index] = True
        distinct = np.flatnonzero(occurs)
        codes, values = codes_of(map(value_at, distinct.tolist()), len(distinct))
        table = np.zeros(size, codes.dtype)
        table[distinct] = codes
        return Column(table.take(index), values)
    distinct, place = distinct_of(index.astype(np.int64).ravel())
    codes, values = codes_of(map(value_at, distinct.tolist()), len(distinct))
    return Column(codes.take(place).reshape(index.shape), values)


def codes_of(values: Iterable[Value], count: int) -> tuple[np.ndarray, tuple[Value, ...]]:
    """A code for each value, the same for equal ones and 0 for None, and the values by code."""
    known: dict[Value, int] = {None: 0}
    codes = [known.setdefault(value, len(known)) for value in values]
    return np.array(codes, np.min_scalar_type(count)), tuple(known)[1:]


def distinct_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different entries of a flat array of 8-byte items, and the position of each entry among them.

    `np.unique` sorts, which takes several times as long; here entries meet in a table of hashes, and those that find
    another there go into the next round.
    """
    items = keys.view(np.uint64)
    bits = max(8, len(items).bit_length() + 1)
    positions = np.empty(len(items), np.int64)
    pending = np.arange(len(items))
    owner = np.empty(1 << bits, np.int64)
    found: list[np.ndarray] = []
    count, factor = 0, 0x9E3779B97F4A7C15
    while len(pending):
        rest, place = items[pending], np.arange(len(pending))
        slot = (rest * np.uint64(factor)) >> np.uint64(64 - bits)
        owner[slot] = place
        owners = owner[slot]
        first = np.flatnonzero(owners == place)
        number = np.empty(len(pending), np.int64)
        number[first] = np.arange(count, count + len(first))
        settled = rest[owners] == rest
        positions[pending[settled]] = number[owners[settled]]
        found.append(keys[pending[first]])
        pending = pending[~settled]
        count, factor = count + len(first), factor * 0xD1342543DE82EF95 % 2**64
    return np.concatenate(found) if found else keys, positions


def whole_type(size: int) -> type[np.unsignedinteger]:
    """The smallest type of whole numbers that holds 0 to `size`."""
    return np.uint8 if size < 1 << 8 else np.uint16 if size < 1 << 16 else np.uint32 if size < 1 << 32 else np.uint64
