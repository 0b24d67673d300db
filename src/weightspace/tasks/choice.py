"""Of several predictors the one with the lowest validation loss: the same tuning budget for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weightspace.tasks.base import Examples, Predictions, Predictor
from weightspace.weights.network import Network


class LowestLoss:
    """Fits every candidate and keeps the one whose mean cross-entropy over the validation networks is lowest.

    Args:
        name: what tables call it.
        makes: make the candidates, fresh and unfitted.
    """

    def __init__(self, name: str, makes: Sequence[Callable[[], Predictor]]) -> None:
        self.name = name
        self.makes = tuple(makes)
        self.losses: list[float] = []
        self.chosen: Predictor | None = None

    def fit(self, training: Examples, validation: Examples) -> LowestLoss:
        self.losses = []
        for make in self.makes:
            candidate = make().fit(training, validation)
            loss = validation_loss(candidate, validation)
            if not self.losses or loss < min(self.losses):
                self.chosen = candidate
            self.losses.append(loss)
        return self

    def predict(self, networks: Sequence[Network]) -> Predictions:
        assert self.chosen is not None, "fit comes first"
        return self.chosen.predict(networks)


def validation_loss(predictor: Predictor, validation: Examples) -> float:
    """Mean over the targets of the mean cross-entropy over the networks whose class is known."""
    said = predictor.predict(validation.networks)
    losses = []
    for target in validation.targets:
        known = validation.known(target.name)
        right = said[target.name][known, validation.labels[target.name][known]]
        losses.append(-np.log(np.clip(right, 1e-12, 1)).mean())
    return float(np.mean(losses))
