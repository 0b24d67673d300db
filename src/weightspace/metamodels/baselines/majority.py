"""The baseline that does not look: every network gets the class frequencies of the training split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightspace.metamodels.contract import Examples, Predictions
from weightspace.weights.network import Network


class Majority:
    """Answers with the training split's most frequent class, or mean; its probabilities are the frequencies."""

    name = "majority"

    def __init__(self) -> None:
        self.frequencies: Predictions = {}

    def fit(self, training: Examples, validation: Examples) -> Majority:  # noqa: ARG002 - nothing to choose
        for target in training.targets:
            labels = training.labels[target.name][training.known(target.name)]
            if target.is_quantity:
                self.frequencies[target.name] = labels.mean()
                continue
            counts = np.bincount(labels, minlength=len(target.classes))
            self.frequencies[target.name] = counts / counts.sum()
        return self

    def predict(self, networks: Sequence[Network]) -> Predictions:
        return {name: np.repeat(row[None], len(networks), 0) for name, row in self.frequencies.items()}
