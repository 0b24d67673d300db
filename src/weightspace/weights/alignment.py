"""Alignment: the order of a network's neurons in which its weights are most like a reference's."""

from __future__ import annotations

import numpy as np

from weightspace.weights.neurons import neuron_entries
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.symmetry import Permutation, gather_index, identity


def align(
    weights: np.ndarray, reference: np.ndarray, spec: NetworkSpec, *, rounds: int = 10
) -> tuple[np.ndarray, Permutation]:
    """Weight matching (Ainsworth et al. 2023, algorithm 1): group by group, the order with the largest inner product.

    Each step is a linear assignment given the order of all other groups, and no step makes it worse; it ends where
    nothing changes. That is a local optimum. Groups with a parent, as inside attention heads, stay in place.

    Args:
        weights: (size,) of a network.
        reference: (size,) of another of the same spec.
        rounds: most passes over all groups.
    Returns:
        the network's weights in the order found, and that order.
    """
    from scipy.optimize import linear_sum_assignment

    permutation = identity(spec)
    parents = {group.parent for group in spec.groups}
    movable = [
        number
        for number, group in enumerate(spec.groups)
        if group.permutable and group.parent is None and group.name not in parents
    ]
    current = weights.astype(np.float64)
    for _ in range(rounds):
        changed = False
        for number in movable:
            group = spec.groups[number]
            likeness = np.zeros((group.size, group.size))
            for entries in neuron_entries(spec):
                if entries.group == number:
                    places = entries.places.reshape(group.size, -1)
                    likeness += reference[places].astype(np.float64) @ current[places].T
            order = linear_sum_assignment(likeness, maximize=True)[1]
            if likeness[np.arange(group.size), order].sum() > np.trace(likeness) + 1e-9 * np.abs(likeness).sum():
                changed = True
                step = identity(spec) | {group.name: order}
                current = current[gather_index(spec, step)]
                permutation[group.name] = permutation[group.name][order]
        if not changed:
            break
    return weights[gather_index(spec, permutation)], permutation
