"""How right a predictor is, and how sure we may be: metrics over networks, with intervals.

The unit is always the network. Labels are class numbers from 0; a label of -1 means that the truth is
unknown, and that network is left out of every metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

UNKNOWN = -1
"""The label of a network whose truth is not known."""

_CHUNK = 2_000_000  # resampled entries held at once: 16 MB, whatever the number of networks


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it; `low <= estimate <= high`."""

    estimate: float
    low: float
    high: float


def correct(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the most probable class is the true one, for each network with a known label.

    Args:
        probabilities: (n, classes), each row from 0 to 1 with sum 1.
        labels: (n,) integers from 0 to classes - 1, or -1 where unknown.
    Returns:
        (m,) booleans, in the order of the m <= n networks with a known label. Of equally probable
        classes the first counts as the answer.
    Raises:
        ValueError: if the arrays do not fit each other, a row is no distribution, a label is no class,
            or no label is known.
    """
    probabilities, labels = _known(probabilities, labels)
    return probabilities.argmax(axis=1) == labels


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of networks answered correctly, 0 to 1. Arguments and errors are those of `correct`."""
    return float(correct(probabilities, labels).mean())


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share answered correctly, 0 to 1.

    Always giving one answer scores 1 / (classes that occur), however unbalanced they are. Arguments and
    errors are those of `correct`.
    """
    from sklearn.metrics import recall_score

    probabilities, labels = _known(probabilities, labels)
    # balanced_accuracy_score is the same number, but warns when a class that never occurs is predicted.
    occurring = np.unique(labels)
    return float(recall_score(labels, probabilities.argmax(axis=1), labels=occurring, average="macro"))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log(probability of the truth), in nats, 0 and up; a uniform answer scores log(classes).

    Probabilities are clipped at 2.2e-16, so one certain and wrong answer costs 36 nats, not infinity.
    Arguments and errors are those of `correct`.
    """
    from sklearn.metrics import log_loss as sklearn_log_loss

    probabilities, labels = _known(probabilities, labels)
    return float(sklearn_log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance from the distribution to the truth, 0 to 2 (Brier, 1950).

    Squares are summed over all classes: for two classes this is twice what scikit-learn gives by
    default. Arguments and errors are those of `correct`.
    """
    probabilities, labels = _known(probabilities, labels)
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve, 0 to 1: how often a network of a class is ranked above one that is not.

    With more than two classes, the mean over those that occur of one class against the rest. Arguments
    are those of `correct`.

    Raises:
        ValueError: as `correct`, and if all known labels are one class: there is nothing to rank.
    """
    from scipy.stats import rankdata

    probabilities, labels = _known(probabilities, labels)
    occurring = np.unique(labels)
    if len(occurring) < 2:
        raise ValueError(
            f"all {len(labels)} known labels are class {occurring[0]}: AUROC needs networks of two classes"
        )
    areas = []
    for c in occurring:  # Mann and Whitney, 1947; ten times as fast as scikit-learn's, and a bootstrap takes thousands
        own = labels == c
        inside, outside = int(own.sum()), int((~own).sum())
        areas.append((rankdata(probabilities[:, c])[own].sum() - inside * (inside + 1) / 2) / (inside * outside))
    return float(np.mean(areas))


def detection_rate(probabilities: np.ndarray, labels: np.ndarray, false_alarms: float) -> float:
    """True-positive rate at a false-positive rate: of class 1, the share that is ranked above all but that share of 0.

    The threshold is the lowest above which at most `false_alarms` of the networks of class 0 lie; of 50 of them, at 1%,
    none does. Arguments are those of `correct`, with two classes.

    Raises:
        ValueError: as `auroc`, if there are not two classes, or `false_alarms` is not in [0, 1].
    """
    probabilities, labels = _known(probabilities, labels)
    if probabilities.shape[1] != 2 or len(np.unique(labels)) < 2 or not 0 <= false_alarms <= 1:
        raise ValueError(
            f"a detection rate at {false_alarms} false alarms, of {probabilities.shape[1]} classes of which "
            f"{len(np.unique(labels))} occur: give 2 classes that both occur, and a share from 0 to 1"
        )
    clean = np.sort(probabilities[labels == 0, 1])
    above = int(np.floor(false_alarms * len(clean) + 1e-9))
    threshold = clean[len(clean) - 1 - above] if above < len(clean) else -np.inf
    return float((probabilities[labels == 1, 1] > threshold).mean())


def per_bit(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each network the share of classes of which it is rightly said whether they are its own (probability > 1/2).

    Args:
        probabilities: (n, classes).
        labels: (n,); networks whose label is -1 are left out.
    Returns:
        (known,) values in [0, 1]. Saying "no" to every class earns 1 - 1 / classes: read it beside the accuracy.
    """
    probabilities, labels = _known(probabilities, labels)
    return ((probabilities > 0.5) == np.eye(probabilities.shape[1], dtype=bool)[labels]).mean(1)


def explained(estimates: np.ndarray, truth: np.ndarray) -> float:
    """R2: the share of the variance of `truth` (n,) that the estimates explain; at most 1, below 0 if worse than the
    mean.

    Raises:
        ValueError: if the truth does not vary.
    """
    spread = float(np.square(truth - truth.mean()).sum())
    if spread == 0:
        raise ValueError("the quantity is the same for all networks: there is no variance to explain")
    return 1 - float(np.square(estimates - truth).sum()) / spread


def kendall(estimates: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b of two quantities (n,), -1 to 1; 0 where the estimates do not vary.

    Raises:
        ValueError: if the truth does not vary.
    """
    from scipy.stats import kendalltau

    if (truth == truth[0]).all():
        raise ValueError("the quantity is the same for all networks: they have no order")
    found: Any = kendalltau(estimates, truth)  # scipy has no types
    return 0.0 if np.isnan(found.statistic) else float(found.statistic)


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts of networks by truth and answer.

    Args:
        predicted: (n,) integers from 0 to classes - 1.
        labels: (n,) integers from 0 to classes - 1, or -1 where unknown.
        classes: number of classes, at least 1.
    Returns:
        (classes, classes) integers; row = truth, column = answer.
    Raises:
        ValueError: if the arrays do not fit each other, hold other numbers, or no label is known.
    """
    from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

    known = _known_labels(labels, classes)
    if predicted.shape != labels.shape or not np.issubdtype(predicted.dtype, np.integer):
        raise ValueError(
            f"predictions are {predicted.dtype} of shape {predicted.shape}, labels have shape "
            f"{labels.shape}: give one class number for each label"
        )
    predicted, labels = predicted[known], labels[known]
    if predicted.min() < 0 or predicted.max() >= classes:
        raise ValueError(
            f"a prediction is class {predicted[(predicted < 0) | (predicted >= classes)][0]}, "
            f"the classes are 0 to {classes - 1}"
        )
    return sklearn_confusion_matrix(labels, predicted, labels=np.arange(classes))


def chance(classes: int) -> float:
    """Accuracy of guessing uniformly among `classes` classes, 0 to 1.

    Raises:
        ValueError: if there is no class.
    """
    if classes < 1:
        raise ValueError(f"{classes} classes: chance needs at least one")
    return 1 / classes


def majority(train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy on the test networks of always answering the commonest training label, 0 to 1.

    Args:
        train_labels: (n,) integers from 0, or -1 where unknown.
        test_labels: (m,) integers from 0, or -1 where unknown.
    Returns:
        The share of known test labels that equal it. Of equally common labels the smallest is the answer.
    Raises:
        ValueError: if the labels are no integers from -1, or none of either is known.
    """
    train = train_labels[_known_labels(train_labels)]
    test = test_labels[_known_labels(test_labels)]
    return float((test == np.bincount(train).argmax()).mean())


def bootstrap_interval(
    statistic: np.ndarray | Callable[[np.ndarray], float],
    n: int | None = None,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    proportion: bool = True,
) -> Interval:
    """The percentile bootstrap over networks (Efron, 1979): networks are redrawn with replacement.

    The percentile bootstrap degenerates where every network is right, or every one wrong: each resample
    is the same, and the interval has no width although 20 of 20 correct is compatible with an accuracy
    of 85%. There, the exact binomial interval takes its place (Clopper and Pearson, 1934), so that no
    interval has width zero by artefact. For a share that is no mean over networks (a recall, an AUROC)
    that is the least width that is honest, not a guarantee. Just inside 0 and 1, and below about 20
    networks, a percentile interval is somewhat too narrow.

    Args:
        statistic: either values (n,), one a network, whose mean is estimated, such as `correct(...)`; or a
            function from the indices (n,) of a resample to a number. Resamples for which the function
            raises a ValueError (an AUROC of one class only) are left out.
        n: number of networks. Needed with a function; with values it must be their number.
        seed: seeds the resamples: the same seed gives the same interval.
        resamples: how many, at least 100.
        level: coverage aimed at, above 0 and below 1.
        proportion: whether the statistic is a share from 0 to 1, so that the exact interval applies at
            these. Say False for differences and losses, for which a constant 0 means just that.
    Returns:
        The statistic of all networks, and the interval, widened where needed to contain it.
    Raises:
        ValueError: on no networks, values that are not finite or not (n,), other arguments out of range,
            or a statistic that is undefined for all networks together or for most resamples.
    """
    if resamples < 100 or not 0 < level < 1:
        raise ValueError(f"{resamples} resamples at level {level}: give at least 100, and a level between 0 and 1")
    generator = np.random.default_rng(seed)
    if isinstance(statistic, np.ndarray):
        if statistic.ndim != 1 or n not in (None, len(statistic)):
            raise ValueError(f"values of shape {statistic.shape} for {n} networks: give one for each")
        n = len(statistic)
    if n is None or n < 1:
        raise ValueError(f"the number of networks is {n}: an interval needs at least one")

    if isinstance(statistic, np.ndarray):
        values = statistic.astype(np.float64)
        estimate, draws = float(values.mean()), _resampled_means(values, resamples, generator)
    else:
        estimate = float(statistic(np.arange(n)))
        draws = _resampled_statistics(statistic, n, resamples, generator)
    if not np.isfinite(estimate):
        raise ValueError(f"the statistic of all {n} networks is {estimate}: it must be finite")
    if proportion and not 0 <= estimate <= 1:
        raise ValueError(f"the statistic is {estimate}, no proportion: say proportion=False")
    if proportion and estimate in (0, 1) and (draws == estimate).all():
        return _exact(estimate, n, level)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def _resampled_means(values: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means (resamples,) of resamples of values (n,), a bounded number of entries at a time."""
    n = len(values)
    at_once = max(1, _CHUNK // n)
    return np.concatenate(
        [
            values[generator.integers(0, n, (min(at_once, resamples - done), n))].mean(axis=1)
            for done in range(0, resamples, at_once)
        ]
    )


def _resampled_statistics(
    statistic: Callable[[np.ndarray], float],
    n: int,
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Values of the statistic for the resamples for which it is defined: at least half of them."""
    draws: list[float] = []
    for _ in range(resamples):
        indices = generator.integers(0, n, n)
        try:
            value = float(statistic(indices))
        except ValueError:
            continue
        if np.isfinite(value):
            draws.append(value)
    if len(draws) < resamples / 2:
        raise ValueError(
            f"the statistic is defined for {len(draws)} of {resamples} resamples of {n} networks: "
            "there are too few networks for an interval"
        )
    return np.array(draws)


def _exact(estimate: float, n: int, level: float) -> Interval:
    """The Clopper-Pearson interval of a share that is 0 or 1 of n networks."""
    from scipy.stats import binomtest

    interval = binomtest(round(estimate) * n, n).proportion_ci(level, method="exact")
    return Interval(estimate, float(interval.low), float(interval.high))


def wilson_interval(right: int, n: int, level: float = 0.95) -> Interval:
    """The score interval of a share (Wilson, 1927), which has width also where all or none are right.

    Args:
        right: of `n` trials that are independent of each other.
        level: coverage aimed at, above 0 and below 1.
    Raises:
        ValueError: if there is no trial, or more are right than there are.
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"{right} of {n} are no share: an interval needs at least one trial")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


@dataclass(frozen=True)
class Tally:
    """How many of n were right."""

    right: int
    n: int

    @property
    def share(self) -> float | None:
        """None of nothing."""
        return self.right / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's, 95%."""
        return wilson_interval(self.right, self.n) if self.n else None

    def __str__(self) -> str:
        found = self.interval
        if found is None:
            return "nothing to count"
        return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f}, n = {self.n:,})"

    @classmethod
    def of(cls, right: np.ndarray) -> Tally:
        """Of truths, of any shape."""
        return cls(int(right.sum()), right.size)


def _known(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checked float64 probabilities (m, classes) and labels (m,) of the networks with a known label."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities have shape {probabilities.shape} and labels {labels.shape}: "
            "give (networks, classes) and (networks,)"
        )
    known = _known_labels(labels, probabilities.shape[1])
    probabilities = probabilities[known].astype(np.float64)
    sums = probabilities.sum(axis=1, keepdims=True)
    # 1e-3 lets the softmax of a float16 pass, and logits not.
    wrong = ~((probabilities >= 0).all(axis=1) & (np.abs(sums[:, 0] - 1) < 1e-3))
    if wrong.any():
        row = int(np.flatnonzero(known)[wrong][0])
        raise ValueError(f"row {row} of the probabilities is no distribution: entries must be 0 to 1 and sum to 1")
    return probabilities / sums, labels[known]


def _known_labels(labels: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Which labels (n,) are known, as booleans; a ValueError on labels that are no classes."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}: give integers (networks,)")
    known = labels != UNKNOWN
    if not known.any():
        raise ValueError(f"none of the {len(labels)} labels is known (all are -1): nothing to score")
    lowest, highest = int(labels[known].min()), int(labels[known].max())
    if lowest < 0 or (classes is not None and highest >= classes):
        wrong = lowest if lowest < 0 else highest
        raise ValueError(
            f"a label is {wrong}; labels are class numbers from 0"
            + (f" to {classes - 1}" if classes is not None else "")
            + ", or -1 where unknown"
        )
    return known
