"""What each predictor said of each test network: kept in a record, and what ROC curves and calibration are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.evaluation.record_reading import ResultsError, mapping, number, only, sequence

MOST = 2_000
"""Test networks up to which single answers are kept in a record."""
FIGURES = 4
"""Digits behind the point of a probability in a record."""


@dataclass(frozen=True, kw_only=True)
class SingleAnswers:
    """The answers about one target, network by network.

    Attributes:
        classes: their names.
        networks: (n,) the number of each network in its zoo.
        truth: (n,) the position of its class.
        probabilities: by predictor, (n, classes) what it said, 0 to 1.
    """

    classes: tuple[str, ...]
    networks: tuple[int, ...]
    truth: tuple[int, ...]
    probabilities: Mapping[str, tuple[tuple[float, ...], ...]]

    def __post_init__(self) -> None:
        n, classes = len(self.networks), len(self.classes)
        if len(self.truth) != n or any(not 0 <= label < classes for label in self.truth):
            raise ResultsError(f"single answers about {n} networks need as many true classes from 0 to {classes - 1}")
        for name, rows in self.probabilities.items():
            if len(rows) != n or any(len(row) != classes or not all(0 <= p <= 1 for p in row) for row in rows):
                raise ResultsError(
                    f"the single answers of {name!r} must be {n} rows of {classes} probabilities from 0 to 1"
                )

    def to_json(self) -> dict[str, Any]:
        return {
            "classes": list(self.classes),
            "networks": list(self.networks),
            "truth": list(self.truth),
            "probabilities": {name: [list(row) for row in rows] for name, rows in self.probabilities.items()},
        }

    @staticmethod
    def from_json(record: Any, where: str) -> SingleAnswers:
        """The inverse of `to_json`.

        Raises:
            ResultsError: saying where it is none.
        """
        values = mapping(record, where)
        only(values, ["classes", "networks", "truth", "probabilities"], where)
        classes = sequence(values.get("classes"), f"'classes' of {where}")
        if not all(isinstance(name, str) for name in classes):
            raise ResultsError(f"{where}: every class must be text")
        whole = {
            key: tuple(number(n, int, f"{key!r} of {where}") for n in sequence(values.get(key), f"{key!r} of {where}"))
            for key in ("networks", "truth")
        }
        probabilities = {
            name: tuple(
                tuple(number(p, float, f"{name!r} of {where}") for p in sequence(row, f"a row of {name!r} of {where}"))
                for row in sequence(rows, f"{name!r} of {where}")
            )
            for name, rows in mapping(values.get("probabilities"), f"'probabilities' of {where}").items()
        }
        return SingleAnswers(classes=tuple(classes), probabilities=probabilities, **whole)


def roc_points(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(points, 2) false and true positive rates of "is it this class?", over all classes together.

    Each network asks as many questions as there are classes (micro-average); a network's own class is the positive.

    Args:
        probabilities: (n, classes).
        truth: (n,) positions of classes.
    """
    positive = (truth[:, None] == np.arange(probabilities.shape[1])).reshape(-1)
    scores = probabilities.reshape(-1)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    # only where the score changes: questions with one score are answered together
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    true = hits[last] / max(1, positive.sum())
    false = (last + 1 - hits[last]) / max(1, (~positive).sum())
    return np.vstack([[0.0, 0.0], np.column_stack([false, true])])


def area_under(points: np.ndarray) -> float:
    """The area under a curve of `roc_points`, 0 to 1."""
    return float((np.diff(points[:, 0]) * (points[1:, 1] + points[:-1, 1]) / 2).sum())


@dataclass(frozen=True)
class Calibrated:
    """How sure a predictor was of its answers, and how often they were right.

    Attributes:
        said: (bins,) mean probability of the answers in each bin that has any.
        right: (bins,) share of these that are right.
        count: (bins,) how many.
        error: mean distance of the two, weighted by count (expected calibration error).
    """

    said: np.ndarray
    right: np.ndarray
    count: np.ndarray
    error: float


def calibration_of(probabilities: np.ndarray, truth: np.ndarray, bins: int = 10) -> Calibrated:
    """The calibration of answers, each the class with the largest probability.

    Args:
        probabilities: (n, classes), n at least 1.
        truth: (n,) positions of classes.
    """
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    used = np.unique(bin_of)
    said = np.array([sure[bin_of == i].mean() for i in used])
    share = np.array([right[bin_of == i].mean() for i in used])
    count = np.array([int((bin_of == i).sum()) for i in used])
    return Calibrated(said, share, count, float((count * np.abs(said - share)).sum() / len(truth)))
