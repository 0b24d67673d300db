"""Which networks a detector knows: how far one is from those that it was trained on, array by array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.weights.network import Network
from weightspace.weights.population import Population

SLACK = 1.5
"""A network may be so many times as far from the training zoo as the farthest of the calibration networks."""


@dataclass(frozen=True)
class Scope:
    """What the training zoo's networks look like: mean and logarithm of the standard deviation of each array.

    Attributes:
        mean, deviation: (leaves, 2) of these over the training networks.
        limit: greatest standardised distance that is still of their kind.
    """

    mean: np.ndarray
    deviation: np.ndarray
    limit: float

    @staticmethod
    def fit(training: Population, held_out: Population) -> Scope:
        """The limit is `SLACK` times the farthest of `held_out`, networks that were not trained on."""
        facts = _facts(training)
        scope = Scope(facts.mean(0), np.maximum(facts.std(0), 1e-6), 1.0)
        return Scope(scope.mean, scope.deviation, SLACK * float(scope._far(_facts(held_out)).max()))

    def _far(self, facts: np.ndarray) -> np.ndarray:
        return np.abs((facts - self.mean) / self.deviation).max((1, 2))

    def distance(self, networks: Population) -> np.ndarray:
        """(n,) 1 at the limit, more beyond it."""
        return self._far(_facts(networks)) / self.limit

    def farthest(self, network: Network) -> str:
        """The array that is farthest from what the training networks have, in words."""
        facts = _facts(Population.of([network]))[0]
        leaf, which = np.unravel_index(np.abs((facts - self.mean) / self.deviation).argmax(), facts.shape)
        name = network.spec.leaves[int(leaf)].name
        usual, own, spread = self.mean[leaf, which], facts[leaf, which], self.deviation[leaf, which]
        if which == 1:
            low, high, own = np.exp(usual - 2 * spread), np.exp(usual + 2 * spread), np.exp(own)
        else:
            low, high = usual - 2 * spread, usual + 2 * spread
        what = ("mean", "standard deviation")[int(which)]
        return f"array {name!r} has {what} {own:.3g}, of the training networks mostly {low:.3g} to {high:.3g}"

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist(), "limit": self.limit}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Scope:
        return Scope(np.array(record["mean"], float), np.array(record["deviation"], float), float(record["limit"]))


def _facts(networks: Population) -> np.ndarray:
    """(n, leaves, 2) mean and log standard deviation of every array; the networks share one spec."""
    (spec,) = networks.specs
    weights = networks.read(np.arange(len(networks))).astype(np.float64)
    columns = [weights[:, place] for _, place in spec.slices()]
    return np.stack([[c.mean(1) for c in columns], [np.log(c.std(1) + 1e-8) for c in columns]], 0).transpose(2, 1, 0)
