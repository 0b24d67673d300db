"""Alignment undoes a permutation of neurons, and never makes two networks less alike."""

from __future__ import annotations

import numpy as np

from weightspace.weights.alignment import align
from weightspace.weights.symmetry import check_permutation, gather_index, random_permutation
from weightspace.zoo.networks import architecture_of, spec_of

SPEC = spec_of(architecture_of("backdoor-cnn", (3, 16, 16), width=4))


def test_a_permuted_network_is_put_back_exactly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        reference = rng.normal(size=SPEC.size).astype(np.float32)
        permuted = reference[gather_index(SPEC, random_permutation(SPEC, rng))]
        found, order = align(permuted, reference, SPEC)
        check_permutation(SPEC, order)
        np.testing.assert_array_equal(found, reference)


def test_another_network_is_no_less_alike_afterwards_and_still_itself() -> None:
    rng = np.random.default_rng(1)
    reference, other = rng.normal(size=(2, SPEC.size)).astype(np.float32)
    found, order = align(other, reference, SPEC)
    np.testing.assert_array_equal(found, other[gather_index(SPEC, order)])
    assert found @ reference > other @ reference + 10
