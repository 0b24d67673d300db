"""Where backdoors sit and how they are taken out: planted neurons are found, and a change that is plain is undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.backdoors.test_trials import CONFIG
from tests.metamodels.test_neuron_tokens import NEURONS, SPEC
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.editor import Editor
from weightspace.backdoors.localiser import Localiser, outputs_of
from weightspace.backdoors.removal import Case, RepairConfig, lipschitz, locate_and_repair, repair, repair_table
from weightspace.backdoors.training import evaluate_detector, rewriting_effect, train_detector
from weightspace.backdoors.trials import Bench, hidden_neurons
from weightspace.errors import TaskError
from weightspace.evaluation.metrics import auroc
from weightspace.weights.network import Network
from weightspace.weights.neurons import group_starts, neuron_entries
from weightspace.weights.population import Population
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.symmetry import gather_index, random_permutation
from weightspace.zoo.engine import ProcessEngine
from weightspace.zoo.making import make_zoo
from weightspace.zoo.poison import Poison
from weightspace.zoo.store import Zoo

LAST = SPEC.leaves[-2].name
KEPT = np.array([group.permutable for group in SPEC.groups for _ in range(group.size)])
HEAD = replace(NEURONS, training=replace(NEURONS.training, steps=150))


def planted(count: int, seed: int) -> tuple[Population, np.ndarray, np.ndarray]:
    """Networks in which one neuron of the last hidden layer is read by one class much more than by the others."""
    rng = np.random.default_rng(seed)
    starts = group_starts(SPEC)
    hidden = next(n for n, g in enumerate(SPEC.groups) if g.name == SPEC.leaves[-2].axes[1].groups[0])
    networks, effects, targets = [], np.where(KEPT, 0.0, np.nan)[None].repeat(count, 0), []
    for number in range(count):
        flat = rng.normal(0, 0.3, SPEC.size).astype(np.float32)
        target, neuron = int(rng.integers(10)), int(rng.integers(16))
        SPEC.split(flat)[LAST][target, neuron] += 2.0
        networks.append(Network(SPEC, flat))
        effects[number, starts[hidden] + neuron] = 0.9
        targets.append(target)
    return Population.of(networks), effects, np.array(targets)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_planted_neuron_and_its_class_are_found_and_shuffled_effects_teach_nothing(shuffled: bool) -> None:
    training, held, test = planted(300, 0), planted(60, 1), planted(60, 2)
    if shuffled:
        rng = np.random.default_rng(5)
        training, held = (
            (networks, rng.permuted(effects[:, KEPT], axis=1), rng.permutation(targets))
            for networks, effects, targets in (training, held)
        )
        whole = [np.full((len(n), len(KEPT)), np.nan) for n, _, _ in (training, held)]
        for full, (_, effects, _) in zip(whole, (training, held), strict=True):
            full[:, KEPT] = effects
        training, held = (training[0], whole[0], training[2]), (held[0], whole[1], held[2])
    said, classes = Localiser(HEAD).fit(*training, *held).locate(test[0])
    assert np.isnan(said[:, ~KEPT]).all()
    last = hidden_neurons(SPEC)[-16:]  # within the layer: which layer it is, is learnt even from shuffled effects
    value, truth = said[:, last].reshape(-1), (test[1][:, last] > 0.5).reshape(-1).astype(np.int64)
    area = auroc(np.stack([1 - value, value], 1), truth)
    named = (classes.argmax(1) == test[2]).mean()
    if shuffled:
        # the planted neurons are all alike, so that chance ranks them all high or all low: what is said of them counts
        assert value[truth == 1].mean() < 0.1 and classes[np.arange(60), test[2]].mean() < 0.3
    else:
        assert value[truth == 1].mean() > 0.5 and area > 0.9 and named > 0.7


def test_a_localiser_in_another_order_of_neurons_says_the_same_in_that_order() -> None:
    training, held = planted(40, 0), planted(10, 1)
    short = replace(HEAD, training=replace(HEAD.training, steps=10))
    localiser = Localiser(short).fit(*training, *held)
    permutation = random_permutation(SPEC, np.random.default_rng(0))
    flat = training[0][0].weights
    moved = Network(SPEC, flat[gather_index(SPEC, permutation)])
    before, after = localiser.locate(Population.of([training[0][0], moved]))[0]
    order = np.concatenate(
        [start + permutation[g.name] for start, g in zip(group_starts(SPEC), SPEC.groups, strict=False)]
    )
    np.testing.assert_allclose(after, before[order], atol=1e-5)
    assert outputs_of(SPEC).stop - outputs_of(SPEC).start == 10
    with pytest.raises(TaskError, match="reads neurons"):
        Localiser(replace(HEAD, reading="chunks"))


def test_a_plain_change_is_undone_and_one_without_rule_is_not() -> None:
    rng = np.random.default_rng(0)
    quick = replace(HEAD, training=replace(HEAD.training, steps=60, batch_size=16))
    before = rng.normal(0, 0.3, (160, SPEC.size)).astype(np.float32)
    plain = before.copy()
    for row in plain:
        SPEC.split(row)[LAST][rng.integers(10), rng.integers(16)] += 3.0
    errors = {}
    for name, after in (("plain", plain), ("noise", before + rng.normal(0, 0.01, before.shape).astype(np.float32))):
        editor = Editor(quick).fit(SPEC, after[:130], before[:130], after[130:], before[130:])
        errors[name] = editor.error
        assert editor.edit(after[:3]).shape == (3, SPEC.size)
    assert errors["plain"] < 0.6 and errors["noise"] > 0.95


def test_the_lipschitz_bound_is_the_largest_singular_value_times_the_scale_within_a_layer() -> None:
    flat = np.random.default_rng(0).normal(size=SPEC.size).astype(np.float32)
    values = lipschitz(SPEC, flat)
    assert np.isnan(values[~KEPT]).all()
    kernel = next(e for e in neuron_entries(SPEC) if e.group == 0 and e.reads and e.role == "kernel")
    scale = next(e for e in neuron_entries(SPEC) if e.group == 0 and e.role == "scale")
    bounds = np.array([np.linalg.svd(flat[own])[1][0] for own in kernel.places]) * np.abs(flat[scale.places[:, 0, 0]])
    np.testing.assert_allclose(values[: len(bounds)], (bounds - bounds.mean()) / bounds.std(), rtol=1e-5)


def test_a_setting_is_chosen_by_the_accuracy_that_it_costs_on_other_networks() -> None:
    bench = Bench(CONFIG)
    trained = make_case(bench)
    kinds = {
        "nothing": {"": lambda flat: flat},
        "choice": {"ruin": lambda flat: 0 * flat, "keep": lambda flat: 1.0001 * flat},
    }
    rows = repair([trained], [trained], bench, kinds, 200)
    assert [row.setting for row in rows] == ["", "keep"]
    assert rows[0].success.estimate == rows[0].success_before and rows[0].gone == 0 and rows[0].lost == 0
    assert len(repair_table(rows).splitlines()) == 4


def make_case(bench: Bench) -> Case:
    from weightspace.zoo.plan import plan
    from weightspace.zoo.training import train_networks

    poison = Poison(attack="checkerboard-blend", rate=0.15, alpha=0.8, target=3, seed=5)
    flat = train_networks([replace(plan(CONFIG, 0), poison=poison, epochs=6)])[0].weights
    assert flat is not None
    return Case(0, flat, poison, np.full(group_starts(bench.spec)[-1], np.nan))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Strong attacks on digits: most of them work after a few epochs."""
    config = replace(CONFIG, count=64, fixed={**CONFIG.fixed, "epochs": 4}, image_count=360)
    return make_zoo(config, tmp_path_factory.mktemp("zoo"), ProcessEngine(workers=0), show=False)


