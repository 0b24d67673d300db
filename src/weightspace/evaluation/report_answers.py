"""What a report shows of single answers: ROC curves, calibration, and networks one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from weightspace.evaluation import plots
from weightspace.evaluation.results import META_MODEL, Results
from weightspace.evaluation.single_answers import SingleAnswers, area_under, calibration_of, roc_points

FEWEST = 5
"""Answers in a bin of probabilities from which its point is drawn: of fewer the share that is right says nothing."""


def answer_pictures(results: Results) -> list[dict[str, Any]]:
    """Of each target two pictures, with their captions and their words for those who do not see them."""
    pictures: list[dict[str, Any]] = []
    for target, answers in results.answers.items():
        truth = np.array(answers.truth)
        if not len(truth):
            continue
        names = sorted(answers.probabilities, key=lambda name: name != META_MODEL)  # it has the first line and colour
        said = {name: np.array(answers.probabilities[name]) for name in names}
        curves = {name: roc_points(rows, truth) for name, rows in said.items()}
        calibrated = {name: calibration_of(rows, truth) for name, rows in said.items()}
        shown = {n: (c.said[c.count >= FEWEST], c.right[c.count >= FEWEST]) for n, c in calibrated.items()}
        roc, sure = plots.roc_and_calibration(curves, shown)
        areas = "; ".join(f"{name} {area_under(points):.3f}" for name, points in curves.items())
        errors = "; ".join(f"{name} {100 * c.error:.1f} points" for name, c in calibrated.items())
        pictures += [
            {
                "caption": f"{target}: ROC",
                "alt": f"ROC curves on {target}. Area under each: {areas}.",
                "told": f"Area under the curve: {areas}.",
                "svg": roc,
            },
            {
                "caption": f"{target}: calibration",
                "alt": f"Calibration on {target}. Mean distance of probability and share that is right: {errors}.",
                "told": f"Mean distance from the diagonal: {errors}.",
                "svg": sure,
            },
        ]
    return pictures


def answer_data(results: Results) -> dict[str, Any] | None:
    """What the report's script reads; None if the record holds no single answers."""
    known: dict[str, SingleAnswers] = {t: a for t, a in results.answers.items() if a.networks and a.probabilities}
    return {target: answers.to_json() for target, answers in known.items()} or None
