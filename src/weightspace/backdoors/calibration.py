"""From a detector's log-odds to a probability, and to how many clean networks look as suspicious."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.errors import NetworkError


@dataclass(frozen=True)
class Calibration:
    """From a meta-model's log-odds to a probability and a p-value.

    Attributes:
        slope, offset: of the probability, sigmoid(slope * log-odds + offset), where both sides are equally frequent
            (Platt 1999, with his smoothed labels).
        clean: (k,) log-odds of clean networks that nothing else was learnt from, sorted.
    """

    slope: float
    offset: float
    clean: np.ndarray

    @staticmethod
    def fit(scores: np.ndarray, labels: np.ndarray) -> Calibration:
        """From log-odds (n,) of networks of both sides, labels 1 for backdoored.

        Raises:
            NetworkError: if a side has no network.
        """
        from scipy.optimize import minimize

        bad, good = int(labels.sum()), int((1 - labels).sum())
        if not bad or not good:
            raise NetworkError(
                f"{good} clean and {bad} backdoored networks are too few to calibrate by: both are needed"
            )
        wanted = np.where(labels == 1, (bad + 1) / (bad + 2), 1 / (good + 2))
        weight = np.where(labels == 1, 0.5 / bad, 0.5 / good)

        def loss(parameters: np.ndarray) -> float:
            z = parameters[0] * scores + parameters[1]
            return float((weight * (np.logaddexp(0, z) - wanted * z)).sum()) + 1e-4 * float(parameters[0] ** 2)

        found = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
        return Calibration(float(found[0]), float(found[1]), np.sort(scores[labels == 0]))

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.clip(self.slope * scores + self.offset, -50, 50)))

    def p_value(self, scores: np.ndarray) -> np.ndarray:
        """(1 + clean networks at least as suspicious) / (1 + clean networks).

        At most so often is a clean network, drawn as those were, as suspicious (conformal prediction, Vovk et al.).
        """
        above = len(self.clean) - np.searchsorted(self.clean, scores, side="left")
        return (1 + above) / (1 + len(self.clean))

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope, "offset": self.offset, "clean": self.clean.tolist()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Calibration:
        return Calibration(float(record["slope"]), float(record["offset"]), np.array(record["clean"], float))
