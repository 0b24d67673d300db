"""The weights of a transformer by our names, and where each lies in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from jaxtyping import Float
from torch import Tensor


def unchanged(array: Tensor) -> Tensor:
    """An array as it is."""
    return array


@dataclass(frozen=True)
class Part:
    """One weight of ours in a checkpoint.

    Attributes:
        name: of the array that holds it, or of which it is a part.
        shape: of the array there.
        made: the weight out of the array; a view where possible.
        optional: whether it may be missing.
    """

    name: str
    shape: tuple[int, ...]
    made: Callable[[Tensor], Tensor] = unchanged
    optional: bool = False


Parts = Mapping[str, Part]
"""The weights of a layer, or of the ends, by the names of `LayerWeights` or `EndWeights`."""


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer; None where the family has none.

    Rows read and columns write: `x @ w_in + b_in` are the hidden units before their activation.

    Attributes:
        w_q: (heads, width, size), and w_k and w_v of the key-value heads.
        w_o: (heads, size, width).
        w_gate: of a gated MLP what is activated; its product with `x @ w_in` is what `w_out` reads.
    """

    w_q: Float[Tensor, "heads width size"]
    w_k: Float[Tensor, "key_heads width size"]
    w_v: Float[Tensor, "key_heads width size"]
    w_o: Float[Tensor, "heads size width"]
    b_q: Float[Tensor, "heads size"] | None = None
    b_k: Float[Tensor, "key_heads size"] | None = None
    b_v: Float[Tensor, "key_heads size"] | None = None
    b_o: Float[Tensor, " width"] | None = None
    w_in: Float[Tensor, "width hidden"] | None = None
    b_in: Float[Tensor, " hidden"] | None = None
    w_gate: Float[Tensor, "width hidden"] | None = None
    b_gate: Float[Tensor, " hidden"] | None = None
    w_out: Float[Tensor, "hidden width"] | None = None
    b_out: Float[Tensor, " width"] | None = None
    norm1_gain: Float[Tensor, " width"] | None = None
    norm1_shift: Float[Tensor, " width"] | None = None
    norm2_gain: Float[Tensor, " width"] | None = None
    norm2_shift: Float[Tensor, " width"] | None = None

    @property
    def size(self) -> int:
        """Numbers in all of them."""
        return sum(tensor.numel() for field in fields(self) if (tensor := getattr(self, field.name)) is not None)


@dataclass(frozen=True)
class EndWeights:
    """The weights before the first layer and after the last.

    Attributes:
        embed: a row a token.
        positions: a row a place; None with rotary positions.
        types: what BERT adds at each place, the row of its first token type.
        embed_gain, embed_shift: of BERT's norm of the embeddings.
        final_gain, final_shift: of the norm of the last stream.
        unembed: (width, outputs); tied embeddings turned round where they are tied.
        rotary_factors: what the angles of rotary pairs are divided by (some GGUF files), (size / 2,).
    """

    embed: Float[Tensor, "vocabulary width"]
    positions: Float[Tensor, "positions width"] | None = None
    types: Float[Tensor, " width"] | None = None
    embed_gain: Float[Tensor, " width"] | None = None
    embed_shift: Float[Tensor, " width"] | None = None
    final_gain: Float[Tensor, " width"] | None = None
    final_shift: Float[Tensor, " width"] | None = None
    unembed: Float[Tensor, "width outputs"] | None = None
    unembed_shift: Float[Tensor, " outputs"] | None = None
    rotary_factors: Float[Tensor, " pairs"] | None = None


def heads_of_columns(heads: int) -> Callable[[Tensor], Tensor]:
    """(width, heads * size) as (heads, width, size)."""
    return lambda array: array.unflatten(1, (heads, -1)).permute(1, 0, 2)


def heads_of_rows(heads: int) -> Callable[[Tensor], Tensor]:
    """(heads * size, width), as linear layers of PyTorch hold it, as (heads, width, size)."""
    return lambda array: array.unflatten(0, (heads, -1)).permute(0, 2, 1)


def heads_of_output(heads: int) -> Callable[[Tensor], Tensor]:
    """(heads * size, width) as (heads, size, width)."""
    return lambda array: array.unflatten(0, (heads, -1))


def heads_of_linear_output(heads: int) -> Callable[[Tensor], Tensor]:
    """(width, heads * size), as linear layers of PyTorch hold it, as (heads, size, width)."""
    return lambda array: array.T.unflatten(0, (heads, -1))


def heads_of_bias(heads: int) -> Callable[[Tensor], Tensor]:
    """(heads * size,) as (heads, size)."""
    return lambda array: array.unflatten(0, (heads, -1))


def turned(array: Tensor) -> Tensor:
    """(out, in), as linear layers of PyTorch hold it, as (in, out)."""
    return array.T
