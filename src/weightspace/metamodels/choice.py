"""Of several predictors the one with the lowest validation loss: the same tuning budget for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weightspace.metamodels.contract import Examples, Predictions, Predictor
from weightspace.train.loop import TrainingDiverged
from weightspace.weights.network import Network


class LowestLoss:
    """Fits every candidate and keeps the one with the lowest `validation_loss`; one that diverges is not kept.

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
        self.losses, self.chosen = [], None
        diverged = TrainingDiverged("none was tried")
        for make in self.makes:
            try:
                candidate = make().fit(training, validation)
                loss = validation_loss(candidate, validation)
            except TrainingDiverged as error:
                diverged, loss = error, np.inf
            else:
                if loss < min(self.losses, default=np.inf):
                    self.chosen = candidate
            self.losses.append(loss)
        if self.chosen is None:
            raise TrainingDiverged(f"every one of {len(self.makes)} settings of {self.name} diverged: {diverged}")
        return self

    def predict(self, networks: Sequence[Network]) -> Predictions:
        assert self.chosen is not None, "fit comes first"
        return self.chosen.predict(networks)


class CrossValidated:
    """Fits every candidate once a fold, keeps the one with the lowest loss, and answers with the mean of its fits.

    Training and validation networks are put together and cut into folds, all checkpoints of a network into one; each
    fold in turn is what a fit chooses by, the others are what it learns from. So a choice rests on all of them, not on
    the validation networks alone, and the answer varies less than that of one fit.

    Args:
        name: what tables call it.
        makes: make the candidates, fresh and unfitted, given the number of the fold.
        folds: at least 2.
    """

    def __init__(self, name: str, makes: Sequence[Callable[[int], Predictor]], folds: int = 5) -> None:
        self.name = name
        self.makes = tuple(makes)
        self.folds = folds
        self.losses: list[float] = []
        self.chosen: list[Predictor] = []

    def fit(self, training: Examples, validation: Examples) -> CrossValidated:
        everything = training.and_then(validation)
        names, unit = np.unique(everything.unit, return_inverse=True)
        fold = (np.random.default_rng(0).permutation(len(names)) % self.folds)[unit]
        self.losses = []
        for make in self.makes:
            fits, losses = [], []
            for number in range(self.folds):
                apart = everything.select(np.flatnonzero(fold == number))
                fits.append(make(number).fit(everything.select(np.flatnonzero(fold != number)), apart))
                losses.append(validation_loss(fits[-1], apart))
            loss = float(np.mean(losses))
            if not self.losses or loss < min(self.losses):
                self.chosen = fits
            self.losses.append(loss)
        return self

    def predict(self, networks: Sequence[Network]) -> Predictions:
        assert self.chosen, "fit comes first"
        said = [fit.predict(networks) for fit in self.chosen]
        return {name: np.mean([one[name] for one in said], axis=0) for name in said[0]}


def validation_loss(predictor: Predictor, validation: Examples) -> float:
    """Mean over the targets of the mean loss over the networks whose answer is known.

    Cross-entropy of classes; of quantities half the squared error, as a share of their variance here.
    """
    said = predictor.predict(validation.networks)
    losses = []
    for target in validation.targets:
        known = validation.known(target.name)
        truth = validation.labels[target.name][known]
        if target.is_quantity:
            error = np.square(said[target.name][known] - truth).mean()
            losses.append(error / max(2 * float(truth.var()), 1e-12))
        else:
            right = said[target.name][known, truth]
            losses.append(-np.log(np.clip(right, 1e-12, 1)).mean())
    return float(np.mean(losses))
