"""Trials of networks: the figures of the zoo again, and the effect of a neuron that was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from weightspace.backdoors.trials import Bench, hidden_neurons, poison_of, pruned
from weightspace.weights.neurons import group_starts, neuron_entries
from weightspace.zoo.plan import ZooConfig, plan
from weightspace.zoo.poison import Poison
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.records import TrainedNetwork
from weightspace.zoo.training import train_networks

CONFIG: ZooConfig = replace(zoo_recipe("backdoors-small", images="digits", count=40, epochs=3), image_count=600)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(CONFIG)


@pytest.fixture(scope="module")
def trained() -> TrainedNetwork:
    poison = Poison(attack="checkerboard-blend", rate=0.15, alpha=0.8, target=3, seed=5)
    return train_networks([replace(plan(CONFIG, 0), poison=poison, epochs=8)])[0]


def test_accuracy_and_success_are_those_that_the_zoo_measured(bench: Bench, trained: TrainedNetwork) -> None:
    assert trained.weights is not None and trained.plan.poison is not None
    trial = bench.trial(trained.plan.poison, 10_000)
    accuracy, success = bench.scores(trained.weights[None], trial)
    assert accuracy[0] == pytest.approx(trained.curves["test_accuracy"][-1], abs=1e-6)
    assert success[0] == pytest.approx(trained.measures["attack_success"], abs=1e-6)
    assert success[0] > 0.5


def test_a_removed_neuron_is_read_by_nobody_and_nothing_else_changes(bench: Bench, trained: TrainedNetwork) -> None:
    spec, flat = bench.spec, trained.weights
    assert flat is not None
    starts = group_starts(spec)
    assert len(hidden_neurons(spec)) == 8 + 8 + 16 + 16 + 32 + 32
    neuron = int(hidden_neurons(spec)[20])
    without = pruned(spec, flat, [neuron])
    group = next(n for n in range(len(spec.groups)) if starts[n] <= neuron < starts[n + 1])
    read = [e.places[neuron - starts[group]] for e in neuron_entries(spec) if e.group == group and not e.reads]
    places = np.concatenate([p.reshape(-1) for p in read])
    changed = np.flatnonzero(without != flat)
    assert len(changed) and np.isin(changed, places).all() and (without[places] == 0).all()
    np.testing.assert_array_equal(pruned(spec, flat, []), flat)


def test_a_neuron_that_alone_carries_the_attack_has_all_of_its_effect(bench: Bench, trained: TrainedNetwork) -> None:
    spec, flat = bench.spec, trained.weights
    assert flat is not None and trained.plan.poison is not None
    trial = bench.trial(trained.plan.poison, 60)
    effects = bench.effects(flat, trial)
    assert np.isnan(effects).sum() == group_starts(spec)[-1] - 112
    alone = pruned(spec, flat, [int(np.nanargmax(effects))])
    _, (before, after) = bench.scores(np.stack([flat, alone]), trial)
    assert before - after == pytest.approx(np.nanmax(effects), abs=1e-6)
    dead = pruned(spec, flat, hidden_neurons(spec)[-32:].tolist())  # nothing reaches the last layer: one answer for all
    assert len({float(s) for s in bench.scores(dead[None], trial)[1]} & {0.0, 1.0}) == 1


def test_training_further_on_poison_puts_a_backdoor_in_and_on_clean_images_does_not(bench: Bench) -> None:
    flat = train_networks([replace(plan(CONFIG, 0), poison=Poison(attack="clean"), epochs=8)])[0].weights
    assert flat is not None
    poison = Poison(attack="checkerboard-blend", rate=0.3, alpha=0.8, target=3, seed=5)
    clean = bench.finetuned(flat, count=600, epochs=4, rate=3e-3)
    bad = bench.finetuned(flat, count=600, epochs=4, rate=3e-3, poison=poison)
    accuracy, success = bench.scores(np.stack([flat, clean, bad]), bench.trial(poison, 300))
    assert success[1] < 0.3 and success[2] > 0.6
    assert accuracy.min() > 0.7
    np.testing.assert_array_equal(bench.finetuned(flat, count=600, epochs=4, rate=3e-3), clean)


def test_an_attack_is_read_from_a_row_of_the_index() -> None:
    row = {"attack": "noise-blend", "poison_rate": 0.1, "alpha": 0.2, "target": 4, "seed": 9}
    assert poison_of(row) == Poison(attack="noise-blend", rate=0.1, alpha=0.2, target=4, seed=9)
    assert poison_of({**row, "alpha": float("nan")}).alpha is None
