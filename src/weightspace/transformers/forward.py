"""The forward pass: one function for every family, with a visit at each named place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from weightspace.transformers.places import Visits
from weightspace.transformers.shape import Rotary, TransformerShape
from weightspace.transformers.weights import EndWeights, LayerWeights

Activation = Callable[[Tensor], Tensor]
_GELU_TANH: Activation = partial(functional.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_new": _GELU_TANH,
    "gelu_fast": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""By the names that settings use."""
Stream = Float[Tensor, "batch place width"]
Loader = Callable[[int], LayerWeights]


def embedded(shape: TransformerShape, ends: EndWeights, tokens: Tensor, offset: int, visit: Visits) -> Stream:
    """The stream before the first layer.

    Args:
        tokens: numbers of tokens (batch, place).
        offset: position of the first place.
    """
    stream = visit("embed", functional.embedding(tokens, ends.embed))
    if ends.positions is not None:
        rows = ends.positions[offset : offset + tokens.shape[1]]
        stream = stream + visit("pos_embed", rows.expand(len(tokens), -1, -1))
    if ends.types is not None:
        stream = stream + ends.types
    if ends.embed_gain is not None:
        stream = functional.layer_norm(stream, stream.shape[-1:], ends.embed_gain, ends.embed_shift, shape.epsilon)
    return stream


def layer_forward(
    shape: TransformerShape,
    weights: LayerWeights,
    number: int,
    stream: Stream,
    allowed: Bool[Tensor, "batch_or_1 1 query key"],
    angles: Tensor | None,
    visit: Visits,
) -> Stream:
    """The stream after a layer.

    Args:
        number: of the layer.
        allowed: which keys each place may see.
        angles: of rotary positions, (place, pairs).
    """
    norms = (weights.norm1_gain, weights.norm1_shift), (weights.norm2_gain, weights.norm2_shift)
    norm1 = _Norm(shape, "norm1", number, *norms[0], visit)
    norm2 = _Norm(shape, "norm2", number, *norms[1], visit)
    stream = visit("resid_pre", stream, number)
    stream = stream + _attention(shape, weights, number, stream, allowed, angles, norm1, visit)
    stream = visit("resid_mid", stream if shape.norm_first else norm1(stream), number)
    if weights.w_in is not None:
        stream = stream + _mlp(shape, weights, number, stream, norm2, visit)
        stream = stream if shape.norm_first else norm2(stream)
    return visit("resid_post", stream, number)


def logits_of(shape: TransformerShape, ends: EndWeights, stream: Stream, visit: Visits) -> Tensor | None:
    """The logits of the last stream; None where the transformer has none."""
    if shape.norm_first:
        stream = _Norm(shape, "final", None, ends.final_gain, ends.final_shift, visit)(stream)
    if ends.unembed is None:
        return None
    logits = stream @ ends.unembed
    return visit("logits", logits if ends.unembed_shift is None else logits + ends.unembed_shift)


class _Norm:
    """A norm with its two places: what it divides by, and what comes out."""

    def __init__(
        self,
        shape: TransformerShape,
        name: str,
        layer: int | None,
        gain: Tensor | None,
        shift: Tensor | None,
        visit: Visits,
    ) -> None:
        self.kind, self.epsilon = shape.norm, shape.epsilon
        self.name, self.layer, self.visit = name, layer, visit
        self.gain, self.shift = gain, shift

    def __call__(self, stream: Tensor) -> Tensor:
        """The stream normalised, (batch, place, width)."""
        return self.visit(self.name, self._normal(stream, self.visit), self.layer)

    def of_heads(self, inputs: Tensor, stream: Tensor) -> Tensor:
        """What single heads read, each normalised by itself, (batch, place, heads, width).

        A scale that was put in place of the stream's own holds for every head.
        """
        if not self.visit.replaces(f"{self.name}_scale", self.layer):
            return self._normal(inputs, None)
        scale = self.visit(f"{self.name}_scale", self._scale(stream), self.layer)
        return self._shifted(self._centred(inputs) / scale.unsqueeze(2))

    def _normal(self, inputs: Tensor, visit: Visits | None) -> Tensor:
        if self.kind == "none":
            return inputs
        if self.kind in ("layer", "scale") and (
            visit is None or not visit.wants(f"{self.name}_scale", layer=self.layer)
        ):
            return functional.layer_norm(inputs, inputs.shape[-1:], self.gain, self.shift, self.epsilon)
        scale = self._scale(inputs)
        if visit is not None:
            scale = visit(f"{self.name}_scale", scale, self.layer)
        return self._shifted(self._centred(inputs) / scale)

    def _centred(self, inputs: Tensor) -> Tensor:
        return inputs if self.kind in ("rms", "none") else inputs - inputs.mean(-1, keepdim=True)

    def _scale(self, inputs: Tensor) -> Tensor:
        return (self._centred(inputs).square().mean(-1, keepdim=True) + self.epsilon).sqrt()

    def _shifted(self, normal: Tensor) -> Tensor:
        gained = normal if self.gain is None else normal * self.gain
        return gained if self.shift is None else gained + self.shift


