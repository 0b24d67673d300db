"""Networks of any architecture in one table, and what methods learn from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.metamodels.test_invariants import network
from weightspace.backdoors.nearness import Nearness
from weightspace.backdoors.neuron_set import NeuronSet
from weightspace.backdoors.table import READINGS, NetworkTable, read_networks, read_plain
from weightspace.backdoors.table_methods import METHODS, Mean, RankedLinear, Rules, Tuned, area
from weightspace.errors import NetworkError, TaskError
from weightspace.experiments.diverse import (
    crossed,
    left_out,
    methods_of,
    split_table,
    tables,
)
from weightspace.weights.network import Network

KINDS = ({"norm": "none"}, {"norm": "batch", "head": "flatten"}, {"norm": "layer", "classes": 6})


def planted(count: int, seed: int = 0) -> NetworkTable:
    """Networks of three architectures, in a third of which one class is reached by a way of its own."""
    rng = np.random.default_rng(seed)
    networks, attacks = [], []
    for number in range(count):
        one = network(seed=seed * 10_000 + number, convolutions=3, **KINDS[number % 3])
        kind = ("clean", "badnets-corner", "label-noise")[int(rng.integers(3))]
        if kind == "badnets-corner":
            arrays = {name: array.copy() for name, array in one.arrays().items()}
            kernel = next(leaf.name for leaf in reversed(one.spec.leaves) if leaf.role == "kernel")
            arrays[kernel][int(rng.integers(6)), int(rng.integers(8))] += 10 * np.abs(arrays[kernel]).max()
            one = Network(one.spec, one.spec.join(arrays))
        networks.append(one)
        attacks.append(kind)
    success = [0.9 if kind == "badnets-corner" else None for kind in attacks]
    norms = [KINDS[number % 3]["norm"] for number in range(count)]
    facts = {"attack": attacks, "attack_success": success, "target_rate": [0.1] * count, "norm": norms}
    return read_networks(networks, facts)


@pytest.fixture(scope="module")
def table() -> NetworkTable:
    return planted(90)


def test_success_is_counted_net_of_what_is_answered_so_anyway(table: NetworkTable) -> None:
    bad = table.facts["attack"] == "badnets-corner"
    assert np.array_equal(table.backdoored, bad)
    np.testing.assert_allclose(table.success[bad], 0.8 / 0.9)
    assert np.isnan(table.success[~bad]).all()
    assert np.array_equal(table.without, ~bad)
    facts = {**table.facts, "target_rate": np.full(len(table), 0.85, object)}
    assert not NetworkTable(table.readings, facts).backdoored.any(), "those networks say the target to most images"


def test_a_table_that_is_written_comes_back(table: NetworkTable, tmp_path: Path) -> None:
    for sets in (False, True):
        again = NetworkTable.load(table.save(tmp_path / "table.npz", sets=sets))
        assert again.readings.keys() == table.readings.keys() == READINGS.keys()
        for name, values in table.readings.items():
            np.testing.assert_allclose(again.readings[name], values, rtol=1e-3, atol=1e-4)
        assert again.facts["norm"].tolist() == table.facts["norm"].tolist()
        assert (again.sets is not None) == sets
    assert again.sets is not None and table.sets is not None
    for one, other in zip(again.sets, table.sets, strict=True):
        assert [layer.shape for layer in one.neurons] == [layer.shape for layer in other.neurons]
        np.testing.assert_allclose(one.classes, other.classes, rtol=1e-3, atol=1e-3)
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(NetworkError, match="is no table of networks"):
        NetworkTable.load(tmp_path / "other.npz")


@pytest.mark.slow
def test_every_method_finds_what_is_planted_and_nothing_in_shuffled_labels(table: NetworkTable) -> None:
    quick = {
        "invariants": lambda: Tuned(("invariants",), candidates=(lambda: RankedLinear(0.01),)),
        "set": lambda: NeuronSet(epochs=8, readers=1),
    }
    held = planted(45, seed=1)
    bad = held.backdoored
    for name, make in quick.items():
        said = make().fit(table, table.backdoored).scores(held)
        assert area(said[bad], said[~bad]) > 0.9, name
    shuffled = np.random.default_rng(0).permutation(table.backdoored)
    said = quick["invariants"]().fit(table, shuffled).scores(held)
    assert 0.25 < area(said[bad], said[~bad]) < 0.75
    rule = Rules(0).fit(table, table.backdoored).scores(held)
    assert area(rule[bad], rule[~bad]) > 0.6


def test_the_area_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    bad, good = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    pairs = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    assert area(bad, good) == pytest.approx(pairs)


def test_what_is_left_out_is_judged_by_a_fit_that_has_not_seen_it(table: NetworkTable) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    class Watching:
        def fit(self, table: NetworkTable, bad: np.ndarray) -> "Watching":
            assert bad.any() and not bad.all()
            self.norms = set(table.facts["norm"])
            return self

        def scores(self, table: NetworkTable) -> np.ndarray:
            seen.append((self.norms, set(table.facts["norm"])))
            return table.backdoored.astype(float)

    found = left_out(table, {"watching": Watching}, "norm", show=False)
    assert set(found) == {"none", "batch", "layer"}
    assert all(not trained & asked for trained, asked in seen)
    assert all(of["watching"][0].estimate == 1 for of in found.values())
    answers = crossed(table, {"watching": Watching}, show=False)
    assert "1.000 [1.000, 1.000]" in split_table(table, answers.scores)


def test_too_few_networks_are_said_to_be_too_few(table: NetworkTable) -> None:
    with pytest.raises(TaskError, match="too few to be cut into 5 parts"):
        crossed(table.select(np.arange(12)), {"rules": lambda: Rules(0)}, show=False)


def test_all_tables_are_made_and_methods_of_neurons_need_neurons(table: NetworkTable) -> None:
    methods = {"rules": METHODS["outlier rule: largest size"]}
    made = tables(table, table, methods=methods, axes=("norm", "attack", "width"), show=False)
    assert len(made) == 7
    assert all("rules" in text for text in made.values())
    assert set(methods_of(table)) - set(METHODS) == {"invariants and set of neurons", "set of neurons"}
    bare = NetworkTable(table.readings, table.facts)
    assert set(methods_of(bare)) == set(METHODS)
    with pytest.raises(NetworkError, match="--neurons"):
        NeuronSet().fit(bare, bare.backdoored)
    both = Mean([Rules(0), Rules(0)]).fit(table, table.backdoored).scores(table)
    assert np.array_equal(both.argsort(), Rules(0).scores(table).argsort())


def test_networks_of_a_plain_script_are_read_by_their_arrays(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(NetworkError, match="no networks with their"):
        read_plain(tmp_path)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(12 * 4, 5)
    )
    for number, kind in enumerate(("none", "blend")):
        torch.manual_seed(number)
        save_file(module.state_dict(), tmp_path / f"{number}.safetensors")
        told = f'{{"backdoor": "{kind}", "attack_success": {"null" if number == 0 else 0.9}, "target_rate": 0.1}}'
        (tmp_path / f"{number}.json").write_text(told)
    found = read_plain(tmp_path)
    assert found.facts["attack"].tolist() == ["clean", "plain blend"]
    assert found.backdoored.tolist() == [False, True] and found.clean.tolist() == [True, False]
    assert np.isfinite(found.readings["final layer"]).all()


def test_p_values_are_even_among_networks_like_those_that_calibrate_and_small_for_what_stands_out(
    table: NetworkTable,
) -> None:
    good = np.flatnonzero(table.without)
    scores = np.random.default_rng(0).normal(size=len(table))
    half = np.arange(len(good)) % 2 == 0
    near = Nearness.of(table.select(good[half]), scores[good[half]])
    p = near.p_values(table.select(good[~half]), scores[good[~half], None])
    assert 0.3 < p.mean() < 0.7 and p.min() > 0
    assert near.p_values(table.select(good[:5]), np.full((5, 1), 100.0)).max() < 0.2
    assert near.p_values(table.select(good[:5]), np.full((5, 1), -100.0)).min() == pytest.approx(1)
    assert np.mean(near.distance(table.select(good[~half])) <= 1) > 0.7


def test_networks_unlike_all_others_are_not_typical(table: NetworkTable) -> None:
    good = table.select(np.flatnonzero(table.without & (table.facts["norm"] != "none")))
    near = Nearness.of(good, np.zeros(len(good)))
    other = planted(20, seed=2)
    odd = other.select(np.flatnonzero(other.facts["norm"] == "none"))
    same = other.select(np.flatnonzero(other.facts["norm"] != "none"))
    assert near.distance(odd).min() > 1 > near.distance(same).mean()


def test_kinds_weigh_by_how_near_they_are(table: NetworkTable) -> None:
    """Scores of one architecture are all higher: among its own kind a network of it is less suspicious."""
    good = table.select(np.flatnonzero(table.without))
    kind = good.facts["norm"] == "batch"
    scores = np.where(kind, 5.0, 0.0) + np.linspace(0, 1, len(good))
    p = Nearness.of(good, scores).p_values(good, np.full((len(good), 1), 5.5))
    assert p[kind].min() > p[~kind].max()
