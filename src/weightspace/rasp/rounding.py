"""Sums and means of fractions, freed of what rounding has added: 0.1 + 0.2 is 0.3."""

from __future__ import annotations

import math
from typing import overload

import numpy as np

DENOMINATORS = (864_864_000, 3_603_600, 27_720)
"""Multiples of what sums and means have as denominators: 1 to 16, 27, 64, 1,000, 60 times 60."""
ULPS = 16
"""A float is taken for a fraction with such a denominator if it is within so many roundings of it."""


@overload
def settled(value: int) -> int: ...
@overload
def settled(value: float) -> float: ...
def settled(value: int | float) -> int | float:
    """The float that is nearest to the fraction that a float is meant to be; whole numbers stay as they are.

    Floats that came to the same fraction in different ways become one; what is near none of a few denominators stays.
    """
    if not isinstance(value, float) or value.is_integer() or not math.isfinite(value):
        return value
    for denominator in DENOMINATORS:
        scaled = value * denominator
        allowed = ULPS * math.ulp(scaled)
        if allowed < 0.01:
            whole = round(scaled)
            return whole / denominator if abs(scaled - whole) <= allowed else value
    return value


def settled_all(values: np.ndarray) -> np.ndarray:
    """`settled` of each of an array of float64, of the same shape."""
    result, open_ = values.copy(), np.isfinite(values) & (values != np.rint(values))
    values = np.where(open_, values, 0.0)
    for denominator in DENOMINATORS:
        scaled = values * denominator
        allowed = ULPS * np.spacing(np.abs(scaled))
        here = open_ & (allowed < 0.01)
        whole = np.rint(scaled)
        near = here & (np.abs(scaled - whole) <= allowed)
        result[near] = whole[near] / denominator
        open_ &= ~here
    return result
