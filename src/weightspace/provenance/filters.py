"""A network's filters without their scales: every kernel balanced, so that no rescaling of neurons can be seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from jaxtyping import Float

from weightspace.errors import NetworkError
from weightspace.weights.neurons import neuron_entries
from weightspace.weights.spec import Axis, NetworkSpec

ROUNDS = 40
"""Most times that rows and columns of a kernel are brought to one size."""
CLOSE = 1e-6
"""Relative change of the columns' scales below which they are balanced."""


@dataclass(frozen=True)
class KernelPlace:
    """Where a kernel lies in flat weights, and whose its rows and columns are.

    Attributes:
        name: of the array.
        start, shape: its entries are those from `start` on, as (rows, others).
        columns: (others,) number of the column to which an entry of a row belongs; entries of one column are scaled
            together. 0 is the column of all that has no scale of its own: the network's inputs.
        count: of columns, with number 0.
        output: whether its rows are the network's outputs, or whatever else cannot be reordered.
    """

    name: str
    start: int
    shape: tuple[int, int]
    columns: np.ndarray
    count: int
    output: bool

    @property
    def place(self) -> slice:
        return slice(self.start, self.start + prod(self.shape))


@lru_cache(maxsize=256)
def kernel_places(spec: NetworkSpec) -> tuple[KernelPlace, ...]:
    """The kernels of a network in leaf order."""
    found = []
    for leaf, place in spec.slices():
        if leaf.role != "kernel" or len(leaf.shape) < 2:
            continue
        owner = _owners(leaf.axes[1], spec)
        inner = prod(leaf.shape[2:])
        rows = leaf.axes[0].groups
        fixed = not any(spec.group(name).permutable for name in rows)
        columns = np.repeat(owner + 1, inner)
        shape = (leaf.shape[0], len(columns))
        found.append(KernelPlace(leaf.name, place.start, shape, columns, int(owner.max(initial=-1)) + 2, fixed))
    return tuple(found)


def _owners(axis: Axis, spec: NetworkSpec) -> np.ndarray:
    """For each place of an axis the number of the neuron that it belongs to, -1 for the network's inputs."""
    parts, start = [], 0
    for segment in axis.segments:
        sizes = [factor.size for factor in segment]
        owner = np.full(sizes, -1)
        for dimension, factor in enumerate(segment):
            if factor.group is not None and spec.group(factor.group).permutable:
                shape = [factor.size if d == dimension else 1 for d in range(len(sizes))]
                owner = np.broadcast_to(start + np.arange(factor.size).reshape(shape), sizes)
                start += factor.size
                break
        parts.append(owner.reshape(-1))
    return np.concatenate(parts)


def balanced_filters(weights: Float[np.ndarray, "n size"], spec: NetworkSpec) -> Float[np.ndarray, "n size"]:
    """Kernels with every row of size 1 and all columns of one size; everything else is 0.

    Rows and columns are multiplied by positive numbers in turn (Sinkhorn and Knopp 1967, on the squares). The result is
    the same for all networks that rescalings of neurons make of one, whatever their activations and norms are, and it
    moves with the neurons when they are reordered. Rows and columns of zeros stay zero.

    Args:
        weights: of n networks, float32.
    Returns:
        float32.
    Raises:
        NetworkError: if the network has no kernel.
    """
    places = kernel_places(spec)
    if not places:
        raise NetworkError("the network has no kernel (a dense layer or a convolution): it has no filters to compare")
    found = np.zeros_like(weights)
    for kernel in places:
        block = weights[:, kernel.place].reshape(-1, *kernel.shape).astype(np.float64)
        largest = np.abs(block).max((1, 2), keepdims=True)
        block = block / np.where(largest > 0, largest, 1)
        column = np.ones((len(block), kernel.count))
        squares = block**2 @ np.eye(kernel.count)[kernel.columns]  # (n, rows, columns)
        row = _inverse(np.einsum("nrc,nc->nr", squares, column))
        for _ in range(ROUNDS if kernel.count > 1 else 0):
            before = column
            column = _inverse(np.einsum("nrc,nr->nc", squares, row)) * kernel.shape[0] / (kernel.count - 1)
            column[:, 0] = 1  # inputs keep their sizes
            row = _inverse(np.einsum("nrc,nc->nr", squares, column))
            if np.abs(column - before).max() < CLOSE * np.abs(column).max():
                break
        scaled = block * np.sqrt(row)[:, :, None] * np.sqrt(column)[:, None, kernel.columns]
        found[:, kernel.place] = scaled.reshape(len(block), -1)
    return found


def _inverse(values: np.ndarray) -> np.ndarray:
    """One over each, and 0 for 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)


@dataclass(frozen=True)
class GroupEntries:
    """What tells the neurons of one group apart.

    Attributes:
        name, number: of the group, and its position in the spec.
        reads: whether the neurons read by these entries, or are read by them.
        others: names of the groups along the other axes that can be reordered.
        places: (neurons, entries) of flat weights.
        output: whether what reads them is the network's outputs.
    """

    name: str
    number: int
    reads: bool
    others: frozenset[str]
    places: np.ndarray
    output: bool


@lru_cache(maxsize=256)
def group_entries(spec: NetworkSpec) -> tuple[GroupEntries, ...]:
    """The entries of kernels by the groups that can be reordered freely."""
    parents = {group.parent for group in spec.groups}
    free = {g.name for g in spec.groups if g.permutable and g.parent is None and g.name not in parents}
    starts = np.array(spec.offsets)
    found = []
    for entries in neuron_entries(spec):
        group = spec.groups[entries.group]
        if entries.role != "kernel" or group.name not in free:
            continue
        leaf = spec.leaves[int(np.searchsorted(starts, int(entries.places.flat[0]), side="right")) - 1]
        if len(leaf.shape) < 2:
            continue
        along = {name for axis in leaf.axes for name in axis.groups}
        output = not any(name in free for name in leaf.axes[0].groups)
        places = entries.places.reshape(group.size, -1)
        others = frozenset((along & free) - {group.name})
        found.append(GroupEntries(group.name, entries.group, entries.reads, others, places, output))
    return tuple(found)
