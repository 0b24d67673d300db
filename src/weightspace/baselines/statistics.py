"""Weight statistics: a few numbers for each array, with boosted trees on top (Unterthiner et al. 2020)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from weightspace.tasks.base import Examples, Predictions
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
STATISTICS = ("mean", "variance", *(f"q{100 * q:.0f}" for q in QUANTILES))


def weight_statistics(networks: Sequence[Network], leaves: int | None = None) -> np.ndarray:
    """Mean, variance and quantiles 0, 25, 50, 75, 100% of every array (Unterthiner et al. 2020, section 4).

    Args:
        leaves: how many arrays the features have room for; None for the most that a network here has.
    Returns:
        (n, (leaves + 1) * 7) float64: seven statistics of all weights together, then of each array in order; NaN where
        a network has fewer arrays, which boosted trees take as they are.
    """
    population = Population.of(networks)
    room = leaves or max((len(spec.leaves) for spec in population.specs), default=0)
    features = np.full((len(population), (room + 1) * len(STATISTICS)), np.nan)
    for spec, positions in population.groups():
        for block in np.array_split(positions, -(-len(positions) * spec.size // 2**24)):
            features[block] = _statistics(spec, population.read(block), room)
    return features


def _statistics(spec: NetworkSpec, weights: np.ndarray, room: int) -> np.ndarray:
    columns = [_of_block(weights)]
    columns += [_of_block(weights[:, place]) for _, place in list(spec.slices())[:room]]
    table = np.concatenate(columns, axis=1)
    missing = (room + 1) * len(STATISTICS) - table.shape[1]
    return np.pad(table, ((0, 0), (0, missing)), constant_values=np.nan)


def _of_block(values: np.ndarray) -> np.ndarray:
    """The seven statistics of each row of (n, k)."""
    values = values.astype(np.float64)
    quantiles = np.quantile(values, QUANTILES, axis=1)
    return np.stack([values.mean(1), values.var(1), *quantiles], axis=1)


class StatisticsBoosting:
    """Weight statistics and LightGBM; the tree settings with the lowest validation loss win, for each target alone."""

    name = "statistics + LightGBM"
    grid: tuple[dict[str, Any], ...] = (
        {"num_leaves": 7, "min_child_samples": 5},
        {"num_leaves": 7, "min_child_samples": 20},
        {"num_leaves": 15, "min_child_samples": 10, "feature_fraction": 0.5},
        {"num_leaves": 31, "min_child_samples": 20, "feature_fraction": 0.5},
        {"num_leaves": 7, "min_child_samples": 10, "feature_fraction": 0.3, "lambda_l2": 5.0},
    )

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.leaves = 0
        self.boosters: dict[str, tuple[Any, int]] = {}

    def fit(self, training: Examples, validation: Examples) -> StatisticsBoosting:
        self.leaves = max(len(spec.leaves) for spec in training.networks.specs)
        features, held_out = self.features(training.networks), self.features(validation.networks)
        for target in training.targets:
            known, held_known = training.known(target.name), validation.known(target.name)
            self.boosters[target.name] = self._fit_one(
                features[known],
                training.labels[target.name][known],
                held_out[held_known],
                validation.labels[target.name][held_known],
                len(target.classes),
            )
        return self

    def features(self, networks: Sequence[Network]) -> np.ndarray:
        """(n, k) what the trees see of each network."""
        return weight_statistics(networks, self.leaves)

    def _fit_one(
        self, x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray, classes: int
    ) -> tuple[Any, int]:
        """The booster with the lowest validation loss over the grid, stopped where that loss stops falling."""
        import lightgbm

        best, lowest = None, np.inf
        for settings in self.grid:
            options = {
                "objective": "multiclass",
                "num_class": classes,
                "learning_rate": 0.05,
                "seed": self.seed,
                "deterministic": True,
                "force_col_wise": True,
                "num_threads": 1 if x.size < 1_000_000 else 0,  # on small tables threads wait more than they work
                "verbose": -1,
                **settings,
            }
            data = lightgbm.Dataset(x, y, free_raw_data=False)
            held = lightgbm.Dataset(held_x, held_y, reference=data, free_raw_data=False)
            stop = lightgbm.early_stopping(30, verbose=False)
            booster = lightgbm.train(options, data, 400, valid_sets=[held], callbacks=[stop])
            loss = booster.best_score["valid_0"]["multi_logloss"]
            if loss < lowest:
                best, lowest = booster, loss
        assert best is not None, "every booster has a finite loss"
        return best, classes

    def predict(self, networks: Sequence[Network]) -> Predictions:
        features = self.features(networks)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            return {
                name: np.asarray(booster.predict(features, num_iteration=booster.best_iteration)).reshape(-1, classes)
                for name, (booster, classes) in self.boosters.items()
            }
