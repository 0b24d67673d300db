"""MNTD and ULP: they hear what networks answer, learn what is plainly there, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from weightspace.errors import TaskError
from weightspace.evaluation.metrics import auroc
from weightspace.metamodels.baselines.queries import (
    MNTD,
    ULP,
    Asking,
    LearntQueries,
    OneClassMNTD,
    QueryConfig,
    QueryNetwork,
)
from weightspace.metamodels.checks import planted_examples
from weightspace.metamodels.contract import Examples, Predictor, Target
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.zoo.networks import architecture_of, build, initialise, module_of, spec_of

BACKDOOR = Target("backdoor", ("clean", "backdoored"))
STEPS = 150


def examples(count: int, seed: int, *, shuffled: bool = False, faint: bool = False, widths: tuple[int, ...] = (4,)):
    """Untrained networks; half prefer one class, or have faint answers. Every network says its architecture."""
    random = np.random.default_rng(seed)
    networks, labels = [], random.integers(2, size=count)
    for number, label in enumerate(labels):
        architecture = architecture_of("digits-cnn", (1, 8, 8), width=widths[number % len(widths)])
        spec, module = spec_of(architecture), build(architecture)
        initialise(module, "kaiming_normal", torch.Generator().manual_seed(10_000 * seed + number))
        arrays = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
        if label and faint:
            arrays["dense1.weight"] *= 0.3
        elif label:
            arrays["dense1.bias"][2] += 4
        networks.append(Network(spec, spec.join(arrays), {"architecture": architecture.to_json()}))
    if shuffled:
        labels = random.permutation(labels)
    return Examples(Population.of(networks), {BACKDOOR.name: labels.astype(np.int64)}, (BACKDOOR,))


def found(detector: Predictor, *, shuffled: bool = False, faint: bool = False) -> float:
    training, validation, test = (
        examples(n, seed, shuffled=shuffled, faint=faint) for n, seed in ((240, 0), (80, 1), (160, 2))
    )
    assert detector.fit(training, validation) is detector
    answers = detector.predict(test.networks)[BACKDOOR.name]
    assert answers.shape == (160, 2) and np.allclose(answers.sum(1), 1)
    return auroc(answers, test.labels[BACKDOOR.name])


@pytest.mark.parametrize("detector", [MNTD(steps=STEPS), ULP(5, steps=STEPS)])
def test_a_preference_for_one_class_is_heard(detector: Predictor) -> None:
    assert found(detector) > 0.95


def test_one_class_finds_odd_what_answers_faintly_having_seen_only_the_others() -> None:
    assert found(OneClassMNTD(steps=STEPS), faint=True) > 0.85


@pytest.mark.parametrize("make", [MNTD, ULP, OneClassMNTD])
def test_shuffled_labels_teach_nothing(make: Callable[..., Predictor]) -> None:
    assert 0.35 < found(make(steps=100), shuffled=True) < 0.65  # 160 networks: +/- 0.09 at 95%


def test_answers_are_those_of_the_networks_themselves_whatever_their_architecture() -> None:
    some = examples(7, 3, widths=(4, 6))
    asking = Asking(some.networks)
    model = QueryNetwork(QueryConfig(queries=3, hidden=0, limit=1.0), *asking.interface(), 2)
    with torch.inference_mode():
        heard = model.answers(asking.batch(np.arange(7)))
        for row, network in zip(heard, some.networks, strict=True):
            assert torch.allclose(row.view(3, 10), module_of(network)(model.inputs()), atol=1e-5)
    assert model.inputs().abs().max() <= 1.0


def test_a_network_is_judged_alone() -> None:
    detector = ULP(2, steps=20).fit(examples(40, 4), examples(20, 5))
    test = examples(30, 6)
    together = detector.predict(test.networks)[BACKDOOR.name]
    assert np.allclose(detector.predict([test.networks[11]])[BACKDOOR.name][0], together[11], atol=1e-5)


def test_of_several_settings_that_with_the_lowest_validation_loss_is_kept() -> None:
    good, bad = (ULP(2, steps=steps).grid[0] for steps in (200, 1))
    training, validation = examples(120, 7), examples(40, 8)
    both = LearntQueries((bad, good)).fit(training, validation)
    assert both.model is not None and both.model.config is good


def test_what_cannot_be_asked_is_refused_in_a_sentence() -> None:
    dumb = planted_examples(20, 0)
    with pytest.raises(TaskError, match="does not say which architecture it has"):
        ULP(1, steps=1).fit(dumb, dumb)
    with pytest.raises(TaskError, match="one question, whose first answer is the usual one"):
        OneClassMNTD(steps=1).fit(dumb, dumb)
