"""Weight statistics: a few numbers for each array, with boosted trees on top (Unterthiner et al. 2020)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from weightspace.metamodels.contract import Examples, Predictions
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.slots import Room

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
STATISTICS = ("mean", "variance", *(f"q{100 * q:.0f}" for q in QUANTILES))


def weight_statistics(networks: Sequence[Network], room: Room | None = None) -> np.ndarray:
    """Mean, variance and quantiles 0, 25, 50, 75, 100% of every array (Unterthiner et al. 2020, section 4).

    Args:
        room: for arrays; None for the most that a network here has. Counted from both ends where depths differ; theirs
            are all of one depth.
    Returns:
        (n, 7 * (1 + room.slots)) float64: seven statistics of all weights together, then of each array; NaN where a
        network has fewer arrays, which boosted trees take as they are.
    """
    population = Population.of(networks)
    room = room or Room(max((len(spec.leaves) for spec in population.specs), default=0))
    features = np.empty((len(population), (1 + room.slots) * len(STATISTICS)))
    for spec, positions in population.groups():
        for block in np.array_split(positions, -(-len(positions) * spec.size // 2**24)):
            weights = population.read(block)
            each = [_of_block(weights[:, place]) for _, place in spec.slices()]
            missing = np.full((len(block), len(STATISTICS)), np.nan)
            features[block] = np.concatenate([_of_block(weights), *room.arranged(each, missing)], axis=1)
    return features


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
        self.room = Room(0)
        self.boosters: dict[str, tuple[Any, int]] = {}

    def fit(self, training: Examples, validation: Examples) -> StatisticsBoosting:
        self.room = Room.of(len(spec.leaves) for spec in training.networks.specs)
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
        return weight_statistics(networks, self.room)

    def _fit_one(
        self, x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray, classes: int
    ) -> tuple[Any, int]:
        """The booster with the lowest validation loss over the grid, stopped where that loss stops falling."""
        import lightgbm

        best, lowest = None, np.inf
        for settings in self.grid:
            task = {"objective": "multiclass", "num_class": classes} if classes else {"objective": "regression"}
            options = {
                **task,
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
            (loss,) = booster.best_score["valid_0"].values()
            if loss < lowest:
                best, lowest = booster, loss
        assert best is not None, "every booster has a finite loss"
        return best, classes

    def predict(self, networks: Sequence[Network]) -> Predictions:
        features = self.features(networks)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            said = {
                name: np.asarray(booster.predict(features, num_iteration=booster.best_iteration))
                for name, (booster, _) in self.boosters.items()
            }
        classes = {name: classes for name, (_, classes) in self.boosters.items()}
        return {name: values.reshape(-1, classes[name]) if classes[name] else values for name, values in said.items()}
