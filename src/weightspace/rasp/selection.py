"""Which keys each query selects, on a whole batch: booleans by key, query and input."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.columns import Column, distinct_of, whole_type
from weightspace.rasp.functions import Undefined, is_number
from weightspace.rasp.interpreter import apply
from weightspace.rasp.language import (
    Select,
)


class Pairs(NamedTuple):
    """A selector on a batch: (key, query, n) booleans."""

    selected: np.ndarray
    refused: np.ndarray
    """What Not selects; only up to date where the program has a SelectorNot."""


_OUTER: dict[str, Callable[[Any, Any], Any]] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "LT": operator.lt,
    "LEQ": operator.le,
    "GT": operator.gt,
    "GEQ": operator.ge,
}


def select(name: str, node: Select, keys: Column, queries: Column, causal: bool, both: bool) -> Pairs:
    """What a Select selects and refuses.

    Args:
        both: whether what it refuses is asked for; otherwise it may be anything.
    """
    related = _relation(name, node, keys, queries)
    selected = _spread(related, keys, queries)
    known = np.zeros_like(related)
    known[1:, 1:] = True
    refused = _spread(known & ~related, keys, queries) if both else selected
    if causal:  # already here: And, Or and Not of pairs that are neither stay neither
        size = len(selected)
        seen = (np.arange(size)[:, None] <= np.arange(size))[:, :, None]
        return Pairs(selected & seen, refused & seen)
    return Pairs(selected, refused)


def _relation(name: str, node: Select, keys: Column, queries: Column) -> np.ndarray:
    """Whether the predicate holds, by the codes of key and query; False for None."""
    related = np.zeros((len(keys.values) + 1, len(queries.values) + 1), bool)
    if node.predicate == "TRUE":
        related[1:, 1:] = True
        return related
    outer = _OUTER.get(node.predicate) if isinstance(node.predicate, str) else None
    if outer is not None and all(map(is_number, keys.values)) and all(map(is_number, queries.values)):
        left, right = np.array(keys.values, np.float64), np.array(queries.values, np.float64)
        related[1:, 1:] = outer(left[:, None], right)
        return related
    if node.predicate in ("EQ", "NEQ"):
        code = {value: number for number, value in enumerate(queries.values, 1)}
        equal = [(number, code[value]) for number, value in enumerate(keys.values, 1) if value in code]
        related[1:, 1:] = node.predicate == "NEQ"
        for key, query in equal:
            related[key, query] = node.predicate == "EQ"
        return related
    failed = []
    for key, query in _meeting(related.shape, keys, queries):
        if key and query:
            try:
                related[key, query] = bool(node.function(keys.values[key - 1], queries.values[query - 1]))
            except (Undefined, RaspError):
                failed.append((key, query))
    for key, query in failed:  # a pair that never meets in one input is no error
        if ((keys.codes == key).any(0) & (queries.codes == query).any(0)).any():
            apply(name, node.function, keys.values[key - 1], queries.values[query - 1])
    return related


def _meeting(shape: tuple[int, ...], keys: Column, queries: Column) -> Iterable[tuple[int, int]]:
    """Pairs of codes that may meet in an input: all, or where these are too many just those that do."""
    most = keys.codes.size * queries.codes.shape[0] // 8  # a look at those that meet takes as long as so many calls
    if shape[0] * shape[1] <= max(1 << 12, most):
        return itertools.product(range(shape[0]), range(shape[1]))
    index = keys.codes.astype(np.int64)[:, None] * shape[1] + queries.codes[None]
    return [divmod(pair, shape[1]) for pair in distinct_of(index.ravel())[0].tolist()]


def _spread(related: np.ndarray, keys: Column, queries: Column) -> np.ndarray:
    """(key, query, n) booleans from a table by the codes of key and query, whose row and column 0 are False."""
    if related.shape[1] > 65 and related.shape[0] <= 65:
        return _spread(related.T, queries, keys).swapaxes(0, 1)
    if related.shape[1] > 65:
        index = keys.codes.astype(np.int64)[:, None] * related.shape[1] + queries.codes[None]
        return related.ravel().take(index)
    # One bit for each value of the query: a key carries the bits of all queries that it suits.
    bits = np.zeros(related.shape[1], np.uint64)
    bits[1:] = np.uint64(1) << np.arange(related.shape[1] - 1, dtype=np.uint64)
    kind = whole_type(2 ** (related.shape[1] - 1) - 1)
    masks = (related * bits).sum(axis=1, dtype=np.uint64).astype(kind)
    return (masks.take(keys.codes)[:, None] & bits.astype(kind).take(queries.codes)[None]) != 0


def counted(selected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(query, n): the sum of `weights` (key, n) over the keys selected, from left to right, in their own type."""
    total = np.zeros(selected.shape[1:], weights.dtype)
    for chosen, weight in zip(selected.view(np.uint8), weights, strict=True):
        total += chosen * weight
    return total


def widths_of(selected: np.ndarray) -> np.ndarray:
    """(query, n): how many keys are selected."""
    kind = whole_type(len(selected) + 1)  # room for 1 more, as SelectorWidth needs
    return np.add.reduce(selected.view(np.uint8), axis=0, dtype=kind)
