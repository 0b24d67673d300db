"""Permutation symmetries: which reorderings of neurons leave a network's function as it is, and their application."""

from __future__ import annotations

from collections.abc import Mapping
from math import lgamma, log, prod

import numpy as np

from weightspace.weights.network import Network
from weightspace.weights.spec import Axis, NetworkSpec, SpecError

Permutation = dict[str, np.ndarray]
"""For each neuron group its new order: neuron i of the permuted network is neuron `order[i]` of the original."""


def identity(spec: NetworkSpec) -> Permutation:
    """The permutation that changes nothing."""
    return {group.name: np.arange(group.size) for group in spec.groups}


def random_permutation(spec: NetworkSpec, rng: np.random.Generator) -> Permutation:
    """A uniformly random symmetry: every permutable group shuffled, blocks of a parent together, the rest in place."""
    permutation = identity(spec)
    for group in spec.groups:  # parents first: their order moves their children's blocks
        if group.parent is None and group.permutable:
            permutation[group.name] = rng.permutation(group.size)
    for group in spec.groups:
        if group.parent is not None:
            parent = permutation[group.parent]
            blocks = np.arange(group.size).reshape(len(parent), -1)[parent]
            if group.permutable:
                blocks = rng.permuted(blocks, axis=1)
            permutation[group.name] = blocks.reshape(-1)
    return permutation


def inverse(permutation: Mapping[str, np.ndarray]) -> Permutation:
    """The permutation that undoes another."""
    return {name: np.argsort(order) for name, order in permutation.items()}


def check_permutation(spec: NetworkSpec, permutation: Mapping[str, np.ndarray]) -> None:
    """Raise a SpecError unless `permutation` is a symmetry of every network with this spec.

    Each group needs an order that is a permutation of its neurons; a group that is not permutable must stay in place,
    inside its parent's blocks where it has one.
    """
    for group in spec.groups:
        order = np.asarray(permutation.get(group.name, ()))
        if order.shape != (group.size,) or not np.array_equal(np.sort(order), np.arange(group.size)):
            raise SpecError(f"group {group.name!r} needs an order of its {group.size} neurons, each once")
        if group.parent is None:
            if not group.permutable and not np.array_equal(order, np.arange(group.size)):
                raise SpecError(f"group {group.name!r} is not permutable")
            continue
        parent = np.asarray(permutation[group.parent])
        blocks = order.reshape(len(parent), -1)
        width = blocks.shape[1]
        if not np.array_equal(blocks // width, np.broadcast_to(parent[:, None], blocks.shape)):
            raise SpecError(f"group {group.name!r} does not follow its parent {group.parent!r}")
        if not group.permutable and not (np.diff(blocks, axis=1) == 1).all():
            raise SpecError(f"group {group.name!r} is not permutable inside its blocks")


def gather_index(spec: NetworkSpec, permutation: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where each weight of the permuted network stood before: `weights[..., index]` are the permuted weights.

    Returns:
        (spec.size,) int64, itself a permutation of 0..size-1.
    """
    orders = [_axis_order(axis, permutation) for axis in spec.axes]  # many arrays share an axis
    index = np.arange(spec.size)
    for place, axes in spec.strides:
        entries = np.array(place.start)
        for number, length, stride in axes:
            order = np.arange(length) if number is None else orders[number]
            entries = np.add.outer(entries, order * stride)
        index[place] = entries.reshape(-1)
    return index


def _axis_order(axis: Axis, permutation: Mapping[str, np.ndarray]) -> np.ndarray:
    """New order of the places of one axis (axis.length,); a group without an order stays in place."""
    if len(axis.segments) == len(axis.segments[0]) == 1 and axis.groups[0] in permutation:
        return np.asarray(permutation[axis.groups[0]])
    orders, start = [], 0
    for segment in axis.segments:
        shape = tuple(factor.size for factor in segment)
        places = np.arange(start, start + prod(shape)).reshape(shape)
        for dimension, factor in enumerate(segment):
            if factor.group is not None and factor.group in permutation:
                places = places.take(permutation[factor.group], axis=dimension)
        orders.append(places.reshape(-1))
        start += prod(shape)
    return np.concatenate(orders)


def permute(network: Network, permutation: Mapping[str, np.ndarray]) -> Network:
    """The same function with its neurons in another order.

    Raises:
        SpecError: if `permutation` is not a symmetry of the network's spec.
    """
    check_permutation(network.spec, permutation)
    index = gather_index(network.spec, permutation)
    return Network(network.spec, network.weights[index], network.metadata)


def log10_symmetries(spec: NetworkSpec) -> float:
    """Decimal logarithm of the number of permutations that leave every network with this spec as it is."""
    total = 0.0
    for group in spec.groups:
        if group.permutable:
            blocks = spec.group(group.parent).size if group.parent is not None else 1
            total += blocks * lgamma(group.size // blocks + 1)
    return total / log(10)
