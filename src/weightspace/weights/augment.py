"""Augmentation: batches of flat weights with their neurons in a new random order, at the cost of one gather."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from weightspace.weights.spec import NetworkSpec
from weightspace.weights.symmetry import gather_index, random_permutation


def permutation_pool(spec: NetworkSpec, count: int, seed: int) -> Int[Tensor, "count n"]:
    """`count` random symmetries as gather indices (count, spec.size), the same for the same seed.

    Drawing an index costs milliseconds, applying one microseconds: a pool made once serves a whole training run.
    A few thousand entries are as good as fresh ones, since each meets a given network only a few times.
    int32 halves the memory; a network of more than 2^31 weights needs another way.
    """
    if spec.size >= 2**31:
        raise ValueError(f"a network of {spec.size} weights is too large for pooled permutations")
    rng = np.random.default_rng([seed, 0x5EED])
    pool = np.empty((count, spec.size), np.int32)
    for row in pool:
        row[:] = gather_index(spec, random_permutation(spec, rng))
    return torch.from_numpy(pool)


def permute_batch(
    weights: Float[Tensor, "b n"], pool: Int[Tensor, "count n"], generator: torch.Generator
) -> Float[Tensor, "b n"]:
    """Each row of `weights` (b, n) under its own random member of `pool` (count, n); the function stays the same."""
    choice = torch.randint(len(pool), (len(weights),), generator=generator)
    return weights.gather(1, pool[choice.to(pool.device)].long())
