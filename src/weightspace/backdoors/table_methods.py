"""Methods that learn from a table of networks: boosted trees and linear models on one way of reading, tuned alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.trees import Trees

Matrix = Float[np.ndarray, "n k"]
Labels = Bool[np.ndarray, " n"]
FOLDS = 3
"""Parts of the training networks by which a setting is chosen."""


@runtime_checkable
class TableMethod(Protocol):
    """What every method does: learns which networks are backdoored, then says how suspicious others look."""

    def fit(self, table: NetworkTable, bad: Labels) -> TableMethod: ...

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        """The higher the more suspicious."""
        ...


@runtime_checkable
class Learner(Protocol):
    """Learns from numbers alone."""

    def fit(self, x: Matrix, bad: Labels) -> Learner: ...

    def scores(self, x: Matrix) -> Float[np.ndarray, " n"]: ...


@dataclass(eq=False)
class Boosted:
    """LightGBM: many shallow trees, each of some of the numbers."""

    leaves: int = 7
    share: float = 0.3
    least: int = 8
    rounds: int = 150
    trees: Trees | None = None

    def fit(self, x: Matrix, bad: Labels) -> Boosted:
        import lightgbm

        options = {
            "objective": "binary",
            "learning_rate": 0.06,
            "num_leaves": self.leaves,
            "feature_fraction": self.share,
            "min_child_samples": self.least,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "is_unbalance": True,
            "max_bin": 63,
            "seed": 0,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": 1,
            "verbose": -1,
        }
        self.trees = Trees.of(lightgbm.train(options, lightgbm.Dataset(x, bad.astype(float)), self.rounds))
        return self

    def scores(self, x: Matrix) -> Float[np.ndarray, " n"]:
        assert self.trees is not None, "fit comes first"
        return self.trees.scores(x)


@dataclass(eq=False)
class RankedLinear:
    """Logistic regression on normal scores of ranks among the training networks; what is missing is in the middle."""

    strength: float = 0.01
    knots: Matrix | None = None
    coefficients: Float[np.ndarray, " k"] | None = None
    intercept: float = 0.0

    def fit(self, x: Matrix, bad: Labels) -> RankedLinear:
        from sklearn.linear_model import LogisticRegression

        self.knots = rank_knots(x)
        model = LogisticRegression(C=self.strength, max_iter=500, class_weight="balanced")
        model.fit(ranked(x, self.knots), bad)
        self.coefficients, self.intercept = np.asarray(model.coef_)[0], float(np.asarray(model.intercept_)[0])
        return self

    def scores(self, x: Matrix) -> Float[np.ndarray, " n"]:
        assert self.knots is not None and self.coefficients is not None, "fit comes first"
        return ranked(x, self.knots) @ self.coefficients + self.intercept


def rank_knots(x: Matrix) -> Float[np.ndarray, "q k"]:
    """The quantiles of each column by which `ranked` knows its distribution; what is missing does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of which all is missing
        return np.nanquantile(x.astype(np.float64), np.linspace(0, 1, 65), axis=0)


def ranked(x: Matrix, knots: Float[np.ndarray, "q k"]) -> Matrix:
    """Normal scores of each number's rank among those that `knots` were taken from, -2.3 to 2.3; 0 for what is missing,
    and for a column that does not vary."""
    from scipy.special import ndtri

    shares = np.linspace(0, 1, len(knots))
    columns = np.zeros(x.shape)
    for i, column in enumerate(x.T.astype(np.float64)):
        edges = knots[:, i]
        if not np.isfinite(edges).all() or edges[0] == edges[-1]:
            continue
        low = np.interp(column, edges, shares)
        high = 1 - np.interp(-column, -edges[::-1], shares)  # ties stand in the middle of what they share
        columns[:, i] = np.nan_to_num(ndtri(0.01 + 0.98 * (low + high) / 2))
    return columns


CANDIDATES: tuple[Callable[[], Learner], ...] = (
    Boosted,
    lambda: Boosted(leaves=4, share=0.1),
    lambda: RankedLinear(0.001),
    lambda: RankedLinear(0.01),
)
"""Settings of which each method that learns from one reading takes the best: as many for all."""


