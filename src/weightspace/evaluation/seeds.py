"""What methods say of the properties of networks, over several seeds: scores with intervals, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from weightspace.evaluation.metrics import (
    Interval,
    bootstrap_interval,
    chance,
    correct,
    explained,
    kendall,
    majority,
    per_bit,
)
from weightspace.evaluation.tables import markdown_table
from weightspace.metamodels.contract import Examples, Predictions, Target


@dataclass(frozen=True, eq=False)
class Said:
    """What one method says of the test networks after each of several trainings that differ in their seed.

    Attributes:
        method: its name.
        answers: a seed each.
        fitted, predicted: seconds, the mean over the seeds.
        parameters: numbers that it learnt, if it counts them.
    """

    method: str
    answers: tuple[Predictions, ...]
    fitted: float
    predicted: float
    parameters: int | None = None


@dataclass(frozen=True)
class PropertyRow:
    """How well one method answers one question.

    Attributes:
        target, method: which.
        seeds, networks: how many.
        score: accuracy, or R2 of a quantity; with its 95% interval over seeds and networks.
        other: accuracy by bit, or Kendall's tau of a quantity; likewise.
        chance: accuracy of guessing; 0 of a quantity.
        majority: accuracy of the commonest training answer; 0 of a quantity.
        is_quantity: whether the target is a number.
    """

    target: str
    method: str
    seeds: int
    networks: int
    score: Interval
    other: Interval
    chance: float
    majority: float
    is_quantity: bool


def property_rows(
    found: Sequence[Said], training: Examples, test: Examples, *, resamples: int = 1_000
) -> list[PropertyRow]:
    """A row for each target and method; intervals by bootstrap over networks, with all their checkpoints, and seeds.

    A target of which the test networks have fewer than two known answers has no rows.
    """
    rows = []
    for target in test.targets:
        known = test.known(target.name)
        truth = test.labels[target.name][known]
        if len(np.unique(truth)) < 2:
            continue
        draws = _Draws(test.unit[known], resamples)
        floor = (0.0, 0.0)
        if not target.is_quantity:
            floor = chance(len(target.classes)), majority(training.labels[target.name], truth)
        for said in found:
            answers = [one[target.name][known] for one in said.answers]
            score, other = _scores(target, answers, truth, draws)
            counts = (len(answers), len(np.unique(test.unit[known])))
            rows.append(PropertyRow(target.name, said.method, *counts, score, other, *floor, target.is_quantity))
    return rows


@dataclass(frozen=True)
class _Draws:
    """Resamples of networks, each with all of its checkpoints.

    Attributes:
        unit: (n,) which network each row is of.
        count: how many resamples.
    """

    unit: np.ndarray
    count: int

    def rows(self) -> Iterator[np.ndarray]:
        """The rows of each resample."""
        _, unit = np.unique(self.unit, return_inverse=True)
        members = np.split(np.argsort(unit, kind="stable"), np.cumsum(np.bincount(unit))[:-1])
        rng = np.random.default_rng(0)
        for _ in range(self.count):
            drawn = rng.integers(len(members), size=len(members))
            yield np.concatenate([members[i] for i in drawn])

    def interval(self, measure: Callable[[np.ndarray, int], float], seeds: int) -> Interval:
        """Of the mean over seeds of a measure of (rows, seed), networks and seeds redrawn together."""
        rng = np.random.default_rng(1)
        every = np.arange(len(self.unit))
        estimate = float(np.mean([measure(every, seed) for seed in range(seeds)]))
        values = []
        for rows in self.rows():
            drawn = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds)
            with suppress(ValueError):  # a resample of one value has no variance to explain
                values.append(sum(n * measure(rows, seed) for seed, n in enumerate(drawn) if n) / seeds)
        low, high = np.quantile(values, [0.025, 0.975])
        return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def _scores(target: Target, answers: list[np.ndarray], truth: np.ndarray, draws: _Draws) -> tuple[Interval, Interval]:
    if target.is_quantity:
        few = _Draws(draws.unit, min(draws.count, 200))  # tau takes milliseconds
        r2 = draws.interval(lambda rows, seed: explained(answers[seed][rows], truth[rows]), len(answers))
        return r2, few.interval(lambda rows, seed: kendall(answers[seed][rows], truth[rows]), len(answers))
    found = []
    for measure in (correct, per_bit):
        values = [measure(one, truth).astype(np.float64) for one in answers]
        interval = draws.interval(lambda rows, seed, v=values: float(v[seed][rows].mean()), len(answers))
        if interval.estimate in (0.0, 1.0) and interval.low == interval.high:  # the exact binomial interval
            interval = bootstrap_interval(values[0], seed=0)
        found.append(interval)
    return found[0], found[1]


def paired(one: Said, other: Said, test: Examples, *, resamples: int = 2_000) -> Interval:
    """By how much the first method's mean accuracy over targets is above the second's, on the same networks."""
    gaps = []
    for target in test.targets:
        if target.is_quantity:
            continue
        known = test.known(target.name)
        truth = test.labels[target.name][known]
        means = [np.mean([correct(a[target.name][known], truth) for a in said.answers], 0) for said in (one, other)]
        gap = np.full(len(test), np.nan)
        gap[known] = means[0] - means[1]
        gaps.append(gap)
    table = np.stack(gaps)  # (targets, networks)
    draws = _Draws(test.unit, resamples)
    return draws.interval(lambda rows, _: float(np.nanmean(np.nanmean(table[:, rows], axis=1))), 1)


def property_tables(found: Sequence[Said], training: Examples, test: Examples) -> dict[str, str]:
    """Every table of a comparison, as Markdown by its title; differences are those of the meta-model and the best."""
    rows = property_rows(found, training, test)
    counts = [len(np.unique(examples.unit)) for examples in (training, test)]
    tables = {
        f"accuracy in per cent (by bit), {counts[0]} training and {counts[1]} test networks": property_table(rows),
        "quantities: R2; Kendall's tau": property_table(rows, quantities=True),
    }
    scores: dict[str, float] = {}
    for row in rows:
        if not row.is_quantity:
            scores[row.method] = scores.get(row.method, 0.0) + row.score.estimate
    for name in dict.fromkeys(("meta-model", max(scores, key=lambda one: scores[one], default=""))):
        tables[f"mean accuracy on the same networks, {name} less others"] = difference_table(found, test, name)
    tables["time"] = cost_table(found, len(test))
    return {title: table for title, table in tables.items() if table}


def property_table(rows: Sequence[PropertyRow], *, quantities: bool = False) -> str:
    """Markdown: methods down, targets across, each with its interval; the mean of the scores last.

    Args:
        quantities: those (R2; Kendall's tau), instead of accuracy in per cent (by bit in brackets).
    """
    rows = [row for row in rows if row.is_quantity == quantities]
    targets = list(dict.fromkeys(row.target for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    if not rows:
        return ""
    found = {(row.method, row.target): row for row in rows}
    lines: list[list[str | None]] = []
    best = {t: max(row.score.estimate for row in rows if row.target == t) for t in targets}
    means = {m: float(np.mean([found[m, t].score.estimate for t in targets])) for m in methods}
    for method in methods:
        cells = []
        for target in targets:
            row = found[method, target]
            text = _quantity(row) if quantities else _accuracy(row)
            cells.append(f"**{text}**" if row.score.estimate == best[target] else text)
        mean = f"{means[method]:.3f}" if quantities else f"{100 * means[method]:.1f}"
        cells.append(f"**{mean}**" if means[method] == max(means.values()) else mean)
        lines.append([method, *cells])
    if not quantities:
        firsts = [found[methods[0], target] for target in targets]
        lines.append(["*majority answer*", *(f"{100 * row.majority:.1f}" for row in firsts), None])
        lines.append(["*chance*", *(f"{100 * row.chance:.1f}" for row in firsts), None])
        lines.append(['*by bit, always "no"*', *(f"({100 * (1 - row.chance):.1f})" for row in firsts), None])
    return markdown_table(["method", *targets, "mean"], lines)


def _accuracy(row: PropertyRow) -> str:
    score, bits = row.score, row.other.estimate
    return f"{100 * score.estimate:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}] ({100 * bits:.1f})"


def _quantity(row: PropertyRow) -> str:
    score, tau = row.score, row.other
    return f"{score.estimate:.3f} [{score.low:.3f}, {score.high:.3f}]; {tau.estimate:.3f}"


def difference_table(found: Sequence[Said], test: Examples, name: str) -> str:
    """Markdown: by how much the mean accuracy of one method is above each other's, in points; empty without it."""
    named = [said for said in found if said.method == name]
    others = [said for said in found if said.method != name]
    if not named or not others or all(target.is_quantity for target in test.targets):
        return ""
    lines = []
    for other in others:
        gap = paired(named[0], other, test)
        lines.append([other.method, f"{100 * gap.estimate:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"])
    return markdown_table([f"{name} less", "points"], lines)


def cost_table(found: Sequence[Said], networks: int) -> str:
    """Markdown: seconds to fit, milliseconds a network, and numbers learnt of each method."""
    lines = []
    for said in found:
        learnt = "" if said.parameters is None else f"{said.parameters:,}"
        each = 1000 * said.predicted / max(1, networks)
        lines.append([said.method, f"{said.fitted:.0f} s", f"{each:.2f} ms", learnt])
    return markdown_table(["method", "fitted in", "a network", "parameters"], lines)


def curve_table(rows: Mapping[int, Sequence[PropertyRow]]) -> str:
    """Markdown: methods down, numbers of training networks across, accuracy as the mean over all targets of classes."""
    counts = list(rows)
    methods = list(dict.fromkeys(row.method for found in rows.values() for row in found))
    lines = []
    for method in methods:
        cells = []
        for count in counts:
            scores = [row.score.estimate for row in rows[count] if row.method == method and not row.is_quantity]
            cells.append(f"{100 * np.mean(scores):.1f}" if scores else "")
        lines.append([method, *cells])
    return markdown_table(["method", *(f"{count} networks" for count in counts)], lines)
