"""Final-layer statistics: a few numbers for each class, sorted over the classes, with boosted trees on top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightspace.errors import TaskError
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec

CLASS_STATISTICS = ("bias", "mean", "deviation", "least", "greatest", "positive", "correlation")


def final_layer_statistics(networks: Sequence[Network]) -> np.ndarray:
    """What the last linear layer of each network knows of its classes, whichever class is which.

    Of each class: its bias; mean, standard deviation, least and greatest of its weights; the sum of the positive ones;
    and its highest correlation with another class's weights. Each is sorted over the classes, then compared with the
    other classes: (value - median) / mean absolute deviation. A backdoor's target class stands out, as it can be
    reached by a way that the others do not have.

    Returns:
        (n, 2 * 7 * classes) float64.
    Raises:
        TaskError: if a network has no final linear layer, or networks differ in their number of classes.
    """
    population = Population.of(networks)
    tables: list[tuple[np.ndarray, np.ndarray]] = []
    for spec, positions in population.groups():
        tables.append((positions, _statistics(spec, population.read(positions))))
    widths = {table.shape[1] for _, table in tables}
    if len(widths) > 1:
        raise TaskError("the networks differ in their number of classes: final layers are compared class by class")
    features = np.empty((len(population), max(widths, default=0)))
    for positions, table in tables:
        features[positions] = table
    return features


def _statistics(spec: NetworkSpec, flat: np.ndarray) -> np.ndarray:
    kernel, bias = _final_layer(spec, flat)
    b = bias if bias is not None else np.zeros(kernel.shape[:2])
    centred = kernel - kernel.mean(2, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=2, keepdims=True), 1e-12)
    likeness = unit @ unit.transpose(0, 2, 1) - 2 * np.eye(kernel.shape[1])
    parts = (
        b, kernel.mean(2), kernel.std(2), kernel.min(2), kernel.max(2), np.maximum(kernel, 0).sum(2), likeness.max(2)
    )  # fmt: skip
    values = np.sort(np.stack(parts, 1), axis=2)  # (n, statistics, classes)
    apart = values - np.median(values, axis=2, keepdims=True)
    scale = np.maximum(np.abs(apart).mean(2, keepdims=True), 1e-12)
    return np.concatenate([values, apart / scale], axis=1).reshape(len(flat), -1)


def _final_layer(spec: NetworkSpec, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights (n, classes, features) float64 of the last linear layer, and biases (n, classes) if it has any."""
    kernel = bias = None
    for leaf, place in spec.slices():
        block = flat[:, place].astype(np.float64).reshape(len(flat), *leaf.shape)
        if leaf.role == "kernel" and len(leaf.shape) == 2:
            kernel, bias = block, None
        elif leaf.role == "kernel":
            kernel = bias = None  # what follows a convolution is no layer of classes
        elif leaf.role == "bias" and kernel is not None and leaf.shape == kernel.shape[1:2]:
            bias = block
    if kernel is None:
        raise TaskError("a network has no final linear layer of classes to look at")
    return kernel, bias


class FinalLayerBoosting(StatisticsBoosting):
    """Final-layer statistics and LightGBM, tuned like the weight statistics."""

    name = "final layer + LightGBM"

    def features(self, networks: Sequence[Network]) -> np.ndarray:
        return final_layer_statistics(networks)


class AllStatisticsBoosting(StatisticsBoosting):
    """Weight statistics and final-layer statistics together."""

    name = "statistics + final layer + LightGBM"

    def features(self, networks: Sequence[Network]) -> np.ndarray:
        return np.concatenate([super().features(networks), final_layer_statistics(networks)], axis=1)
