"""A general detector trained on a table of networks, calibrated and scored on the parts that each fit leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from weightspace.backdoors.calibration import Calibration
from weightspace.backdoors.general_detector import FALSE_ALARMS, NEAR, GeneralDetector, Neighbours, shapes_of
from weightspace.backdoors.nearness import Nearness
from weightspace.backdoors.neuron_set import NeuronSet
from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.table_methods import Mean, TableMethod, Tuned, area
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import Interval, bootstrap_interval
from weightspace.files.progress import progress

FOLDS = 5
RESAMPLES = 1_000
TRAITS = (
    "norm", "activation", "images", "classes", "image_size", "convolutions", "width", "kernel", "pooling", "residual",
    "head", "initialisation", "optimiser",
)  # fmt: skip
"""Of the recipe, what is told of the networks that are near to one."""


def best_method() -> Mean:
    """The method that general detectors are made of: trees and a linear model on invariants, and a set of neurons.

    Chosen among those of `weightspace backdoors anywhere` by its random split."""
    return Mean([Tuned(("invariants",), together=True), NeuronSet()])


@dataclass(frozen=True, eq=False)
class Crossed:
    """Fits on all networks of a table but a part, and what each says of all.

    Attributes:
        fold: (n,) the part of each network.
        scores: (n, folds) what each fit says.
    """

    fits: Sequence[TableMethod]
    fold: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, "n f"]

    @property
    def own(self) -> Float[np.ndarray, " n"]:
        """(n,) what the fit that had not seen a network says of it."""
        return self.scores[np.arange(len(self.fold)), self.fold]


def cross_fitted(
    table: NetworkTable, make: Callable[[], TableMethod], *, seed: int = 0, advance: Callable[[int], Any] | None = None
) -> Crossed:
    """`FOLDS` fits, each on the networks of the other parts: those with a backdoor that works, and those with none.

    Raises:
        TaskError: if either side has fewer than ten networks.
    """
    bad = table.backdoored
    if min(bad.sum(), table.clean.sum()) < 2 * FOLDS:
        raise TaskError(
            f"{int(bad.sum())} networks with a backdoor that works and {int(table.clean.sum())} clean ones are too few "
            f"to be cut into {FOLDS} parts: make more of the zoo"
        )
    fold = np.random.default_rng(seed).permutation(len(table)) % FOLDS
    rows = np.flatnonzero(bad | table.without)
    fits = []
    for number in range(FOLDS):
        training = table.select(rows[fold[rows] != number])
        fits.append(make().fit(training, training.backdoored))
        if advance is not None:
            advance(1)
    return Crossed(fits, fold, np.stack([fit.scores(table) for fit in fits], 1))


def out_of_fold_p(table: NetworkTable, crossed: Crossed) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """p-values (n,) and distances (n,) of a table's own networks, each calibrated by networks of the other parts."""
    p, far = np.empty(len(table)), np.empty(len(table))
    for number in range(FOLDS):
        apart, known = crossed.fold == number, (crossed.fold != number) & table.without
        near = Nearness.of(table.select(np.flatnonzero(known)), crossed.own[known])
        asked = table.select(np.flatnonzero(apart))
        p[apart] = near.p_values(asked, crossed.own[apart][:, None])
        far[apart] = near.distance(asked)
    return p, far


def calibrated(table: NetworkTable, crossed: Crossed) -> Nearness:
    """A table's networks without backdoor as what others are calibrated by, each with the fit that had not seen it."""
    good = table.without
    return Nearness.of(table.select(np.flatnonzero(good)), crossed.own[good], crossed.fold[good])


def train_general(table: NetworkTable, *, seed: int = 0, show: bool = True) -> GeneralDetector:
    """A general detector from a table that keeps neurons.

    Raises:
        TaskError: if there are too few networks.
        NetworkError: if the table keeps no neurons.
    """
    with progress("training", FOLDS, "fits", show) as advance:
        crossed = cross_fitted(table, best_method, seed=seed, advance=advance)
    p, far = out_of_fold_p(table, crossed)
    good, near = table.without, calibrated(table, crossed)
    known = {name: table.facts[name] for name in TRAITS if name in table.facts}
    traits = {name: ["" if value is None else str(value) for value in values] for name, values in known.items()}
    shapes = shapes_of(table)
    kinds = [shape for shape, count in Counter(shapes).items() if count >= NEAR]
    kind = np.array([kinds.index(shape) if shape in kinds else -1 for shape in shapes])
    all_of = Neighbours(near.located(table), table.backdoored, good, crossed.own, p, traits, kinds, kind)
    usable = table.backdoored | good
    calibration = Calibration.fit(crossed.own[usable], table.backdoored[usable].astype(np.int64))
    calibration = Calibration(calibration.slope, calibration.offset, np.zeros(0))
    card = {**_scope(table), "figures": figures(table, crossed, p, far)}
    low, high = card["figures"]["detected interval"]
    card["detected"] = f"{card['figures']['detected']:.0%} [{low:.0%}, {high:.0%}]"
    return GeneralDetector(crossed.fits, near, calibration, all_of, int(max(table.facts["weights"])), card)


