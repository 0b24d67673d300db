"""Augmentation: batches of flat weights with their neurons in a new random order, at the cost of one gather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from weightspace.weights.spec import NetworkSpec
from weightspace.weights.symmetry import gather_index, random_permutation

POOL_BYTES = 2**30
"""Most memory that pools of permutations take together."""
LEAST_POOL = 16
"""A pool with fewer orders than these repeats itself too soon: then every order is drawn afresh."""


class Permuter:
    """Random symmetries for networks of some specs.

    Drawing an order costs a fraction of a millisecond for small networks and milliseconds for large ones, applying it
    microseconds. So orders are drawn once into a pool for each spec, at its first use, and each example picks one of
    them. Where the pools would not fit into 1 GiB each order is drawn afresh: slower, and nothing else.

    Args:
        specs: those that will come.
        count: orders in each pool, at least 1.
        seed: of the pools.
    """

    def __init__(self, specs: Sequence[NetworkSpec], count: int, seed: int) -> None:
        fitting = POOL_BYTES // max(1, 4 * sum(spec.size for spec in specs))
        self.count = min(count, fitting) if fitting >= min(count, LEAST_POOL) else 0
        self.seed = seed
        self.pools: dict[NetworkSpec, Tensor] = {}

    def permute(
        self, spec: NetworkSpec, weights: Float[Tensor, "b n"], generator: torch.Generator
    ) -> Float[Tensor, "b n"]:
        """Each row of `weights` (b, spec.size) in its own random order of neurons; its function stays the same.

        Args:
            generator: decides which orders; the same generator state gives the same ones.
        """
        if self.count == 0:
            seeds = torch.randint(2**62, (len(weights),), generator=generator).tolist()
            index = torch.stack([_index(spec, np.random.default_rng(seed)) for seed in seeds])
        else:
            if spec not in self.pools:
                rng = np.random.default_rng([self.seed, int(spec.signature, 16)])
                self.pools[spec] = torch.stack([_index(spec, rng) for _ in range(self.count)])
            index = self.pools[spec][torch.randint(self.count, (len(weights),), generator=generator)]
        return weights.gather(1, index.long())


def _index(spec: NetworkSpec, rng: np.random.Generator) -> Int[Tensor, " n"]:
    """One random symmetry as a gather index (n,) int32, half the memory of int64."""
    return torch.from_numpy(gather_index(spec, random_permutation(spec, rng)).astype(np.int32))
