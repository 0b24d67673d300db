"""How a head's scores depend on the distance between query and key: by content, and by a direction that all share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from weightspace.heads.folded import FoldedLayer

SPAN = 64
"""Distances 0 to 63 of the kernels."""
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Kernels:
    """Of each head of a layer, with M(d) = q R_d k the (width, width) map of scores at distance d.

    Attributes:
        trace: of M(d), how much a token attends to the same content: (heads, SPAN).
        norm: of M(d), Frobenius: (heads, SPAN).
        own: u M(d) u for the unit direction u on which the head's queries and keys together put most weight.
        shared: the same for the direction on which all heads of the layer do, or for the rows of learned positions:
            the mean over places.
        cosine, sine: of each rotary pair, the trace is cosine * cos(frequency * d) + sine * sin(frequency * d), to
            which numbers that are not turned add a constant.
        energy: of each rotary pair, the squared norm of its part of M averaged over its phases; last of what is not
            turned: (heads, pairs + 1).
        own_energy: of each pair, its part of `own` squared, averaged over phases; last of what is not turned.
    """

    trace: Float[Tensor, "heads span"]
    norm: Float[Tensor, "heads span"]
    own: Float[Tensor, "heads span"]
    shared: Float[Tensor, "heads span"]
    cosine: Float[Tensor, "heads pairs"]
    sine: Float[Tensor, "heads pairs"]
    energy: Float[Tensor, "heads bands"]
    own_energy: Float[Tensor, "heads bands"]


def kernels_of(layer: FoldedLayer, positions: Float[Tensor, "positions width"] | None) -> Kernels:
    """The kernels of a layer.

    Args:
        positions: unit rows of learned positions as the layer sees them, or None.
    """
    turning, size = layer.turning, layer.q.shape[1]
    rotation = turning.rotation(torch.arange(SPAN, dtype=torch.float64), size)
    queries, keys = layer.q @ layer.q.transpose(1, 2), layer.k @ layer.k.transpose(1, 2)
    cross = layer.q @ layer.k.transpose(1, 2)  # (heads, size, size)
    turned_keys = rotation @ keys[:, None] @ rotation.transpose(1, 2)
    norm = torch.einsum("hdij,hij->hd", turned_keys, queries).clamp(min=0).sqrt()
    first, second = turning.first, turning.second
    weighted = weighted_rows(layer)
    own = _top_rows(weighted)
    own_kernel, own_energy = _along(layer, rotation, own)
    if positions is None:
        together = torch.linalg.vector_norm(weighted, dim=(1, 2), keepdim=True).clamp(min=_TINY)
        shared = top_direction((weighted / together).flatten(0, 1))
        shared_kernel, _ = _along(layer, rotation, shared.expand(len(own), -1))
    else:
        shared_kernel = _of_positions(layer, positions)
    return Kernels(
        trace=torch.einsum("dij,hij->hd", rotation, cross),
        norm=norm,
        own=own_kernel,
        shared=shared_kernel,
        cosine=cross[:, first, first] + cross[:, second, second],
        sine=cross[:, first, second] - cross[:, second, first],
        energy=_energy(layer, queries, keys),
        own_energy=own_energy,
    )


def _energy(layer: FoldedLayer, queries: Tensor, keys: Tensor) -> Float[Tensor, "heads bands"]:
    first, second, rest = layer.turning.first, layer.turning.second, layer.turning.rest
    q, k = queries.diagonal(0, 1, 2), keys.diagonal(0, 1, 2)
    pairs = (q[:, first] + q[:, second]) * (k[:, first] + k[:, second]) / 2
    still = (queries[:, rest][:, :, rest] * keys[:, rest][:, :, rest]).sum((1, 2))
    return torch.cat((pairs, still[:, None]), 1)


def weighted_rows(layer: FoldedLayer) -> Float[Tensor, "heads twice_size width"]:
    """Rows F of each head with F'F = the mean of M(d)M(d)' + M(d)'M(d) over phases: they do not depend on its basis."""
    return torch.cat((_weighted(layer, layer.q, layer.k), _weighted(layer, layer.k, layer.q)), 1)