def _attention(
    shape: TransformerShape,
    weights: LayerWeights,
    number: int,
    stream: Stream,
    allowed: Tensor,
    angles: Tensor | None,
    norm: _Norm,
    visit: Visits,
) -> Stream:
    """What attention adds to the stream."""
    q, k, v = _queries_keys_values(shape, weights, number, stream, norm, visit)
    if shape.rotary is not None and angles is not None:
        q = visit("rot_q", rotated(q, angles, shape.rotary), number)
        k = visit("rot_k", rotated(k, angles, shape.rotary), number)
    k, v = (each if each.shape[2] == shape.heads else each.repeat_interleave(shape.group, 2) for each in (k, v))
    scale = shape.scale / (number + 1) if shape.scale_by_layer else shape.scale
    scores = visit("scores", torch.einsum("bqhs,bkhs->bhqk", q * scale, k), number)
    # the lowest number and not minus infinity: a place that may see nothing has no NaN, but a uniform pattern
    pattern = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    z = visit("z", torch.einsum("bhqk,bkhs->bqhs", visit("pattern", pattern, number), v), number)
    if visit.wants("result", layer=number):
        out = visit("result", torch.einsum("bphs,hsw->bphw", z, weights.w_o), number).sum(2)
    else:
        out = torch.einsum("bphs,hsw->bpw", z, weights.w_o)
    return visit("attn_out", _plus(out, weights.b_o), number)


def _queries_keys_values(
    shape: TransformerShape, weights: LayerWeights, number: int, stream: Stream, norm: _Norm, visit: Visits
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, of the stream or of what is put before single heads."""
    whole: Tensor | None = None
    found = []
    for letter, matrix, bias in (
        ("q", weights.w_q, weights.b_q),
        ("k", weights.w_k, weights.b_k),
        ("v", weights.w_v, weights.b_v),
    ):
        kind = f"{letter}_input"
        if visit.wants(kind, layer=number):
            inputs = visit(kind, stream.unsqueeze(2).expand(-1, -1, shape.heads, -1), number)
            normal = norm.of_heads(inputs, stream) if shape.norm_first else inputs
            matrix, bias = _of_query_heads(matrix, shape.heads), _of_query_heads(bias, shape.heads)
            made = torch.einsum("bphw,hws->bphs", normal, matrix)
        else:
            if whole is None:
                whole = norm(stream) if shape.norm_first else stream
            made = torch.einsum("bpw,hws->bphs", whole, matrix)
        found.append(visit(letter, _plus(made, bias), number))
    if whole is None and shape.norm_first and visit.wants("norm1", "norm1_scale", layer=number):
        norm(stream)  # nobody reads it, but for the caller
    return found[0], found[1], found[2]


def _of_query_heads(weights: Tensor | None, heads: int) -> Tensor | None:
    """The weights of key-value heads, once for every query head that shares them."""
    return weights if weights is None else weights.repeat_interleave(heads // len(weights), 0)


def _mlp(
    shape: TransformerShape, weights: LayerWeights, number: int, stream: Stream, norm: _Norm, visit: Visits
) -> Stream:
    """What the MLP adds to the stream."""
    assert weights.w_in is not None and weights.w_out is not None
    inputs = visit("mlp_input", stream, number)
    normal = norm(inputs) if shape.norm_first else inputs
    activate = ACTIVATIONS[shape.activation]
    hidden = _plus(normal @ weights.w_in, weights.b_in)
    if weights.w_gate is None:
        hidden = activate(visit("pre", hidden, number))
    else:
        pre = visit("pre", _plus(normal @ weights.w_gate, weights.b_gate), number)
        hidden = activate(pre) * visit("gate", hidden, number)
    return visit("mlp_out", _plus(visit("post", hidden, number) @ weights.w_out, weights.b_out), number)


def _plus(value: Tensor, bias: Tensor | None) -> Tensor:
    return value if bias is None else value + bias


def rotated(heads: Float[Tensor, "batch place heads size"], angles: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys turned by their places.

    Args:
        angles: (place, rotary.size / 2), radians.
    """
    turning, rest = heads[..., : rotary.size], heads[..., rotary.size :]
    pairs = turning.unflatten(-1, (-1, 2)).unbind(-1) if rotary.neighbours else turning.chunk(2, -1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    turned = (pairs[0] * cos - pairs[1] * sin, pairs[1] * cos + pairs[0] * sin)
    together = torch.stack(turned, -1).flatten(-2) if rotary.neighbours else torch.cat(turned, -1)
    return torch.cat((together, rest), -1) if rest.shape[-1] else together


def allowed_keys(mask: Bool[Tensor, "batch place"] | None, places: int, causal: bool) -> Bool[Tensor, "b 1 query key"]:
    """Which keys each place may see: what is real, and if causal nothing after it."""
    allowed = torch.ones(1, 1, places, places, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    return allowed if mask is None else allowed & mask[:, None, None, :]


def angles_of(rotary: Rotary, factors: Tensor | None, places: int, offset: int) -> Tensor:
    """By which angle each pair is turned at each place, (place, pairs)."""
    frequencies = rotary.frequencies()
    if factors is not None:
        frequencies = frequencies / factors
    return torch.outer(torch.arange(offset, offset + places, dtype=torch.float32), frequencies)
