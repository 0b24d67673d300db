"""Numbers of neurons and classes of any network that no rescaling which keeps its function can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from weightspace.errors import NetworkError
from weightspace.weights.layers import NormalLayer, layers_of, normal_form
from weightspace.weights.network import Network

TINY = 1e-12
SHAPE = ("peak", "kurtosis", "mean", "greatest", "least")
NEURON_FEATURES = (
    *(f"reads {name}" for name in (*SHAPE, "channel", "place", "smooth")),
    "offset",
    "strength",
    "strength throughout",
    *(f"read {name}" for name in SHAPE),
    "class peak",
    "class gap",
    "class kurtosis",
    "class least",
    "class strength",
)
"""What is known of a neuron: of the weights it reads by, of its bias, of the weights that read it,
and of the way from it to the classes."""
CLASS_FEATURES = (
    "norm",
    *SHAPE,
    "bias",
    "positive",
    "nearest",
    "opposite",
    "wins",
    "strength won",
    "way 1",
    "way 2",
    "way 1 peak",
    "way 2 peak",
)
"""What is known of a class: of its weights in the last layer, less the mean over classes, and of the ways to it from
neurons of the last hidden layer and of the one before."""


@dataclass(frozen=True, eq=False)
class Invariants:
    """What is known of one network.

    Attributes:
        neurons: of each hidden layer, first to last, (neurons, NEURON_FEATURES).
        classes: (classes, CLASS_FEATURES), each number in deviations from the median over classes.
        whole: (k,) of the network: how many layers, channels of the image, neurons and classes, which kinds, and sizes
            that training sets.
    """

    neurons: tuple[Float[np.ndarray, "_ f"], ...]
    classes: Float[np.ndarray, "c g"]
    whole: Float[np.ndarray, " k"]


def invariants(network: Network) -> Invariants:
    """What is known of the neurons and classes of a network of any number and kind of layers.

    All stays as it is if neurons are put in another order, if what a ReLU gets is scaled and those that read it scaled
    back, if a kernel in front of a normalisation is scaled, and if all classes' weights or biases are shifted together:
    it is read off the `normal_form`.

    Raises:
        NetworkError: if it has no layers that can be told apart, see `layers_of`, or fewer than two classes.
    """
    layers = layers_of(network)
    if len(layers[-1].kernel) < 2:
        raise NetworkError("a network that answers one number has no classes that could be told apart")
    normal = normal_form(layers)
    ways = _ways(normal)
    neurons = tuple(_neurons(normal[i], normal[i + 1], ways[i]) for i in range(len(normal) - 1))
    kinds = (
        np.mean([layer.normalised for layer in layers[:-1]]),
        any(layer.running_variance is not None for layer in layers),
    )
    return Invariants(neurons, _classes(normal, ways), _whole(normal, *map(float, kinds)))


def _ways(layers: Sequence[NormalLayer]) -> list[np.ndarray]:
    """Of each hidden layer how much each neuron moves each class, (neurons, classes): as if all were linear and every
    place of an image alike; layers at a mean size of 1."""
    way = layers[-1].kernel.mean(2).T
    ways = [way]
    for layer in reversed(layers[1:-1]):
        inner = layer.kernel.sum(2)
        way = inner.T @ way if len(way) == len(inner) else np.zeros((inner.shape[1], way.shape[1]))
        way = way / (np.sqrt(np.square(way).mean()) + TINY)
        ways.append(way)
    return ways[::-1]


def _shape(x: np.ndarray) -> np.ndarray:
    """(n, 5) of values (n, k), on the scale of their root mean square: greatest size, kurtosis, mean, ends."""
    scale = np.sqrt(np.square(x).mean(1, keepdims=True)) + TINY
    y = x / scale
    return np.stack([np.abs(y).max(1), (y**4).mean(1), y.mean(1), y.max(1), -y.min(1)], 1)


def _neurons(layer: NormalLayer, after: NormalLayer, way: np.ndarray) -> np.ndarray:
    n, inputs, places = layer.kernel.shape
    power = np.square(layer.kernel)
    total = power.sum((1, 2)) + TINY
    read = after.kernel.transpose(1, 0, 2).reshape(after.kernel.shape[1], -1)
    # A neuron that drowns the others does so in all that read it, whose own sizes are no part of this
    throughout = np.log(np.linalg.norm(after.kernel, axis=2) + 1e-10).mean(0)
    if len(read) != n:  # what reads it does not show in the arrays
        read, way, throughout = np.zeros((n, 1)), np.zeros((n, way.shape[1])), np.zeros(n)
    of_class = _shape(way)
    ordered = np.sort(way, 1)
    gap = (ordered[:, -1] - ordered[:, -2]) / (np.sqrt(np.square(way).mean(1)) + TINY)
    columns = [
        _shape(layer.kernel.reshape(n, -1)),
        power.sum(2).max(1) / total * inputs,
        power.sum(1).max(1) / total * places,
        np.square(layer.kernel.sum(2)).sum(1) / total / places,
        _apart(layer.offset),
        _apart(np.log(np.linalg.norm(read, axis=1) + 1e-10)),
        _apart(throughout),
        _shape(read),
        of_class[:, 0],
        gap,
        of_class[:, 1],
        of_class[:, 4],
        _apart(np.log(np.linalg.norm(way, axis=1) + 1e-10)),
    ]
    return np.concatenate([column.reshape(n, -1) for column in columns], 1)


def _apart(x: np.ndarray) -> np.ndarray:
    """In deviations from the median, which half of all neurons are within."""
    x = x - np.median(x, axis=0, keepdims=True)
    scale = 1.4826 * np.median(np.abs(x), axis=0, keepdims=True) + 0.3 * x.std(0, keepdims=True) + 1e-9
    return x / scale


def _classes(layers: Sequence[NormalLayer], ways: Sequence[np.ndarray]) -> np.ndarray:
    last = layers[-1]
    flat = last.kernel.reshape(len(last.kernel), -1)
    size = np.sqrt(np.square(flat).mean()) + TINY
    unit = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + TINY)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, np.nan)
    winner = ways[-1].argmax(1)
    given = []
    for depth in (1, 2):  # what neurons give to each class: all of them, and the one that gives most
        way = np.maximum(ways[-depth], 0) if depth <= len(ways) else np.zeros((1, len(flat)))
        given.append((way.sum(0), way.max(0)))
    columns = [
        np.linalg.norm(flat, axis=1),
        _shape(flat),
        last.offset / size,
        np.maximum(flat, 0).sum(1),
        np.nanmax(likeness, 1),
        -np.nanmin(likeness, 1),
        np.bincount(winner, minlength=len(flat)),
        np.bincount(winner, np.linalg.norm(ways[-1], axis=1), minlength=len(flat)),
        *(total for total, _ in given),
        *(peak for _, peak in given),
    ]
    return _apart(np.concatenate([column.reshape(len(flat), -1) for column in columns], 1))


def _whole(layers: Sequence[NormalLayer], normalised: float, batch: float) -> np.ndarray:
    last = layers[-1]
    size = np.sqrt(np.square(last.kernel).mean()) + TINY
    neurons = np.mean([len(layer.kernel) for layer in layers[:-1]])
    spread = np.mean([layer.offset.std() for layer in layers[:-1]])
    return np.array([
        len(layers), layers[0].kernel.shape[1], np.log(neurons), len(last.kernel), last.kernel.shape[2], normalised,
        batch,
        np.log(size * np.sqrt(last.kernel[0].size) + 1e-10), np.log(last.offset.std() / size + 1e-3),
        np.log(spread + 1e-3),
    ])  # fmt: skip


# -- many networks as rows of one table -----------------------------------------------------------------------------

SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Quantiles over the neurons of a layer, or the classes."""
PLACES = ("last", "second last", "third last", "first", "all")
"""Hidden layers that are described, counted from the classes, the first, and all together."""
WHOLE_NAMES = (
    "layers", "channels", "neurons", "classes", "places", "normalised", "batch", "size", "bias", "offsets",
)  # fmt: skip
"""What is known of a whole network, see `Invariants.whole`; neurons, sizes and spreads as logarithms."""
WHOLE = len(WHOLE_NAMES)


