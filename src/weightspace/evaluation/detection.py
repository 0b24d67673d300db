"""What detectors of backdoors say of a zoo's test networks, scored attack by attack and against controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.evaluation.metrics import (
    Interval,
    accuracy,
    auroc,
    bootstrap_interval,
    brier,
    detection_rate,
    log_loss,
)
from weightspace.zoo.poison import ATTACKS, CLEAN, CONTROLS, LABEL_NOISE


@dataclass(frozen=True, eq=False)
class Answers:
    """What a detector says of each network of the test split.

    Attributes:
        detector: its name in `DETECTORS`.
        suspicion: (n,) probability of a backdoor, in the order of the test split.
        attack: (n,) what was really done to each.
        success: (n,) of the attack; NaN where there is no trigger.
        fitted, predicted: seconds in all.
    """

    detector: str
    suspicion: np.ndarray
    attack: np.ndarray
    success: np.ndarray
    fitted: float
    predicted: float


@dataclass(frozen=True)
class DetectionRow:
    """How well one detector tells some networks from others.

    Attributes:
        bad, good: which networks are to be suspected, and which not, in words.
        networks: of each side.
        auroc, accuracy, at_1, at_5, cross_entropy, brier: with 95% intervals by bootstrap over networks; `at_1` is the
            share that is detected at 1% false alarms.
    """

    detector: str
    bad: str
    good: str
    networks: tuple[int, int]
    auroc: Interval
    accuracy: Interval
    at_1: Interval
    at_5: Interval
    cross_entropy: Interval
    brier: Interval


def detection_row(
    answers: Answers,
    bad: Sequence[str],
    good: Sequence[str] = (CLEAN,),
    success: tuple[float, float] = (0.0, 1.0),
    *,
    resamples: int = 1_000,
    seed: int = 0,
) -> DetectionRow | None:
    """Networks of some attacks, whose success is in a range, against controls; None if a side has fewer than two."""
    is_bad = np.isin(answers.attack, bad)
    if any(name in ATTACKS for name in bad):
        is_bad &= (answers.success >= success[0]) & (answers.success <= success[1])
    is_good = np.isin(answers.attack, good)
    if is_bad.sum() < 2 or is_good.sum() < 2:
        return None
    kept = is_bad | is_good
    labels, suspicion = is_bad[kept].astype(np.int64), answers.suspicion[kept]
    said = np.stack([1 - suspicion, suspicion], 1)

    def interval(measure: Callable[[np.ndarray, np.ndarray], float], proportion: bool = True) -> Interval:
        return bootstrap_interval(
            lambda rows: measure(said[rows], labels[rows]), len(labels),
            seed=seed, resamples=resamples, proportion=proportion,
        )  # fmt: skip

    within = "" if success == (0.0, 1.0) else f", success {success[0]:.0%} to {success[1]:.0%}"
    return DetectionRow(
        answers.detector,
        ", ".join(bad) + within,
        ", ".join(good),
        (int(labels.sum()), int((1 - labels).sum())),
        interval(auroc),
        interval(accuracy),
        interval(lambda p, y: detection_rate(p, y, 0.01)),
        interval(lambda p, y: detection_rate(p, y, 0.05)),
        interval(log_loss, proportion=False),
        interval(brier, proportion=False),
    )


BINS = ((0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0))
"""Ranges of attack success that are scored apart."""


TABLES = ("all attacks", "each attack", "each attack that works", "by success", "controls")


def detection_rows(
    answers: Sequence[Answers], tables: Sequence[str] = TABLES, *, resamples: int = 1_000
) -> dict[str, list[DetectionRow]]:
    """Some of `TABLES`: all attacks, each attack, by success, and what is said of the controls.

    `controls` asks of networks without any backdoor whether they are suspected, and of backdoored ones whether they are
    told from networks that are only mislabelled.
    """
    everything = tuple(ATTACKS)
    asked: dict[str, list[dict[str, Any]]] = {
        "all attacks": [{"bad": everything}, {"bad": everything, "success": (0.9, 1.0)}],
        "each attack": [{"bad": (name,)} for name in ATTACKS],
        "each attack that works": [{"bad": (name,), "success": (0.9, 1.0)} for name in ATTACKS],
        "by success": [{"bad": everything, "success": some} for some in BINS],
        "controls": [
            *({"bad": (name,)} for name in CONTROLS if name != CLEAN),
            {"bad": everything, "good": (LABEL_NOISE,)},
            {"bad": everything, "good": (LABEL_NOISE,), "success": (0.9, 1.0)},
        ],
    }
    return {
        table: [
            row
            for options in asked[table]
            for one in answers
            if (row := detection_row(one, resamples=resamples, **options)) is not None
        ]
        for table in tables
    }


def markdown(rows: Sequence[DetectionRow]) -> str:
    """Rows as a Markdown table."""

    def shown(found: Interval) -> str:
        return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"

    lines = [
        "| suspected | against | detector | n | AUROC | accuracy | at 1% FPR | at 5% FPR | cross-entropy | Brier |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        measures = (row.auroc, row.accuracy, row.at_1, row.at_5, row.cross_entropy, row.brier)
        cells = [row.bad, row.good, row.detector, f"{row.networks[0]} + {row.networks[1]}", *map(shown, measures)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
