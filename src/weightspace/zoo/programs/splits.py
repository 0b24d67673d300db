"""Which side of a split a program is on: a function of its canonical key alone, the same in every zoo."""

from __future__ import annotations

import numpy as np

from weightspace.zoo.store import SPLITS


def splits_of(keys: np.ndarray) -> np.ndarray:
    """(n,) int8 places among train, validation and test (60, 15 and 25%) of programs by their keys.

    A program is on the same side in every zoo of one mode, vocabulary and length, of whatever seed.
    """
    mixed = keys * np.uint64(0x9E3779B97F4A7C15)  # the keys' own order decides nothing
    return np.searchsorted((0.6, 0.75), (mixed >> np.uint64(11)).astype(float) / 2**53, side="right").astype(np.int8)


def split_of(key: bytes) -> str:
    """The split of one program by its canonical key, as in every zoo."""
    return SPLITS[int(splits_of(np.frombuffer(key[:8], dtype=">u8").astype(np.uint64))[0])]
