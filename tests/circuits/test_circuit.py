"""Circuits are chosen by their scores, freed of what leads nowhere, and written and read as MIB's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace.circuits.circuit import Circuit
from weightspace.circuits.graph import Graph

GRAPH = Graph(2, 2, 8)
PATH = ("input->a0.h1<v>", "a0.h1->m1", "m1->logits")


def scored(edges: dict[str, float]) -> Circuit:
    scores = torch.zeros(GRAPH.real.shape)
    for name, score in edges.items():
        scores[GRAPH.edge(name)] = score
    return Circuit(GRAPH, scores, GRAPH.real.clone())


def test_the_edges_with_the_largest_scores_are_kept_and_those_that_lead_nowhere_are_not() -> None:
    found = scored(dict.fromkeys(PATH, -2.0) | {"m0->logits": 3.0, "input->a1.h0<q>": 3.0, "input->logits": 1.0})
    assert set(found.top(5).edges) == set(PATH)
    assert len(found.top(5, prune=False).edges) == 5
    assert set(found.top(6).edges) == {*PATH, "input->logits"}
    assert set(found.top(3, absolute=False).edges) == {"input->logits"}
    assert found.top(0).edges == {} and len(found.top(10**6).edges) == GRAPH.edges


def test_chosen_nodes_keep_every_edge_between_them() -> None:
    scores = torch.zeros(len(GRAPH.sources))
    scores[GRAPH.source("a0.h1")], scores[GRAPH.source("m1")] = -5, 4
    found = Circuit(GRAPH, torch.zeros(GRAPH.real.shape), GRAPH.real, scores).top_nodes(2)
    assert set(found.nodes) == {"input", "a0.h1", "m1"}
    assert {"input->a0.h1<q>", "a0.h1->m1", "input->m1", "a0.h1->logits"} <= set(found.edges)
    assert not any("a1" in name or "m0" in name for name in found.edges)


def test_what_is_written_is_read_again_and_is_of_mibs_form(tmp_path: Path) -> None:
    circuit = scored(dict.fromkeys(PATH, 0.5) | {"input->m0": -0.25}).top(3)
    circuit.to_json(tmp_path / "circuit.json")
    said = json.loads((tmp_path / "circuit.json").read_text())
    assert said["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert said["nodes"]["a0.h1"] == {"in_graph": True} and said["nodes"]["m0"] == {"in_graph": False}
    assert said["edges"]["input->m0"] == {"score": -0.25, "in_graph": False}
    assert len(said["edges"]) == GRAPH.edges
    again = Circuit.from_json(tmp_path / "circuit.json")
    assert again.edges == circuit.edges and torch.equal(again.scores, circuit.scores)
    assert again.graph == GRAPH


def test_a_file_with_a_few_edges_is_read(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 4, "model_name": "x"},
        "nodes": {"input": {"in_graph": True, "score": 0.5}, "a0.h0": {"in_graph": True}, "m0": {"in_graph": False}},
        "edges": {
            "input->a0.h0<k>": {"score": None, "in_graph": True},
            "a0.h0->logits": {"score": 2, "in_graph": True},
        },
    }
    (tmp_path / "c.json").write_text(json.dumps(said))
    found = Circuit.from_json(tmp_path / "c.json")
    assert found.edges == {"input->a0.h0<k>": 0.0, "a0.h0->logits": 2.0}
    assert found.node_scores is not None and float(found.node_scores[0]) == 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole.pop("edges"), "lacks 'edges'"),
        (lambda whole: whole["edges"].update({"m0->m0": {"score": 1, "in_graph": True}}), "reads before"),
        (lambda whole: whole["cfg"].update(n_layers="2"), "its sizes are"),
        (lambda whole: whole["cfg"].update(parallel_attn_mlp=True), "side by side"),
        (lambda whole: whole.update(edges=[1]), "of another form"),
    ],
)
def test_a_damaged_file_is_one_sentence(change: Any, said: str, tmp_path: Path) -> None:
    scored({}).to_json(tmp_path / "c.json")
    whole = json.loads((tmp_path / "c.json").read_text())
    change(whole)
    (tmp_path / "c.json").write_text(json.dumps(whole))
    with pytest.raises(ws.UnreadableError, match=said):
        Circuit.from_json(tmp_path / "c.json")
    with pytest.raises(ws.UnreadableError, match="cannot be read"):
        Circuit.from_json(tmp_path / "nothing.json")
