"""What detectors of backdoors say of a zoo's test networks, scored attack by attack and against controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.evaluation.metrics import Interval, auroc, bootstrap_interval, detection_rate
from weightspace.evaluation.tables import markdown_table
from weightspace.zoo.poison import ATTACKS, CLEAN, CONTROLS, LABEL_NOISE


@dataclass(frozen=True, eq=False)
class DetectorAnswers:
    """What a detector says of each network of the test split.

    Attributes:
        detector: its name in `DETECTORS`.
        suspicion: (n,) probability of a backdoor, in the order of the test split.
        attack: (n,) what was really done to each.
        success: (n,) of the attack; NaN where there is no trigger.
        rate: (n,) share of the training images that was tampered with.
        fitted, predicted: seconds in all.
    """

    detector: str
    suspicion: np.ndarray
    attack: np.ndarray
    success: np.ndarray
    rate: np.ndarray
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
    answers: DetectorAnswers,
    bad: Sequence[str],
    good: Sequence[str] = (CLEAN,),
    success: tuple[float, float] = (0.0, 1.0),
    *,
    rate: tuple[float, float] = (0.0, 1.0),
    resamples: int = 1_000,
    seed: int = 0,
) -> DetectionRow | None:
    """Networks of some attacks, of a range of success and poison rate, against controls; None if a side has no two."""
    is_bad = np.isin(answers.attack, bad)
    if any(name in ATTACKS for name in bad):
        is_bad &= (answers.success >= success[0]) & (answers.success <= success[1])
        is_bad &= (answers.rate >= rate[0]) & (answers.rate < rate[1])
    is_good = np.isin(answers.attack, good)
    if is_bad.sum() < 2 or is_good.sum() < 2:
        return None
    kept = is_bad | is_good
    labels, suspicion = is_bad[kept].astype(np.int64), answers.suspicion[kept]
    right = np.where(labels == 1, suspicion, 1 - suspicion)  # probability of what is so
    drawn = _resampled(suspicion, labels, resamples, seed)

    def interval(values: np.ndarray, proportion: bool) -> Interval:
        return bootstrap_interval(values.astype(np.float64), seed=seed, resamples=resamples, proportion=proportion)

    within = "" if success == (0.0, 1.0) else f", success {success[0]:.0%} to {success[1]:.0%}"
    within += "" if rate == (0.0, 1.0) else f", {rate[0]:.0%} to {rate[1]:.0%} poisoned"
    return DetectionRow(
        answers.detector,
        ("all attacks" if set(bad) == set(ATTACKS) else ", ".join(bad)) + within,
        ", ".join(good),
        (int(labels.sum()), int((1 - labels).sum())),
        drawn[0],
        interval(right > 0.5, True),
        drawn[1],
        drawn[2],
        interval(-np.log(np.clip(right, 1e-12, 1)), False),
        interval(2 * (1 - right) ** 2, False),
    )


def _resampled(suspicion: np.ndarray, labels: np.ndarray, resamples: int, seed: int) -> tuple[Interval, ...]:
    """AUROC and detection at 1% and at 5% false alarms, with percentile intervals over networks redrawn together.

    The same as `bootstrap_interval` of `metrics.auroc` and `metrics.detection_rate`, a hundred times as fast: how often
    each network was redrawn weighs its comparisons with all others, which are made once.
    """
    said = np.stack([1 - suspicion, suspicion], 1)
    exact = (auroc(said, labels), *(detection_rate(said, labels, share) for share in (0.01, 0.05)))
    bad, good = suspicion[labels == 1], np.sort(suspicion[labels == 0])
    above = (bad[:, None] > good).astype(np.float32) + 0.5 * (bad[:, None] == good)
    rng, n = np.random.default_rng(seed), len(labels)
    draws: list[tuple[float, float, float]] = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(n, size=n), minlength=n)
        of_bad, of_good = times[: len(bad)], times[len(bad) :]
        if not of_bad.any() or not of_good.any():
            continue
        clean = np.repeat(good, of_good)
        rates = []
        for share in (0.01, 0.05):
            threshold = clean[len(clean) - 1 - int(np.floor(share * len(clean) + 1e-9))]
            rates.append(float(of_bad @ (bad > threshold) / of_bad.sum()))
        draws.append((float(of_bad @ above @ of_good / (of_bad.sum() * of_good.sum())), rates[0], rates[1]))
    found = []
    for estimate, values in zip(exact, np.array(draws).T, strict=True):
        if estimate in (0.0, 1.0) and (values == estimate).all():
            found.append(bootstrap_interval(np.full(n, estimate), seed=seed))  # the exact binomial interval
            continue
        low, high = np.quantile(values, [0.025, 0.975])
        found.append(Interval(estimate, min(float(low), estimate), max(float(high), estimate)))
    return tuple(found)


BINS = ((0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0))
"""Ranges of attack success that are scored apart."""
RATES = ((0.04, 0.06), (0.06, 0.08), (0.08, 0.10), (0.10, 0.12))
"""Ranges of the poison rate that are."""

TABLES = ("all attacks", "each attack", "each attack that works", "by success", "by poison rate", "controls")


def detection_rows(
    answers: Sequence[DetectorAnswers], tables: Sequence[str] = TABLES, *, resamples: int = 1_000
) -> dict[str, list[DetectionRow]]:
    """Some of `TABLES`: all attacks, each attack, by success, by poison rate, and what is said of the controls.

    `controls` asks of networks without any backdoor whether they are suspected, and of backdoored ones whether they are
    told from networks that are only mislabelled.
    """
    everything = tuple(ATTACKS)
    asked: dict[str, list[dict[str, Any]]] = {
        "all attacks": [{"bad": everything}, {"bad": everything, "success": (0.9, 1.0)}],
        "each attack": [{"bad": (name,)} for name in ATTACKS],
        "each attack that works": [{"bad": (name,), "success": (0.9, 1.0)} for name in ATTACKS],
        "by success": [{"bad": everything, "success": some} for some in BINS],
        "by poison rate": [{"bad": everything, "success": (0.9, 1.0), "rate": some} for some in RATES],
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

    header = ("suspected", "against", "detector", "n", "AUROC", "accuracy", "at 1% FPR", "at 5% FPR")
    lines = []
    for row in rows:
        measures = (row.auroc, row.accuracy, row.at_1, row.at_5, row.cross_entropy, row.brier)
        n = f"{row.networks[0]} + {row.networks[1]}"
        lines.append([row.bad, row.good, row.detector, n, *map(shown, measures)])
    return markdown_table((*header, "cross-entropy", "Brier"), lines)


def area_table(rows: Sequence[DetectionRow]) -> str:
    """AUROC of every detector (rows) for every question (columns), as Markdown; the highest of each column is bold."""
    columns = list(dict.fromkeys((row.bad, row.good) for row in rows))
    detectors = list(dict.fromkeys(row.detector for row in rows))
    found = {(row.detector, row.bad, row.good): row for row in rows}
    best = {c: max(row.auroc.estimate for row in rows if (row.bad, row.good) == c) for c in columns}
    several = len({good for _, good in columns}) > 1
    heads = [f"{bad} against {good}" if several else bad for bad, good in columns]
    counts = [next(row.networks for row in rows if (row.bad, row.good) == c) for c in columns]
    lines = []
    for detector in detectors:
        cells = []
        for column in columns:
            row = found.get((detector, *column))
            text = "" if row is None else f"{row.auroc.estimate:.2f} [{row.auroc.low:.2f}, {row.auroc.high:.2f}]"
            cells.append(f"**{text}**" if row is not None and row.auroc.estimate == best[column] else text)
        lines.append([detector, *cells])
    header = ["detector", *(f"{head} ({n[0]} + {n[1]})" for head, n in zip(heads, counts, strict=True))]
    return markdown_table(header, lines)


def time_table(answers: Sequence[DetectorAnswers]) -> str:
    """Seconds to fit each detector, its choice among settings included, and milliseconds a network afterwards."""
    lines = []
    for one in answers:
        each = 1000 * one.predicted / len(one.suspicion)
        lines.append([one.detector, f"{one.fitted:.0f} s", f"{each:.2f} ms"])
    return markdown_table(["detector", "fitted in", "a network"], lines)


def transfer_table(answers: Mapping[str, DetectorAnswers], *, success: tuple[float, float] = (0.9, 1.0)) -> str:
    """AUROC of one detector by what it was trained on (rows) and what it is tested on (columns), as Markdown.

    Args:
        answers: of the same detector after each training, by a name for the training.
        success: of the tested networks' attacks.
    """
    lines = []
    for name, one in answers.items():
        cells = []
        for attack in ATTACKS:
            row = detection_row(one, (attack,), success=success, resamples=100)
            cells.append("" if row is None else f"{row.auroc.estimate:.2f}")
        lines.append([name, *cells])
    return markdown_table(["trained on", *ATTACKS], lines)


def side_by_side(answers: Mapping[str, Sequence[DetectorAnswers]], *, success: tuple[float, float] = (0.9, 1.0)) -> str:
    """AUROC against clean networks, over all attacks that work, of every detector (rows) in several settings (columns).

    Args:
        answers: of all detectors, by the name of the setting.
        success: of the tested networks' attacks.
    """
    rows = {
        setting: {
            one.detector: row
            for one in found
            if (row := detection_row(one, tuple(ATTACKS), success=success)) is not None
        }
        for setting, found in answers.items()
    }
    heads = []
    for setting, found in rows.items():
        bad, good = next(iter(found.values())).networks if found else (0, 0)
        heads.append(f"{setting} ({bad} + {good})")
    lines = []
    for name in dict.fromkeys(name for found in rows.values() for name in found):
        cells = []
        for found in rows.values():
            area = found[name].auroc if name in found else None
            cells.append("" if area is None else f"{area.estimate:.3f} [{area.low:.3f}, {area.high:.3f}]")
        lines.append([name, *cells])
    return markdown_table(["detector", *heads], lines)


def held_out_table(
    answers: Mapping[str, Sequence[DetectorAnswers]], *, success: tuple[float, float] = (0.9, 1.0)
) -> str:
    """AUROC of every detector on the one attack that it was not trained on, as Markdown.

    Args:
        answers: of all detectors, by the attack that was left out.
        success: of the tested networks' attacks.
    Returns:
        a row a detector, with the mean over attacks and its 95% interval by bootstrap over networks.
    """
    names = [one.detector for one in next(iter(answers.values()))]
    lines = []
    for position, name in enumerate(names):
        cells, draws = [], []
        for attack, found in answers.items():
            one = found[position]
            is_bad = (one.attack == attack) & (one.success >= success[0]) & (one.success <= success[1])
            if is_bad.sum() < 2:
                cells.append("")
                continue
            bad, good = one.suspicion[is_bad], one.suspicion[one.attack == CLEAN]
            draws.append(_areas(bad, good))
            cells.append(f"{draws[-1][0]:.2f}")
        mean = np.mean(draws, axis=0)
        low, high = np.quantile(mean[1:], [0.025, 0.975])
        lines.append([name, f"{mean[0]:.3f} [{low:.3f}, {high:.3f}]", *cells])
    return markdown_table(["detector", "mean", *answers], lines)


def _areas(bad: np.ndarray, good: np.ndarray, resamples: int = 1_000) -> np.ndarray:
    """The AUROC of all networks, then of resamples in which both sides are redrawn.

    The clean networks are redrawn alike for every attack, as they are the same.
    """
    above = (bad[:, None] > good).astype(np.float64) + 0.5 * (bad[:, None] == good)
    good_rng, bad_rng = np.random.default_rng(0), np.random.default_rng(1)
    found = [float(above.mean())]
    for _ in range(resamples):
        rows, columns = bad_rng.integers(len(bad), size=len(bad)), good_rng.integers(len(good), size=len(good))
        found.append(float(above[rows][:, columns].mean()))
    return np.array(found)


def roc_curve(answers: DetectorAnswers, bad: Sequence[str], good: Sequence[str] = (CLEAN,)) -> np.ndarray:
    """(points, 2) false and true positive rates of networks of some attacks against controls, from (0, 0) to (1, 1)."""
    from sklearn.metrics import roc_curve as curve

    is_bad = np.isin(answers.attack, bad)
    kept = is_bad | np.isin(answers.attack, good)
    false, true, _ = curve(is_bad[kept], answers.suspicion[kept])
    return np.stack([false, true], 1)
