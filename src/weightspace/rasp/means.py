"""The mean of what each query selects, on a whole batch, by the cheapest of four ways that suits the values."""

from __future__ import annotations

import numpy as np

from weightspace.rasp.columns import Column, codes_of, distinct_of, renumbered, whole_type
from weightspace.rasp.functions import LARGEST, Value, is_number
from weightspace.rasp.interpreter import check_default, mean
from weightspace.rasp.language import (
    Aggregate,
)
from weightspace.rasp.rounding import settled_all
from weightspace.rasp.selection import counted, widths_of


def aggregate(name: str, node: Aggregate, selected: np.ndarray, sop: Column, present: np.ndarray) -> Column:
    """The mean of a column over what is selected, by the cheapest of four ways that suits its values."""
    check_default(name, node)
    default = node.default
    hidden, zeros = _hidden(node, selected, sop, present)
    if all(map(is_number, sop.values)):
        numbers = np.array([0.0, *sop.values], np.float64)  # a None that is not hidden counts as 0
        if float(np.abs(numbers).max()) * max(len(selected), 1) <= LARGEST:
            for scale in (1, 2):  # whole numbers, and halves
                whole = numbers * scale
                used = whole if zeros or not sop.values else whole[1:]
                slots = (len(selected) + 1) * ((used.max() - used.min()) * len(selected) + 1)
                if slots < 1 << 16 and (whole == np.rint(whole)).all():
                    return _mean_of_whole(selected, sop, present & ~hidden, whole, used, scale, default)
            return _mean_of_numbers(selected, sop, present & ~hidden, numbers, default)
    elif not zeros and not any(map(is_number, sop.values)):
        column = _mean_of_strings(selected, sop, present & ~hidden, default)
        if column is not None:
            return column
    return _mean_by_pattern(name, node, selected, sop, present)


def _hidden(node: Aggregate, selected: np.ndarray, sop: Column, present: np.ndarray) -> tuple[np.ndarray, bool]:
    """(query, n): where a None among what is selected makes the result None; and whether any counts as 0 instead."""
    absent = (sop.codes == 0) & present
    if not absent.any():
        return np.zeros(present.shape, bool), False
    count = counted(selected, absent.astype(whole_type(len(selected))))
    if not node.numerical:
        return count > 0, False
    return np.zeros(present.shape, bool), bool((count > 0).any())


def _mean_of_whole(
    selected: np.ndarray,
    sop: Column,
    shown: np.ndarray,
    whole: np.ndarray,
    used: np.ndarray,
    scale: int,
    default: Value,
) -> Column:
    """The mean of numbers that are whole after multiplication with `scale`: width and sum are one small number."""
    low = int(used.min())
    base = int(used.max() - low) * len(selected) + 1
    size = base * (len(selected) + 1)
    weights = (base + np.clip(whole, low, used.max()) - low).astype(np.uint16)
    index = (counted(selected, weights.take(sop.codes)) + np.uint16(1)) * shown

    def value_at(i: int) -> Value:
        if i == 0:
            return None
        width, rest = divmod(i - 1, base)
        if width == 0:
            return default
        total = rest + width * low
        if scale > 1:
            return total / scale / width
        return total if width == 1 else total / width

    return renumbered(index, size + 1, value_at)


def _mean_of_numbers(
    selected: np.ndarray, sop: Column, shown: np.ndarray, numbers: np.ndarray, default: Value
) -> Column:
    """The mean of any numbers, rounded after every addition as Python does; of one number that number, as it is."""
    widths = widths_of(selected)
    means = counted(selected, numbers.take(sop.codes)) / np.maximum(widths, 1)
    averaged, empty = shown & (widths > 0), shown & (widths == 0)
    several = np.broadcast_to(widths, means.shape)[averaged] > 1
    settled = np.where(several, settled_all(means[averaged]), means[averaged])
    distinct, positions = distinct_of(settled + 0.0)  # -0.0 becomes 0.0, which it equals
    more = [default] if empty.any() else []
    codes, values = codes_of([*distinct.tolist(), *more], len(distinct) + 1)
    result = np.zeros(means.shape, codes.dtype)
    result[averaged] = codes.take(positions)
    if more:
        result[empty] = codes[-1]
    return Column(result, values)


def _mean_of_strings(selected: np.ndarray, sop: Column, shown: np.ndarray, default: Value) -> Column | None:
    """The one string that is selected, or None if somewhere there are two: `_mean_by_pattern` says which."""
    count = len(sop.values)
    kind = whole_type(count + 2)
    codes = sop.codes.astype(kind)
    chosen = selected.view(np.uint8)
    highest = (chosen * codes[:, None]).max(axis=0, initial=0)
    lowest = (count + 1) - (chosen * ((count + 1 - codes) * (codes > 0))[:, None]).max(axis=0, initial=0)
    if ((highest != lowest) & (highest > 0) & shown).any():
        return None
    index = (highest + kind(1)) * shown
    return renumbered(index, count + 2, lambda i: None if i == 0 else default if i == 1 else sop.values[i - 2])


def _mean_by_pattern(name: str, node: Aggregate, selected: np.ndarray, sop: Column, present: np.ndarray) -> Column:
    """The mean of anything: what each query selects, the different cases of it, and the reference for each."""
    patterns = np.where(selected, sop.codes.astype(np.int64)[:, None] + 1, 0).transpose(1, 2, 0)[present]
    distinct, positions = np.unique(patterns, axis=0, return_inverse=True)
    by_code = (None, *sop.values)
    means = (mean(name, node, [by_code[code - 1] for code in pattern if code]) for pattern in distinct.tolist())
    codes, values = codes_of(means, len(distinct))
    result = np.zeros(present.shape, codes.dtype)
    result[present] = codes.take(positions.reshape(-1))
    return Column(result, values)
