"""Two networks of one architecture neuron by neuron: the order in which their filters are most alike, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from weightspace.provenance.filters import GroupEntries, group_entries, kernel_places
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.symmetry import Permutation, gather_index, identity

ROUNDS = 3
"""Most passes over all groups after the first."""


@dataclass(frozen=True)
class Matched:
    """Two networks matched.

    Attributes:
        likeness: cosine of the two networks' matched filters, all hidden layers together: 1 for the same network.
        layers: of each hidden kernel its name and the mean cosine of its matched filters.
        permutation: neuron i of the first is neuron `permutation[group][i]` of the second.
    """

    likeness: float
    layers: tuple[tuple[str, float], ...]
    permutation: Permutation


def match_filters(first: Float[np.ndarray, " size"], second: Float[np.ndarray, " size"], spec: NetworkSpec) -> Matched:
    """The order of the second network's neurons in which its filters are most like the first's.

    Layer by layer from the inputs, each an exact linear assignment given the order of the neurons that it reads; then
    over all layers again, by what neurons read and by what reads them, until nothing changes.

    Args:
        first, second: balanced filters, of `balanced_filters`.
    """
    from scipy.optimize import linear_sum_assignment

    permutation = identity(spec)
    groups = _by_group(spec)
    current = second
    solved: set[str] = set()
    for round_ in range(ROUNDS + 1):
        changed = False
        for name, entries in _order(spec) if not round_ else groups.items():
            useful = [one for one in entries if round_ or one.others <= solved]
            likeness = np.zeros((len(entries[0].places),) * 2)
            for one in useful or entries:
                likeness += (first[one.places] @ current[one.places].T).astype(np.float64)
            if not useful:  # nothing is known of the order of what they read: filters as sets
                likeness = _as_sets(first, current, entries)
            order = linear_sum_assignment(likeness, maximize=True)[1]
            solved.add(name)
            gain = likeness[np.arange(len(order)), order].sum() - np.trace(likeness)
            if gain > 1e-6 * len(order):
                changed = True
                permutation[name] = permutation[name][order]
                current = current[_moved(spec, name, order)]
        if round_ and not changed:
            break
    return _matched(first, current, spec, permutation)


def _moved(spec: NetworkSpec, name: str, order: np.ndarray) -> np.ndarray:
    return gather_index(spec, {name: order})


@lru_cache(maxsize=256)
def _by_group(spec: NetworkSpec) -> dict[str, tuple[GroupEntries, ...]]:
    """The entries of each group; the outputs' kernel tells nothing of a network that was given other classes."""
    found: dict[str, list[GroupEntries]] = {}
    for one in group_entries(spec):
        found.setdefault(one.name, []).append(one)
    return {
        name: tuple([one for one in entries if not one.output or one.reads] or entries)
        for name, entries in found.items()
    }


@lru_cache(maxsize=256)
def _order(spec: NetworkSpec) -> tuple[tuple[str, tuple[GroupEntries, ...]], ...]:
    """The groups in an order in which each, where possible, touches one whose order is known already."""
    left = dict(_by_group(spec))
    solved: set[str] = set()
    found = []
    while left:
        ready = [n for n, entries in left.items() if any(one.reads and one.others <= solved for one in entries)]
        ready = ready or [n for n, entries in left.items() if any(one.others <= solved for one in entries)]
        name = (ready or list(left))[0]
        found.append((name, left.pop(name)))
        solved.add(name)
    return tuple(found)


def _as_sets(first: np.ndarray, second: np.ndarray, entries: tuple[GroupEntries, ...]) -> np.ndarray:
    """Likeness (neurons, neurons) by the sorted entries of each filter."""
    total = np.zeros((len(entries[0].places),) * 2)
    for one in entries:
        total += np.sort(first[one.places], 1) @ np.sort(second[one.places], 1).T
    return total


def _matched(first: np.ndarray, second: np.ndarray, spec: NetworkSpec, permutation: Permutation) -> Matched:
    """How alike two networks are whose neurons are in one order."""
    layers, total, sizes = [], 0.0, np.zeros(2)
    hidden = [kernel for kernel in kernel_places(spec) if not kernel.output] or list(kernel_places(spec))
    for kernel in hidden:
        one, other = (flat[kernel.place].reshape(kernel.shape).astype(np.float64) for flat in (first, second))
        cosine = (one * other).sum(1)  # rows have size 1, or are zero
        layers.append((kernel.name, float(cosine.mean())))
        weight = kernel.shape[1]  # a filter of many entries tells more
        total += weight * float(cosine.sum())
        sizes += weight * np.array([(one**2).sum(), (other**2).sum()])
    size = float(np.sqrt(sizes[0] * sizes[1]))
    return Matched(total / size if size else 0.0, tuple(layers), permutation)
