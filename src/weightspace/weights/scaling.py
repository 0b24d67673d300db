"""Scale symmetries: which positive scales of neurons leave a network's function as it is, and their application."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from weightspace.weights.network import Network
from weightspace.weights.spec import NetworkSpec, Scaling, SpecError

Scales = dict[str, np.ndarray]
"""For each scaling the scale of each of its neurons, (size,) above 0."""


def random_scales(spec: NetworkSpec, rng: np.random.Generator, spread: float = 1.0, *, exact: bool = False) -> Scales:
    """Scales whose logarithms are normal with deviation `spread`, for every scaling of a spec.

    Args:
        exact: leave scalings that an epsilon makes approximate at 1.
    """
    found = {}
    for scaling in spec.scalings:
        logs = spread * rng.normal(size=1 if scaling.tied else scaling.size)
        logs = np.broadcast_to(0.0 * logs if exact and scaling.epsilon else logs, scaling.size)
        found[scaling.name] = np.exp(logs)
    return found


def check_scales(spec: NetworkSpec, scales: Mapping[str, np.ndarray]) -> None:
    """Raise a SpecError unless `scales` has one positive number for each neuron of each scaling, tied ones equal."""
    for scaling in spec.scalings:
        given = np.asarray(scales.get(scaling.name, ()))
        if given.shape != (scaling.size,) or not (np.isfinite(given) & (given > 0)).all():
            raise SpecError(f"scaling {scaling.name!r} needs {scaling.size} numbers above 0")
        if scaling.tied and (given != given[0]).any():
            raise SpecError(f"scaling {scaling.name!r} needs one scale for all of its neurons")


def multipliers(spec: NetworkSpec, scales: Mapping[str, np.ndarray]) -> np.ndarray:
    """By what each weight is multiplied, (spec.size,) float64."""
    logs = np.zeros(spec.size)
    arrays = spec.split(logs)  # views
    for scaling in spec.scalings:
        own = np.append(np.log(np.asarray(scales[scaling.name], float)), 0.0)  # the last for places of no neuron
        for axis in scaling.axes:
            array = arrays[axis.leaf]
            column = own[axis.neurons].reshape(-1, *[1] * (array.ndim - 1 - axis.dimension))
            array += axis.exponent * column
    return np.exp(logs)


def rescale(network: Network, scales: Mapping[str, np.ndarray]) -> Network:
    """The same function with other scales of its neurons, computed in float64 and rounded.

    Raises:
        SpecError: if `scales` does not fit the scalings of the network's spec.
    """
    check_scales(network.spec, scales)
    scaled = (network.weights * multipliers(network.spec, scales)).astype(np.float32)
    return Network(network.spec, scaled, network.metadata)


def transform_blocks(weights: np.ndarray, spec: NetworkSpec, scaling: Scaling, maps: np.ndarray) -> np.ndarray:
    """Weights with an invertible map of the neurons inside each block, where a scaling allows that.

    Args:
        weights: (spec.size,).
        maps: (blocks, width, width) invertible; arrays that follow with exponent 1 are multiplied by it, those with
            exponent -1 by its inverse, transposed.
    Returns:
        (spec.size,) float64.
    Raises:
        SpecError: if the scaling has no blocks, or the maps have another shape.
    """
    width = scaling.size // scaling.blocks if scaling.blocks else 0
    if not scaling.blocks or maps.shape != (scaling.blocks, width, width):
        raise SpecError(
            f"scaling {scaling.name!r} takes maps of shape {(scaling.blocks, width, width)}, not {maps.shape}"
        )
    flat = weights.astype(np.float64)
    arrays = spec.split(flat)
    against = np.linalg.inv(maps).transpose(0, 2, 1)
    for axis in scaling.axes:
        array = np.moveaxis(arrays[axis.leaf], axis.dimension, 0)  # a view, which is written to
        places = np.flatnonzero(axis.neurons >= 0)
        order = places[np.argsort(axis.neurons[places], kind="stable")]  # neuron by neuron, each with its places
        rows = array[order].reshape(scaling.blocks, width, -1)
        moved = np.einsum("bij,bjk->bik", maps if axis.exponent > 0 else against, rows)
        array[order] = moved.reshape(len(order), *array.shape[1:])
    return flat
