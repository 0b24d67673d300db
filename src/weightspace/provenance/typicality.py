"""Is a network of the kind that a reader was trained on? A conformal p-value from how far it lies from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

NEIGHBOURS = 5
"""Nearest training networks whose mean distance is taken."""
COMPONENTS = 24
"""Directions in which descriptions vary most that are compared."""


@dataclass(frozen=True, eq=False)
class Typicality:
    """Where the training networks lie, and how far others of the same kind lie from them.

    Attributes:
        centre, scale: (d,) of the descriptions.
        basis: (d, k) directions, each of deviation 1 over the training networks.
        places: (n, k) of the training networks.
        away: (m,) sorted distances of validation networks.
    """

    centre: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    places: np.ndarray
    away: np.ndarray

    @staticmethod
    def of(training: Float[np.ndarray, "n d"], validation: Float[np.ndarray, "m d"]) -> Typicality:
        """From descriptions of training and validation networks; the last number, a network's own, is kept apart."""
        centre, scale = training.mean(0), training.std(0) + 1e-9
        x = (training - centre) / scale
        inner = x[:, :-1]
        _, size, axes = np.linalg.svd(inner, full_matrices=False)
        count = min(COMPONENTS, len(size), max(1, len(training) // 10))
        basis = np.zeros((x.shape[1], count + 1))
        basis[:-1, :count] = axes[:count].T / (size[:count] / np.sqrt(len(x)) + 1e-9)
        basis[-1, -1] = np.sqrt(count)  # as much as all the others together
        places = x @ basis
        made = Typicality(centre, scale, basis, places, np.zeros(1))
        return Typicality(centre, scale, basis, places, np.sort(made.distances(validation)))

    def distances(self, described: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """Mean distances to the nearest training networks."""
        x = ((described - self.centre) / self.scale) @ self.basis
        away = np.sqrt(np.maximum((x**2).sum(1)[:, None] + (self.places**2).sum(1) - 2 * x @ self.places.T, 0))
        return np.sort(away, 1)[:, :NEIGHBOURS].mean(1)

    def p_values(self, described: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """The share of networks of the same kind that lie at least as far away, itself counted.

        Of networks that are exchangeable with the validation networks at most a share p gets p or less.
        """
        farther = len(self.away) - np.searchsorted(self.away, self.distances(described))
        return (farther + 1) / (len(self.away) + 1)
