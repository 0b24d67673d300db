"""Answers with a guarantee, calibrated on the nearest networks: conformal p-values, and who is near enough at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.table_methods import rank_knots, ranked
from weightspace.metamodels.invariants import invariant_names

NEIGHBOURS = 5
"""Nearest networks whose mean distance says how typical one is."""
REACH = 40
"""A network's neighbour of this rank has about .6 of the weight of the nearest."""
BEYOND = 0.01
"""Share of networks like the calibrating ones that lie beyond a distance of 1."""
DESCRIBED = [
    number
    for number, name in enumerate(invariant_names())
    if name.startswith("network") or (name.endswith(", 50%") and name.startswith(("last layer", "all layer")))
]
"""Of the invariants, the kind of network: sizes, and the typical neuron; not the odd ones, by which backdoors show."""
WEIGHTS = np.array([2.0 if invariant_names()[number].startswith("network") else 1.0 for number in DESCRIBED])
"""Sizes and kinds of layers, which are few, count as much together as the numbers of the typical neuron."""


@dataclass(frozen=True, eq=False)
class Nearness:
    """The networks without backdoor by which answers are calibrated, and where they lie.

    Attributes:
        knots: of the scale of ranks, (k, numbers).
        places: (n, numbers) of the calibrating networks on that scale.
        scores: (n,) what the method said of each, by a fit that had not seen it.
        fits: (n,) which fit that was, 0 where there is one.
        limit: mean distance to the nearest neighbours that a share `BEYOND` of the calibrating networks exceed.
    """

    knots: Float[np.ndarray, "q k"]
    places: Float[np.ndarray, "n k"]
    scores: Float[np.ndarray, " n"]
    fits: Int[np.ndarray, " n"]
    limit: float

    @staticmethod
    def of(good: NetworkTable, scores: Float[np.ndarray, " n"], fits: Int[np.ndarray, " n"] | None = None) -> Nearness:
        """Calibrated on networks without backdoor, at least a dozen, with the scores of fits that had not seen them."""
        x = good.readings["invariants"][:, DESCRIBED]
        knots = rank_knots(x)
        places = ranked(x, knots) * WEIGHTS
        between = distances(places, places)
        np.fill_diagonal(between, np.inf)
        alone = np.sort(between, 1)[:, :NEIGHBOURS].mean(1)
        numbers = np.zeros(len(scores), np.int64) if fits is None else fits
        return Nearness(knots, places, scores, numbers, float(np.quantile(alone, 1 - BEYOND)))

    def p_values(self, table: NetworkTable, scores: Float[np.ndarray, "m f"]) -> Float[np.ndarray, " m"]:
        """(m,) of each network the weighted share of calibrating networks that look at least as suspicious, itself
        counted (Tibshirani et al. 2019): the nearer one is, the more it weighs.

        A calibrating network and the one asked about are compared by the fit that had seen neither (cross-conformal,
        Vovk 2015). If near networks are exchangeable with it, about a share p of networks without backdoor get p or
        less, and at most twice as many.

        Args:
            scores: (m, fits) what every fit says of each network.
        """
        away = self._away(table)
        reach = np.sort(away, 1)[:, min(REACH, away.shape[1]) - 1, None] + 1e-9
        weight = np.exp(-0.5 * (away / reach) ** 2)
        itself = weight.max(1)
        above = (weight * (self.scores >= scores[:, self.fits])).sum(1)
        return (above + itself) / (weight.sum(1) + itself)

    def distance(self, table: NetworkTable) -> Float[np.ndarray, " m"]:
        """(m,) mean distance to the nearest calibrating networks, 1 being the limit: a share `BEYOND` of networks like
        these lie beyond it."""
        return np.sort(self._away(table), 1)[:, :NEIGHBOURS].mean(1) / max(self.limit, 1e-12)

    def located(self, table: NetworkTable) -> Float[np.ndarray, "m k"]:
        """(m, numbers) where networks lie on the scale of the calibrating ones."""
        return ranked(table.readings["invariants"][:, DESCRIBED], self.knots) * WEIGHTS

    def _away(self, table: NetworkTable) -> Float[np.ndarray, "m n"]:
        return distances(self.located(table), self.places)


def distances(x: Float[np.ndarray, "m k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "m n"]:
    """Root mean square differences of all pairs of rows."""
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.sqrt(np.maximum(squares, 0) / x.shape[1])
