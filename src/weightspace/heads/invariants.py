"""What the weights of heads say whatever basis they are written in: kernels, values and outputs, composition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.heads.composition import Composition, compositions, reach_of
from weightspace.heads.folded import FoldedLayer, folded_layers
from weightspace.heads.kernels import Kernels, kernels_of, positions_seen
from weightspace.transformers.trained import TrainedTransformer

SPECTRUM = 8
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class ValueInvariants:
    """Of the maps from a head's attended places to what it writes, heads of one layer.

    Attributes:
        trace: over norm and the square root of the head's size: 1 for a head that copies all it reads, -1 for one
            that writes the opposite.
        norm: Frobenius, of unit directions of the normalised stream.
        positivity: sum of the real parts of eigenvalues over the sum of their sizes (Elhage et al., 2021), -1 to 1.
        spectrum: the largest singular values over the norm, largest first.
        rank: sum of squared singular values over the largest: 1 for a head that writes one direction.
    """

    trace: Float[Tensor, " heads"]
    norm: Float[Tensor, " heads"]
    positivity: Float[Tensor, " heads"]
    spectrum: Float[Tensor, "heads top"]
    rank: Float[Tensor, " heads"]


@dataclass(frozen=True, eq=False)
class HeadInvariants:
    """Of all heads of a model; every number is the same for any weights of the same heads in another basis.

    Attributes:
        layers, heads, width, size: of the model.
        frequencies: of the rotary pairs, radians a place; none with learned positions.
        kernels, values: layer by layer.
        composition: between all heads.
    """

    layers: int
    heads: int
    width: int
    size: int
    frequencies: Float[Tensor, " pairs"]
    kernels: tuple[Kernels, ...]
    values: tuple[ValueInvariants, ...]
    composition: Composition


def head_invariants(transformer: TrainedTransformer) -> HeadInvariants:
    """Read every head of a model; only its attention is held in memory, in float64.

    The same up to rounding (1e-5 relative) under maps of queries and keys that commute with rotary positions,
    invertible maps of values and outputs, and rotations of the stream that its norms allow; heads in another order come
    out in that order.

    Raises:
        NetworkError: if the model is an encoder, or normalises behind its halves.
    """
    shape = transformer.shape
    seen = positions_seen(transformer.ends.positions, transformer.ends.embed)
    if seen is not None and shape.norm in ("layer", "scale"):
        seen = seen - seen.mean(1, keepdim=True)
    kernels, values, reaches = [], [], []
    frequencies = torch.zeros(0)
    for layer in folded_layers(transformer):
        frequencies = layer.turning.frequencies
        kernels.append(kernels_of(layer, seen))
        values.append(_values(layer))
        reaches.append(reach_of(layer))
    return HeadInvariants(
        layers=shape.layers,
        heads=shape.heads,
        width=shape.width,
        size=shape.head_size,
        frequencies=frequencies,
        kernels=tuple(kernels),
        values=tuple(values),
        composition=compositions(reaches),
    )


def _values(layer: FoldedLayer) -> ValueInvariants:
    """From Gram matrices and the product o v, which has the eigenvalues of v o besides zeros."""
    values, outputs = layer.v @ layer.v.transpose(1, 2), layer.o @ layer.o.transpose(1, 2)
    small = layer.o @ layer.v.transpose(1, 2)  # (heads, size, size)
    norm = (values * outputs).sum((1, 2)).clamp(min=0).sqrt()
    eigenvalues = torch.linalg.eigvals(small)
    sizes = eigenvalues.abs().sum(1).clamp(min=_TINY)
    among, vectors = torch.linalg.eigh(values)
    root = vectors * among.clamp(min=0).sqrt()[:, None]
    squared = torch.linalg.eigvalsh(root.transpose(1, 2) @ outputs @ root).flip(1).clamp(min=0)
    top = squared[:, :SPECTRUM].sqrt() / norm.clamp(min=_TINY)[:, None]
    missing = SPECTRUM - top.shape[1]
    return ValueInvariants(
        trace=small.diagonal(0, 1, 2).sum(1) / norm.clamp(min=_TINY) / small.shape[1] ** 0.5,
        norm=norm,
        positivity=eigenvalues.real.sum(1) / sizes,
        spectrum=torch.nn.functional.pad(top, (0, missing)) if missing > 0 else top,
        rank=squared.sum(1) / squared[:, 0].clamp(min=_TINY),
    )