@dataclass(eq=False)
class Tuned:
    """One or several ways of reading, and the setting with the highest AUROC on parts of the training networks.

    Args:
        readings: names of `NetworkTable.readings`, side by side.
        together: whether the best trees and the best linear model answer together, by the mean of what they say, each
            on the scale of the training networks.
    """

    readings: tuple[str, ...]
    together: bool = False
    candidates: Sequence[Callable[[], Learner]] = CANDIDATES
    chosen: list[tuple[Learner, float, float]] = field(default_factory=list)
    """The best, and of its answers to the training networks mean and deviation."""

    def fit(self, table: NetworkTable, bad: Labels) -> Tuned:
        x = self._matrix(table)
        fold = np.random.default_rng(0).permutation(len(x)) % FOLDS
        areas = [self._area(make, x, bad, fold) for make in self.candidates]
        kinds: dict[type, int] = {}
        for number in np.argsort(areas)[::-1]:
            kinds.setdefault(type(self.candidates[number]()), int(number))
        best = list(kinds.values())[: 2 if self.together else 1]
        fitted = [self.candidates[number]().fit(x, bad) for number in best]
        said = [one.scores(x) for one in fitted]
        self.chosen = [(one, float(s.mean()), float(s.std()) + 1e-12) for one, s in zip(fitted, said, strict=True)]
        return self

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        x = self._matrix(table)
        if len(self.chosen) == 1:
            return self.chosen[0][0].scores(x)
        return np.mean([(one.scores(x) - mean) / deviation for one, mean, deviation in self.chosen], axis=0)

    def _matrix(self, table: NetworkTable) -> Matrix:
        return np.concatenate([table.readings[name] for name in self.readings], 1)

    @staticmethod
    def _area(make: Callable[[], Learner], x: Matrix, bad: Labels, fold: np.ndarray) -> float:
        said = np.empty(len(x))
        for number in range(FOLDS):
            apart = fold == number
            scores = make().fit(x[~apart], bad[~apart]).scores(x[apart])
            said[apart] = scores.argsort().argsort() / len(scores)  # fits of several parts have scales of their own
        return area(said[bad], said[~bad])


@dataclass(eq=False)
class Mean:
    """Several methods by the mean of their answers, each on the scale of the networks it was trained on."""

    parts: Sequence[TableMethod]
    scale: Sequence[tuple[float, float]] = ()

    def fit(self, table: NetworkTable, bad: Labels) -> Mean:
        self.scale = []
        for part in self.parts:
            said = part.fit(table, bad).scores(table)
            self.scale = [*self.scale, (float(said.mean()), float(said.std()) + 1e-12)]
        return self

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        said = [
            (part.scores(table) - mean) / spread for part, (mean, spread) in zip(self.parts, self.scale, strict=True)
        ]
        return np.mean(said, axis=0)


@dataclass(eq=False)
class Rules:
    """Outlier rules, which learn nothing: how far the classes' weights stand out."""

    column: int = 0

    def fit(self, table: NetworkTable, bad: Labels) -> Rules:  # noqa: ARG002
        return self

    def scores(self, table: NetworkTable) -> Float[np.ndarray, " n"]:
        return table.readings["outlier rules"][:, self.column].astype(float)


def area(bad: np.ndarray, good: np.ndarray) -> float:
    """AUROC: how often one of `bad` (n,) is above one of `good` (m,), ties half."""
    ordered = np.sort(good)
    below = np.searchsorted(ordered, bad, "left") + np.searchsorted(ordered, bad, "right")
    return float(below.mean() / (2 * len(good)))


METHODS: Mapping[str, Callable[[], TableMethod]] = {
    "invariants, trees and linear": lambda: Tuned(("invariants",), together=True),
    "invariants": lambda: Tuned(("invariants",)),
    "everything, trees and linear": lambda: Tuned(
        ("invariants", "weight statistics", "final layer", "spectrum"), together=True
    ),
    "weight statistics": lambda: Tuned(("weight statistics",)),
    "final layer": lambda: Tuned(("final layer",)),
    "statistics and final layer": lambda: Tuned(("weight statistics", "final layer")),
    "spectrum": lambda: Tuned(("spectrum",)),
    "outlier rule: largest size": lambda: Rules(0),
    "outlier rule: unlike the others": lambda: Rules(1),
}
"""Methods by the names that tables call them, ours first."""
