"""A linear probe: logistic or ridge regression on the raw weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from weightspace.metamodels.baselines.statistics import weight_statistics
from weightspace.metamodels.contract import Examples, Predictions
from weightspace.weights.alignment import align
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.slots import Room
from weightspace.weights.spec import NetworkSpec


class Linear:
    """Multinomial logistic regression on flat weights, ridge regression for quantities; entries are standardised on the
    training split.

    The strength of the L2 penalty with the lowest validation loss wins. Networks of different sizes are padded with
    zeros to the largest of the training split, or cut to it. Weights are first projected on the span of the training
    networks, which loses nothing: the penalised optimum lies in it. Of networks with more than 20,000 weights a random
    20,000 are read, the same of each, so that the matrix fits into memory.
    """

    name = "linear"
    most = 20_000
    strengths = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def __init__(self) -> None:
        self.size = 0
        self.read = np.arange(0)
        self.models: dict[str, Any] = {}
        self.classes: dict[str, int] = {}

    def fit(self, training: Examples, validation: Examples) -> Linear:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss

        self.size = max(spec.size for spec in training.networks.specs)
        self.read = np.arange(self.size)
        if self.size > self.most:
            self.read = np.sort(np.random.default_rng(0).choice(self.size, self.most, replace=False))
        x = self._matrix(training.networks)
        self.mean, self.deviation = x.mean(0), x.std(0) + 1e-12
        _, _, self.basis = np.linalg.svd((x - self.mean) / self.deviation, full_matrices=False)
        x, held = self._project(x), self._project(self._matrix(validation.networks))
        for target in training.targets:
            known, held_known = training.known(target.name), validation.known(target.name)
            labels, truth = training.labels[target.name][known], validation.labels[target.name][held_known]
            lowest = np.inf
            self.classes[target.name] = len(target.classes)
            if target.is_quantity:
                self.models[target.name] = self._ridge(x[known], labels, held[held_known], truth)
                continue
            for strength in self.strengths:
                model = LogisticRegression(C=strength, max_iter=300)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # the loss below judges, converged or not
                    model.fit(x[known], labels)
                answers = _spread(model, held[held_known], len(target.classes))
                loss = log_loss(truth, np.clip(answers, 1e-12, 1), labels=list(range(len(target.classes))))
                if loss < lowest:
                    self.models[target.name], lowest = model, loss
        return self

    def _ridge(self, x: np.ndarray, values: np.ndarray, held: np.ndarray, truth: np.ndarray) -> Any:
        """The ridge regression with the lowest validation error; its penalties are those of `strengths`."""
        from sklearn.linear_model import Ridge

        fits = [Ridge(alpha=1 / strength).fit(x, values) for strength in self.strengths]
        return min(fits, key=lambda fit: float(np.square(fit.predict(held) - truth).mean()))

    def predict(self, networks: Sequence[Network]) -> Predictions:
        x = self._project(self._matrix(networks))
        return {
            name: _spread(model, x, self.classes[name]) if self.classes[name] else model.predict(x)
            for name, model in self.models.items()
        }

    def _matrix(self, networks: Sequence[Network]) -> np.ndarray:
        population = Population.of(networks)
        matrix = np.zeros((len(population), len(self.read)))
        for spec, positions in population.groups():
            columns = self.read[self.read < spec.size]
            for block in np.array_split(positions, -(-len(positions) * spec.size // 2**24)):
                matrix[block, : len(columns)] = population.read(block)[:, columns]
        return matrix

    def _project(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.deviation) @ self.basis.T


def _spread(model: Any, x: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (n, classes), zero for classes that the training split did not have."""
    probabilities = np.zeros((len(x), classes))
    probabilities[:, model.classes_] = model.predict_proba(x)
    return probabilities


class AlignedLinear(Linear):
    """The same on weights whose neurons are first put in the order in which they are most like a reference network's.

    The reference is the first training network of each spec.
    """

    name = "linear, aligned"

    def __init__(self) -> None:
        super().__init__()
        self.references: dict[NetworkSpec, np.ndarray] = {}

    def fit(self, training: Examples, validation: Examples) -> AlignedLinear:
        self.references = {
            spec: training.networks.read(positions[:1])[0] for spec, positions in training.networks.groups()
        }
        super().fit(training, validation)
        return self

    def _matrix(self, networks: Sequence[Network]) -> np.ndarray:
        aligned = []
        for network in networks:
            reference = self.references.get(network.spec)
            weights = network.weights
            if reference is not None:
                weights, _ = align(weights, reference, network.spec)
            aligned.append(Network(network.spec, weights))
        return super()._matrix(aligned)


class StatisticsLinear(Linear):
    """The same on weight statistics, a few hundred numbers of which each network has its own, see `weight_statistics`.

    Where a network has fewer arrays than another the missing statistics are zero.
    """

    name = "weight statistics, linear"

    def __init__(self) -> None:
        super().__init__()
        self.room = Room(0)

    def fit(self, training: Examples, validation: Examples) -> StatisticsLinear:
        self.room = Room.of(len(spec.leaves) for spec in training.networks.specs)
        super().fit(training, validation)
        return self

    def _matrix(self, networks: Sequence[Network]) -> np.ndarray:
        return np.nan_to_num(weight_statistics(networks, self.room))
