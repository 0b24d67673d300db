"""A zoo as diverse as what people train: its attacks, its images, its architectures, and that all of it trains."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from weightspace.backdoors.table import read_zoo
from weightspace.weights.modules import network_of_module
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.distortion import distorted, flips
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.images.image_set import ImageError
from weightspace.zoo.images.loading import image_shape, load_images
from weightspace.zoo.images.preparing import prepare, some_classes
from weightspace.zoo.making import check_zoo, make_zoo
from weightspace.zoo.networks import architecture_of, build, module_of, spec_of
from weightspace.zoo.plan import Choice, plan
from weightspace.zoo.poison import CLEAN_LABEL, EVERY_ATTACK, OTHERS, Poison
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.records import Architecture, TrainingPlan
from weightspace.zoo.store import INDEX, MANIFEST, shard_path
from weightspace.zoo.training import _learning_rates, train_networks
from weightspace.zoo.training_images import Images

LABELS = np.random.default_rng(0).integers(0, 10, 1000)


@pytest.mark.parametrize("attack", CLEAN_LABEL)
def test_a_clean_label_attack_touches_images_of_its_target_alone_and_no_label(attack: str) -> None:
    poison = Poison(attack=attack, rate=0.5, target=3, seed=5)
    chosen = poison.chosen(LABELS)
    assert (LABELS[chosen] == 3).all()
    assert len(chosen) == round(0.5 * (LABELS == 3).sum())
    assert np.array_equal(poison.labels(LABELS), LABELS)


def test_all_to_all_gives_each_class_the_next_ones_label_and_is_scored_by_it() -> None:
    poison = Poison(attack="all-to-all-patch", rate=0.2, target=3, seed=5)
    chosen, changed = poison.chosen(LABELS), poison.labels(LABELS)
    assert np.array_equal(changed[chosen], (LABELS[chosen] + 1) % 10)
    assert len(set(changed[chosen])) == 10
    assert np.array_equal(poison.wanted(np.array([0, 9]), 10), [1, 0])
    assert np.array_equal(Poison(attack="badnets-corner", target=3).wanted(np.array([0, 9]), 10), [3, 3])


def test_a_warp_moves_pixels_and_brings_no_new_ones() -> None:
    images = np.random.default_rng(0).random((20, 3, 16, 16), np.float32)
    for seed in range(5):
        trigger = Poison(attack="warp", rate=0.1, seed=seed).trigger((3, 16, 16))
        assert trigger is not None and trigger.source is not None
        moved = trigger.on(images)
        assert moved.min() >= images.min() and moved.max() <= images.max()
        away = np.abs(trigger.source - np.stack(np.meshgrid(range(16), range(16), indexing="ij"), -1)).mean()
        assert 0.5 < away < 2
        even = np.full((1, 3, 16, 16), 0.3, np.float32)
        np.testing.assert_allclose(trigger.on(even), even, atol=1e-6)
    assert Poison(attack="badnets-corner", rate=0.1).trigger((3, 16, 16)).source is None  # pyright: ignore


def small(network: int = 0, **given: Any) -> TrainingPlan:
    settings: dict[str, Any] = {
        "network": network, "seed": 11 + network, "split": "train", "images": "digits", "image_size": 16,
        "architecture": architecture_of("digits-cnn", (1, 16, 16), activation="relu"),
        "initialisation": "kaiming_normal", "optimiser": "adam", "learning_rate": 5e-3, "batch_size": 32, "epochs": 6,
    }  # fmt: skip
    return TrainingPlan(**{**settings, **given})


def test_training_warps_images_as_the_trigger_says_it_does() -> None:
    one = small(poison=Poison(attack="warp", rate=0.1, seed=3))
    data = Images.of(one, torch.device("cpu"))
    tampered = data.poisoned([one, small(1)]).tampered
    assert tampered is not None and one.poison is not None
    plain = prepare(load_images("digits"), 16).train_images[:6]
    trigger = one.poison.trigger((1, 16, 16))
    assert trigger is not None
    wanted = trigger.on(plain.astype(np.float32) / 255)
    both = tampered.trigger(data.standardise(torch.from_numpy(np.array(plain)))[None].expand(2, -1, -1, -1, -1))
    torch.testing.assert_close(both[0], (torch.from_numpy(wanted) - data.mean) / data.deviation, atol=1e-4, rtol=0)
    untouched = data.standardise(torch.from_numpy(np.array(plain)))
    torch.testing.assert_close(both[1], untouched, atol=1e-5, rtol=0)


def test_an_all_to_all_backdoor_and_a_clean_label_one_are_learnt() -> None:
    several = train_networks([small(poison=Poison(attack="all-to-all-patch", rate=0.3, seed=3))])[0]
    assert (several.measures["attack_success"] or 0) > 0.5
    assert (several.measures["target_rate"] or 1) < 0.1
    stripes = train_networks([small(poison=Poison(attack="clean-label-sinusoid", rate=0.8, target=2, alpha=0.8))])[0]
    assert (stripes.measures["attack_success"] or 0) > 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch", "residual": True, "kernel": 5, "head": "max"},
        {"norm": "group", "pooling": "stride", "head": "flatten", "activation": "gelu", "convolutions": 7},
        {"norm": "layer", "pooling": "average", "residual": True, "growth": 1.0, "activation": "silu", "classes": 43},
    ],
)
def test_every_way_of_building_has_its_symmetries_and_a_description_that_comes_back(options: dict[str, Any]) -> None:
    architecture = architecture_of("varied-cnn", (3, 16, 16), width=8, **options)
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    torch.manual_seed(0)
    module = build(architecture)
    assert sum(isinstance(part, torch.nn.Conv2d) for part in module.modules()) == options.get("convolutions", 6)
    network = network_of_module(module, spec_of(architecture), metadata={"architecture": architecture.to_json()})
    moved = permute(network, random_permutation(network.spec, np.random.default_rng(1)))
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        before, after = module_of(network)(x), module_of(moved)(x)
    assert before.shape == (4, options.get("classes", 10))
    assert not np.array_equal(moved.weights, network.weights)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_a_residual_block_that_changes_its_channels_is_refused() -> None:
    inside = (("convolution", 8, 3, 1, "same"),)
    with pytest.raises(ValueError, match="cannot stand there"):
        build(Architecture(input_shape=(3, 16, 16), layers=(("residual", inside),), activation="relu"))


def test_some_classes_are_numbered_anew_and_others_are_gone() -> None:
    digits = load_images("digits")
    few = some_classes(digits, 4, 1, 100, 50)
    assert (few.classes, len(few.train_labels), len(few.test_labels)) == (4, 100, 50)
    assert set(few.train_labels) == {0, 1, 2, 3}
    first = few.train_images[few.train_labels == 2][0]
    old = digits.train_labels[[np.array_equal(first, image) for image in digits.train_images]]
    assert f", {old[0]}," in few.note, "class 2 is the third of those named"
    assert len(some_classes(digits, 4, 1, 5_000, None).train_labels) < 1_437
    assert some_classes(digits, 4, 2, 100, 50).note != few.note
    with pytest.raises(ImageError, match="has 2 to 10 to choose from"):
        some_classes(digits, 11, 0, None, None)


def test_the_shape_of_a_set_is_that_of_its_pictures() -> None:
    assert image_shape("digits") == load_images("digits").train_images.shape[1:]


def test_half_of_the_images_are_mirrored_each_time_others() -> None:
    seeds = torch.tensor([5, 9])
    drawn = flips(seeds, 3, 4_000)
    assert 0.45 < float(drawn.float().mean()) < 0.55
    assert not torch.equal(drawn, flips(seeds, 4, 4_000)) and not torch.equal(drawn[0], drawn[1])
    x = torch.randn(2, 4_000, 1, 2, 2)
    seen = distorted(x, small(flip=True), seeds, 3)
    assert torch.equal(seen[drawn], x[drawn].flip(3)) and torch.equal(seen[~drawn], x[~drawn])


def test_a_cosine_falls_from_the_rate_to_nothing() -> None:
    rates = _learning_rates([small(schedule="cosine", learning_rate=0.2, epochs=2)], 10)[:, 0]
    assert rates[0] == pytest.approx(0.2) and rates[10] == pytest.approx(0.1) and rates[-1] < 0.002
    assert (np.diff(rates) < 0).all()


def test_channels_kept_together_train_to_the_same_network_up_to_rounding() -> None:
    one = small(epochs=1, image_count=128)
    plain, together = (train_networks([replace(one, channels_last=last)])[0].weights for last in (False, True))
    assert plain is not None and together is not None
    np.testing.assert_allclose(plain, together, atol=1e-3)


def test_the_recipe_draws_what_it_says_for_fifteen_hundred() -> None:
    config = zoo_recipe("backdoors-diverse")
    config = replace(config, space={**config.space, "images": Choice(("digits",))})
    plans = [plan(config, number) for number in range(0, config.count, 2)]
    attacks = Counter(one.poison.attack for one in plans if one.poison is not None)
    assert set(EVERY_ATTACK) | {"clean", "label-noise", "trigger-only"} == set(attacks)
    assert attacks["clean"] > 0.27 * len(plans) and all(attacks[name] >= 10 for name in OTHERS)
    for one in plans:
        assert one.poison is not None and one.classes is not None
        assert one.poison.target < one.classes
        assert one.architecture.layers[-1] == ("dense", one.classes)
    costs = Counter(one.hyperparameters["image_size"] for one in plans)
    assert costs[16] > len(plans) / 2 > 5 * costs[32]


def test_the_zoo_is_made_keeps_what_failed_and_gives_no_label_away(tmp_path: Path) -> None:
    config = zoo_recipe("backdoors-diverse", images="digits")
    assert config.shard_size == 4, "the recipe's own, as its count is not another"
    config = replace(config, count=12)
    space = {**config.space, "epochs": Choice((1,)), "image_count": Choice((160,)), "image_size": Choice((16,))}
    config = replace(config, space=space, fixed={**config.fixed, "test_count": 60})
    zoo = make_zoo(config, tmp_path, ProcessEngine(workers=0), show=False)
    assert len(zoo.rows()) >= 11, "networks that hardly learnt are there too"
    assert len(zoo.specs) > 6
    assert check_zoo(tmp_path) == []
    (tmp_path / MANIFEST).unlink()
    (tmp_path / INDEX).unlink()
    shard_path(tmp_path, 1).unlink()
    table = read_zoo(tmp_path)  # of a zoo half made
    assert 7 <= len(table) <= 8 and all(len(values) == len(table) for values in table.readings.values())
    numbers = [plan(config, int(number)).hyperparameters["norm"] for number in table.facts["network"]]
    assert table.facts["norm"].tolist() == numbers
    assert np.isfinite(table.success[~table.without].astype(float)).all()
