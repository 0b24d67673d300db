"""Baselines: the same contract as the meta-model, and figures that a second implementation gives too."""

import numpy as np
import pytest

from weightspace.errors import TaskError
from weightspace.metamodels.baselines.final_layer import (
    CLASS_STATISTICS,
    AllStatisticsBoosting,
    FinalLayerBoosting,
    final_layer_statistics,
)
from weightspace.metamodels.baselines.linear import AlignedLinear, Linear, StatisticsLinear
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.statistics import STATISTICS, StatisticsBoosting, weight_statistics
from weightspace.metamodels.checks import check_predictor, planted_examples
from weightspace.metamodels.contract import Examples
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.slots import Room
from weightspace.weights.spec import Leaf, NetworkSpec, NeuronGroup, neurons, plain
from weightspace.weights.symmetry import permute, random_permutation


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
    assert np.isnan(weight_statistics(networks, Room(6))[:, -14:]).all()


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


def test_final_layer_statistics_see_the_last_layer_and_no_other() -> None:
    check_predictor(FinalLayerBoosting, learns=("sign",))
    check_predictor(AllStatisticsBoosting, learns=("scale", "sign"))
    training, validation, test = (planted_examples(n, s) for n, s in ((300, 0), (100, 1), (200, 2)))
    answer = FinalLayerBoosting().fit(training, validation).predict(test.networks)["scale"]
    assert (answer.argmax(1) == test.labels["scale"]).mean() < 0.55  # a third is chance


def test_final_layer_statistics_do_not_depend_on_which_class_or_neuron_is_which() -> None:
    network = planted_examples(1, 0).networks[0]
    arrays = network.arrays()
    random = np.random.default_rng(1)
    classes, hidden = random.permutation(4), random.permutation(8)
    turned = {
        "0.weight": arrays["0.weight"][hidden],
        "0.bias": arrays["0.bias"][hidden],
        "1.weight": arrays["1.weight"][classes][:, hidden],
        "1.bias": arrays["1.bias"][classes],
    }
    other = Network(network.spec, network.spec.join(turned))
    table = final_layer_statistics([network, other])
    assert table.shape == (2, 2 * len(CLASS_STATISTICS) * 4)
    np.testing.assert_allclose(table[0], table[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table[0, :4], np.sort(arrays["1.bias"]), rtol=1e-6)


def test_a_network_without_a_layer_of_classes_has_no_final_layer_statistics() -> None:
    axes = (neurons("out", 3), neurons("in", 2), plain(1), plain(1))
    groups = (NeuronGroup("in", 2, False), NeuronGroup("out", 3, False))
    spec = NetworkSpec((Leaf("0.weight", (3, 2, 1, 1), "kernel", axes),), groups)
    with pytest.raises(TaskError, match="no final linear layer"):
        final_layer_statistics([Network(spec, np.ones(6, np.float32))])


def test_a_linear_probe_of_statistics_keeps_the_contract_and_sees_a_scale() -> None:
    check_predictor(StatisticsLinear)


def test_on_aligned_weights_a_linear_probe_does_not_depend_on_the_order_of_neurons() -> None:
    check_predictor(AlignedLinear, learns=("sign",))
    training, validation, test = (planted_examples(n, seed) for n, seed in ((200, 0), (80, 1), (40, 2)))
    probe = AlignedLinear().fit(training, validation)
    rng = np.random.default_rng(0)
    moved = [permute(network, random_permutation(network.spec, rng)) for network in test.networks]
    near = np.abs(probe.predict(test.networks)["sign"] - probe.predict(moved)["sign"]).max(1)
    assert (near < 1e-6).mean() > 0.9  # weight matching may end in another optimum
    plain = Linear().fit(training, validation)
    far = np.abs(plain.predict(test.networks)["sign"] - plain.predict(moved)["sign"]).max(1)
    assert (far < 1e-6).mean() < 0.1
