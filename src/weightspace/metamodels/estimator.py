"""A method that reads networks as an estimator of scikit-learn: `fit(X, y)`, in its searches and cross-validations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Predictor, Target
from weightspace.weights.network import Network
from weightspace.weights.population import Population


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A method of ours with scikit-learn's `fit(X, y)`, for `cross_val_score`, searches and pipelines.

    X is a list of networks instead of a matrix, so what scikit-learn checks of matrices does not apply.

    >>> from weightspace.metamodels.baselines.majority import Majority
    >>> NetworkClassifier(Majority).get_params()["validation"]
    0.2
    """

    def __init__(self, make: Callable[[], Predictor], *, validation: float = 0.2, seed: int = 0) -> None:
        """The method, not yet fitted.

        Args:
            make: makes an unfitted method, such as `lambda: MetaModel(small())`.
            validation: share of the networks, above 0 and below 1, that is kept for choosing settings.
            seed: of which ones.
        """
        self.make = make
        self.validation = validation
        self.seed = seed

    def fit(self, X: Sequence[Network], y: Sequence[object] | np.ndarray) -> NetworkClassifier:
        """Learn from n networks and their n labels, of at least two classes.

        Raises:
            TaskError: if there are not as many labels as networks, or fewer than two classes.
        """
        labels = np.asarray(y)
        if labels.shape != (len(X),):
            raise TaskError(f"{len(X)} networks were given with labels of the shape {labels.shape}: give one for each")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise TaskError(f"all labels are {self.classes_.tolist()}: give networks of at least two classes")
        self.target_ = Target("y", tuple(map(str, self.classes_)))
        networks, places = Population.of(list(X)), np.arange(len(X))
        alike = codes if np.bincount(codes).min() > 1 else None  # a class of one network cannot be on both sides
        split = train_test_split(places, test_size=self.validation, random_state=self.seed, stratify=alike)
        training, validation = (
            Examples(networks.select(np.sort(some)), {"y": codes[np.sort(some)].astype(np.int64)}, (self.target_,))
            for some in split
        )
        self.predictor_ = self.make().fit(training, validation)
        return self

    def predict_proba(self, X: Sequence[Network]) -> np.ndarray:
        """Probabilities (n, classes), the columns in the order of `classes_`.

        Raises:
            NotFittedError: before `fit`.
        """
        if not hasattr(self, "predictor_"):
            raise NotFittedError("this NetworkClassifier is not fitted yet: call fit(networks, labels) first")
        return self.predictor_.predict(Population.of(list(X)))["y"]

    def predict(self, X: Sequence[Network]) -> np.ndarray:
        """The most probable class of each network, as `y` had them."""
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(1)]
