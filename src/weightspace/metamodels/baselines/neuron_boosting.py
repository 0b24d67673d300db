"""Boosted trees on what a meta-model sees of neurons, layer by layer, beside the statistics of weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.contract import Examples
from weightspace.metamodels.embed import Normaliser
from weightspace.metamodels.neuron_tokens import FEATURES, neuron_tokens
from weightspace.weights.network import Network
from weightspace.weights.neurons import group_starts
from weightspace.weights.population import Population
from weightspace.weights.slots import Room

POOLED = 5
"""Mean, standard deviation, least, greatest and median over the neurons of a layer."""


class NeuronBoosting(StatisticsBoosting):
    """`StatisticsBoosting` that sees the neurons of each layer too, as the meta-model's tokens describe them.

    Of every number of a token five statistics over the neurons of each group, groups counted from the first, and again
    from the last where networks differ in depth.
    """

    name = "neurons + LightGBM"
    grid = (
        {"num_leaves": 7, "min_child_samples": 10, "feature_fraction": 0.2},
        {"num_leaves": 7, "min_child_samples": 10, "feature_fraction": 0.05},
    )

    def fit(self, training: Examples, validation: Examples) -> NeuronBoosting:
        self.normaliser = Normaliser.fit(training.networks, True, self.seed)
        self.groups = Room.of(len(spec.groups) for spec in training.networks.specs)
        super().fit(training, validation)
        return self

    def features(self, networks: Sequence[Network]) -> np.ndarray:
        population = Population.of(networks)
        width = FEATURES * POOLED
        found = np.empty((len(population), self.groups.slots * width))
        for spec, positions in population.groups():
            for block in np.array_split(positions, -(-len(positions) * spec.size // 2**24)):
                tokens = neuron_tokens(torch.from_numpy(population.read(block)), spec, self.normaliser).values.numpy()
                each = [_over_neurons(tokens[:, a:b]) for a, b in pairwise(group_starts(spec))]
                missing = np.full((len(block), width), np.nan)
                found[block] = np.concatenate(self.groups.arranged(each, missing), 1)
        return np.concatenate([super().features(population), found], 1)


def _over_neurons(x: np.ndarray) -> np.ndarray:
    """(n, features * 5) of (n, neurons, features)."""
    parts = (x.mean(1), x.std(1), x.min(1), x.max(1), np.median(x, 1))
    return np.concatenate(parts, 1)
