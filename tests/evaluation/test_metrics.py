"""Metrics agree with scikit-learn, leave out what is unknown, and come with intervals that cover."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from weightspace.evaluation import metrics
from weightspace.evaluation.metrics import Interval, bootstrap_interval, detection_rate


def answers(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) that lean to the truth, and labels (n,) of all classes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    scores = generator.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]
    exponentials = np.exp(scores)
    return exponentials / exponentials.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_every_metric_agrees_with_scikit_learn(classes: int) -> None:
    probabilities, labels = answers(200, classes)
    predicted = probabilities.argmax(axis=1)
    ranked = probabilities[:, 1] if classes == 2 else probabilities
    truth = sklearn.metrics
    assert metrics.accuracy(probabilities, labels) == pytest.approx(truth.accuracy_score(labels, predicted))
    assert metrics.balanced_accuracy(probabilities, labels) == pytest.approx(
        truth.balanced_accuracy_score(labels, predicted)
    )
    assert metrics.log_loss(probabilities, labels) == pytest.approx(truth.log_loss(labels, probabilities))
    assert metrics.auroc(probabilities, labels) == pytest.approx(truth.roc_auc_score(labels, ranked, multi_class="ovr"))
    np.testing.assert_array_equal(
        metrics.confusion_matrix(predicted, labels, classes),
        truth.confusion_matrix(labels, predicted),
    )


def test_brier_is_twice_that_of_scikit_learn_for_two_classes() -> None:
    probabilities, labels = answers(200, 2)
    expected = 2 * sklearn.metrics.brier_score_loss(labels, probabilities[:, 1])
    assert metrics.brier(probabilities, labels) == pytest.approx(expected)


def test_brier_and_log_loss_of_a_uniform_answer_are_known() -> None:
    uniform, labels = np.full((5, 4), 0.25), np.array([0, 1, 2, 3, 0])
    assert metrics.brier(uniform, labels) == pytest.approx(0.75)
    assert metrics.log_loss(uniform, labels) == pytest.approx(np.log(4))


def test_unknown_labels_are_left_out() -> None:
    probabilities, labels = answers(60, 3)
    hidden = labels.copy()
    hidden[20:40] = -1
    known = np.r_[0:20, 40:60]
    for metric in (
        metrics.correct,
        metrics.balanced_accuracy,
        metrics.log_loss,
        metrics.brier,
        metrics.auroc,
    ):
        np.testing.assert_allclose(metric(probabilities, hidden), metric(probabilities[known], labels[known]))
    predicted = probabilities.argmax(axis=1)
    assert metrics.confusion_matrix(predicted, hidden, 3).sum() == 40


def test_no_known_label_is_an_error() -> None:
    probabilities, labels = answers(4, 2)
    unknown = np.full_like(labels, -1)
    with pytest.raises(ValueError, match="none of the 4 labels is known"):
        metrics.accuracy(probabilities, unknown)
    with pytest.raises(ValueError, match="none of the 4 labels is known"):
        metrics.confusion_matrix(labels, unknown, 2)
    with pytest.raises(ValueError, match="none of the 4 labels is known"):
        metrics.majority(labels, unknown)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones((2, 2)), np.array([0, 1]), "row 0 .* no distribution"),
        (np.array([[1.0, 0.0], [np.nan, 1.0]]), np.array([0, 1]), "row 1 .* no distribution"),
        (np.array([[1.5, -0.5]]), np.array([0]), "no distribution"),
        (np.eye(2), np.array([0, 2]), "a label is 2"),
        (np.eye(2), np.array([0, -2]), "a label is -2"),
        (np.eye(2), np.array([0.0, 1.0]), "give integers"),
        (np.eye(2), np.array([0, 1, 1]), "have shape"),
    ],
)
def test_what_is_no_answer_or_no_label_is_refused(probabilities: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(probabilities, labels)


def test_a_fault_in_a_row_is_named_by_its_place_before_unknown_labels_are_left_out() -> None:
    probabilities = np.array([[9.0, 9.0], [1.0, 0.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match="row 2"):
        metrics.accuracy(probabilities, np.array([-1, 0, 1]))


@pytest.mark.parametrize("false_alarms", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_the_detection_rate_is_that_of_the_roc_curve(false_alarms: float) -> None:
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=300)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(2)  # with ties
    low, high, _ = roc_curve(labels, scores, drop_intermediate=False)
    answers = np.stack([1 - scores, scores], 1)
    assert detection_rate(answers, labels, false_alarms) == pytest.approx(high[low <= false_alarms + 1e-9].max())
    with pytest.raises(ValueError, match="both occur"):
        detection_rate(answers, np.ones(300, int), false_alarms)


def test_auroc_of_one_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="all 3 known labels are class 1"):
        metrics.auroc(np.full((3, 2), 0.5), np.ones(3, np.int64))


def test_balanced_accuracy_of_always_one_answer_is_chance_though_the_classes_are_unbalanced() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    always = np.tile([1.0, 0.0], (100, 1))
    assert metrics.accuracy(always, labels) == pytest.approx(0.9)
    assert metrics.balanced_accuracy(always, labels) == pytest.approx(metrics.chance(2))


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    matrix = metrics.confusion_matrix(np.array([1, 1, 0]), np.array([0, 0, 0]), 2)
    np.testing.assert_array_equal(matrix, [[1, 2], [0, 0]])


def test_majority_answers_with_the_commonest_training_label_not_that_of_the_test() -> None:
    train, test = np.array([0, 2, 2, -1, -1, -1]), np.array([1, 1, 1, 2, -1])
    assert metrics.majority(train, test) == pytest.approx(0.25)


def test_shuffled_labels_score_at_chance() -> None:
    probabilities, labels = answers(4000, 4)
    shuffled = np.random.default_rng(1).permutation(labels)
    right = metrics.correct(probabilities, shuffled)
    interval = bootstrap_interval(right, seed=2, level=0.999)
    assert interval.low < metrics.chance(4) < interval.high
    assert interval.high < metrics.accuracy(probabilities, labels)  # the truth scores above it
    # four standard errors of an AUROC of 4000 shuffled labels are about 0.02
    assert metrics.auroc(probabilities, shuffled) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("truth", [0.5, 0.85])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(truth: float) -> None:
    # 500 trials have a standard error of 1 point, and the percentile bootstrap of 100 networks
    # covers 93 to 95 times in 100: 0.90 and 0.98 are more than two standard errors away.
    generator = np.random.default_rng(3)
    covered = 0
    for trial in range(500):
        interval = bootstrap_interval(generator.random(100) < truth, seed=trial, resamples=1000)
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 500 <= 0.98


def test_a_wider_level_gives_a_wider_interval_around_the_mean() -> None:
    values = np.random.default_rng(0).random(80)
    narrow = bootstrap_interval(values, seed=0, level=0.5)
    wide = bootstrap_interval(values, seed=0, level=0.99)
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high
    assert narrow.estimate == pytest.approx(values.mean())


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_a_statistic_of_indices_and_the_values_themselves_give_one_interval() -> None:
    values = np.random.default_rng(0).random(50)
    by_values = bootstrap_interval(values, seed=0, resamples=500)
    by_indices = bootstrap_interval(lambda i: float(values[i].mean()), 50, seed=0, resamples=500)
    assert by_indices == by_values


@pytest.mark.parametrize(("right", "low", "high"), [(True, 0.8316, 1.0), (False, 0.0, 0.1684)])
def test_all_right_and_all_wrong_have_the_exact_binomial_interval(right: bool, low: float, high: float) -> None:
    # 20 of 20: the bound solves bound ** 20 == 0.025
    interval = bootstrap_interval(np.full(20, right), seed=0)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
    by_indices = bootstrap_interval(lambda _: float(right), 20, seed=0)
    assert by_indices == interval


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 3))
def test_an_interval_of_a_proportion_has_width_and_holds_the_estimate(n: int, right: int, seed: int) -> None:
    values = np.arange(n) < right
    interval = bootstrap_interval(values, seed=seed, resamples=200)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.low < interval.high


def test_a_difference_that_is_always_zero_keeps_its_point() -> None:
    interval = bootstrap_interval(np.zeros(20), seed=0, proportion=False)
    assert interval == Interval(0.0, 0.0, 0.0)


def test_resamples_without_a_second_class_are_left_out_of_an_auroc() -> None:
    probabilities, labels = answers(6, 2)
    labels = np.array([1, 0, 0, 0, 0, 0])  # a third of the resamples miss the only 1
    interval = bootstrap_interval(lambda i: metrics.auroc(probabilities[i], labels[i]), 6, seed=0, resamples=200)
    assert interval.low <= interval.estimate <= interval.high


def test_a_statistic_that_most_resamples_lack_is_an_error() -> None:
    def only_in_order(indices: np.ndarray) -> float:
        if (np.diff(indices) < 0).any():
            raise ValueError("out of order")
        return 0.5

    with pytest.raises(ValueError, match="too few networks"):
        bootstrap_interval(only_in_order, 10, seed=0, resamples=200)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros(0), {}, "at least one"),
        (np.zeros((2, 2)), {}, "give one for each"),
        (np.zeros(3), {"n": 4}, "give one for each"),
        (np.array([np.nan, 1.0]), {}, "must be finite"),
        (np.array([3.0, 4.0]), {}, "proportion=False"),
        (np.zeros(3), {"resamples": 5}, "at least 100"),
        (np.zeros(3), {"level": 95.0}, "level"),
    ],
)
def test_an_interval_of_nothing_or_of_other_things_is_refused(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, seed=0, **options)


def test_chance_needs_a_class() -> None:
    with pytest.raises(ValueError, match="at least one"):
        metrics.chance(0)


def test_a_prediction_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="a prediction is class 5"):
        metrics.confusion_matrix(np.array([0, 5]), np.array([0, 1]), 2)
