"""Scores of edges find planted circuits, are exact where the logits are linear, and nothing where nothing is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import weightspace as ws
from tests.circuits.planted import CLEAN, CORRUPTED, compiled, gpt2, linear_heads, llama
from tests.transformers.hand_made import GPT2, gpt2_arrays
from weightspace.circuits.attribution import acdc, edge_attribution
from weightspace.circuits.circuit import Circuit
from weightspace.circuits.faithfulness import Curve, faithfulness, faithfulness_curve
from weightspace.circuits.graph import Graph
from weightspace.circuits.patching import patch_edges, written
from weightspace.transformers.loading import load_trained


def last_difference(logits: torch.Tensor) -> torch.Tensor:
    """How much more the last place says token 1 than token 2."""
    return logits[:, -1, 1] - logits[:, -1, 2]


@pytest.mark.parametrize("steps", [0, 3])
def test_an_edge_that_acts_linearly_has_the_score_of_its_true_effect(steps: int) -> None:
    transformer = linear_heads()
    found = edge_attribution(transformer, CLEAN, CORRUPTED, last_difference, steps=steps)
    before = last_difference(transformer.run(CLEAN).logits)
    for source in ("input", "a0.h0", "a1.h1"):
        effect = last_difference(patch_edges(transformer, CLEAN, CORRUPTED, [f"{source}->logits"])) - before
        place = found.graph.edge(f"{source}->logits")
        torch.testing.assert_close(found.scores[place], effect.mean(), atol=1e-5, rtol=1e-4)
        assert abs(float(effect.mean())) > 1e-3


def test_integrated_gradients_come_closer_to_true_effects_than_one_gradient() -> None:
    transformer = gpt2()
    graph = Graph.of(transformer.shape)
    before = last_difference(transformer.run(CLEAN).logits).mean()
    names = [graph.name(*place) for place in graph.real.nonzero().tolist()]
    effects = torch.stack(
        [last_difference(patch_edges(transformer, CLEAN, CORRUPTED, [name])).mean() - before for name in names]
    )

    def error(circuit: Circuit) -> float:
        scores = torch.stack([circuit.scores[graph.edge(name)] for name in names])
        return float((scores - effects).square().mean().sqrt() / effects.std())

    plain, integrated = (edge_attribution(transformer, CLEAN, CORRUPTED, last_difference, steps=n) for n in (0, 8))
    assert min(error(plain), error(integrated)) < 1.2
    shuffled = plain.scores.clone()
    shuffled[graph.real] = shuffled[graph.real].flip(0)
    assert error(Circuit(graph, shuffled, graph.real)) > max(error(plain), error(integrated))


def test_heads_that_write_nothing_have_no_score_and_no_place_in_a_circuit() -> None:
    arrays = gpt2_arrays(GPT2)
    for layer, head in ((0, 0), (1, 1), (2, 0)):
        arrays[f"transformer.h.{layer}.attn.c_proj.weight"][4 * head : 4 * head + 4] = 0
    transformer = load_trained(arrays, config=GPT2)
    found = edge_attribution(transformer, CLEAN, CORRUPTED, last_difference, steps=2)
    silent = {"a0.h0", "a1.h1", "a2.h0"}
    for source, target in found.graph.real.nonzero().tolist():
        ends = {found.graph.sources[source], found.graph.targets[target].split("<")[0]}
        if ends & silent:
            assert float(found.scores[source, target]) == 0
    assert float(found.scores.abs().max()) > 0.01
    left = acdc(transformer, CLEAN, written(transformer, CORRUPTED), 1e-6)
    assert not silent & set(left.nodes)
    assert {"input", "a0.h1", "a1.h0", "a2.h1", "m0", "m1", "m2"} == set(left.nodes)


HIST = "same = Select(PRED_EQ, tokens, tokens)\nreturn SelectorWidth(same)"


def test_the_circuit_of_a_compiled_program_is_found_and_is_faithful() -> None:
    transformer, program = compiled(HIST, "abc", 4)
    numbers = {value: row for row, value in enumerate(_tokens(program))}
    clean = torch.tensor([[numbers["BOS"], *(numbers[c] for c in text)] for text in ("aaba", "abca", "ccca")])
    corrupted = torch.tensor([[numbers["BOS"], *(numbers[c] for c in text)] for text in ("abbc", "cbca", "abca")])
    other = written(transformer, corrupted)
    left = acdc(transformer, clean, other, 1e-4)
    # a head looks for equal tokens, and the MLP reads how many it found; what tokens they are is not read
    assert set(left.edges) == {"input->a0.h0<q>", "input->a0.h0<k>", "a0.h0->m0", "m0->logits"}

    def right(logits: torch.Tensor) -> torch.Tensor:
        return -(logits - transformer.run(clean).logits).square().sum((1, 2))

    assert faithfulness(transformer, clean, left, other, right) > 0.99
    broken = Circuit.of(left.graph, [name for name in left.edges if "<q>" not in name])
    assert faithfulness(transformer, clean, broken, other, right) < 0.9


def _tokens(program: Any) -> list[object]:
    """The tokens in the order of the embedding's rows."""
    (found,) = [group.values for group in program.directions if group.label == "tokens"]
    return ["BOS" if value == "compiler_bos" or value == "BOS" else value for value in found]


def test_edges_with_high_scores_are_more_faithful_than_edges_at_random() -> None:
    transformer = llama()
    other = written(transformer, CORRUPTED)
    scored = edge_attribution(transformer, CLEAN, CORRUPTED, last_difference, steps=4)
    random = Circuit(
        scored.graph, torch.rand(scored.scores.shape, generator=torch.Generator().manual_seed(0)), scored.kept
    )
    ours, theirs = (faithfulness_curve(transformer, CLEAN, each, other, last_difference) for each in (scored, random))
    assert ours.cmd < theirs.cmd
    assert ours.faithfulness[-1] == pytest.approx(1, abs=1e-4) and ours.edges[-1] == scored.graph.edges
    by_node = faithfulness_curve(transformer, CLEAN, scored, other, last_difference, nodes=True, shares=(0.0, 1.0))
    assert by_node.faithfulness[1] == pytest.approx(1, abs=1e-4) and by_node.edges[1] == scored.graph.edges


def test_areas_are_those_of_trapezia() -> None:
    perfect = Curve((0.1, 0.5, 1.0), (1, 2, 3), (1.0, 1.0, 1.0))
    assert perfect.cpr == pytest.approx(0.9) and perfect.cmd == 0
    curve = Curve((0.0, 0.5, 1.0), (0, 1, 2), (0.0, 1.5, 1.0))
    assert curve.cpr == pytest.approx(0.5 * 0.75 + 0.5 * 1.25)
    assert curve.cmd == pytest.approx(0.5 * 0.75 + 0.5 * 0.25)


def test_a_metric_that_nothing_changes_and_a_circuit_of_another_shape_are_said() -> None:
    transformer = gpt2()
    circuit = edge_attribution(transformer, CLEAN, CORRUPTED, last_difference)
    with pytest.raises(ws.WeightspaceError, match="nothing to explain"):
        faithfulness(transformer, CLEAN, circuit, written(transformer, CLEAN), last_difference)
    with pytest.raises(ws.WeightspaceError, match="another shape"):
        faithfulness(llama(), CLEAN, circuit, written(llama(), CLEAN), last_difference)
    with pytest.raises(ws.WeightspaceError, match="pairs of equal length"):
        edge_attribution(transformer, CLEAN, CORRUPTED[:, :3], last_difference)
