"""Baselines: the same contract as the meta-model, and figures that a second implementation gives too."""

import numpy as np
import pytest

from weightspace.baselines.linear import Linear
from weightspace.baselines.majority import Majority
from weightspace.baselines.statistics import STATISTICS, StatisticsBoosting, weight_statistics
from weightspace.tasks.base import Examples
from weightspace.tasks.checks import check_predictor, planted_examples
from weightspace.weights.population import Population


def test_majority_keeps_the_contract_and_learns_nothing() -> None:
    check_predictor(Majority, learns=())
    examples = planted_examples(50, 0)
    counts = np.bincount(examples.labels["scale"], minlength=3)
    answer = Majority().fit(examples, examples).predict(examples.networks)["scale"]
    np.testing.assert_allclose(answer, np.tile(counts / 50, (50, 1)))


def test_linear_sees_a_mean_and_cannot_see_a_scale() -> None:
    check_predictor(Linear, learns=("sign",))
    training, validation, test = (planted_examples(n, s) for n, s in ((300, 0), (100, 1), (200, 2)))
    answer = Linear().fit(training, validation).predict(test.networks)["scale"]
    assert (answer.argmax(1) == test.labels["scale"]).mean() < 0.55  # a third is chance


def test_statistics_and_boosting_see_both() -> None:
    check_predictor(StatisticsBoosting, learns=("scale", "sign"))


def test_the_statistics_are_those_of_numpy_leaf_by_leaf() -> None:
    networks = planted_examples(3, 0).networks
    table = weight_statistics(networks)
    assert table.shape == (3, 5 * len(STATISTICS))  # all weights, then four arrays
    values = networks[1].arrays()["0.weight"].astype(np.float64).reshape(-1)
    expected = [values.mean(), values.var(), *np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
    np.testing.assert_allclose(table[1, 7:14], expected, rtol=1e-6)
    assert np.isnan(weight_statistics(networks, leaves=6)[:, -14:]).all()


@pytest.mark.parametrize("make", [Linear, StatisticsBoosting])
def test_unknown_labels_and_classes_that_never_occur_are_no_obstacle(make: type) -> None:
    training, validation = planted_examples(120, 0), planted_examples(60, 1)

    def hide(examples: Examples) -> Examples:
        scale = examples.labels["scale"].copy()
        scale[scale == 2] = -1
        return Examples(examples.networks, {**examples.labels, "scale": scale}, examples.targets)

    answer = make().fit(hide(training), hide(validation)).predict(training.networks)["scale"]
    assert answer.shape == (120, 3)
    np.testing.assert_allclose(answer.sum(1), 1, atol=1e-6)
    assert answer[:, 2].max() < 0.2


def test_a_method_alone_and_on_a_stored_population_agree() -> None:
    examples = planted_examples(60, 0)
    model = StatisticsBoosting().fit(examples, examples)
    one = model.predict([examples.networks[5]])["scale"][0]
    np.testing.assert_allclose(model.predict(Population.of(list(examples.networks)))["scale"][5], one)
