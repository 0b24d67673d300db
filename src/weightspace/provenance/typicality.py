"""Is a network of the kind that a reader knows? A conformal p-value from how far its outputs lie from others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

NEIGHBOURS = 3
"""Nearest outputs of training networks whose mean distance is taken."""
KEPT = 4_000
"""Outputs of training networks that are kept, at most."""
RIDGE, SCARCE = 1e-4, 0.1
"""What is added to the variance in every direction, as a share of the mean variance: this, and, where outputs are few,
`SCARCE` times the cube of directions an output."""
AT_ONCE = 2_000

Outputs = Sequence[Float[np.ndarray, "_ d"]]
"""Of each network its outputs, each described by d numbers."""


@dataclass(frozen=True, eq=False)
class Typicality:
    """Where the outputs of training networks lie, and how far those of others of the same kind lie from them.

    Outputs that stand for one class lie close together, and a foreign network's elsewhere; what counts is distance in
    units of the spread within classes (as Lee et al. 2018 do for images that a classifier was not trained on).

    Attributes:
        centre: (d,) of the training networks' outputs.
        basis: (d, d) into directions in which outputs of one class have deviation 1.
        places: (t, d) outputs of training networks in this basis.
        away: (m,) sorted distances of validation networks.
    """

    centre: np.ndarray
    basis: np.ndarray
    places: np.ndarray
    away: np.ndarray

    @staticmethod
    def of(training: Outputs, classes: Int[np.ndarray, " t"], validation: Outputs) -> Typicality:
        """From the outputs of training and of validation networks.

        Args:
            classes: what each output of the training networks stands for, one network after the other; -1 for nothing.
        """
        known = np.concatenate(training)
        centre, scale = known.mean(0), known.std(0)
        known, scale = known - centre, np.where(scale > 1e-9, scale, 1.0)
        kinds, which = np.unique(classes, return_inverse=True)
        means = np.stack([known[which == kind].mean(0) for kind in range(len(kinds))])
        apart = (known - means[which]) / scale
        spread = apart.T @ apart / len(apart)
        ridge = RIDGE + SCARCE * (len(spread) / len(apart)) ** 3
        spread += ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
        basis = np.linalg.cholesky(np.linalg.inv(spread)) / scale[:, None]
        kept = np.random.default_rng(0).permutation(len(known))[:KEPT]
        places = (known[kept] @ basis).astype(np.float16)
        made = Typicality(centre, basis, places, np.zeros(1))
        return Typicality(centre, basis, places, np.sort(made.distances(validation)))

    def distances(self, described: Outputs) -> Float[np.ndarray, " m"]:
        """(m,) of each network the mean, over its outputs, of the distance to the nearest outputs of training
        networks."""
        rows = (np.concatenate(described) - self.centre) @ self.basis
        places = self.places.astype(np.float64)
        own, count = (places**2).sum(1), min(NEIGHBOURS, len(places))
        parts = []
        for start in range(0, len(rows), AT_ONCE):
            x = rows[start : start + AT_ONCE]
            away = np.sqrt(np.maximum((x**2).sum(1)[:, None] + own - 2 * x @ places.T, 0))
            parts.append(np.partition(away, count - 1, 1)[:, :count].mean(1))
        ends = np.cumsum([len(one) for one in described])
        return np.array([part.mean() for part in np.split(np.concatenate(parts), ends[:-1])])

    @property
    def least(self) -> float:
        """The smallest p-value that there can be: it takes nineteen networks for 5%."""
        return 1 / (len(self.away) + 1)

    def p_values(self, described: Outputs) -> Float[np.ndarray, " m"]:
        """The share of networks of the same kind that lie at least as far away, itself counted.

        Of networks that are exchangeable with the validation networks at most a share p gets p or less.
        """
        farther = len(self.away) - np.searchsorted(self.away, self.distances(described))
        return (farther + 1) / (len(self.away) + 1)
