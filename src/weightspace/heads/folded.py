"""The four matrices of each attention head with the norm before them folded in, keys and values by query head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.shape import Rotary, TransformerShape
from weightspace.transformers.trained import TrainedTransformer

_READ = ("w_q", "w_k", "w_v", "w_o", "b_q", "b_k", "b_v", "norm1_gain", "norm1_shift")


@dataclass(frozen=True, eq=False)
class Turning:
    """Which numbers of a head's queries and keys rotary positions turn together.

    Attributes:
        first, second: the two numbers of each pair.
        rest: the numbers that are not turned; all of them with learned positions.
        frequencies: radians a place, of each pair.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    rest: Int[Tensor, " rest"]
    frequencies: Float[Tensor, " pairs"]

    @classmethod
    def of(cls, rotary: Rotary | None, size: int, factors: Tensor | None = None) -> Turning:
        """That of a head of `size` numbers.

        Args:
            factors: what frequencies are divided by, see `EndWeights.rotary_factors`.
        """
        if rotary is None:
            none = torch.zeros(0, dtype=torch.long)
            return cls(none, none, torch.arange(size), torch.zeros(0, dtype=torch.float64))
        turned = torch.arange(rotary.size)
        first, second = (turned[::2], turned[1::2]) if rotary.neighbours else turned.chunk(2)
        frequencies = rotary.frequencies().double()
        frequencies = frequencies if factors is None else frequencies / factors.double()
        return cls(first, second, torch.arange(rotary.size, size), frequencies)

    def rotation(self, distances: Float[Tensor, " distances"], size: int) -> Float[Tensor, "distances size size"]:
        """R_d with q R_d k the score of a query `d` places behind a key, both before they are turned."""
        found = torch.zeros(len(distances), size, size, dtype=torch.float64)
        found[:, self.rest, self.rest] = 1.0
        angles = distances.double()[:, None] * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        found[:, self.first, self.first] = cos
        found[:, self.second, self.second] = cos
        found[:, self.first, self.second] = sin
        found[:, self.second, self.first] = -sin
        return found


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """The heads of a layer, as maps from and to directions of the stream.

    A head's score of unit directions u (query) and v (key) of the normalised stream is
    (q u + q_bias) R_d (k v + k_bias), scale and norm included. Keys and values are those of the query head's group.

    Attributes:
        q, k, v: (heads, size, width).
        o: (heads, size, width), rows are what each number of a value writes.
        q_bias, k_bias: (heads, size), zero where the head has none.
    """

    number: int
    turning: Turning
    q: Float[Tensor, "heads size width"]
    k: Float[Tensor, "heads size width"]
    v: Float[Tensor, "heads size width"]
    o: Float[Tensor, "heads size width"]
    q_bias: Float[Tensor, "heads size"]
    k_bias: Float[Tensor, "heads size"]


def check_heads(shape: TransformerShape, where: str) -> None:
    """Whether a transformer's heads can be read here.

    Raises:
        NetworkError: if it is an encoder, or its norms stand behind its halves.
    """
    if not shape.causal:
        raise NetworkError(
            f"{where} is an encoder ({shape.family}), whose places see what is behind them: heads of causal language "
            "models are read here"
        )
    if not shape.norm_first:
        raise NetworkError(
            f"{where} normalises behind each half-layer: heads that read a normalised stream are read here"
        )


def folded_layers(transformer: TrainedTransformer) -> Iterator[FoldedLayer]:
    """The layers one after the other, in float64; none is kept.

    Raises:
        NetworkError: see `check_heads`.
    """
    check_heads(transformer.shape, transformer.where)
    turning = Turning.of(transformer.shape.rotary, transformer.shape.head_size, transformer.ends.rotary_factors)
    for number in range(transformer.shape.layers):
        yield folded(transformer, number, turning)


def folded(transformer: TrainedTransformer, number: int, turning: Turning) -> FoldedLayer:
    """One layer with its norm folded in.

    LayerNorm takes the mean out of the stream, so that what reads or writes it is nothing: it is taken out here too.
    """
    shape = transformer.shape
    weights = {name: array.double() for name, array in transformer.weights(number, *_READ).items()}
    centred = shape.norm in ("layer", "scale")
    gain, shift = weights.get("norm1_gain"), weights.get("norm1_shift")
    unit = 1.0 if shape.norm == "none" else math.sqrt(shape.width)  # the length of the normalised stream
    scale = shape.scale / (number + 1) if shape.scale_by_layer else shape.scale

    def reading(letter: str) -> tuple[Tensor, Tensor]:
        matrix = weights[f"w_{letter}"]
        bias = weights.get(f"b_{letter}", torch.zeros(matrix.shape[::2], dtype=torch.float64))
        if shift is not None:
            bias = bias + torch.einsum("hws,w->hs", matrix, shift)
        folded = (matrix if gain is None else matrix * gain[:, None]) * unit
        folded = folded - folded.mean(1, keepdim=True) if centred else folded
        times = shape.heads // len(matrix)
        return folded.transpose(1, 2).repeat_interleave(times, 0), bias.repeat_interleave(times, 0)

    (q, q_bias), (k, k_bias), (v, _) = reading("q"), reading("k"), reading("v")
    o = weights["w_o"]
    o = o - o.mean(2, keepdim=True) if centred else o
    return FoldedLayer(number, turning, q * scale, k, v, o, q_bias * scale, k_bias)
