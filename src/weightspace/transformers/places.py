"""The named places of a transformer's forward pass, at which it can be read and changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.transformers.shape import TransformerShape

Kind = Literal[
    "embed",
    "pos_embed",
    "resid_pre",
    "q_input",
    "k_input",
    "v_input",
    "norm1_scale",
    "norm1",
    "q",
    "k",
    "v",
    "rot_q",
    "rot_k",
    "scores",
    "pattern",
    "z",
    "result",
    "attn_out",
    "resid_mid",
    "mlp_input",
    "norm2_scale",
    "norm2",
    "gate",
    "pre",
    "post",
    "mlp_out",
    "resid_post",
    "final_scale",
    "final",
    "logits",
]
"""What stands at a place, in the order of the forward pass; b inputs, p places of each, w the width:

- `embed`, `pos_embed` (b, p, w): rows of the token's and of the place's embedding
- `resid_pre`, `resid_mid`, `resid_post` (b, p, w): the stream before a layer, between its halves, after it
- `q_input`, `k_input`, `v_input` (b, p, heads, w): the stream as a single query head reads it, before its norm.
  Changing one changes what this head reads and nothing else; where heads share keys and values, each has its own then
- `mlp_input` (b, p, w): the stream as the MLP reads it, before its norm
- `norm1_scale`, `norm2_scale`, `final_scale` (b, p, 1): what a norm divides by. With that of another run a norm is
  linear
- `norm1`, `norm2`, `final` (b, p, w): the normalised stream that attention, the MLP and the logits read
- `q`, `k`, `v` (b, p, heads, size): queries, keys and values; `rot_q`, `rot_k` turned by rotary positions
- `scores`, `pattern` (b, heads, query, key): before the mask and softmax, and after
- `z` (b, p, heads, size), `result` (b, p, heads, w): values weighted by the pattern, and what a head adds to
  the stream
- `attn_out`, `mlp_out` (b, p, w): what a half-layer adds to the stream, biases included
- `gate`, `pre`, `post` (b, p, hidden): of the MLP. `pre` goes into the activation and `post` into the output; with
  gates, `gate` is what the activated `pre` is multiplied with
- `logits` (b, p, outputs)
"""

KINDS: tuple[str, ...] = get_args(Kind)
HEAD_AXIS = dict.fromkeys(("q_input", "k_input", "v_input", "q", "k", "v", "rot_q", "rot_k", "z", "result"), 2) | {
    "scores": 1,
    "pattern": 1,
}
"""Kinds that have heads, and the axis on which they stand."""
KEY_KINDS = ("k", "v", "rot_k")
"""Kinds whose heads are the key-value heads, which groups of query heads share."""
ENDS = ("embed", "pos_embed", "final_scale", "final", "logits")
Replacement = Tensor | Callable[[Tensor], Tensor]
"""What is put at a place: a tensor that is laid over its shape, or a function of what stood there."""


@dataclass(frozen=True, order=True)
class Place:
    """A place of the forward pass.

    Attributes:
        kind: see `Kind`.
        layer: counted from 0; None for `embed`, `pos_embed`, `final_scale`, `final` and `logits`.
        head: counted from 0, of the key-value heads for keys and values; None for all, with an axis for them.
    """

    kind: Kind
    layer: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise NetworkError(f"there is no place {self.kind!r}: known are {', '.join(KINDS)}")
        if (self.layer is None) != (self.kind in ENDS):
            raise NetworkError(f"the place {self.kind} {'needs a' if self.layer is None else 'has no'} layer")
        if self.head is not None and self.kind not in HEAD_AXIS:
            raise NetworkError(f"the place {self.kind} has no heads: leave head out")

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"[{self.layer}]"
        return f"{self.kind}{layer}" + ("" if self.head is None else f".{self.head}")

    def check(self, shape: TransformerShape) -> None:
        """Hold it against a transformer.

        Raises:
            NetworkError: if there is no such layer, head or kind in it.
        """
        if self.layer is not None and not 0 <= self.layer < shape.layers:
            raise NetworkError(f"there is no place {self}: the transformer has {shape.layers} layers, counted from 0")
        heads = shape.key_heads if self.kind in KEY_KINDS else shape.heads
        if self.head is not None and not 0 <= self.head < heads:
            raise NetworkError(f"there is no place {self}: a layer has {heads} of these heads, counted from 0")
        why = _missing(self.kind, shape)
        if why:
            raise NetworkError(f"there is no place {self}: the transformer has {why}")


def _missing(kind: str, shape: TransformerShape) -> str:
    """Why a transformer has no place of a kind; empty if it has."""
    if kind == "pos_embed" and shape.rotary is not None:
        return "rotary positions and no embedding of them"
    if kind in ("rot_q", "rot_k") and shape.rotary is None:
        return "no rotary positions"
    if kind in ("mlp_input", "norm2_scale", "norm2", "pre", "post", "mlp_out") and not shape.hidden:
        return "no MLP"
    if kind == "gate" and not shape.gated:
        return "no gates"
    if kind.endswith("scale") and shape.norm == "none":
        return "no norms"
    if kind in ("final", "final_scale") and not shape.norm_first:
        return "no norm behind its last layer"
    return "no logits" if kind == "logits" and not shape.outputs else ""


class Visits:
    """What one run reads and replaces, and what it has read."""

    def __init__(self, read: Iterable[Place], replace: Mapping[Place, Replacement]) -> None:
        self._read: dict[tuple[str, int | None], list[Place]] = {}
        self._replace: dict[tuple[str, int | None], list[tuple[Place, Replacement]]] = {}
        for place in read:
            self._read.setdefault((place.kind, place.layer), []).append(place)
        for place, by in replace.items():
            self._replace.setdefault((place.kind, place.layer), []).append((place, by))
        self.values: dict[Place, Tensor] = {}

    def wants(self, *kinds: str, layer: int | None = None) -> bool:
        """Whether something is done at one of these places."""
        return any((kind, layer) in self._read or (kind, layer) in self._replace for kind in kinds)

    def replaces(self, kind: str, layer: int | None = None) -> bool:
        """Whether something is put there."""
        return (kind, layer) in self._replace

    def __call__(self, kind: str, value: Tensor, layer: int | None = None) -> Tensor:
        """What goes on from a place: replaced first, then read."""
        for place, by in self._replace.get((kind, layer), ()):
            value = _replaced(place, value, by)
        for place in self._read.get((kind, layer), ()):
            self.values[place] = value if place.head is None else value.select(HEAD_AXIS[kind], place.head)
        return value


def _replaced(place: Place, value: Tensor, by: Replacement) -> Tensor:
    was = value if place.head is None else value.select(HEAD_AXIS[place.kind], place.head)
    put = by if isinstance(by, Tensor) else by(was)
    if put is was:
        return value
    try:
        put = torch.broadcast_to(put.to(was.dtype), was.shape)
    except RuntimeError:
        raise NetworkError(
            f"what is put at {place} has shape {tuple(put.shape)}: expected {tuple(was.shape)}, or what can be laid "
            f"over it"
        ) from None
    if place.head is None:
        return put
    axis = HEAD_AXIS[place.kind]
    heads = list(value.unbind(axis))
    heads[place.head] = put
    return torch.stack(heads, axis)
