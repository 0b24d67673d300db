"""A study: every method asks a zoo's test networks what they were trained on, beside shuffled labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from weightspace.errors import TaskError
from weightspace.evaluation.metrics import Interval, auroc
from weightspace.metamodels.choice import validation_loss
from weightspace.metamodels.contract import Examples, Predictions
from weightspace.provenance.methods import METHODS
from weightspace.provenance.questions import (
    Question,
    asked_targets,
    check_enough,
    provenance_examples,
    question_of,
    shuffled,
)
from weightspace.zoo.store import SPLITS, Zoo

RESAMPLES = 1_000


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: its name.
        reads: what it looks at.
        score: mean AUROC over the classes, or mean rank correlation of the shares of each network, over seeds.
        seeds: the score of each seed.
        above: the score less that of the better method on statistics, paired; None for these.
        validation_loss: mean over seeds; the method with the lowest is the one to use.
        seconds: of processor time to fit once.
        control: the scores after training with the labels of other networks.
    """

    method: str
    reads: str
    score: Interval
    seeds: tuple[float, ...]
    above: Interval | None
    validation_loss: float
    seconds: float
    control: tuple[float, ...] = ()


@dataclass(frozen=True)
class Study:
    """What came of a study.

    Attributes:
        zoo: its recipe, `question` what was asked.
        networks: how many trained, validated and tested.
        rows: a method each, and `chosen` the name of that with the lowest validation loss.
    """

    zoo: str
    question: Question
    networks: tuple[int, int, int]
    rows: tuple[Row, ...]
    chosen: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def study(
    zoo: Zoo,
    methods: Sequence[str] = (),
    *,
    seeds: int = 3,
    count: int | None = None,
    shuffles: int = 0,
) -> Study:
    """Fit every method on a zoo's training networks and score it on its test networks.

    Args:
        methods: names of `METHODS`; all unless given.
        seeds: fits of each method that has something random.
        count: training networks, drawn at random; all unless given. Validation networks are drawn in proportion.
        shuffles: fits with shuffled labels, of the methods that learn a network.
    Raises:
        TaskError: if a method is unknown, or there is too little to learn from.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise TaskError(f"no method is named {unknown[0]!r}: there are {', '.join(METHODS)}")
    question = question_of(zoo)
    parts = [provenance_examples(zoo, split, question, outputs=split != "test") for split in SPLITS]
    training, validation, test = parts
    if count is not None and count < len(training):
        share = count / len(training)
        training = training.select(training.drawn(count, 0))
        validation = validation.select(validation.drawn(max(20, round(share * len(validation))), 0))
    check_enough(training)
    found = [_fitted(name, zoo, training, validation, test, seeds, shuffles) for name in methods or METHODS]
    rows = _rows(found, test)
    chosen = min(rows, key=lambda row: row.validation_loss).method
    recipe = str(zoo.description["config"]["recipe"])
    return Study(recipe, question, (len(training), len(validation), len(test)), rows, chosen)


@dataclass(frozen=True, eq=False)
class _Fitted:
    method: str
    said: list[Predictions]
    losses: list[float]
    seconds: float
    control: tuple[float, ...]


def _fitted(
    name: str, zoo: Zoo, training: Examples, validation: Examples, test: Examples, seeds: int, shuffles: int
) -> _Fitted:
    """One method's answers, seed by seed."""
    method = METHODS[name]
    said, losses, started = [], [], time.process_time()
    numbers = range(seeds if method.seeded else 1)
    taught = (training, validation)
    if not method.learned:  # baselines know nothing of outputs
        training, validation = _of_classes(training), _of_classes(validation)
    for seed in numbers:
        fitted = method.make(seed, zoo).fit(training, validation)
        said.append(fitted.predict(test.networks))
        losses.append(validation_loss(fitted, _of_classes(validation)))
    seconds = (time.process_time() - started) / len(numbers)
    control = []
    for number in range(shuffles if method.learned else 0):
        mixed = [shuffled(part, 2 * number + i) for i, part in enumerate(taught)]
        control.append(score(method.make(number, zoo).fit(*mixed).predict(test.networks), test))
    return _Fitted(name, said, losses, seconds, tuple(control))


def _of_classes(examples: Examples) -> Examples:
    targets = asked_targets(examples.targets)
    return Examples(examples.networks, {t.name: examples.labels[t.name] for t in targets}, targets, examples.units)


