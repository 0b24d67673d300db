"""What causal S-ops are on a batch of strings: arrays of whole numbers, input by input and place by place."""

from __future__ import annotations

import numpy as np

Column = np.ndarray
"""(n, place) whole numbers: booleans are 0 and 1, tokens their numbers and -1 for none, numbers themselves."""


def counted(chosen: np.ndarray) -> Column:
    """At how many places up to here `chosen` holds."""
    return np.cumsum(chosen, axis=1, dtype=np.int16)


def occurrences(tokens: np.ndarray, asked: np.ndarray) -> Column:
    """At how many places up to here the token stands that is asked for here."""
    found = np.zeros(tokens.shape, np.int16)
    for token in np.unique(asked[asked >= 0]):
        found += np.where(asked == token, counted(tokens == token), np.int16(0))
    return found


def latest(chosen: np.ndarray) -> Column:
    """The last place up to here at which `chosen` holds; -1 where there is none."""
    places = np.arange(chosen.shape[1], dtype=np.int16)
    return np.maximum.accumulate(np.where(chosen != 0, places, np.int16(-1)), axis=1)


def earliest(chosen: np.ndarray) -> Column:
    """The first place up to here at which `chosen` holds; -1 where there is none."""
    seen = np.cumsum(chosen != 0, axis=1) > 0
    return np.where(seen, (chosen != 0).argmax(1)[:, None], -1).astype(np.int16)


def since(chosen: np.ndarray) -> Column:
    """How many places ago `chosen` held last, or where it never did, how many there are before this one."""
    places = np.arange(chosen.shape[1], dtype=np.int16)
    return (places - np.maximum(latest(chosen), 0)).astype(np.int16)


def taken(column: np.ndarray, places: np.ndarray, default: int) -> Column:
    """The column's values at other places of the same input; `default` where the place is -1."""
    found = np.take_along_axis(column, np.maximum(places, 0).astype(np.int64), axis=1)
    return np.where(places >= 0, found, np.asarray(default, column.dtype))


def shifted(column: np.ndarray, by: int, default: int) -> Column:
    """The value `by` places before."""
    found = np.full_like(column, default)
    found[:, by:] = column[:, : column.shape[1] - by]
    return found


def pairs(keys: np.ndarray, queries: np.ndarray, strict: bool = False) -> np.ndarray:
    """(n, query, key): where a key up to here, or before here, equals the query."""
    size = keys.shape[1]
    seen = np.tri(size, k=-1 if strict else 0, dtype=bool)
    return (keys[:, None, :] == queries[:, :, None]) & seen


def picked(selected: np.ndarray, which: str) -> Column:
    """The first or last place that each query selects; -1 where there is none."""
    some = selected.any(2)
    last = which == "last"
    places = selected.shape[2] - 1 - selected[:, :, ::-1].argmax(2) if last else selected.argmax(2)
    return np.where(some, places, -1).astype(np.int16)


def next_above(column: np.ndarray, queries: np.ndarray, absent: int, keys: np.ndarray | None = None) -> Column:
    """The least value up to here that is larger than the query's; `absent` where there is none."""
    return _nearest(column, queries, absent, keys, 1)


def next_below(column: np.ndarray, queries: np.ndarray, absent: int, keys: np.ndarray | None = None) -> Column:
    """The largest value up to here that is smaller than the query's; `absent` where there is none."""
    return _nearest(column, queries, absent, keys, -1)


def _nearest(column: np.ndarray, queries: np.ndarray, absent: int, keys: np.ndarray | None, sign: int) -> Column:
    far = np.int32(2**15)
    values = sign * column.astype(np.int32)
    if keys is not None:
        values = np.where(keys != 0, values, far)
    found = np.full(column.shape, far, np.int32)
    wanted = sign * queries.astype(np.int32)
    for key in range(column.shape[1]):
        value = values[:, key : key + 1]
        rest = slice(key, None)
        larger = (value > wanted[:, rest]) & (value < found[:, rest])
        found[:, rest] = np.where(larger, value, found[:, rest])
    return np.where(found < far, sign * found, absent).astype(np.int16)


def commonest(tokens: np.ndarray, chosen: np.ndarray, size: int) -> Column:
    """Of the tokens up to here where `chosen` holds the commonest, the one seen first among equals; -1 for none."""
    count = np.zeros((len(tokens), size), np.int16)
    first = np.full((len(tokens), size), 30_000, np.int32)
    found = np.full(tokens.shape, -1, np.int16)
    rows = np.arange(len(tokens))
    for place in range(tokens.shape[1]):
        real = (chosen[:, place] != 0) & (tokens[:, place] >= 0)
        which = np.maximum(tokens[:, place], 0)
        count[rows[real], which[real]] += 1
        first[rows[real], which[real]] = np.minimum(first[rows[real], which[real]], place)
        rank = count.astype(np.int64) * 40_000 - first
        best = rank.argmax(1)
        found[:, place] = np.where(count[rows, best] > 0, best, -1)
    return found
