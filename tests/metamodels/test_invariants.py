"""Numbers of neurons and classes that no rescaling changes."""

from typing import Any

import numpy as np
import pytest
import torch

from weightspace.metamodels.invariants import (
    CLASS_FEATURES,
    NEURON_FEATURES,
    invariant_names,
    invariant_row,
    invariants,
)
from weightspace.weights.modules import network_of_module
from weightspace.weights.network import Network
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.networks import architecture_of, build, spec_of

KINDS: list[dict[str, Any]] = [
    {"norm": "none"},
    {"norm": "batch", "head": "flatten"},
    {"norm": "layer", "pooling": "stride"},
    {"norm": "group", "activation": "gelu"},
    {"norm": "batch", "residual": True, "activation": "silu"},
]


def network(seed: int = 0, **options: Any) -> Network:
    """With weights as training leaves them: no two neurons, gains or shifts alike."""
    architecture = architecture_of("varied-cnn", (3, 16, 16), width=8, **options)
    torch.manual_seed(seed)
    module = build(architecture)
    with torch.no_grad():
        for name, part in module.named_parameters():
            if name.endswith("weight") and part.ndim == 1:
                part.mul_(torch.rand_like(part) + 0.5)
            elif part.ndim == 1:
                part.add_(0.3 * torch.randn_like(part))
        for name, buffer in module.named_buffers():
            if name.endswith("var"):
                buffer.mul_(torch.rand_like(buffer) + 0.5)
    return network_of_module(module, spec_of(architecture))


def test_every_number_has_a_name() -> None:
    row = invariant_row(invariants(network()))
    assert len(row) == len(invariant_names()) == len(set(invariant_names()))
    assert np.isfinite(row).all()


@pytest.mark.parametrize("options", KINDS)
def test_neither_the_order_of_neurons_nor_a_rescaling_nor_a_shift_of_all_classes_changes_a_number(
    options: dict[str, Any],
) -> None:
    one = network(**options)
    row = invariant_row(invariants(one))
    moved = permute(one, random_permutation(one.spec, np.random.default_rng(1)))
    np.testing.assert_allclose(invariant_row(invariants(moved)), row, atol=1e-6)
    scaled = rescale(one, random_scales(one.spec, np.random.default_rng(2), 0.4))
    if one.spec.scalings:
        assert not np.allclose(scaled.weights, one.weights, rtol=0.05)
    # Weights are rounded to float32
    np.testing.assert_allclose(invariant_row(invariants(scaled)), row, atol=2e-3, rtol=2e-3)
    arrays = {name: array.copy() for name, array in one.arrays().items()}
    last = [leaf.name for leaf in one.spec.leaves][-2:]
    for name in last:
        arrays[name] += np.random.default_rng(3).normal(size=(1, *arrays[name].shape[1:])).astype(np.float32)
    shifted = Network(one.spec, one.spec.join(arrays))
    np.testing.assert_allclose(invariant_row(invariants(shifted)), row, atol=1e-3, rtol=1e-3)


def test_a_change_that_is_no_symmetry_is_seen() -> None:
    one = network(norm="none")
    arrays = {name: array.copy() for name, array in one.arrays().items()}
    first = one.spec.leaves[0].name
    arrays[first][0] *= 3  # and what reads it is not made smaller
    other = Network(one.spec, one.spec.join(arrays))
    apart = np.abs(invariant_row(invariants(other)) - invariant_row(invariants(one)))
    assert apart.max() > 0.1


def test_a_class_that_is_reached_by_a_way_of_its_own_stands_out() -> None:
    one = network(seed=4, norm="layer")
    arrays = {name: array.copy() for name, array in one.arrays().items()}
    kernel = next(leaf.name for leaf in reversed(one.spec.leaves) if leaf.role == "kernel")
    arrays[kernel][7, 3] += 15 * np.abs(arrays[kernel]).max()
    known = invariants(Network(one.spec, one.spec.join(arrays)))
    for feature in ("norm", "peak", "greatest", "way 1 peak"):
        column = known.classes[:, CLASS_FEATURES.index(feature)]
        assert column.argmax() == 7 and column[7] > 3
    gap = known.neurons[-1][:, NEURON_FEATURES.index("class gap")]
    assert gap.argmax() == 3
    before = invariants(one)
    assert before.classes[:, CLASS_FEATURES.index("norm")].max() < 3