def _weighted(layer: FoldedLayer, rows: Tensor, other: Tensor) -> Tensor:
    """Rows of queries times what their keys weigh, or the other way round."""
    first, second, rest = layer.turning.first, layer.turning.second, layer.turning.rest
    lengths = other.square().sum(2)
    found = rows.clone()
    weight = ((lengths[:, first] + lengths[:, second]) / 2).sqrt()[:, :, None]
    found[:, first], found[:, second] = rows[:, first] * weight, rows[:, second] * weight
    if len(rest):
        still = other[:, rest]
        found[:, rest] = _root(still @ still.transpose(1, 2)) @ rows[:, rest]
    return found


def _root(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.transpose(1, 2)


def _top_rows(rows: Float[Tensor, "heads rows width"]) -> Float[Tensor, "heads width"]:
    """The first right singular vector of each."""
    _, vectors = torch.linalg.eigh(rows @ rows.transpose(1, 2))
    found = torch.einsum("hrw,hr->hw", rows, vectors[:, :, -1])
    return found / torch.linalg.vector_norm(found, dim=1, keepdim=True).clamp(min=_TINY)


def top_direction(rows: Float[Tensor, "rows width"]) -> Float[Tensor, " width"]:
    """The first right singular vector of many rows, by Lanczos; its sign is left to chance."""
    width = rows.shape[1]
    if width < 64:
        return torch.linalg.eigh(rows.T @ rows)[1][:, -1]
    plain = rows.numpy()
    gram = LinearOperator((width, width), matvec=lambda x: plain.T @ (plain @ x), dtype=np.float64)  # type: ignore[call-arg]
    _, vectors = eigsh(gram, k=1, v0=np.random.default_rng(0).standard_normal(width))
    return torch.from_numpy(vectors[:, 0])


def _along(layer: FoldedLayer, rotation: Tensor, directions: Float[Tensor, "heads width"]) -> tuple[Tensor, Tensor]:
    """The kernel of a direction with that of the biases, and each pair's part of it squared, averaged over phases."""
    query = torch.einsum("hsw,hw->hs", layer.q, directions)
    key = torch.einsum("hsw,hw->hs", layer.k, directions)
    kernel = torch.einsum("hi,dij,hj->hd", query, rotation, key)
    kernel = kernel + torch.einsum("hi,dij,hj->hd", layer.q_bias, rotation, layer.k_bias)
    first, second, rest = layer.turning.first, layer.turning.second, layer.turning.rest
    pairs = (query[:, first] ** 2 + query[:, second] ** 2) * (key[:, first] ** 2 + key[:, second] ** 2) / 2
    still = (query[:, rest] * key[:, rest]).sum(1, keepdim=True) ** 2
    return kernel, torch.cat((pairs, still), 1)


def _of_positions(layer: FoldedLayer, positions: Tensor) -> Float[Tensor, "heads span"]:
    """The mean score of learned positions alone at each distance; there are at least SPAN of them, or it is cut off."""
    query = torch.einsum("hsw,pw->hps", layer.q, positions) + layer.q_bias[:, None]
    key = torch.einsum("hsw,pw->hps", layer.k, positions) + layer.k_bias[:, None]
    scores = query @ key.transpose(1, 2)
    reach = min(SPAN, positions.shape[0])
    found = torch.stack([scores.diagonal(-distance, 1, 2).mean(1) for distance in range(reach)], 1)
    return torch.cat((found, found[:, -1:].expand(-1, SPAN - reach)), 1)


def positions_seen(positions: Tensor | None, embed: Tensor) -> Float[Tensor, "positions width"] | None:
    """The first 2 * SPAN learned positions as parts of the first layer's normalised stream: rows shorter than 1."""
    if positions is None:
        return None
    rows = positions[: 2 * SPAN].double()
    length = (embed.double().square().sum(1).mean() + rows.square().sum(1).mean()).sqrt()
    return rows / length.clamp(min=_TINY)