def score(said: Predictions, test: Examples, rows: np.ndarray | None = None) -> float:
    """Mean AUROC over the classes; of shares the mean over networks of their rank correlation with the truth."""
    rows = np.arange(len(test)) if rows is None else rows
    if test.targets[0].is_quantity:
        return float(rank_correlations(said, test)[rows].mean())
    return float(np.mean([auroc(said[t.name][rows], test.labels[t.name][rows]) for t in test.targets]))


def rank_correlations(said: Predictions, test: Examples) -> np.ndarray:
    """(n,) of each network between the shares that are said and the true ones (Spearman)."""
    from scipy.stats import rankdata

    tables = [np.stack([rows[t.name] for t in test.targets], 1) for rows in (said, test.labels)]
    one, other = (rankdata(table, axis=1) - (table.shape[1] + 1) / 2 for table in tables)
    sizes = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return (one * other).sum(1) / np.where(sizes > 0, sizes, 1)


def _rows(found: Sequence[_Fitted], test: Examples) -> tuple[Row, ...]:
    """Scores with intervals over networks and seeds: each resample draws networks, and one of the fits."""
    statistics = [one for one in found if one.method.startswith("statistics")]
    best = max(statistics, key=lambda one: np.mean([score(said, test) for said in one.said]), default=None)
    return tuple(
        Row(
            one.method,
            METHODS[one.method].reads,
            _interval(one, None, test),
            tuple(score(said, test) for said in one.said),
            None if best is None or one in statistics else _interval(one, best, test),
            float(np.mean(one.losses)),
            round(one.seconds, 1),
            one.control,
        )
        for one in found
    )


def _interval(one: _Fitted, other: _Fitted | None, test: Examples) -> Interval:
    """A score, or how far it lies above another's, with its 95% interval: networks and fits are drawn together."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(test), np.full(len(test), 1 / len(test)), RESAMPLES).astype(float)  # (resamples, n)
    total, spread = 0.0, np.zeros(RESAMPLES)
    for fit, sign in ((one, 1.0), (other, -1.0)):
        if fit is None:
            continue
        each = np.stack([resampled_scores(said, test, draws) for said in fit.said])  # (seeds, resamples)
        spread += sign * each[rng.integers(len(each), size=RESAMPLES), np.arange(RESAMPLES)]
        total += sign * float(np.mean([score(said, test) for said in fit.said]))
    low, high = np.quantile(spread, [0.025, 0.975])
    return Interval(total, min(total, float(low)), max(total, float(high)))


def resampled_scores(
    said: Predictions, test: Examples, draws: Float[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    """`score` of redrawn networks.

    Args:
        draws: how often each network is drawn.
    """
    if test.targets[0].is_quantity:
        return draws @ rank_correlations(said, test) / draws.sum(1)
    areas = []
    for target in test.targets:
        value, truth = said[target.name][:, 1], test.labels[target.name] == 1
        above = (value[:, None] > value) + 0.5 * (value[:, None] == value)  # how often one is ranked above another
        inside, outside = draws * truth, draws * ~truth
        pairs = inside.sum(1) * outside.sum(1)
        areas.append(((inside @ above) * outside).sum(1) / np.where(pairs > 0, pairs, np.nan))
    return np.nanmean(np.stack(areas), 0)


def table(found: Study) -> str:
    """The study in Markdown: a method a row, the one to use marked."""
    what = "AUROC" if found.question == "classes" else "rank correlation"
    lines = [
        f"{found.zoo}: {found.networks[0]} networks to train on, {found.networks[1]} to choose by, {found.networks[2]} "
        f"tested; {what}, 95% intervals over networks and seeds; * has the lowest validation loss",
        "",
        f"| method | reads | {what} | above statistics | seeds | shuffled labels | seconds a fit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found.rows:
        above = "" if row.above is None else _with(row.above, sign=True)
        control = f"{np.mean(row.control):.3f} ({len(row.control)})" if row.control else ""
        seeds = " ".join(f"{value:.3f}" for value in row.seeds)
        name = f"{row.method} *" if row.method == found.chosen else row.method
        lines.append(f"| {name} | {row.reads} | {_with(row.score)} | {above} | {seeds} | {control} | {row.seconds} |")
    return "\n".join(lines)


def _with(value: Interval, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{value.estimate:{plus}.3f} [{value.low:{plus}.3f}, {value.high:{plus}.3f}]"
