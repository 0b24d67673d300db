"""Which entries of flat weights belong to which neuron: those it reads by, is read by, and has beside kernels."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from weightspace.weights.spec import NetworkSpec, Role

VECTORS: tuple[Role, ...] = ("bias", "scale", "shift", "running_mean", "running_variance")
"""Roles of arrays with an entry a neuron."""


class AxisEntries(NamedTuple):
    """What one axis of one array has of the neurons of one group.

    Attributes:
        group: position of the group in the spec.
        role: of the array.
        reads: whether these are the weights by which the neurons read (dimension 0), or those by which they are read.
        places: (neurons, others, places) int64 entries of flat weights; places are those of a convolution's kernel.
    """

    group: int
    role: Role
    reads: bool
    places: np.ndarray


@lru_cache(maxsize=256)
def neuron_entries(spec: NetworkSpec) -> tuple[AxisEntries, ...]:
    """The entries of every group of neurons, array by array and axis by axis."""
    numbers = {group.name: number for number, group in enumerate(spec.groups)}
    found = []
    for leaf, place in spec.slices():
        entries = np.arange(place.start, place.stop).reshape(leaf.shape)
        for dimension, axis in enumerate(leaf.axes):
            others = [a for d, a in enumerate(leaf.axes) if d != dimension]
            plain = 0  # trailing axes without neurons: the places of a kernel
            while plain < len(others) and not others[len(others) - 1 - plain].groups:
                plain += 1
            start = 0
            for segment in axis.segments:
                sizes = [factor.size for factor in segment]
                length = int(np.prod(sizes))
                rows = np.moveaxis(entries.take(range(start, start + length), axis=dimension), dimension, 0)
                start += length
                for position, factor in enumerate(segment):
                    if factor.group is None:
                        continue
                    own = np.moveaxis(rows.reshape(*sizes, *rows.shape[1:]), position, 0)
                    places = int(np.prod(own.shape[own.ndim - plain :])) if plain else 1
                    shaped = own.reshape(factor.size, -1, places)
                    found.append(AxisEntries(numbers[factor.group], leaf.role, dimension == 0, shaped))
    return tuple(found)


@lru_cache(maxsize=256)
def group_starts(spec: NetworkSpec) -> tuple[int, ...]:
    """Number of the first neuron of each group, all groups one after another; the last entry is the number of all."""
    return tuple(int(n) for n in np.cumsum([0, *(group.size for group in spec.groups)]))
