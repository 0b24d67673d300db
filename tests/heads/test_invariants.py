"""What is read of a head is the same in every basis, and is what the forward pass does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.heads.small import PLAIN, random_model
from weightspace.errors import NetworkError
from weightspace.heads.fingerprint import fingerprints
from weightspace.heads.folded import Turning, check_heads, folded
from weightspace.heads.invariants import head_invariants
from weightspace.heads.kernels import SPAN
from weightspace.heads.rewrites import head_order, rewritten
from weightspace.heads.small_models import SmallModel
from weightspace.transformers.places import Place

GROUPED = replace(PLAIN, key_heads=2)
MODELS = {
    "rotary": PLAIN,
    "grouped queries": GROUPED,
    "one key head and biases": replace(PLAIN, key_heads=1, bias=True),
    "LayerNorm and an MLP": replace(PLAIN, norm="LN", hidden=32, key_heads=2),
    "learned positions": replace(PLAIN, positions="standard", norm="LN", key_heads=2),
    "wide": replace(PLAIN, width=72, heads=8, key_heads=4),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("permute", [False, True])
def test_a_head_reads_the_same_in_every_basis(model: SmallModel, permute: bool) -> None:
    plain = random_model(model)
    other = rewritten(plain, seed=5, permute=permute)
    tokens = torch.randint(0, model.vocabulary, (2, 12), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(plain.logits(tokens), other.logits(tokens), atol=1e-4, rtol=1e-4)
    one, two = fingerprints(head_invariants(plain)), fingerprints(head_invariants(other))
    order = [
        number * model.heads + head
        for number in range(model.layers)
        for head in (head_order(plain.shape, 5, number) if permute else range(model.heads))
    ]
    numbers = len(one.names) // 2
    # float32 weights have seven digits, and heads with a small number share its column's scale with the others
    scale = one.rows[:, :numbers].abs().amax(0).clamp(min=1e-9)
    assert float(((one.rows[order, :numbers] - two.rows[:, :numbers]) / scale).abs().max()) < 1e-5


def test_another_head_reads_otherwise() -> None:
    one, two = (fingerprints(head_invariants(random_model(PLAIN, seed))) for seed in (0, 1))
    half = len(one.names) // 2
    assert (
        int(((one.rows[:, :half] - two.rows[:, :half]).abs().amax(0) < 1e-5).sum()) <= 4
    )  # nothing above a first layer


def test_a_map_that_does_not_commute_with_rotary_positions_changes_what_is_read() -> None:
    plain = random_model(PLAIN)
    arrays = {name: array.clone() for name, array in plain._source.arrays.items()}  # type: ignore[union-attr]
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
    for letter in "QK":
        arrays[f"blocks.1.attn.W_{letter}"] = arrays[f"blocks.1.attn.W_{letter}"] @ turn
    from weightspace.transformers.loading import load_trained

    other = load_trained(arrays, config=PLAIN.config)
    one, two = head_invariants(plain).kernels[1], head_invariants(other).kernels[1]
    torch.testing.assert_close(one.trace[:, 0], two.trace[:, 0], atol=1e-4, rtol=1e-5)  # nothing is turned
    assert float((one.trace[:, 1:] - two.trace[:, 1:]).abs().max()) > 0.1


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_folded_heads_score_as_the_forward_pass_does(model: SmallModel) -> None:
    transformer = random_model(model)
    tokens = torch.randint(0, model.vocabulary, (1, 12), generator=torch.Generator().manual_seed(1))
    run = transformer.run(tokens, read=[Place("resid_pre", 1), Place("scores", 1)], logits=False)
    stream = run[Place("resid_pre", 1)][0].double()
    stream = stream - stream.mean(1, keepdim=True) if model.norm == "LN" else stream
    unit = stream / stream.norm(dim=1, keepdim=True)
    layer = folded(transformer, 1, Turning.of(transformer.shape.rotary, model.head_size))
    rotation = layer.turning.rotation(torch.tensor([7.0]), model.head_size)[0]
    query = layer.q @ unit[9] + layer.q_bias
    key = layer.k @ unit[2] + layer.k_bias
    found = torch.einsum("hs,st,ht->h", query, rotation, key)
    torch.testing.assert_close(found.float(), run[Place("scores", 1)][0, :, 9, 2], atol=1e-3, rtol=1e-3)


def test_query_heads_are_read_with_the_keys_of_their_group() -> None:
    transformer = random_model(GROUPED)
    layer = folded(transformer, 0, Turning.of(transformer.shape.rotary, GROUPED.head_size))
    torch.testing.assert_close(layer.k[0], layer.k[1])
    torch.testing.assert_close(layer.k[2], layer.k[3])
    assert not torch.allclose(layer.k[1], layer.k[2])
    assert not torch.allclose(layer.q[0], layer.q[1])


def test_trace_and_norm_are_those_of_the_map_of_scores() -> None:
    transformer = random_model(GROUPED)
    kernels = head_invariants(transformer).kernels[1]
    layer = folded(transformer, 1, Turning.of(transformer.shape.rotary, GROUPED.head_size))
    rotation = layer.turning.rotation(torch.arange(SPAN, dtype=torch.float64), GROUPED.head_size)
    maps = torch.einsum("hsw,dst,htv->hdwv", layer.q, rotation, layer.k)
    torch.testing.assert_close(kernels.trace, maps.diagonal(0, 2, 3).sum(2))
    torch.testing.assert_close(kernels.norm, maps.flatten(2).norm(dim=2))
    angles = torch.arange(SPAN, dtype=torch.float64)[:, None] * layer.turning.frequencies
    waves = kernels.cosine @ angles.cos().T + kernels.sine @ angles.sin().T
    torch.testing.assert_close(kernels.trace, waves)
    far = 1e5 * torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phases = layer.turning.rotation(far, GROUPED.head_size)  # of all pairs, as good as independent
    together = torch.einsum("hsw,dst,htv->dhwv", layer.q, phases, layer.k).square().sum((2, 3)).mean(0)
    torch.testing.assert_close(kernels.energy.sum(1), together, rtol=0.02, atol=0)


def test_composition_is_that_of_the_products_of_whole_matrices() -> None:
    transformer = random_model(replace(PLAIN, positions="standard"))
    turning = Turning.of(None, PLAIN.head_size)
    first, second = (folded(transformer, number, turning) for number in range(2))
    found = head_invariants(transformer).composition
    writes = first.o[1].T @ first.v[1]  # what head 1 of layer 0 makes of the stream
    scores = second.q[2].T @ second.k[2]
    expected = (scores @ writes).norm() / scores.norm() / writes.norm() * PLAIN.width**0.5
    torch.testing.assert_close(found.key[1, PLAIN.heads + 2], expected)
    matched = (scores @ writes).trace() / scores.norm() / writes.norm()
    torch.testing.assert_close(found.matched[1, PLAIN.heads + 2], matched)
    assert not found.key[:, : PLAIN.heads].any()  # nothing is written before the first layer


def test_values_that_copy_have_trace_one_and_positive_eigenvalues() -> None:
    from tests.heads.small import looking_back

    values = head_invariants(looking_back(1)).values[0]
    torch.testing.assert_close(values.positivity, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(values.trace, torch.tensor([40 / 40**0.5 / 64**0.5], dtype=torch.float64))


def test_an_encoder_is_refused_in_one_sentence() -> None:
    shape = replace(random_model(PLAIN).shape, causal=False, family="bert")
    with pytest.raises(NetworkError, match="is an encoder"):
        check_heads(shape, "x")
