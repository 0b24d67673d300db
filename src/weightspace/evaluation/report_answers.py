"""What a report shows of single answers: ROC curves, calibration, and networks one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from weightspace.evaluation import plots
from weightspace.evaluation.results import Results
from weightspace.evaluation.single_answers import SingleAnswers, area_under, calibration_of, roc_points


def answer_pictures(results: Results) -> list[dict[str, Any]]:
    """Of each target two pictures, with their captions and their words for those who do not see them."""
    pictures: list[dict[str, Any]] = []
    for target, answers in results.answers.items():
        truth = np.array(answers.truth)
        if not len(truth):
            continue
        said = {name: np.array(rows) for name, rows in answers.probabilities.items()}
        curves = {name: roc_points(rows, truth) for name, rows in said.items()}
        calibrated = {name: calibration_of(rows, truth) for name, rows in said.items()}
        roc, sure = plots.roc_and_calibration(curves, {name: (c.said, c.right) for name, c in calibrated.items()})
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
