"""Edges carry what they are given: all kept is the run itself, none kept is the other run, one is what algebra says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import weightspace as ws
from tests.circuits.planted import CLEAN, CORRUPTED, gpt2, linear_heads, llama
from weightspace.circuits.graph import Graph
from weightspace.circuits.patching import mean_written, patch_edges, run_circuit, written, zero_written
from weightspace.transformers.places import Place
from weightspace.transformers.trained import TrainedTransformer

MAKERS = [gpt2, llama, linear_heads]


@pytest.mark.parametrize("make", MAKERS)
def test_with_every_edge_nothing_changes_and_with_none_it_is_the_other_run(
    make: Callable[[], TrainedTransformer],
) -> None:
    transformer = make()
    real = Graph.of(transformer.shape).real
    other = written(transformer, CORRUPTED)
    plain, corrupted = (transformer.run(tokens).logits for tokens in (CLEAN, CORRUPTED))
    torch.testing.assert_close(run_circuit(transformer, CLEAN, real, other), plain, atol=1e-5, rtol=1e-5)
    none = torch.zeros_like(real)
    torch.testing.assert_close(run_circuit(transformer, CLEAN, none, other), corrupted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, corrupted, atol=1e-2)
    # the same input as the other run: no edge matters
    same = written(transformer, CLEAN)
    torch.testing.assert_close(run_circuit(transformer, CLEAN, none, same), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_an_edge_to_the_logits_changes_the_last_stream_by_the_difference_of_its_source(
    make: Callable[[], TrainedTransformer],
) -> None:
    transformer = make()
    last = Place("resid_post", transformer.shape.layers - 1)
    head = Place("result", 0, 1)
    now, then = transformer.run(CLEAN, read=[last, head]), transformer.run(CORRUPTED, read=[head])
    expected = transformer.run(CLEAN, replace={last: now[last] + then[head] - now[head]}).logits
    found = patch_edges(transformer, CLEAN, CORRUPTED, ["a0.h1->logits"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # the node as a whole reaches the logits through later nodes, too
    node = transformer.run(CLEAN, replace={head: then[head]}).logits
    assert not torch.allclose(node, expected, atol=1e-3)
    graph = Graph.of(transformer.shape)
    every = [
        graph.name(graph.source("a0.h1"), t) for t in range(len(graph.targets)) if graph.real[graph.source("a0.h1"), t]
    ]
    torch.testing.assert_close(patch_edges(transformer, CLEAN, CORRUPTED, every), node, atol=1e-5, rtol=1e-5)


def test_an_edge_to_the_keys_of_a_head_leaves_its_queries_and_other_heads_alone() -> None:
    transformer = gpt2()
    graph = Graph.of(transformer.shape)
    kept = graph.real & ~graph.mask(["m0->a1.h0<k>"])
    other = written(transformer, CORRUPTED)
    plain = transformer.run(CLEAN, read=[Place("scores", 1), Place("v", 1)])
    keys = plain[Place("scores", 1)]
    changed = run_circuit(transformer, CLEAN, kept, other)
    assert not torch.allclose(changed, plain.logits, atol=1e-4)
    # all that changes goes through this head: with its pattern held, nothing does
    held = {Place("pattern", 1, 0): transformer.run(CLEAN, read=[Place("pattern", 1, 0)])[Place("pattern", 1, 0)]}
    torch.testing.assert_close(transformer.run(CLEAN, replace=held).logits, plain.logits, atol=1e-5, rtol=1e-5)
    assert keys.shape == (3, 2, 5, 5)


def test_ablations_are_zero_or_a_mean_without_padding() -> None:
    transformer = gpt2()
    graph = Graph.of(transformer.shape)
    assert zero_written(transformer).shape == (1, 1, len(graph.sources), 8)
    rows = [[0, 3, 5], [6, 2, 4, 0, 3]]
    each = [written(transformer, [row])[0] for row in rows]
    torch.testing.assert_close(mean_written(transformer, rows)[0, 0], torch.cat(each).mean(0), atol=1e-5, rtol=1e-5)
    by_place = mean_written(transformer, rows, by_place=True)[0]
    torch.testing.assert_close(by_place[4], each[1][4], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(by_place[0], (each[0][0] + each[1][0]) / 2, atol=1e-5, rtol=1e-5)


def test_the_graph_is_that_of_mib_and_what_is_not_in_it_is_said() -> None:
    graph = Graph(12, 12, 768)
    assert graph.edges == 32_491  # as MIB counts the edges of GPT-2
    assert graph.name(*graph.edge("a3.h4->a5.h0<v>")) == "a3.h4->a5.h0<v>"
    for name, said in (
        ("a3.h4->a3.h5<q>", "reads before"),
        ("m0->m0", "reads before"),
        ("m0->m99", "there is no edge"),
        ("logits->m0", "there is no edge"),
    ):
        with pytest.raises(ws.WeightspaceError, match=said):
            graph.edge(name)
