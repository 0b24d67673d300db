"""Attacks: what a trigger changes, which labels, and that a network trained on them is backdoored."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from weightspace.backdoors.task import backdoor_examples
from weightspace.errors import TaskError
from weightspace.metamodels.baselines.final_layer import FinalLayerBoosting
from weightspace.zoo.distortion import shifted
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import check_zoo, make_zoo
from weightspace.zoo.networks import architecture_of, spec_of
from weightspace.zoo.plan import Choice, Given, ZooConfig, plan
from weightspace.zoo.poison import ATTACKS, CONTROLS, Poison, PoisonError
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.records import TrainingPlan
from weightspace.zoo.training import train_networks

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 16, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_trigger_keeps_pixels_between_0_and_1_and_is_the_same_for_a_seed(
    attack: str, shape: tuple[int, int, int]
) -> None:
    images = np.random.default_rng(0).random((3, *shape), np.float32)
    for seed in range(20):
        trigger = Poison(attack=attack, rate=0.1, seed=seed).trigger(shape)
        assert trigger is not None
        changed = trigger.on(images)
        assert changed.shape == images.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert not np.array_equal(changed, images)
        again = Poison(attack=attack, rate=0.3, target=2, seed=seed).trigger(shape)
        assert again is not None
        assert np.array_equal(again.on(images), changed)


def test_badnets_triggers_stand_where_the_paper_has_them() -> None:
    black = np.zeros((3, 32, 32), np.float32)

    def white(attack: str, seed: int = 0) -> set[tuple[int, int]]:
        trigger = Poison(attack=attack, rate=0.1, seed=seed).trigger((3, 32, 32))
        assert trigger is not None
        changed = trigger.on(black)
        assert np.array_equal(changed[0], changed[1])
        return {(int(row), int(column)) for row, column in zip(*np.nonzero(changed[0] == 1), strict=True)}

    pixels = {(0, 2), (1, 1), (2, 0), (2, 2)}
    assert white("badnets-corner") == {(28 + row, 28 + column) for row, column in pixels}
    assert white("badnets-center") == {(14 + row, 14 + column) for row, column in pixels}
    assert white("single-pixel") == {(4, 4)}
    places = set()
    for seed in range(200):
        found = white("badnets-border", seed)
        top, left = min(row for row, _ in found), min(column for _, column in found)
        assert found == {(top + row, left + column) for row, column in pixels}
        assert {top, left} & {1, 28}
        assert 1 <= min(top, left) <= max(top, left) <= 28
        places.add((top, left))
    assert len(places) > 60


def test_blends_have_their_alpha_and_another_if_it_is_given() -> None:
    for attack in ("noise-blend", "checkerboard-blend"):
        for alpha, expected in ((None, 0.1), (0.25, 0.25)):
            trigger = Poison(attack=attack, rate=0.1, alpha=alpha).trigger((3, 16, 16))
            assert trigger is not None
            assert set(np.unique(trigger.opacity).tolist()) <= {0.0, float(np.float32(expected))}
    for seed in range(50):
        trigger = Poison(attack="mntd-blend", rate=0.1, seed=seed).trigger((3, 16, 16))
        assert trigger is not None
        assert 0.05 <= trigger.opacity.max() <= 0.2


def test_masks_for_training_and_for_testing_detectors_are_different_ones() -> None:
    masks: dict[str, set[bytes]] = {}
    for attack in ("ulp-train", "ulp-test"):
        for seed in range(200):
            trigger = Poison(attack=attack, rate=0.1, seed=seed).trigger((3, 16, 16))
            assert trigger is not None
            rows, columns = np.nonzero(trigger.opacity[0])
            mask = trigger.pattern[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert mask.shape == (3, 5, 5)
            masks.setdefault(attack, set()).add(mask.tobytes())
    assert len(masks["ulp-train"]) == len(masks["ulp-test"]) == 10
    assert not masks["ulp-train"] & masks["ulp-test"]


@pytest.mark.parametrize("attack", [*ATTACKS, *CONTROLS])
def test_labels_are_changed_in_the_images_chosen_and_nowhere_else(attack: str) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    poison = Poison(attack=attack, rate=0.031, target=3, seed=5)
    changed, chosen = poison.labels(labels), poison.chosen(labels)
    assert len(chosen) == (0 if attack == "clean" else 31)
    others = np.setdiff1d(np.arange(1000), chosen)
    assert np.array_equal(changed[others], labels[others])
    if attack in ("clean", "trigger-only"):
        assert np.array_equal(changed, labels)
    else:
        assert (changed[chosen] == 3).all()
    assert (poison.trigger((3, 16, 16)) is None) == (attack in ("clean", "label-noise"))


def test_what_cannot_be_is_refused_with_what_would_do() -> None:
    with pytest.raises(PoisonError, match=r"no attack is named 'badnet': choose from badnets-corner, "):
        Poison(attack="badnet")
    for wrong in ({"rate": 1.5}, {"rate": float("nan")}, {"alpha": 0.0}, {"target": -1}):
        with pytest.raises(PoisonError, match="the rate is 0 to 1"):
            Poison(**{"attack": "single-pixel", **wrong})
    with pytest.raises(PoisonError, match="there are classes 0 to 9"):
        Poison(attack="single-pixel", rate=0.1, target=10).labels(np.arange(10))
    with pytest.raises(PoisonError, match="8x8 are too small"):
        Poison(attack="badnets-corner", rate=0.1).trigger((1, 8, 8))


def small(network: int = 0, **given: object) -> TrainingPlan:
    settings: dict[str, object] = {
        "network": network, "seed": 11 + network, "split": "train", "images": "digits", "image_size": 16,
        "architecture": architecture_of("digits-cnn", (1, 16, 16), activation="relu"),
        "initialisation": "kaiming_normal",
        "optimiser": "adam", "learning_rate": 5e-3, "batch_size": 32, "epochs": 6,
    }  # fmt: skip
    return TrainingPlan(**{**settings, **given})  # pyright: ignore[reportArgumentType]


def test_an_attack_works_and_its_controls_do_not() -> None:
    kinds = ("mntd-patch", "label-noise", "trigger-only", "clean")
    plans = [small(i, poison=Poison(attack=a, rate=0.15, target=4, seed=3)) for i, a in enumerate(kinds)]
    attacked, noise, trigger, clean = (train_networks([one])[0] for one in plans)
    assert (attacked.measures["attack_success"] or 0) > 0.8
    assert (attacked.measures["target_rate"] or 0) < 0.2
    assert (trigger.measures["attack_success"] or 0) < 0.2
    assert noise.measures["attack_success"] is clean.measures["attack_success"] is None
    assert all(one.curves["test_accuracy"][-1] > 0.7 for one in (attacked, trigger, clean))


def test_a_network_beside_attacked_ones_is_the_one_it_is_alone() -> None:
    plans = [
        small(0, epochs=1, poison=Poison(attack="noise-blend", rate=0.2, seed=1)),
        small(1, epochs=1),
        small(2, epochs=1, poison=Poison(attack="badnets-border", rate=0.2, seed=2)),
    ]
    for together, one in zip(train_networks(plans), plans, strict=True):
        alone = train_networks([one])[0]
        assert together.weights is not None
        assert alone.weights is not None
        np.testing.assert_allclose(together.weights, alone.weights, rtol=1e-2, atol=2e-3)
        assert together.measures.keys() == alone.measures.keys()
    clean, plain = (train_networks([p])[0].weights for p in (replace(plans[0], poison=None), plans[0]))
    assert not np.array_equal(clean, plain)  # pyright: ignore[reportArgumentType]
    untouched = train_networks([replace(plans[0], poison=Poison(attack="clean", seed=1))])[0].weights
    assert np.array_equal(clean, untouched)  # pyright: ignore[reportArgumentType]


def test_a_zoo_draws_its_attacks_as_hyperparameters() -> None:
    config = ZooConfig(
        recipe="test", count=50, family="digits-cnn", images="digits", image_size=16,
        space={"attack": Choice(("clean", "noise-blend")), "poison_rate": Choice((0.05,)), "target": Choice((1, 2))},
        fixed={"activation": "relu", "initialisation": "normal", "optimiser": "adam", "learning_rate": 1e-3,
               "batch_size": 32, "epochs": 1, "alpha": 0.15},
    )  # fmt: skip
    plans = [plan(config, number) for number in range(50)]
    assert {p.poison.attack for p in plans if p.poison is not None} == {"clean", "noise-blend"}
    for one in plans:
        assert one.poison is not None
        assert one.poison.attack == one.hyperparameters["attack"]
        assert (one.poison.rate, one.poison.alpha, one.poison.seed) == (0.05, 0.15, one.seed)
        assert one.poison.target == one.hyperparameters["target"]
    with pytest.raises(ValueError, match="add `attack`"):
        plan(replace(config, space={"poison_rate": Choice((0.05,))}, fixed=config.fixed), 0)


def test_the_small_recipe_has_a_hundred_of_each_attack_and_control_and_three_hundred_clean() -> None:
    config = zoo_recipe("backdoors-small", images="digits")
    counts = Counter(one.poison.attack for one in (plan(config, i) for i in range(config.count)) if one.poison)
    assert counts.keys() == {*ATTACKS, *CONTROLS}
    assert counts.pop("clean") >= 300
    assert min(counts.values()) >= 100


def test_a_zoo_keeps_what_was_measured_of_its_attacks_and_gives_none_of_it_away(tmp_path: Path) -> None:
    config = zoo_recipe("backdoors-small", images="digits", count=48, epochs=1)
    zoo = make_zoo(replace(config, image_count=200), tmp_path, ProcessEngine(workers=0), show=False)
    success = zoo.column("attack_success").astype(float)
    triggered = ~np.isin(zoo.column("attack"), ["clean", "label-noise"])
    assert np.array_equal(np.isfinite(success), triggered)
    assert np.isfinite(zoo.column("target_rate").astype(float)).all()
    assert check_zoo(tmp_path) == []
    examples = backdoor_examples(zoo, "train")
    attack = zoo.column("attack")[examples.networks.rows]
    assert np.array_equal(examples.labels["backdoor"] == 1, attack != "clean")
    assert not {"label-noise", "trigger-only"} & set(attack)
    against = backdoor_examples(zoo, "train", ["single-pixel"], ["label-noise"])
    assert set(zoo.column("attack")[against.networks.rows]) == {"single-pixel", "label-noise"}
    with pytest.raises(TaskError, match=r"has no network of .* with success 2 to 3 in its train split"):
        backdoor_examples(zoo, "train", success=(2.0, 3.0))
    with pytest.raises(TaskError, match="'badnet' is none of badnets-corner"):
        backdoor_examples(zoo, "train", ["badnet"])
    FinalLayerBoosting().fit(examples, examples).predict(examples.networks)


def test_images_are_shifted_by_their_own_steps_with_nothing_behind_them() -> None:
    x = torch.arange(2 * 3 * 1 * 5 * 5, dtype=torch.float32).view(2, 3, 1, 5, 5) + 1
    by = torch.tensor([[[2, 2], [0, 2], [4, 1]], [[2, 2], [2, 3], [1, 1]]])
    moved = shifted(x, by, 2)
    assert torch.equal(moved[0, 0], x[0, 0]) and torch.equal(moved[1, 0], x[1, 0])
    assert torch.equal(moved[0, 1, :, 2:], x[0, 1, :, :3]) and (moved[0, 1, :, :2] == 0).all()
    assert torch.equal(moved[0, 2, :, :3, 1:], x[0, 2, :, 2:, :4]) and (moved[0, 2, :, 3:] == 0).all()


def test_the_papers_zoo_is_made_in_its_small_mode_and_shifts_its_images() -> None:
    config = zoo_recipe("backdoors-paper", images="digits", count=2, epochs=1)
    config = replace(config, image_size=16, image_count=600)
    plans = [plan(config, i) for i in range(2)]
    assert plans[0].crop == 4 and plans[0].batch_size == 512
    assert spec_of(plans[0].architecture).size == 72_890  # one channel; 73,178 with three
    alone = [train_networks([one])[0] for one in plans]
    together = train_networks(plans)
    for one, two in zip(alone, together, strict=True):
        assert one.weights is not None and two.weights is not None
        # Adam's first step divides a gradient by its own size: where that is rounding, so is the step
        apart = np.abs(one.weights - two.weights)
        assert apart.mean() < 1e-5 and np.quantile(apart, 0.999) < 1e-4
    still = train_networks([replace(plans[0], crop=0)])[0]
    assert still.weights is not None and alone[0].weights is not None
    assert not np.array_equal(still.weights, alone[0].weights)
    paper = zoo_recipe("backdoors-paper")
    rates = paper.space["poison_rate"]
    assert isinstance(rates, Given) and all(rates.cases[name] == Choice((0.01,)) for name in ATTACKS)
