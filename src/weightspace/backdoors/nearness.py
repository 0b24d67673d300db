"""Answers with a guarantee, calibrated on the nearest networks: conformal p-values, and who is typical at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.table_methods import rank_knots, ranked
from weightspace.metamodels.invariants import invariant_names

NEIGHBOURS = 5
"""Nearest networks whose mean distance says how typical one is."""
REACH = 40
"""A network's neighbour of this rank has about .6 of the weight of the nearest."""
DESCRIBED = [
    number
    for number, name in enumerate(invariant_names())
    if name.startswith("network") or (name.endswith(", 50%") and name.startswith(("last layer", "all layer")))
]
"""Of the invariants, the kind of network: sizes, and the typical neuron; not the odd ones, by which backdoors show."""


@dataclass(frozen=True, eq=False)
class Nearness:
    """The networks without backdoor by which answers are calibrated, and where they lie.

    Attributes:
        knots: of the scale of ranks, (k, numbers).
        places: (n, numbers) of the calibrating networks on that scale.
        scores: (n,) what the method said of each, by a fit that had not seen it.
        alone: (n,) sorted mean distances of each to its nearest neighbours among the others.
    """

    knots: Float[np.ndarray, "q k"]
    places: Float[np.ndarray, "n k"]
    scores: Float[np.ndarray, " n"]
    alone: Float[np.ndarray, " n"]

    @staticmethod
    def of(good: NetworkTable, scores: Float[np.ndarray, " n"]) -> Nearness:
        """Calibrated on networks without backdoor, at least a dozen, with the scores of fits that had not seen them."""
        x = good.readings["invariants"][:, DESCRIBED]
        knots = rank_knots(x)
        places = ranked(x, knots)
        between = _distances(places, places)
        np.fill_diagonal(between, np.inf)
        return Nearness(knots, places, scores, np.sort(np.sort(between, 1)[:, :NEIGHBOURS].mean(1)))

    def p_values(self, table: NetworkTable, scores: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """(m,) of each network the weighted share of calibrating networks that look at least as suspicious, itself
        counted (Tibshirani et al. 2019): the nearer one is, the more it weighs.

        If near networks are exchangeable with it, at most a share p of networks without backdoor get p or less.
        """
        away = self._away(table)
        reach = np.sort(away, 1)[:, min(REACH, away.shape[1]) - 1, None] + 1e-9
        weight = np.exp(-0.5 * (away / reach) ** 2)
        itself = weight.max(1)
        above = (weight * (self.scores >= scores[:, None])).sum(1)
        return (above + itself) / (weight.sum(1) + itself)

    def typicality(self, table: NetworkTable) -> Float[np.ndarray, " m"]:
        """(m,) share of the calibrating networks that lie at least as far from their neighbours: called out of scope
        below 1%, so are 1% of networks of the zoo."""
        away = np.sort(self._away(table), 1)[:, :NEIGHBOURS].mean(1)
        farther = len(self.alone) - np.searchsorted(self.alone, away)
        return (farther + 1) / (len(self.alone) + 1)

    def _away(self, table: NetworkTable) -> Float[np.ndarray, "m n"]:
        return _distances(ranked(table.readings["invariants"][:, DESCRIBED], self.knots), self.places)


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.sqrt(np.maximum(squares, 0) / x.shape[1])
