"""What Pick, Choose and NextTokens give: on one input as lists, and on a whole batch as columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.choices import NextTokens, Pick
from weightspace.rasp.columns import Column, renumbered, whole_type
from weightspace.rasp.functions import Value, is_number

# -- one input ------------------------------------------------------------------------------------------------------


def picked(name: str, node: Pick, selected: Sequence[Value]) -> Value:
    """The value that a Pick takes of those that one query selects, which are in the order of their places."""
    if not selected:
        return node.default
    match node.which:
        case "first":
            return selected[0]
        case "last":
            return selected[-1]
        case "commonest":
            return max(selected, key=lambda value: (sum(other == value for other in selected), -selected.index(value)))
    for value in selected:
        _check_number(name, node, value)
    numbers = [value for value in selected if is_number(value)]
    return min(numbers) if node.which == "least" else max(numbers)


def _check_number(name: str, node: Pick, value: Value) -> None:
    if not is_number(value):
        raise RaspError(f"{name}: Pick({node.which}, ...) compares numbers, not {value!r}: map them to numbers first")


def next_tokens(node: NextTokens, holds: Sequence[Value]) -> Value:
    """The tokens that may come next where their S-ops have these values; the tokens themselves, in order."""
    return tuple(token for token, value in zip(node.tokens, holds, strict=True) if value)


# -- a batch --------------------------------------------------------------------------------------------------------


def pick(name: str, node: Pick, selected: np.ndarray, sop: Column, present: np.ndarray) -> Column:
    """A Pick on a batch.

    Args:
        selected: (key, query, n) booleans.
        sop: what is picked from.
        present: (place, n), False beyond an input's end.
    """
    if node.which in ("least", "most"):
        for value in sop.values:
            _check_number(name, node, value)
        numbers = [value for value in sop.values if is_number(value)]
        ranks = np.array(numbers, np.float64).argsort(kind="stable").argsort() + 1
        score = np.array([0, *(ranks if node.which == "most" else len(ranks) + 1 - ranks)])
        if bool((selected & (sop.codes == 0)[:, None]).any()):
            _check_number(name, node, None)
        scores = score.astype(whole_type(len(score)))[sop.codes]
        best = np.zeros(selected.shape[1:], scores.dtype)
        for chosen, row in zip(selected, scores, strict=True):
            np.maximum(best, chosen * row, out=best)
        by_score = {int(value): code for code, value in enumerate(score)}
        table = np.array([by_score.get(value, 0) for value in range(len(score) + 1)])
        found, some = table[best], best > 0
    else:
        some = selected.any(0)
        found = _commonest(selected, sop) if node.which == "commonest" else _by_place(node.which, selected, sop)
    index = np.where(present, np.where(some, found + 1, 0) + 1, 0)
    return renumbered(index, len(sop.values) + 3, lambda i: _value(node, sop, i))


def _value(node: Pick, sop: Column, index: int) -> Value:
    """0 is no place, 1 nothing selected, 2 a None that was selected, then the values."""
    return node.default if index == 1 else sop.values[index - 3] if index > 2 else None


def _by_place(which: str, selected: np.ndarray, sop: Column) -> np.ndarray:
    keys = selected.argmax(0) if which == "first" else len(selected) - 1 - selected[::-1].argmax(0)
    return np.take_along_axis(sop.codes, keys, axis=0).astype(np.int64)


def _commonest(selected: np.ndarray, sop: Column) -> np.ndarray:
    best = np.zeros(selected.shape[1:], np.int64)
    found = np.zeros(selected.shape[1:], np.int64)
    size = len(selected)
    for code in range(len(sop.values) + 1):
        chosen = selected & (sop.codes == code)[:, None]
        count = chosen.sum(0, dtype=np.int64)
        rank = np.where(count > 0, count * (size + 1) + size - chosen.argmax(0), 0)
        found = np.where(rank > best, code, found)
        np.maximum(best, rank, out=best)
    return found


def choose(condition: Column, yes: Column, no: Column) -> Column:
    """A Choose on a batch."""
    holds = np.array([False, *map(bool, condition.values)])[condition.codes]
    width = len(yes.values) + 1
    index = np.where(holds, yes.codes, width + no.codes.astype(np.int64))  # codes are small types, which wrap around
    values = (None, *yes.values, None, *no.values)
    return renumbered(index, len(values), lambda i: values[i])


def next_tokens_of(node: NextTokens, sops: Sequence[Column], present: np.ndarray) -> Column:
    """A NextTokens on a batch."""
    index = np.zeros(present.shape, np.int64)
    for bit, column in enumerate(sops):
        holds = np.array([False, *map(bool, column.values)])[column.codes]
        index |= holds.astype(np.int64) << bit
    index = np.where(present, index + 1, 0)

    def value_at(i: int) -> Value:
        return next_tokens(node, [(i - 1) >> bit & 1 for bit in range(len(sops))]) if i else None

    return renumbered(index, 2 ** min(len(sops), 60) + 1, value_at)
