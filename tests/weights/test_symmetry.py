"""Symmetries: what may be reordered, and what a reordering does to the flat weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightspace.weights import augment
from weightspace.weights.augment import Permuter
from weightspace.weights.network import Network
from weightspace.weights.spec import (
    Axis,
    Factor,
    Leaf,
    NetworkSpec,
    NeuronGroup,
    SpecError,
    neurons,
    plain,
)
from weightspace.weights.symmetry import (
    check_permutation,
    gather_index,
    identity,
    inverse,
    log10_symmetries,
    permute,
    random_permutation,
)


def mlp_spec(inputs: int = 3, hidden: int = 5, outputs: int = 2) -> NetworkSpec:
    groups = (
        NeuronGroup("in", inputs, permutable=False),
        NeuronGroup("hidden", hidden),
        NeuronGroup("out", outputs, permutable=False),
    )
    return NetworkSpec(
        (
            Leaf(
                "0.weight",
                (hidden, inputs),
                "kernel",
                (neurons("hidden", hidden), neurons("in", inputs)),
            ),
            Leaf("0.bias", (hidden,), "bias", (neurons("hidden", hidden),)),
            Leaf(
                "1.weight",
                (outputs, hidden),
                "kernel",
                (neurons("out", outputs), neurons("hidden", hidden)),
            ),
        ),
        groups,
    )


def heads_spec(heads: int = 3, width: int = 2) -> NetworkSpec:
    """Values of `heads` heads of `width`, fused behind a fixed segment, with a flattened copy of each."""
    n = heads * width
    groups = (
        NeuronGroup("heads", heads),
        NeuronGroup("values", n, parent="heads"),
        NeuronGroup("fixed", 4, False),
    )
    fused = Axis(((Factor("fixed", 4),), (Factor("values", n), Factor(None, 2))))
    return NetworkSpec(
        (
            Leaf("fused", (4 + 2 * n,), "kernel", (fused,)),
            Leaf("v", (n,), "bias", (neurons("values", n),)),
        ),
        groups,
    )


def random_network(spec: NetworkSpec, seed: int = 0) -> Network:
    return Network(spec, np.random.default_rng(seed).normal(size=spec.size).astype(np.float32))


def mlp(network: Network, x: np.ndarray) -> np.ndarray:
    arrays = network.arrays()
    return arrays["1.weight"] @ np.tanh(arrays["0.weight"] @ x + arrays["0.bias"])


@given(seed=st.integers(0, 2**32 - 1), hidden=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_a_permuted_network_computes_the_same_function(seed: int, hidden: int) -> None:
    spec = mlp_spec(hidden=hidden)
    network = random_network(spec, seed)
    x = np.random.default_rng(seed).normal(size=3)
    moved = permute(network, random_permutation(spec, np.random.default_rng(seed)))
    np.testing.assert_allclose(mlp(moved, x), mlp(network, x), rtol=1e-5, atol=1e-6)  # float32 sums reordered


def test_permuting_only_one_of_two_leaves_changes_the_function() -> None:
    spec = mlp_spec()
    network, x = random_network(spec), np.ones(3)
    permutation = identity(spec) | {"hidden": np.roll(np.arange(5), 1)}
    index = gather_index(spec, permutation)
    index[15:20] = np.arange(15, 20)  # the bias stays behind
    broken = Network(spec, network.weights[index])
    assert np.abs(mlp(broken, x) - mlp(network, x)).max() > 1e-2


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_permutation_and_its_inverse_cancel(seed: int) -> None:
    spec = heads_spec()
    network = random_network(spec)
    permutation = random_permutation(spec, np.random.default_rng(seed))
    back = permute(permute(network, permutation), inverse(permutation))
    np.testing.assert_array_equal(back.weights, network.weights)
    np.testing.assert_array_equal(np.sort(gather_index(spec, permutation)), np.arange(spec.size))


def test_blocks_move_with_their_parent_and_mix_only_inside() -> None:
    spec = heads_spec(heads=4, width=3)
    permutation = random_permutation(spec, np.random.default_rng(3))
    owners = permutation["values"].reshape(4, 3) // 3
    assert (owners == permutation["heads"][:, None]).all()
    assert not (permutation["heads"] == np.arange(4)).all()
    across = identity(spec) | {"values": np.roll(np.arange(12), 1)}
    with pytest.raises(SpecError, match="does not follow its parent"):
        check_permutation(spec, across)


def test_a_fixed_group_or_half_an_order_is_refused() -> None:
    spec = mlp_spec()
    with pytest.raises(SpecError, match="'in' is not permutable"):
        check_permutation(spec, identity(spec) | {"in": np.array([1, 0, 2])})
    with pytest.raises(SpecError, match="each once"):
        check_permutation(spec, identity(spec) | {"hidden": np.array([0, 0, 1, 2, 3])})


def test_symmetries_are_counted() -> None:
    assert log10_symmetries(mlp_spec(hidden=5)) == pytest.approx(np.log10(120))
    assert log10_symmetries(heads_spec(heads=3, width=2)) == pytest.approx(np.log10(6 * 2**3))


@pytest.mark.parametrize("memory", [2**30, 1000], ids=["pooled", "drawn afresh"])
def test_every_row_of_a_batch_gets_its_own_symmetry(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "POOL_BYTES", memory)
    spec = mlp_spec(hidden=9)
    network, x = random_network(spec), np.ones(3)
    permuter = Permuter([spec], count=64, seed=0)
    batch = torch.from_numpy(network.weights).expand(16, -1).contiguous()
    moved = permuter.permute(spec, batch, torch.Generator().manual_seed(0)).numpy()
    assert bool(permuter.pools) == (memory > 1000)
    assert len(np.unique(moved, axis=0)) > 8
    for row in moved:
        np.testing.assert_allclose(mlp(Network(spec, row), x), mlp(network, x), rtol=1e-5, atol=1e-6)
    again = Permuter([spec], count=64, seed=0).permute(spec, batch, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_array_equal(again, moved)


def test_a_spec_survives_json_and_its_signature_tells_specs_apart() -> None:
    for spec in (mlp_spec(), heads_spec()):
        assert NetworkSpec.from_json(spec.to_json()) == spec
    assert mlp_spec().signature == mlp_spec().signature
    assert mlp_spec().signature != mlp_spec(hidden=6).signature
    named = [NetworkSpec((Leaf(name, (2,), "other", (plain(2),)),)).signature for name in ("v", "w")]
    assert named[0] != named[1]


def test_a_contradictory_spec_is_refused() -> None:
    with pytest.raises(SpecError, match="empty"):
        NetworkSpec(())
    with pytest.raises(SpecError, match="two arrays are named"):
        NetworkSpec((Leaf("w", (2,), "other", (plain(2),)),) * 2)
    with pytest.raises(SpecError, match="described with axes"):
        NetworkSpec((Leaf("w", (3,), "other", (plain(2),)),))
    with pytest.raises(SpecError, match="no group of the spec"):
        NetworkSpec((Leaf("w", (3,), "other", (neurons("g", 3),)),))
    with pytest.raises(SpecError, match="not the description"):
        NetworkSpec.from_json({"leaves": [{"name": "w"}], "groups": []})
