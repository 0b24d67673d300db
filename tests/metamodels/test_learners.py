"""Methods that learn by gradients, held to the contract of all: slices, codes without labels, graphs of neurons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from weightspace.errors import TaskError
from weightspace.metamodels.baselines.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    HyperRepresentation,
    contrast,
    damaged,
    neuron_rows,
)
from weightspace.metamodels.baselines.conv1d import CHANNELS, SLICE, SliceConvolutions, SliceNetwork
from weightspace.metamodels.baselines.linear import Linear, StatisticsLinear
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.neural_graph import NeuralGraph, graph_of
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.checks import check_predictor, check_regressor, planted_examples
from weightspace.metamodels.choice import CrossValidated, LowestLoss, validation_loss
from weightspace.metamodels.contract import Examples, Predictor, Target
from weightspace.metamodels.learner import Answering
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.recipes import small
from weightspace.train.config import TrainingConfig
from weightspace.train.loop import TrainingDiverged
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.networks import architecture_of, spec_of


def brief(steps: int, **changes: Any) -> TrainingConfig:
    options = {"batch_size": 64, "learning_rate": 3e-3, "evaluate_every": max(1, steps // 8), **changes}
    return TrainingConfig(steps=steps, **options)


def autoencoder() -> HyperRepresentation:
    config = AutoencoderConfig(width=32, depth=1, code=64, contrast=0.1, training=brief(100))
    return HyperRepresentation(config)


def slices(steps: int = 120) -> SliceConvolutions:
    return SliceConvolutions(brief(steps), slices=1, narrow=4, dropout=0.1)


def graph() -> NeuralGraph:
    return NeuralGraph(brief(300, batch_size=32), width=8, rounds=2)


def metamodel() -> MetaModel:
    return MetaModel(replace(small(), training=brief(60)))


def test_slices_see_the_scale_of_weights_and_learn_nothing_from_shuffled_labels() -> None:
    """Of 300 networks twelve convolutions under dropout do not find the four biases that "sign" lies in."""
    check_predictor(slices, learns=("scale",))


def test_codes_learnt_without_labels_tell_a_sign() -> None:
    """And a scale, of which the linear probes see little, after some thousand steps."""
    check_predictor(autoencoder, learns=("sign",))


def test_a_graph_of_neurons_tells_what_is_planted() -> None:
    check_predictor(graph)


SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in (autoencoder, graph)]


@pytest.mark.parametrize("make", [Linear, StatisticsBoosting, StatisticsLinear, metamodel, slices, *SLOW])
def test_every_method_answers_with_a_number_where_one_is_asked(make: type[Predictor]) -> None:
    check_regressor(make)


def test_the_mean_is_what_knows_nothing_of_a_number() -> None:
    training, test = planted_examples(50, 0, quantity=True), planted_examples(20, 1, quantity=True)
    said = Majority().fit(training, training).predict(test.networks)["shift"]
    assert said == pytest.approx(np.full(20, training.labels["shift"].mean()))


# -- slices -----------------------------------------------------------------------------------------------------------


def test_the_convolutions_are_those_of_eilertsen() -> None:
    network = SliceNetwork(SLICE, 4)
    kernels = [layer for layer in network.convolutions if isinstance(layer, torch.nn.Conv1d)]
    assert [layer.out_channels for layer in kernels] == list(CHANNELS) == [8, 16, 32, 64, 128] + [256] * 7
    assert {layer.kernel_size for layer in kernels} == {(5,)}
    dense = [layer.out_features for layer in network.dense if isinstance(layer, torch.nn.Linear)]
    assert dense == [1024] * 4 + [64, 4]
    assert network.eval()(torch.zeros(2, SLICE)).shape == (2, 4)


def test_a_slice_is_a_stretch_of_the_weights_from_anywhere_in_them() -> None:
    spec = spec_of(architecture_of("eilertsen", (3, 32, 32), convolution_width=4, dense_width=64))
    rows = [np.arange(spec.size, dtype=np.float32)] * 200
    networks = Population.of_weights(spec, rows)
    learner = slices()
    found = learner.read(networks, torch.Generator().manual_seed(0))
    assert found.shape == (200, SLICE)
    np.testing.assert_array_equal(found[0].diff(), 1)
    assert found[:, 0].min() < 0.05 * spec.size and found[:, -1].max() > 0.95 * spec.size
    assert learner.read(networks, None)[0, 0] == 0


# -- codes ------------------------------------------------------------------------------------------------------------


def test_every_weight_of_the_small_networks_is_read_once_by_a_token() -> None:
    for family in ("cnn-s", "small-cnn"):
        spec = spec_of(architecture_of(family, (1, 28, 28)))
        entries = np.concatenate([rows.reshape(-1) for rows in neuron_rows(spec)])
        np.testing.assert_array_equal(np.sort(entries), np.arange(spec.size))


def test_an_autoencoder_can_write_every_weight() -> None:
    spec = spec_of(architecture_of("cnn-s", (1, 28, 28)))
    model = Autoencoder(AutoencoderConfig(width=8, depth=1, code=4), neuron_rows(spec), spec.size)
    code = model.encode(torch.randn(3, spec.size))
    assert code.shape == (3, 4) and code.abs().max() <= 1
    written = model.decode(code)
    assert written.shape == (3, spec.size) and (written != 0).all()


def test_half_of_the_views_lose_a_stretch_of_two_to_thirty_three_per_cent() -> None:
    x = torch.full((4_000, 300), 9.0)
    erased = (damaged(x, torch.Generator().manual_seed(0)) == 0).float()
    share = erased.mean(1)
    assert 0.46 < (share > 0).float().mean() < 0.54
    lost = share[share > 0]
    assert lost.min() > 0.01 and lost.max() < 0.34 and abs(float(lost.mean()) - 0.175) < 0.01
    assert ((erased.diff(dim=1) != 0).sum(1) <= 2).all()  # one stretch


def test_contrast_is_low_where_the_two_views_of_a_network_are_alike_and_unlike_others() -> None:
    one = torch.eye(8)
    alike, crossed = contrast(torch.cat([one, one])), contrast(torch.cat([one, one.roll(1, 0)]))
    assert alike < 0.01 < 5 < crossed
    assert contrast(torch.ones(16, 4)) == pytest.approx(np.log(15), abs=1e-5)


def test_networks_of_several_architectures_have_no_codes() -> None:
    specs = [spec_of(architecture_of("digits-cnn", (1, 8, 8), width=width)) for width in (4, 8)]
    networks = Population.of([Network(spec, np.zeros(spec.size, np.float32)) for spec in specs])
    examples = Examples(networks, {"a": np.array([0, 1])}, (Target("a", ("x", "y")),))
    with pytest.raises(TaskError, match="networks of 2 architectures have no codes of one kind"):
        HyperRepresentation().fit(examples, examples)


# -- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["digits-cnn", "cnn-s", "small-cnn", "eilertsen", "backdoor-cnn"])
def test_a_graph_says_the_same_of_a_network_in_any_order_of_its_neurons(family: str) -> None:
    shape = (1, 28, 28) if family in ("cnn-s", "small-cnn") else (3, 16, 16)
    spec = spec_of(architecture_of(family, shape))
    rng = np.random.default_rng(0)
    weights = rng.normal(size=spec.size).astype(np.float32) * 0.3
    moved = permute(Network(spec, weights), random_permutation(spec, rng)).weights
    assert not np.array_equal(weights, moved)
    assert {edges.entries.shape[0] for edges in graph_of(spec).edges} <= {group.size for group in spec.groups}
    learner = graph()
    examples = _examples(spec, [weights, -weights])
    learner.answering = Answering.of(examples)
    torch.manual_seed(0)  # a module drawn by chance now and then hardly tells weights from their opposites
    module = learner.build(examples, examples).eval()
    with torch.no_grad():
        one, other, opposite = module(learner.read(Population.of_weights(spec, [weights, moved, -weights]), None))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert (one - opposite).abs().max() > 1e-3


def _examples(spec: NetworkSpec, rows: list[np.ndarray]) -> Examples:
    labels = np.arange(len(rows)) % 2
    return Examples(Population.of_weights(spec, rows), {"a": labels}, (Target("a", ("x", "y")),))


def test_networks_of_several_architectures_are_read_in_their_order() -> None:
    specs = [spec_of(architecture_of("digits-cnn", (1, 8, 8), width=width)) for width in (4, 8)]
    rng = np.random.default_rng(0)
    networks = [Network(specs[i % 2], rng.normal(size=specs[i % 2].size).astype(np.float32)) for i in range(5)]
    learner = graph()
    examples = Examples(Population.of(networks), {"a": np.arange(5) % 2}, (Target("a", ("x", "y")),))
    learner.answering = Answering.of(examples)
    module = learner.build(examples, examples).eval()
    with torch.no_grad():
        together = module(learner.read(Population.of(networks), None))
        for row, network in zip(together, networks, strict=True):
            torch.testing.assert_close(module(learner.read(Population.of([network]), None))[0], row)


# -- what they have in common -----------------------------------------------------------------------------------------


def test_a_killed_fit_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = planted_examples(60, 0), planted_examples(30, 1)
    whole = graph_of_steps(tmp_path / "whole").fit(training, validation)
    half = graph_of_steps(tmp_path / "half")
    real = half.read
    calls = []

    def failing(networks: Population, generator: torch.Generator | None) -> object:
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return real(networks, generator)

    monkeypatch.setattr(half, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        half.fit(training, validation)
    resumed = graph_of_steps(tmp_path / "half").fit(training, validation)
    test = planted_examples(20, 2).networks
    np.testing.assert_array_equal(resumed.predict(test)["scale"], whole.predict(test)["scale"])


def graph_of_steps(folder: Path | None) -> NeuralGraph:
    config = brief(16, checkpoint_every=2, evaluate_every=4, batch_size=16)
    return NeuralGraph(config, width=4, rounds=1, folder=folder)


def test_a_folder_is_tied_to_the_networks_and_settings_of_its_run(tmp_path: Path) -> None:
    training, validation = planted_examples(60, 0), planted_examples(30, 1)
    graph_of_steps(tmp_path).fit(training, validation)
    graph_of_steps(tmp_path).fit(training, validation)
    for other in (planted_examples(60, 5), training.hiding(np.arange(30))):
        with pytest.raises(TaskError, match="holds a neural graph of other networks, targets or settings"):
            graph_of_steps(tmp_path).fit(other, validation)
    with pytest.raises(TaskError, match="of other networks"):
        graph_of_steps(tmp_path).fit(training, planted_examples(30, 6))


def test_networks_without_labels_are_in_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = planted_examples(60, 0).hiding(np.arange(0, 60, 10))
    learner = graph_of_steps(None)
    seen: list[np.ndarray] = []
    real = learner.batch

    def batch(examples: Examples, positions: np.ndarray, generator: torch.Generator) -> Any:
        seen.append(positions)
        return real(examples, positions, generator)

    monkeypatch.setattr(learner, "batch", batch)
    learner.fit(training, planted_examples(30, 1))
    assert set(np.concatenate(seen)) == set(range(0, 60, 10))


def test_of_candidates_the_one_with_the_lowest_loss_over_all_folds_answers_with_the_mean_of_its_fits() -> None:
    training, validation, test = (planted_examples(count, seed) for seed, count in enumerate((150, 50, 40)))
    chosen = CrossValidated("best", [lambda _: Majority(), lambda _: StatisticsBoosting()], folds=3)
    chosen.fit(training, validation)
    assert chosen.losses[1] < chosen.losses[0] and len(chosen.chosen) == 3
    said = chosen.predict(test.networks)["scale"]
    np.testing.assert_allclose(said, np.mean([one.predict(test.networks)["scale"] for one in chosen.chosen], 0))
    check_predictor(lambda: CrossValidated("one", [lambda _: StatisticsLinear()], folds=3), learns=("scale",))


def test_a_candidate_that_diverges_is_passed_over_unless_all_do() -> None:
    training, validation = planted_examples(60, 0), planted_examples(30, 1)

    def diverges() -> Predictor:
        class Diverges(Majority):
            def fit(self, training: Examples, validation: Examples) -> Majority:  # noqa: ARG002
                raise TrainingDiverged("the loss is NaN")

        return Diverges()

    chosen = LowestLoss("m", [diverges, Majority, diverges]).fit(training, validation)
    assert isinstance(chosen.chosen, Majority) and np.isinf([chosen.losses[0], chosen.losses[2]]).all()
    with pytest.raises(TrainingDiverged, match="every one of 2 settings of m diverged: the loss is NaN"):
        LowestLoss("m", [diverges, diverges]).fit(training, validation)


def test_a_loss_over_classes_and_quantities_is_that_of_guessing_for_one_who_guesses() -> None:
    networks = planted_examples(40, 0).networks
    labels = {"a": np.arange(40) % 2, "b": np.linspace(-1, 1, 40)}
    examples = Examples(networks, labels, (Target("a", ("x", "y")), Target("b")))
    guesses = LowestLoss("guess", [Majority]).fit(examples, examples)
    assert validation_loss(guesses, examples) == pytest.approx((np.log(2) + 0.5) / 2, abs=1e-6)


def test_labels_that_are_no_numbers_are_refused() -> None:
    networks = planted_examples(3, 0).networks
    with pytest.raises(TaskError, match="'b' is a number: its labels are float64, finite or NaN"):
        Examples(networks, {"b": np.array([0.0, np.inf, 1.0])}, (Target("b"),))
    Examples(networks, {"b": np.array([0.0, np.nan, 1.0])}, (Target("b"),))
