"""A forward pass over pairs of inputs in which components of the base hold at some places what the source's hold.

Features come first and sequences last, so that the many small products of attention run along whole rows of sequences:
on a CPU a step takes half as long as in the usual order, in which rows are as short as an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from weightspace.pairs.network import EPSILON, NetworkPlan


def interchanged(
    plan: NetworkPlan,
    weights: Mapping[str, Tensor],
    tokens: Float[Tensor, "tokens places sequences"],
    swaps: Bool[Tensor, "components places pairs"] | None,
    chained: bool = False,
) -> Float[Tensor, "outputs places sequences"]:
    """Logits of sources, which are left alone, and of bases, whose components are swapped.

    One pass for both: sources come first, and then a base for each source, once or several times over.

    Args:
        tokens: 1 where an input has a token.
        swaps: by component in the order of `plan.slots`, where a base's holds what the source's holds; None for none.
        chained: whether the second bases have the first ones, as they are after their swaps, for their sources, and so
            on; else all have the same sources.
    """
    shape = tokens.shape[1:]
    activate = torch.relu if plan.activation == "relu" else functional.gelu
    stream = weights["embed"].t() @ tokens.flatten(1)
    stream = stream.unflatten(1, shape) + weights["positions"].t().unsqueeze(-1)
    for layer in range(plan.layers):
        first = layer * (plan.heads + 1)
        qkv = _linear(weights, f"{layer}.qkv", _normal(weights, f"{layer}.norm1", stream))
        z = _Attention.apply(qkv.view(3, plan.heads, plan.head_size, *shape))
        if swaps is not None:
            z = _Swapped.apply(z, swaps[first : first + plan.heads].unsqueeze(1), chained)
        stream = stream + _linear(weights, f"{layer}.out", z.flatten(0, 1))
        hidden = _linear(weights, f"{layer}.first", _normal(weights, f"{layer}.norm2", stream))
        written = _linear(weights, f"{layer}.second", activate(hidden))
        if swaps is not None:
            written = _Swapped.apply(written, swaps[first + plan.heads], chained)
        stream = stream + written
    return _linear(weights, "unembed", _normal(weights, "last", stream))


def _linear(weights: Mapping[str, Tensor], name: str, value: Tensor) -> Tensor:
    found = torch.addmm(weights[f"{name}_bias"].unsqueeze(1), weights[name].t(), value.flatten(1))
    return found.unflatten(1, value.shape[1:])


def _normal(weights: Mapping[str, Tensor], name: str, stream: Tensor) -> Tensor:
    """LayerNorm over features, if the network has one."""
    if f"{name}_gain" not in weights:
        return stream
    variance, mean = torch.var_mean(stream, 0, correction=0, keepdim=True)
    gain, shift = weights[f"{name}_gain"][:, None, None], weights[f"{name}_shift"][:, None, None]
    return (stream - mean) * (variance + EPSILON).rsqrt() * gain + shift


class _Attention(torch.autograd.Function):
    """What heads give, of queries, keys and values (3, heads, size, places, sequences).

    Sums are made term by term, since a product of all terms would be a large array of its own.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:
        q, k, v = qkv
        pattern = _dots(q, k).mul_(qkv.shape[2] ** -0.5).softmax(2)  # (heads, query, key, sequences)
        ctx.save_for_backward(qkv, pattern)
        found = pattern[:, None, :, 0] * v[:, :, None, 0]
        for key in range(1, v.shape[2]):
            found.addcmul_(pattern[:, None, :, key], v[:, :, None, key])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        qkv, pattern = ctx.saved_tensors
        (q, k, v), given = qkv, grads[0]
        of_pattern = _dots(given, v)
        scores = of_pattern.sub_((of_pattern * pattern).sum(2, keepdim=True)).mul_(pattern).mul_(qkv.shape[2] ** -0.5)
        found = torch.zeros_like(qkv)
        for place in range(qkv.shape[3]):
            found[0].addcmul_(scores[:, None, :, place], k[:, :, None, place])
            found[1].addcmul_(scores[:, None, place], q[:, :, None, place])
            found[2].addcmul_(pattern[:, None, place], given[:, :, None, place])
        return found


def _dots(first: Tensor, second: Tensor) -> Tensor:
    """Of each place of the first with each of the second the sum of products, (heads, places, places, sequences)."""
    found = first[:, 0].unsqueeze(2) * second[:, 0].unsqueeze(1)
    for number in range(1, first.shape[1]):
        found.addcmul_(first[:, number].unsqueeze(2), second[:, number].unsqueeze(1))
    return found


class _Swapped(torch.autograd.Function):
    """Values of sources and then of bases, those of the bases somewhere replaced by those of their sources."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, where: Tensor, chained: bool) -> Tensor:
        size = value.shape[-1] - where.shape[-1]
        parts = list(value.split(size, -1))
        for number, chosen in enumerate(where.split(size, -1), 1):
            parts[number] = torch.where(chosen, parts[number - 1 if chained else 0], parts[number])
        ctx.save_for_backward(where)
        ctx.chained = chained
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (where,) = ctx.saved_tensors
        size = grads[0].shape[-1] - where.shape[-1]
        parts = list(grads[0].split(size, -1))
        for number, chosen in reversed(list(enumerate(where.split(size, -1), 1))):
            moved = parts[number] * chosen
            source = number - 1 if ctx.chained else 0
            parts[source] = parts[source] + moved
            parts[number] = parts[number] - moved
        return torch.cat(parts, -1), None, None
