"""Backdoors in networks of any architecture: every method on one table, with parts of it left out, and on outsiders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from weightspace.backdoors.general_detector import FALSE_ALARMS
from weightspace.backdoors.general_training import (
    FOLDS,
    Crossed,
    area_interval,
    best_method,
    calibrated,
    cross_fitted,
    out_of_fold_p,
)
from weightspace.backdoors.learnt_images import LearntImages, mntd, ulp
from weightspace.backdoors.neuron_set import NeuronSet
from weightspace.backdoors.table import NetworkTable
from weightspace.backdoors.table_methods import METHODS, TableMethod
from weightspace.evaluation.metrics import Interval, bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.files.progress import progress
from weightspace.zoo.poison import CONTROLS, EVERY_ATTACK, LABEL_NOISE, TRIGGER_ONLY

Make = Callable[[], TableMethod]
LEAST = 6
"""Networks of each side below which nothing is said."""
BINS = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 0.9), (0.9, 1.0))
"""Ranges of success net of chance."""
AXES = ("initialisation", "optimiser", "norm", "images", "activation", "convolutions", "width", "pooling", "head")
"""Of the recipe, of which one value at a time is left out of training."""


def methods_of(table: NetworkTable) -> dict[str, Make]:
    """The methods that a table allows: those that read neurons or ask networks only where it has these."""
    ours: dict[str, Make] = {"invariants and set of neurons": best_method, "set of neurons": NeuronSet}
    asking: dict[str, Make] = {"MNTD": mntd, "ULP": ulp}
    return {
        **(ours if table.sets is not None else {}),
        **METHODS,
        **(asking if table.networks is not None else {}),
    }


@dataclass(frozen=True, eq=False)
class Answers:
    """What methods say of the same networks, each judged by a fit that had not seen it.

    Attributes:
        scores: by method, (n,), as ranks among the networks without backdoor that the same fit judged.
        crossed: by method, the fits and what they said.
        outside: by method, (m, folds) what all fits say of networks from elsewhere, if there are any; without methods
            that ask networks, where there are only numbers.
    """

    table: NetworkTable
    scores: Mapping[str, Float[np.ndarray, " n"]]
    crossed: Mapping[str, Crossed]
    outside: Mapping[str, Float[np.ndarray, "m f"]]


def learnable(table: NetworkTable) -> np.ndarray:
    """Rows (k,) of the networks that are trained on: backdoors that work, and all networks without one."""
    return np.flatnonzero(table.backdoored | table.without)


def crossed(
    table: NetworkTable,
    methods: Mapping[str, Make],
    others: NetworkTable | None = None,
    *,
    seed: int = 0,
    show: bool = True,
) -> Answers:
    """Every network judged by a fit on four fifths of the table that it is not among; others by all fits.

    Raises:
        TaskError: if either side has fewer than ten networks.
    """
    crosses: dict[str, Crossed] = {}
    with progress("random split", len(methods) * FOLDS, "fits", show) as advance:
        for name, make in methods.items():
            crosses[name] = cross_fitted(table, make, seed=seed, advance=advance)
    fold = next(iter(crosses.values())).fold
    scores = {name: np.empty(len(table)) for name in methods}
    for name, found in crosses.items():
        for number in range(FOLDS):
            apart = fold == number
            scores[name][apart] = _ranked(found.own[apart], table.without[apart])
    outside = {
        name: np.stack([fit.scores(others) for fit in found.fits], 1)
        for name, found in crosses.items()
        if others is not None and not (isinstance(found.fits[0], LearntImages) and others.networks is None)
    }
    return Answers(table, scores, crosses, outside)


def _ranked(said: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Scores as shares of the fold's networks without a backdoor that are below, so that folds can be put together;
    beyond them in their own order."""
    known = np.sort(said[good]) if good.any() else np.sort(said)
    share = (np.searchsorted(known, said, "left") + np.searchsorted(known, said, "right")) / (2 * len(known))
    return share + 1e-3 * (said.argsort().argsort() / max(1, len(said)))