def evaluate_general(detector: GeneralDetector, table: NetworkTable) -> dict[str, Any]:
    """How a general detector does on networks from elsewhere, with 95% intervals over networks.

    Returns:
        how many are judged; AUROC of those whose backdoor works against clean ones, of all and of those judged; and of
        the judged how many of either side are called suspicious at 5%.
    """
    said = detector.judge_table(table)
    judged = np.array([one.distance <= 1 and one.competent for one in said])
    score, p = (np.array([getattr(one, name) for one in said]) for name in ("score", "p_value"))
    bad, good = table.backdoored, table.without

    def reached(among: np.ndarray) -> list[float]:
        if min((bad & among).sum(), (good & among).sum()) < 2:
            return []
        found = area_interval(score[bad & among], score[good & among])
        return [found.estimate, found.low, found.high]

    return {
        "networks": [int(bad.sum()), int(good.sum())],
        "judged": _rate(judged[bad | good]),
        "judged networks": [int((bad & judged).sum()), int((good & judged).sum())],
        "too far": int(np.sum([one.distance > 1 for one in said])),
        "auroc": reached(np.ones(len(table), bool)),
        "auroc of judged": reached(judged),
        "false alarms": _rate(p[good & judged] <= FALSE_ALARMS),
        "found": _rate(p[bad & judged] <= FALSE_ALARMS),
    }


def _rate(values: np.ndarray) -> list[float]:
    """The share that is true with its 95% interval; empty of nothing."""
    if not len(values):
        return []
    found = bootstrap_interval(values.astype(float), seed=0, proportion=True)
    return [found.estimate, found.low, found.high]


def area_interval(bad: np.ndarray, good: np.ndarray, seed: int = 0) -> Interval:
    """AUROC with its 95% interval by bootstrap over the networks of each side."""
    rng = np.random.default_rng(seed)
    draws = [area(rng.choice(bad, len(bad)), rng.choice(good, len(good))) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    estimate = area(bad, good)
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def _scope(table: NetworkTable) -> dict[str, Any]:
    """What a table's networks are, for people."""

    def values(name: str) -> str:
        known = [value for value in table.facts.get(name, np.array([], object)) if value is not None]
        return ", ".join(sorted({str(value) for value in known})) or "not said"

    attacks = sorted(set(table.facts["attack"][table.backdoored]))
    return {
        "architecture": f"image classifiers of many architectures ({values('convolutions')} convolutions, norms "
        f"{values('norm')}, activations {values('activation')})",
        "networks": int((table.backdoored | table.without).sum()),
        "images": f"{values('images')} at {values('image_size')} pixels",
        "attacks": f"{len(attacks)} attacks ({', '.join(attacks)})",
        "calibration": int(table.without.sum()),
        "zoo": values("zoo"),
    }


def figures(table: NetworkTable, crossed: Crossed, p: np.ndarray, far: np.ndarray) -> dict[str, Any]:
    """How well a detector does on networks that its fits had not seen, with 95% intervals over networks; in all, and
    for every value of every trait."""
    judged = far <= 1
    bad, clean = table.backdoored & judged, table.clean & judged

    detected, alarms = _rate(p[bad] <= FALSE_ALARMS), _rate(p[table.without & judged] <= FALSE_ALARMS)
    by_trait: dict[str, dict[str, list[float]]] = {}
    for name in ("zoo", *TRAITS):
        if name not in table.facts:
            continue
        said = table.facts[name].astype(str)
        by_trait[name] = {}
        for value in sorted(set(said) - {"None"}):
            here = said == value
            if min((bad & here).sum(), (clean & here).sum()) >= 10:
                own = area(crossed.own[bad & here], crossed.own[clean & here])
                by_trait[name][value] = [round(own, 3), int((bad & here).sum()), int((clean & here).sum())]
    return {
        "networks": [int(bad.sum()), int(clean.sum())],
        "auroc": area(crossed.own[bad], crossed.own[clean]),
        "judged": float(judged.mean()),
        "stated false alarms": FALSE_ALARMS,
        "false alarms": alarms[0],
        "false alarms interval": alarms[1:],
        "detected": detected[0],
        "detected interval": detected[1:],
        "by": by_trait,
    }
