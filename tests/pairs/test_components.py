"""Graphs and columns of components: the same however weights are written down, different where they differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.pairs.planted import PLAN, aligned, planted
from tests.transformers.hand_made import LLAMA, llama_arrays
from weightspace.errors import NetworkError
from weightspace.pairs.baselines import assigned, attributed, candidate_s_ops, inputs_of, kinds_by_regression
from weightspace.pairs.component_graph import component_graph
from weightspace.pairs.correspondence import Slot
from weightspace.pairs.features import activation_columns, weight_columns
from weightspace.pairs.network import Weights, first_weights, transformer_of
from weightspace.pairs.soundness import alignment
from weightspace.pairs.tasks import FREE, HELPER, kinds_of
from weightspace.transformers.loading import load_trained


def columns(weights: Weights) -> np.ndarray:
    return weight_columns(component_graph(transformer_of(PLAN, weights)))


def weights_of(norm: str = "none") -> Weights:
    torch.manual_seed(0)
    found = first_weights(replace(PLAN, norm=norm), 5, 5, 6)
    return {name: each + 0.1 * torch.randn(each.shape) for name, each in found.items()}


def rotated(weights: Weights, basis: torch.Tensor) -> Weights:
    """The same network with its stream in another basis."""
    found = dict(weights)
    for name in weights:
        part = name.split(".")[-1]
        if part in ("embed", "positions", "out", "second"):
            found[name] = weights[name] @ basis
        elif part in ("qkv", "first", "unembed"):
            found[name] = basis.T @ weights[name]
        elif part in ("out_bias", "second_bias"):
            found[name] = weights[name] @ basis
    return found


def test_the_basis_of_the_stream_does_not_matter() -> None:
    weights = weights_of()
    basis = torch.linalg.qr(torch.randn(16, 16))[0]
    turned = rotated(weights, basis)
    numbers = torch.randint(0, 5, (6, 5))
    first, second = (transformer_of(PLAN, each).run(numbers).logits for each in (weights, turned))
    assert torch.allclose(first, second, atol=1e-4)
    assert np.allclose(columns(weights), columns(turned), atol=2e-3)
    broken = {**turned, "0.first": weights["0.first"]}
    assert not np.allclose(columns(weights), columns(broken), atol=2e-2)


def test_the_basis_inside_a_head_does_not_matter() -> None:
    weights = weights_of()
    turned = dict(weights)
    for layer in range(2):
        qkv = weights[f"{layer}.qkv"].unflatten(1, (3, 2, 4)).clone()
        out = weights[f"{layer}.out"].unflatten(0, (2, 4)).clone()
        for head in range(2):
            one, other = torch.eye(4) + 0.3 * torch.randn(4, 4), torch.eye(4) + 0.3 * torch.randn(4, 4)
            qkv[:, 0, head] @= one
            qkv[:, 1, head] @= torch.linalg.inv(one).T
            qkv[:, 2, head] @= other
            out[head] = torch.linalg.inv(other) @ out[head]
        turned[f"{layer}.qkv"], turned[f"{layer}.out"] = qkv.flatten(1), out.flatten(0, 1)
    assert np.allclose(columns(weights), columns(turned), atol=2e-3)


def test_order_and_scale_of_hidden_units_do_not_matter() -> None:
    weights = weights_of()
    order, scale = torch.randperm(16), torch.rand(16) + 0.5
    turned = {**weights, "1.first": (weights["1.first"] * scale)[:, order]}
    turned["1.first_bias"] = (weights["1.first_bias"] * scale)[order]
    turned["1.second"] = (weights["1.second"] / scale[:, None])[order]
    assert np.allclose(columns(weights), columns(turned), atol=2e-3)
    assert not np.allclose(columns(weights), columns({**turned, "1.second": weights["1.second"]}), atol=2e-2)


def test_a_norm_takes_its_gain_and_its_mean_along() -> None:
    weights = weights_of("LN")
    plan = replace(PLAN, norm="LN")
    moved = {**weights, "0.second": weights["0.second"] + torch.randn(16, 1)}
    moved["0.qkv"] = weights["0.qkv"] + 1 / weights["0.norm1_gain"][:, None]  # the mean of what is normalised is 0
    first, second = (component_graph(transformer_of(plan, each)) for each in (weights, moved))
    assert torch.allclose(first.strength, second.strength, rtol=1e-3, atol=1e-4)
    bare = {name: each for name, each in weights.items() if "norm" not in name and "last" not in name}
    assert not torch.allclose(first.strength, component_graph(transformer_of(PLAN, bare)).strength, rtol=1e-2)


def test_nobody_reads_what_is_written_behind_it() -> None:
    graph = component_graph(transformer_of(PLAN, weights_of()))
    row = {slot: number for number, slot in enumerate(graph.writers)}
    column = {(slot, port): number for number, (slot, port) in enumerate(graph.readers)}
    assert graph.strength[row[Slot(0, 1)], column[Slot(0), "mlp"]] > 0
    assert graph.strength[row[Slot(0)], column[Slot(0, 1), "value"]] == 0
    assert graph.strength[row[Slot(1)], column[Slot(1, 0), "query"]] == 0
    assert (graph.width_free <= 1.001).all()
    assert (graph.flow <= 1.001).all()


def test_the_answer_of_a_planted_network_flows_from_its_components() -> None:
    made = planted()
    graph = component_graph(transformer_of(PLAN, made.trained.weights))
    flow = dict(zip(graph.writers, graph.flow.tolist(), strict=True))
    own = {slot: flow[slot] for slot in PLAN.slots}
    assert max(own, key=own.__getitem__) == made.correspondence.slots["share"]


def test_other_architectures_are_refused() -> None:
    with pytest.raises(NetworkError, match="rotary positions"):
        component_graph(load_trained(llama_arrays(LLAMA), config=LLAMA))


def test_activations_tell_used_from_free_in_a_planted_network() -> None:
    made = planted()
    table = activation_columns(aligned(made), PLAN.slots)
    used = np.array([slot in made.correspondence.used for slot in PLAN.slots])
    assert table[used, 0].min() > 0.5 > table[~used, 0].max()
    assert np.isfinite(table).all()
    flag = PLAN.slots.index(made.correspondence.slots["flag"])
    assert table[flag, 2] > 0.9  # its own token explains what it writes


def test_attribution_ranks_the_planted_components_first() -> None:
    made = planted()
    for steps in (0, 3):
        scores = attributed(aligned(made), PLAN.slots, steps=steps)
        best = [PLAN.slots[number] for number in np.argsort(-scores)[:2]]
        assert set(best) == made.correspondence.used


def test_swaps_find_the_components_of_a_program_that_is_known() -> None:
    made = planted()
    assert assigned(aligned(made), PLAN.slots) == dict(made.correspondence.slots)


def test_regression_on_a_pool_names_the_kind_of_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    made = planted()
    monkeypatch.setattr("weightspace.pairs.baselines.POOLED", 60)
    inputs = tuple(inputs_of(made.correspondence, 100))
    candidates = candidate_s_ops.__wrapped__((0, 1, 2, 3), 4, inputs)
    assert {"Map", "Aggregate"} <= set(candidates.kinds)
    assert np.allclose(candidates.values.std(0), 1, atol=1e-6)
    transformer = transformer_of(PLAN, made.trained.weights)
    some = alignment(transformer, made.correspondence, made.trained.answer, inputs)
    kinds = dict(zip(PLAN.slots, kinds_by_regression(some, PLAN.slots, candidates), strict=True))
    assert all((kinds[slot] == "Aggregate") == slot.is_head for slot in PLAN.slots)


def test_labels_are_operations_helpers_and_free_ones() -> None:
    made = planted()
    kinds = dict(zip(PLAN.slots, kinds_of(made.correspondence, PLAN.slots), strict=True))
    own = made.correspondence.slots
    assert (kinds[own["flag"]], kinds[own["share"]]) == ("Map", "Aggregate")
    assert sum(kind == FREE for kind in kinds.values()) == 4 and HELPER not in kinds.values()