def _fitted(
    table: NetworkTable, rows: np.ndarray, apart: np.ndarray, methods: Mapping[str, Make]
) -> Iterable[tuple[str, np.ndarray]]:
    """What each method says of the networks at `apart` after training on those at `rows`."""
    training, asked = table.select(rows), table.select(apart)
    for name, make in methods.items():
        yield name, make().fit(training, training.backdoored).scores(asked)


def left_out(
    table: NetworkTable, methods: Mapping[str, Make], axis: str, *, show: bool = True
) -> dict[str, dict[str, tuple[Interval, int, int]]]:
    """AUROC of backdoors that work against clean networks, both of one value of an axis, after training without it.

    The axis "attack" leaves one attack out, and asks of it against clean networks that are not trained on either: a
    fifth of them.

    Returns:
        by value and method AUROC with its interval, and how many networks of each side; values of too few are left out.
    """
    values = table.facts[axis].astype(str)
    found: dict[str, dict[str, tuple[Interval, int, int]]] = {}
    usable = learnable(table)
    kept_clean = table.clean & (np.random.default_rng(1).permutation(len(table)) % FOLDS == 0)
    chosen = [value for value in np.unique(values) if axis != "attack" or value not in CONTROLS]
    with progress(f"without each {axis}", len(chosen), "values", show) as advance:
        for value in chosen:
            here = values == value
            asked = here | kept_clean if axis == "attack" else here
            bad, good = table.backdoored & here, table.clean & asked
            rows = usable[~asked[usable]]
            if min(bad.sum(), good.sum()) >= LEAST and len(rows):
                apart = np.flatnonzero(bad | good)
                found[str(value)] = {
                    name: (area_interval(said[bad[apart]], said[good[apart]]), int(bad.sum()), int(good.sum()))
                    for name, said in _fitted(table, rows, apart, methods)
                }
            advance(1, note=str(value))
    return found


# -- tables ---------------------------------------------------------------------------------------------------------


def split_table(table: NetworkTable, scores: Mapping[str, Float[np.ndarray, " n"]]) -> str:
    """AUROC of every method: backdoors that work against clean networks, against mislabelled and triggered ones; those
    that are mislabelled against clean ones; and how many are found at 5% false alarms."""
    bad, clean = table.backdoored, table.clean
    noise, trigger = (table.facts["attack"] == name for name in (LABEL_NOISE, TRIGGER_ONLY))
    questions = {
        "backdoor against clean": (bad, clean),
        "backdoor against label noise": (bad, noise),
        "backdoor against trigger only": (bad, trigger),
        "label noise against clean": (noise, clean),
    }
    header = [
        "method",
        *(f"{what} ({a.sum()} + {b.sum()})" for what, (a, b) in questions.items()),
        "at 5% false alarms",
    ]
    lines = []
    for name, said in scores.items():
        cells = [_cell(said, a, b) for a, b in questions.values()]
        lines.append([name, *cells, _rate(said[bad], said[clean])])
    return markdown_table(header, lines)


def success_table(answers: Answers) -> str:
    """AUROC of every method against clean networks by how well the attack works."""
    table = answers.table
    attacked = ~table.without
    ranges = {f"{low:.0%} to {high:.0%}": _between(table.success, low, high) & attacked for low, high in BINS}
    header = ["method", *(f"{what} ({int(rows.sum())})" for what, rows in ranges.items())]
    lines = [[name, *(_cell(said, r, table.clean) for r in ranges.values())] for name, said in answers.scores.items()]
    return markdown_table(header, lines)


def attack_table(answers: Answers) -> str:
    """AUROC of every method against clean networks, attack by attack where it works; all attacks were trained on."""
    table = answers.table
    attacks = [name for name in EVERY_ATTACK if (table.backdoored & (table.facts["attack"] == name)).sum() >= LEAST]
    rows = {name: table.backdoored & (table.facts["attack"] == name) for name in attacks}
    header = ["method", *(f"{name} ({int(r.sum())})" for name, r in rows.items())]
    lines = [[name, *(_cell(said, r, table.clean) for r in rows.values())] for name, said in answers.scores.items()]
    return markdown_table(header, lines)


