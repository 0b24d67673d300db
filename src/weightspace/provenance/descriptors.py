"""Numbers of a network's filters that no reordering or rescaling of neurons changes: to find like networks by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from weightspace.provenance.filters import KernelPlace, kernel_places
from weightspace.weights.spec import NetworkSpec

DIRECTIONS = 12
"""Directions of the inputs on which second moments of the first filters are taken."""
PLACES = 25
"""Places of a convolution's kernel whose second moments are taken, at most."""
LEVELS = 15
"""Quantiles of what is sorted."""


def descriptors(filters: Float[np.ndarray, "n size"], spec: NetworkSpec) -> Float[np.ndarray, "n d"]:
    """Descriptors of n networks from their balanced filters, float32.

    Of each hidden kernel: second moments between the places of its kernel; of those that read the inputs, between
    fixed random directions of these; singular values; and quantiles of the sizes of single weights, of what a neuron
    reads from another, and of the sharpness of filters.
    """
    hidden = [kernel for kernel in kernel_places(spec) if not kernel.output] or list(kernel_places(spec))
    blocks = [part for kernel in hidden for part in _of_kernel(filters[:, kernel.place], kernel)]
    return np.concatenate(blocks, 1).astype(np.float32)


def _of_kernel(flat: np.ndarray, kernel: KernelPlace) -> list[np.ndarray]:
    block = flat.reshape(-1, *kernel.shape).astype(np.float64)
    found = []
    levels = np.linspace(0, 1, LEVELS)
    if kernel.count == 1:  # inputs stand in one order in all networks
        directions = np.random.default_rng(kernel.shape[1]).normal(size=(kernel.shape[1], DIRECTIONS))
        seen = block @ (directions / np.sqrt(kernel.shape[1]))
        moments = np.einsum("nrd,nre->nde", seen, seen) / kernel.shape[0]
        found.append(moments[:, *np.triu_indices(DIRECTIONS)])
        found.append(np.quantile(np.abs(seen), levels, axis=1).transpose(1, 2, 0).reshape(len(block), -1))
    else:
        inner = kernel.shape[1] // max(1, kernel.count - 1)
        if 1 < inner <= PLACES and inner * (kernel.count - 1) == kernel.shape[1]:
            parts = block.reshape(len(block), kernel.shape[0], kernel.count - 1, inner)
            moments = np.einsum("nrcp,nrcq->npq", parts, parts) / kernel.shape[0]
            found.append(moments[:, *np.triu_indices(inner)])
            sizes = np.sqrt((parts**2).sum(3)).reshape(len(block), -1)
            found.append(np.quantile(sizes, levels, axis=1).T)
    found.append(np.quantile(np.abs(block).reshape(len(block), -1), levels, axis=1).T)
    found.append(np.quantile((block**4).sum(2), levels, axis=1).T)
    singular = np.linalg.svd(block, compute_uv=False)
    found.append(np.quantile(singular, levels, axis=1).T)
    return found


def nearest(wanted: Float[np.ndarray, " d"], among: Float[np.ndarray, "n d"], count: int) -> Int[np.ndarray, " k"]:
    """Positions of the `count` networks whose descriptors are nearest, the nearest first.

    Each number is in units of its median deviation over all of them.
    """
    middle = np.median(among, 0)
    spread = np.median(np.abs(among - middle), 0)
    spread = np.where(spread > 1e-9, spread, np.inf)  # what hardly varies tells nothing apart
    distance = (np.clip((among - wanted) / spread, -10, 10) ** 2).mean(1)
    return np.argsort(distance, kind="stable")[:count]
