"""A method that reads networks as an estimator of scikit-learn: `fit(X, y)`, in its searches and cross-validations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from weightspace.errors import TaskError
from weightspace.metamodels.contract import Examples, Predictor, Target
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import Leaf, NetworkSpec, plain

Networks = Sequence[Network] | np.ndarray | Any
"""Networks of any architectures; or a matrix (n, weights), a row of flat weights for each network of one."""


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A method of ours with scikit-learn's `fit(X, y)`, for `cross_val_score`, searches and pipelines.

    X is a list of networks, or a matrix whose rows are flat weights of one architecture. With a matrix it keeps all
    that `sklearn.utils.estimator_checks.check_estimator` asks.

    >>> from weightspace.metamodels.baselines.majority import Majority
    >>> NetworkClassifier(Majority).get_params()["validation"]
    0.2
    """

    def __init__(
        self,
        make: Callable[[], Predictor],
        *,
        validation: float = 0.2,
        seed: int = 0,
        spec: NetworkSpec | None = None,
    ) -> None:
        """The method, not yet fitted.

        Args:
            make: makes an unfitted method, such as `lambda: MetaModel(small())`.
            validation: share of the networks, above 0 and below 1, that is kept for choosing settings.
            seed: of which ones.
            spec: what the columns of a matrix are; one array with an entry for each unless given.
        """
        self.make = make
        self.validation = validation
        self.seed = seed
        self.spec = spec

    def fit(self, X: Networks, y: Sequence[object] | np.ndarray) -> NetworkClassifier:
        """Learn from n networks and their n labels, of at least two classes.

        Raises:
            TaskError: if there are not as many labels as networks, or fewer than two classes.
        """
        networks = self._read(X, first=True)
        if y is None:
            raise TaskError("requires y to be passed, but the target y is None: give a label for each network")
        labels = column_or_1d(y, warn=True)
        if len(labels) != len(networks):
            raise TaskError(f"{len(networks)} networks were given with {len(labels)} labels: give one for each")
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise TaskError(f"there is one class, {self.classes_.tolist()}: give networks of at least two classes")
        self.target_ = Target("y", tuple(map(str, self.classes_)))
        places = np.arange(len(networks))
        alike = codes if np.bincount(codes).min() > 1 else None  # a class of one network cannot be on both sides
        held = max(round(self.validation * len(places)), len(self.classes_) if alike is not None else 1)
        split = train_test_split(places, test_size=held, random_state=self.seed, stratify=alike)
        training, validation = (
            Examples(networks.select(np.sort(some)), {"y": codes[np.sort(some)].astype(np.int64)}, (self.target_,))
            for some in split
        )
        self.predictor_ = self.make().fit(training, validation)
        return self

    def predict_proba(self, X: Networks) -> np.ndarray:
        """Probabilities (n, classes), the columns in the order of `classes_`.

        Raises:
            NotFittedError: before `fit`.
        """
        if not hasattr(self, "predictor_"):
            raise NotFittedError("this NetworkClassifier is not fitted yet: call fit(networks, labels) first")
        return self.predictor_.predict(self._read(X, first=False))["y"]

    def predict(self, X: Networks) -> np.ndarray:
        """The most probable class of each network, as `y` had them."""
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(1)]

    def _read(self, X: Networks, first: bool) -> Population:
        """Networks out of either form of X; `first` where the number of columns is learnt."""
        if isinstance(X, Population) or (isinstance(X, list | tuple) and all(isinstance(one, Network) for one in X)):
            return Population.of(X)
        matrix = check_array(X, dtype="float32", estimator=self, input_name="X")
        columns = matrix.shape[1]
        if first:
            self.n_features_in_ = columns
        elif columns != getattr(self, "n_features_in_", columns):
            raise TaskError(
                f"X has {columns} features, but NetworkClassifier is expecting {self.n_features_in_} features as input"
            )
        spec = self.spec or NetworkSpec((Leaf("weights", (columns,), "other", (plain(columns),)),))
        if spec.size != columns:
            raise TaskError(f"a row has {columns} weights, and spec says {spec.size}: give the spec of these networks")
        return Population.of_weights(spec, matrix)