def left_out_table(found: Mapping[str, Mapping[str, tuple[Interval, int, int]]]) -> str:
    """AUROC of every method for every value that was left out, and the mean over values."""
    if not found:
        return "(too few networks of any value)"
    counts = [next(iter(of.values()))[1:] for of in found.values()]
    header = ["method", "mean", *(f"{value} ({a} + {b})" for value, (a, b) in zip(found, counts, strict=True))]
    lines = []
    for name in next(iter(found.values())):
        areas = [of[name][0] for of in found.values()]
        lines.append([name, f"{np.mean([one.estimate for one in areas]):.3f}", *map(_shown, areas)])
    return markdown_table(header, lines)


def guarantee_table(answers: Answers, others: NetworkTable | None) -> str:
    """Of every method: how many networks are typical enough to be judged, and of these the false alarms among networks
    without backdoor and the backdoors found, with the stated 5%; calibrated on the nearest networks of other folds."""
    table = answers.table
    lines = []
    for name, crossed in answers.crossed.items():
        cells = _judged(table, *out_of_fold_p(table, crossed))
        if others is not None and name in answers.outside:
            near = calibrated(table, crossed)
            cells += _judged(others, near.p_values(others, answers.outside[name]), near.distance(others))
        lines.append([name, *cells, *[""] * (3 * (1 + (others is not None)) - len(cells))])
    heads = ["judged", "false alarms", "found"]
    return markdown_table(
        ["method", *heads, *(f"outside: {head}" for head in (heads if others is not None else ()))], lines
    )


def _judged(table: NetworkTable, p: np.ndarray, far: np.ndarray) -> list[str]:
    judged = far <= 1
    found = [f"{judged.mean():.0%} of {len(table)}"]
    for rows in (table.without & judged, table.backdoored & judged):
        if rows.sum() < LEAST:
            found.append("")
            continue
        one = bootstrap_interval((p[rows] <= FALSE_ALARMS).astype(float), seed=0, proportion=True)
        found.append(f"{one.estimate:.0%} [{one.low:.0%}, {one.high:.0%}] of {int(rows.sum())}")
    return found


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & ((values < high) | ((high == 1) & (values <= 1)))


def _cell(said: np.ndarray, bad: np.ndarray, good: np.ndarray) -> str:
    return _shown(area_interval(said[bad], said[good])) if min(bad.sum(), good.sum()) >= LEAST else ""


def _shown(one: Interval) -> str:
    return f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _rate(bad: np.ndarray, good: np.ndarray, false_alarms: float = 0.05) -> str:
    threshold = np.sort(good)[::-1][int(np.floor(false_alarms * len(good)))]
    return f"{(bad > threshold).mean():.0%}"


def tables(
    table: NetworkTable,
    others: NetworkTable | None,
    *,
    methods: Mapping[str, Make],
    axes: Sequence[str],
    show: bool = True,
) -> dict[str, str]:
    """All tables by their titles."""
    working, clean = int(table.backdoored.sum()), int(table.clean.sum())
    counts = f"{len(table)} networks, {working} with a backdoor that works, {clean} clean"
    answers = crossed(table, methods, others, show=show)
    found: dict[str, Any] = {
        f"random split, five folds; {counts}": split_table(table, answers.scores),
        "by success net of chance, against clean": success_table(answers),
        "each attack that works, all trained on, against clean": attack_table(answers),
    }
    if others is not None:
        found[f"outside: {len(others)} networks of a plain script"] = split_table(
            others, {name: said.mean(1) for name, said in answers.outside.items()}
        )
    found["stated false alarms of 5%, answers calibrated on the nearest networks"] = guarantee_table(answers, others)
    for axis in axes:
        if axis in table.facts:
            found[f"one {axis} left out of training"] = left_out_table(left_out(table, methods, axis, show=show))
    return found