def invariant_names() -> list[str]:
    """What each number of `invariant_table` is."""
    names = [
        f"{place} layer, {feature}, {share:.0%}" for place in PLACES for feature in NEURON_FEATURES for share in SHARES
    ]
    names += [f"classes, {feature}, {what}" for feature in CLASS_FEATURES for what in ("least", "second", "greatest")]
    names += [f"class that stands out, {feature}" for feature in CLASS_FEATURES]
    names += [f"neuron that stands out, {feature}" for feature in NEURON_FEATURES]
    return [*names, *(f"network {name}" for name in WHOLE_NAMES)]


def invariant_row(known: Invariants) -> Float[np.ndarray, " k"]:
    """Quantiles over neurons and classes, as many for every network; NaN for a layer that it does not have."""
    layers = known.neurons
    missing = np.full((1, len(NEURON_FEATURES)), np.nan)
    chosen = [layers[-d] if d <= len(layers) else missing for d in (1, 2, 3)] + [layers[0], np.concatenate(layers)]
    pooled = [np.quantile(layer, SHARES, axis=0).T.reshape(-1) for layer in chosen]
    ordered = np.sort(known.classes, 0)
    ends = np.stack([ordered[0], ordered[-2], ordered[-1]], 1).reshape(-1)
    outstanding = [CLASS_FEATURES.index(name) for name in ("norm", "greatest", "bias", "positive", "strength won")]
    suspect = known.classes[known.classes[:, outstanding].mean(1).argmax()]
    last = layers[-1]
    standing = [NEURON_FEATURES.index(name) for name in ("class gap", "class strength")]
    neuron = last[_apart(last[:, standing]).sum(1).argmax()]
    return np.concatenate([*pooled, ends, suspect, neuron, known.whole])
