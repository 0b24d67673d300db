"""Checks that anyone's method can be put through: does it keep the contract, does it learn what is plainly there?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weightspace.metamodels.contract import Examples, Predictor, Target
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import Leaf, NetworkSpec, NeuronGroup, neurons


def planted_examples(count: int, seed: int, *, shuffled: bool = False, quantity: bool = False) -> Examples:
    """Networks of random weights, two layers, whose two labels are planted.

    "scale": the first layer's weights are drawn with standard deviation 0.5, 1 or 2. "sign": the last layer's biases
    have mean +1 or -1. Both survive every permutation of neurons.

    Args:
        shuffled: give the labels to the wrong networks, so that there is nothing to learn: a negative control.
        quantity: plant a number instead, "shift", -2 to 2: the mean of the first layer's biases.
    """
    rng = np.random.default_rng(seed)
    groups = (NeuronGroup("in", 6, False), NeuronGroup("hidden", 8), NeuronGroup("out", 4, False))
    spec = NetworkSpec(
        (
            Leaf("0.weight", (8, 6), "kernel", (neurons("hidden", 8), neurons("in", 6))),
            Leaf("0.bias", (8,), "bias", (neurons("hidden", 8),)),
            Leaf("1.weight", (4, 8), "kernel", (neurons("out", 4), neurons("hidden", 8))),
            Leaf("1.bias", (4,), "bias", (neurons("out", 4),)),
        ),
        groups,
    )
    scale, sign = rng.integers(3, size=count), rng.integers(2, size=count)
    shift = rng.uniform(-2, 2, size=count) if quantity else np.zeros(count)
    networks: list[Network] = []
    for which, direction, moved in zip(scale, sign, shift, strict=True):
        arrays = {leaf.name: rng.normal(size=leaf.shape) for leaf in spec.leaves}
        arrays["0.weight"] *= (0.5, 1.0, 2.0)[which]
        arrays["1.bias"] += 2.0 * direction - 1
        arrays["0.bias"] += moved
        networks.append(Network(spec, spec.join(arrays)))
    order = rng.permutation(count) if shuffled else np.arange(count)
    if quantity:
        return Examples(Population.of(networks), {"shift": shift[order]}, (Target("shift"),))
    return Examples(
        Population.of(networks),
        {"scale": scale[order].astype(np.int64), "sign": sign[order].astype(np.int64)},
        (Target("scale", ("small", "medium", "large")), Target("sign", ("negative", "positive"))),
    )


def check_predictor(make: Callable[[], Predictor], *, learns: Sequence[str] = ("scale", "sign"), seed: int = 0) -> None:
    """Put a method through the contract of `Predictor`.

    Checked: probabilities of the right shape that sum to 1; a network's answer does not depend on the networks beside
    it; the planted labels are learnt; shuffled labels are not.

    Args:
        make: makes a fresh, unfitted predictor with settings that suit a few hundred tiny networks.
        learns: the planted targets it must learn: 70% where a third or a half is chance.
    Raises:
        AssertionError: naming the first promise that is not kept.
    """
    training, validation = planted_examples(300, seed), planted_examples(100, seed + 1)
    test = planted_examples(200, seed + 2)
    predictor = make()
    assert isinstance(predictor, Predictor), f"{predictor} has no name, fit and predict"
    assert predictor.fit(training, validation) is predictor, "fit must return the predictor itself"
    predictions = predictor.predict(test.networks)
    for target in test.targets:
        probabilities = predictions[target.name]
        shape = (len(test), len(target.classes))
        assert probabilities.shape == shape, f"{target.name}: shape {probabilities.shape}, expected {shape}"
        assert np.allclose(probabilities.sum(1), 1, atol=1e-5), f"{target.name}: rows do not sum to 1"
        assert (probabilities >= 0).all(), f"{target.name}: a probability is negative"
    alone = predictor.predict([test.networks[3]])
    for name, probabilities in alone.items():
        # float32 sums of another batch shape round differently
        assert np.allclose(probabilities[0], predictions[name][3], atol=1e-4), f"{name}: depends on the other networks"
    for name in learns:
        right = (predictions[name].argmax(1) == test.labels[name]).mean()
        assert right > 0.7, f"the planted target {name!r} is not learnt: accuracy {right:.2f}"
    control = make().fit(planted_examples(300, seed + 3, shuffled=True), planted_examples(100, seed + 4, shuffled=True))
    answers = control.predict(test.networks)
    for target in test.targets:
        right = (answers[target.name].argmax(1) == test.labels[target.name]).mean()
        chance = max(np.bincount(test.labels[target.name]) / len(test))
        # four standard errors of 200 coin flips above the most frequent answer
        assert right < chance + 4 * (0.25 / len(test)) ** 0.5, f"{target.name}: {right:.2f} on shuffled labels"


def check_regressor(make: Callable[[], Predictor], *, least: float = 0.5, seed: int = 0) -> None:
    """Put a method that answers with numbers through the contract: a planted quantity is learnt, a shuffled one is not.

    Args:
        make: makes a fresh, unfitted predictor with settings that suit a few hundred tiny networks.
        least: share of the variance that it must explain.
    Raises:
        AssertionError: naming the first promise that is not kept.
    """
    training, validation, test = (
        planted_examples(count, seed + i, quantity=True) for i, count in enumerate((300, 100, 200))
    )
    predictor = make()
    assert predictor.fit(training, validation) is predictor, "fit must return the predictor itself"
    said, truth = predictor.predict(test.networks)["shift"], test.labels["shift"]
    assert said.shape == truth.shape, f"estimates have shape {said.shape}, expected {truth.shape}"
    alone = predictor.predict([test.networks[3]])["shift"]
    assert np.allclose(alone[0], said[3], atol=1e-3), "an estimate depends on the other networks"
    explained = 1 - np.square(said - truth).mean() / truth.var()
    assert explained > least, f"the planted quantity is not learnt: {explained:.2f} of its variance is explained"
    control = make().fit(
        planted_examples(300, seed + 3, shuffled=True, quantity=True),
        planted_examples(100, seed + 4, shuffled=True, quantity=True),
    )
    said = control.predict(test.networks)["shift"]
    # the shift is the largest direction of the weights, on which 300 shuffled labels leave a slope of 0.06, of which
    # four standard errors would explain 0.4 of the variance
    explained = 1 - np.square(said - truth).mean() / truth.var()
    assert explained < 0.4, f"{explained:.2f} of the variance is explained after shuffled labels"
