"""Neuron tokens: a neuron is described by its weights, in whatever order its neighbours stand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.metamodels.test_metamodel import TINY
from weightspace.errors import ScopeError
from weightspace.metamodels.baselines.majority import Majority
from weightspace.metamodels.baselines.statistics import StatisticsBoosting
from weightspace.metamodels.checks import check_predictor, planted_examples
from weightspace.metamodels.choice import LowestLoss, validation_loss
from weightspace.metamodels.contract import Examples, Target
from weightspace.metamodels.embed import Normaliser
from weightspace.metamodels.metamodel import MetaModel
from weightspace.metamodels.neuron_tokens import (
    DIRECTION,
    FEATURES,
    POOLED,
    NeuronEmbedding,
    neuron_count,
    neuron_tokens,
)
from weightspace.metamodels.order import NormalScores, in_order
from weightspace.metamodels.pretraining import PretrainedMetaModel
from weightspace.metamodels.summary import STATISTICS, Shortcut, Thresholds, exact_summary, leaf_summary
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.slots import Room
from weightspace.weights.spec import ROLES, NetworkSpec, SpecError
from weightspace.weights.state_dict import spec_of_state_dict
from weightspace.weights.symmetry import gather_index, random_permutation
from weightspace.zoo.networks import architecture_of, spec_of

PLAIN = Normaliser({"all": (0.0, 1.0)})
SPEC = spec_of(architecture_of("backdoor-cnn", (3, 16, 16), width=4))
NEURONS = replace(TINY, reading="neurons")
BRIEF = replace(NEURONS, training=replace(TINY.training, steps=20))
"""For what does not depend on having learnt."""


def weights(spec: NetworkSpec, count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, spec.size)).astype(np.float32))


def test_another_order_of_neurons_gives_the_same_tokens_in_that_order() -> None:
    x = weights(SPEC)
    permutation = random_permutation(SPEC, np.random.default_rng(1))
    before = neuron_tokens(x, SPEC, PLAIN)
    after = neuron_tokens(x[:, torch.from_numpy(gather_index(SPEC, permutation))], SPEC, PLAIN)
    first = 0
    for group in SPEC.groups:
        rows = first + torch.from_numpy(permutation[group.name])
        torch.testing.assert_close(after.values[:, first : first + group.size], before.values[:, rows])
        first += group.size
    assert not torch.equal(before.values, after.values)
    torch.testing.assert_close(before.kinds, after.kinds)


def test_a_token_says_what_its_neuron_reads_and_what_reads_it() -> None:
    spec = spec_of_state_dict(
        {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4), "b.bias": (2,)}, topology="chain"
    )
    x = weights(spec, 1) / 10  # where asinh is nearly the identity
    arrays = spec.split(np.arcsinh(x.numpy()))
    tokens = neuron_tokens(x, spec, PLAIN)
    assert tokens.values.shape == (1, neuron_count(spec), FEATURES) == (1, 3 + 4 + 2, FEATURES)
    start = {g.name: sum(h.size for h in spec.groups[:n]) for n, g in enumerate(spec.groups)}
    hidden = next(leaf for leaf in spec.leaves if leaf.name == "a.bias").axes[0].groups[0]
    for neuron in range(4):
        values = tokens.values[0, start[hidden] + neuron].numpy()
        reads, read_by = arrays["a.weight"][0, neuron], arrays["b.weight"][0, :, neuron]
        for first, block in ((0, reads), (DIRECTION, read_by)):
            said = values[first : first + 4]
            np.testing.assert_allclose(said, [block.mean(), block.std(), block.min(), block.max()], atol=1e-6)
        assert values[2 * DIRECTION] == pytest.approx(arrays["a.bias"][0, neuron], abs=1e-6)
    entry = next(leaf for leaf in spec.leaves if leaf.name == "a.weight").axes[1].groups[0]
    inputs = tokens.values[0, start[entry] : start[entry] + 3]
    assert (inputs[:, :DIRECTION] == 0).all()  # nothing writes an input


def test_the_places_of_a_convolution_are_told_apart() -> None:
    spec = spec_of_state_dict({"a.weight": (2, 3, 3, 3)}, topology="chain")
    x = torch.zeros(1, spec.size)
    x.view(1, 2, 3, 3, 3)[0, 1, :, 2, 0] = torch.tensor([1.0, 2.0, 3.0])
    tokens = neuron_tokens(torch.sinh(x), spec, PLAIN)
    values = tokens.values[0, tokens.kinds[0, :, ROLES.index("kernel")] == 1][1]
    places = values[POOLED : POOLED + 9].view(3, 3)
    assert places[2, 0] == pytest.approx(2, abs=1e-5) and (places.flatten() != 0).sum() == 1


def test_every_feature_has_unit_scale_among_the_training_networks_neurons_of_a_layer() -> None:
    tokens = neuron_tokens(3 + 10 * weights(SPEC, 40), SPEC, PLAIN)
    embedding = NeuronEmbedding(8)
    embedding.standardise(tokens)
    drawn_in = embedding.standard(tokens)
    standard = drawn_in / (1 - drawn_in.abs() / 10)
    layer = tokens.kinds[0, :, 8:].argmax(1)
    inner = standard[:, (layer == 2) & (tokens.kinds[0, :, 0] == 1), :POOLED].flatten(0, 1)
    torch.testing.assert_close(inner.mean(0), torch.zeros(POOLED), atol=1e-3, rtol=0)
    torch.testing.assert_close(inner.std(0), torch.ones(POOLED), atol=2e-2, rtol=0)


def planted(count: int, seed: int, *, shuffled: bool = False) -> Examples:
    """Convolutional networks; in half of them one neuron, whichever, is read by one class much more than by others."""
    rng = np.random.default_rng(seed)
    networks, labels = [], rng.integers(2, size=count)
    for label in labels:
        flat = rng.normal(0, 0.3, SPEC.size).astype(np.float32)
        if label:
            SPEC.split(flat)[SPEC.leaves[-2].name][rng.integers(10), rng.integers(16)] += 2.0
        networks.append(Network(SPEC, flat))
    truth = rng.permutation(labels) if shuffled else labels
    return Examples(Population.of(networks), {"odd": truth.astype(np.int64)}, (Target("odd", ("no", "yes")),))


def test_an_odd_neuron_is_found_wherever_it_stands_and_shuffled_labels_teach_nothing() -> None:
    test = planted(200, 2)
    for shuffled, low, high in ((False, 0.9, 1.0), (True, 0.35, 0.65)):
        model = MetaModel(NEURONS).fit(planted(300, 0, shuffled=shuffled), planted(100, 1, shuffled=shuffled))
        right = (model.predict(test.networks)["odd"].argmax(1) == test.labels["odd"]).mean()
        assert low <= right <= high


def test_the_answer_does_not_depend_on_the_order_of_neurons_and_comes_back_from_disk(tmp_path: Path) -> None:
    model = MetaModel(BRIEF).fit(planted(60, 0), planted(30, 1))
    network = planted(1, 5).networks[0]
    index = gather_index(SPEC, random_permutation(SPEC, np.random.default_rng(0)))
    both = [network, Network(SPEC, network.weights[index])]
    answers = model.predict(both)["odd"]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    assert np.abs(model.predict(planted(1, 6).networks)["odd"] - answers[:1]).max() > 1e-4  # it does read them
    again = MetaModel.load(model.save(tmp_path))
    np.testing.assert_array_equal(again.predict(both)["odd"], answers)


def test_it_keeps_the_contract_of_every_predictor() -> None:
    check_predictor(lambda: MetaModel(NEURONS), learns=("scale",))


def test_networks_without_known_neurons_are_refused() -> None:
    bare = spec_of_state_dict({"a.weight": (4, 3), "a.bias": (4,)})
    with pytest.raises(SpecError, match="knows no neurons"):
        neuron_tokens(weights(bare), bare, PLAIN)
    model = MetaModel(BRIEF).fit(planted(60, 0), planted(30, 1))
    with pytest.raises(ScopeError, match="out of scope"):
        model.predict([Network(bare, weights(bare, 1)[0].numpy())])


@pytest.mark.parametrize("reading", ["neurons", pytest.param("chunks", marks=pytest.mark.slow)])
def test_pretraining_fills_in_what_is_hidden_and_what_follows_keeps_the_contract(reading: str) -> None:
    model = PretrainedMetaModel(replace(NEURONS, reading=reading), steps=80)
    model.fit(planted_examples(300, 0), planted_examples(100, 1))
    assert np.mean(model.filled_in[-20:]) < 0.95 * np.mean(model.filled_in[:20])
    check_predictor(lambda: PretrainedMetaModel(replace(NEURONS, reading=reading), steps=20), learns=("scale",))


def test_of_several_predictors_that_with_the_lowest_validation_loss_answers() -> None:
    training, validation = planted_examples(200, 0), planted_examples(100, 1)
    chosen = LowestLoss("best", [Majority, StatisticsBoosting, Majority]).fit(training, validation)
    assert isinstance(chosen.chosen, StatisticsBoosting) and np.argmin(chosen.losses) == 1
    assert chosen.losses[0] == pytest.approx(validation_loss(Majority().fit(training, validation), validation))
    check_predictor(lambda: LowestLoss("best", [Majority, StatisticsBoosting]), learns=("scale",))


def test_numbers_by_their_place_in_the_order_are_those_of_a_sort_with_and_without_gradients() -> None:
    x = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0))
    places = [0, 12, 12, 49, 3]
    expected = x.sort(-1).values[..., places]
    assert torch.equal(in_order(x, places), expected)
    wanted = x.clone().requires_grad_(True)
    assert torch.equal(in_order(wanted, places), expected) and in_order(wanted, places).requires_grad


def test_ranks_are_normal_scores_that_no_monotone_map_of_the_numbers_changes() -> None:
    values = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(500, dtype=torch.long)
    scores = []
    for some in (values, (3 * values).exp()):
        ranks = NormalScores(1, 2)
        ranks.fit(0, some)
        scores.append(ranks(some, rows))
    assert (scores[0] - scores[1]).abs().max() < 0.15  # between the 33 points that are kept
    assert abs(float(scores[0].mean())) < 0.02 and 0.9 < float(scores[0].std()) < 1.02
    assert (torch.sort(values, 0).indices == torch.sort(scores[0] + 1e-4 * values, 0).indices).all()
    tied = NormalScores(2, 1)
    tied.fit(1, torch.full((20, 1), 7.0))
    found = tied(torch.tensor([[6.0], [7.0], [8.0]]), torch.ones(3, dtype=torch.long))[:, 0]
    assert found[0] < -2 and found[1] == pytest.approx(0, abs=1e-6) and found[2] > 2


def test_one_layer_over_bins_tells_a_middle_from_both_ends_and_over_ranks_it_cannot() -> None:
    values = torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    middle = (values[:, 0].abs() < 0.6).float()
    accuracy = {}
    for bins in (0, 16):
        shortcut = Shortcut(1, "ranks", bins).eval()
        shortcut.standardise(values)
        x = torch.cat([shortcut(values).double(), torch.ones(len(values), 1).double()], 1)
        assert x.shape[1] == shortcut.size + 1 == max(1, bins) + 1
        said = x @ torch.linalg.lstsq(x, middle.double()[:, None]).solution
        accuracy[bins] = float(((said[:, 0] > 0.5) == middle.bool()).float().mean())
    assert accuracy[16] > 0.95 and accuracy[0] < 0.7


def test_a_metamodel_with_bins_learns_and_comes_back_from_its_file(tmp_path: Path) -> None:
    config = replace(NEURONS, summary=True, scale="ranks", bins=8)
    check_predictor(lambda: MetaModel(config))
    brief = replace(config, training=BRIEF.training)
    fitted = MetaModel(brief).fit(planted_examples(40, 0), planted_examples(20, 1))
    fitted.save(tmp_path)
    networks = planted_examples(20, 2).networks
    said, again = fitted.predict(networks), MetaModel.load(tmp_path).predict(networks)
    assert all(np.array_equal(said[name], again[name]) for name in said)
    with pytest.raises(ValueError, match="bins 8"):
        replace(config, scale="deviations")


def balanced(count: int, seed: int) -> Examples:
    """Output biases whose mean is 0, up to the rounding of float32, or up to a thousandth: as after SGD, or Adam."""
    given = planted_examples(count, seed)
    rng = np.random.default_rng([seed, 1])  # what else is drawn says nothing about it
    spec = given.networks.specs[0]
    label = rng.integers(2, size=count)
    networks = []
    for network, off in zip(given.networks, label, strict=True):
        arrays = {name: array.copy() for name, array in network.arrays().items()}
        arrays["1.bias"] -= arrays["1.bias"].mean(dtype=np.float64) + off * rng.choice([-1e-3, 1e-3])
        networks.append(Network(spec, spec.join(arrays)))
    return Examples(Population.of(networks), {"adam": label}, (Target("adam", ("no", "yes")),))


def test_exact_statistics_are_those_of_float64_over_all_arrays_of_a_role_and_the_last_ones() -> None:
    x = 3 + weights(SPEC)
    found = exact_summary(x, SPEC).reshape(len(x), -1, STATISTICS)
    exact = x.double().numpy()
    arrays = [(leaf, exact[:, place]) for leaf, place in SPEC.slices()]
    biases = [array for leaf, array in arrays if leaf.role == "bias"]
    expected = {0: exact, 1 + ROLES.index("bias"): np.concatenate(biases, 1), len(ROLES) + 2: biases[-1]}
    for group, values in expected.items():
        np.testing.assert_allclose(found[:, group, 0], values.mean(1), rtol=1e-7)
        np.testing.assert_allclose(found[:, group, 1], values.std(1), rtol=1e-6)
        np.testing.assert_array_equal(found[:, group, [2, -1]], np.stack([values.min(1), values.max(1)], 1))
    assert not found[:, 1 + ROLES.index("embedding")].any()  # of which this network has none


def test_thresholds_tell_a_value_that_many_networks_share_from_those_beside_it() -> None:
    values = torch.tensor([[1.64e-9]] * 40 + [[4.05e-5]] * 40 + [[6.36e-3]] * 40)
    thresholds = Thresholds(1).eval()
    thresholds.standardise(values)
    codes = [thresholds(torch.tensor([[value]])) for value in (1.64e-9, 4.05e-5, 6.36e-3)]
    assert min(float((a - b).abs().sum()) for a, b in pairwise(codes)) > 10
    assert float(thresholds(torch.tensor([[1e9], [-1e9]])).abs().max()) == 0.5  # nothing is beyond the ends


def test_a_sum_that_training_keeps_is_told_by_a_threshold_on_exact_statistics_and_on_no_others() -> None:
    given = balanced(400, 0)
    spec, flat = given.networks.specs[0], torch.from_numpy(given.networks.read(np.arange(400)))
    scaled = leaf_summary(flat, spec, Normaliser.fit(given.networks, True), Room(len(spec.leaves)))
    right = {}
    for name, numbers in (("exact", exact_summary(flat, spec)), ("scaled", scaled)):
        sizes = numbers.abs().numpy().T
        orders = (given.labels["adam"][np.argsort(size, kind="stable")] for size in sizes)
        wrong = [(np.cumsum(order) + (order == 0)[::-1].cumsum()[::-1] - (order == 0)).min() for order in orders]
        right[name] = 1 - min(wrong) / 400
    assert right["exact"] == 1 and right["scaled"] < 0.65
    with pytest.raises(ValueError, match="exact True"):
        replace(NEURONS, reading="leaves", exact=True)


def test_a_metamodel_with_exact_statistics_keeps_the_contract_and_comes_back_from_its_file(tmp_path: Path) -> None:
    config = replace(BRIEF, exact=True)
    check_predictor(lambda: MetaModel(config), learns=())
    fitted = MetaModel(config).fit(planted_examples(40, 0), planted_examples(20, 1))
    fitted.save(tmp_path)
    networks = planted_examples(20, 2).networks
    said, again = fitted.predict(networks), MetaModel.load(tmp_path).predict(networks)
    assert all(np.array_equal(said[name], again[name]) for name in said)