def moved_without_scale(detector: Detector, zoo: Zoo) -> float:
    """How far scores move where rewritten networks are not brought to scale."""
    network = zoo[0]
    known = Network(detector.spec, network.weights)
    moved = rescale(known, random_scales(detector.spec, np.random.default_rng(0), 0.7))
    one, other = (detector._look(Population.of([n]))[0][0] for n in (known, moved))
    return float(abs(one - other))


@pytest.mark.slow
def test_a_detector_is_trained_scored_and_used_for_repair_and_all_of_it_goes_on_after_a_kill(
    zoo: Zoo, tmp_path: Path
) -> None:
    detector = train_detector(zoo, tmp_path / "detector", steps=12, show=False)
    figures = evaluate_detector(detector, zoo)
    assert figures == {**figures, **{k: detector.card["figures"][k] for k in ("auroc", "detected", "networks")}}
    assert 0 <= figures["calibration error"] <= 1 and figures["milliseconds a network"] > 0
    effect = rewriting_effect(detector, zoo)
    assert effect["networks"] == len(zoo) - len(zoo.rows("validation")) and effect["verdicts moved"] == 0
    assert effect["largest change of p"] <= 1e-3 and effect["largest change of score"] < 1e-3
    again = Detector.load(tmp_path / "detector" / "detector.safetensors")
    assert again.spec.scalings == detector.spec.scalings and again.model.canonical
    assert moved_without_scale(again, zoo) > 0.1  # the same detector, had it read weights as they are
    config = RepairConfig(training=6, validation=1, test=2, images=12, tried=30, pairs=4, steps=4, clean_images=20)
    images = replace(CONFIG, count=64, fixed={**CONFIG.fixed, "epochs": 4}, image_count=360)
    tables = locate_and_repair(zoo, images, detector, tmp_path / "repair", config)
    assert "per-neuron head" in tables["where"] and "weights to weights" in tables["repair"]
    assert locate_and_repair(zoo, images, detector, tmp_path / "repair", config) == tables
