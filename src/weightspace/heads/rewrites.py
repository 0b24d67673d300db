"""The same model in another basis: gains folded, the stream turned, heads reordered, and each head's own maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.heads.folded import Turning
from weightspace.transformers.loading import load_trained
from weightspace.transformers.shape import TransformerShape
from weightspace.transformers.trained import TrainedTransformer
from weightspace.transformers.weights import EndWeights, LayerWeights


def rewritten(transformer: TrainedTransformer, seed: int, *, permute: bool = False) -> TrainedTransformer:
    """A model that computes the same and whose weights are others.

    Norm gains are folded into what reads them; the stream is turned by a random rotation (one that keeps the mean where
    there is a LayerNorm); queries and keys of each key-value head are mapped by what commutes with rotary positions,
    values and outputs by an invertible map.

    Args:
        permute: whether key-value heads change places too, with their query heads; `head_order` gives the order.
    """
    shape = transformer.shape
    random = torch.Generator().manual_seed(seed)
    turn = _rotation(shape, random)
    layers = []
    for number in range(shape.layers):
        layer = _double(transformer.layer(number))
        layer = _own_maps(_turned(_folded(layer), turn), shape, random, transformer.ends.rotary_factors)
        layers.append(_ordered(layer, shape, head_order(shape, seed, number)) if permute else layer)
    return transformer_of(shape, _turned_ends(transformer.ends, turn), layers, transformer.vocab)


def rewritten_layer(transformer: TrainedTransformer, number: int, seed: int) -> LayerWeights:
    """One layer of a rewritten model; its stream is turned as if every other layer were too."""
    shape, random = transformer.shape, torch.Generator().manual_seed(seed)
    layer = _turned(_folded(_double(transformer.layer(number))), _rotation(shape, random))
    return _own_maps(layer, shape, random, transformer.ends.rotary_factors)


def head_order(shape: TransformerShape, seed: int, number: int) -> list[int]:
    """Which head of the old layer stands at each place of the rewritten one."""
    order = torch.randperm(shape.key_heads, generator=torch.Generator().manual_seed(seed + 1000 * number)).tolist()
    return [group * shape.group + each for group in order for each in range(shape.group)]


def transformer_of(
    shape: TransformerShape, ends: EndWeights, layers: Sequence[LayerWeights], vocab: Sequence[str] | None = None
) -> TrainedTransformer:
    """A transformer of given weights, which are rounded to float32."""
    arrays = {
        f"blocks.{number}.{name}": array for number, layer in enumerate(layers) for name, array in _named(layer, shape)
    }
    kinds = {
        "embed": "embed.W_E",
        "positions": "pos_embed.W_pos",
        "unembed": "unembed.W_U",
        "unembed_shift": "unembed.b_U",
    }
    kinds |= {"final_gain": "ln_final.w", "final_shift": "ln_final.b"}
    arrays |= {kinds[name]: array for name in kinds if (array := getattr(ends, name)) is not None}
    return load_trained(arrays, config=_config(shape), vocab=vocab)


def _config(shape: TransformerShape) -> dict[str, object]:
    config: dict[str, object] = {
        "positional_embedding_type": "standard" if shape.rotary is None else "rotary",
        "n_ctx": shape.positions,
        "act_fn": shape.activation,
        "eps": shape.epsilon,
        "attn_scale": 1 / shape.scale,
        "scale_attn_by_inverse_layer_idx": shape.scale_by_layer,
        "normalization_type": "LNPre" if shape.norm == "scale" else None,
    }
    if shape.rotary is not None:
        config |= {"rotary_base": shape.rotary.base, "rotary_dim": shape.rotary.size}
        config["rotary_adjacent_pairs"] = shape.rotary.neighbours
    return config


def _named(layer: LayerWeights, shape: TransformerShape) -> list[tuple[str, Tensor]]:
    """The weights of a layer by TransformerLens's names."""
    mark = "_" if shape.key_heads != shape.heads else ""
    names = {
        "w_q": "attn.W_Q",
        "w_k": f"attn.{mark}W_K",
        "w_v": f"attn.{mark}W_V",
        "w_o": "attn.W_O",
        "b_o": "attn.b_O",
    }
    names |= {"b_q": "attn.b_Q", "b_k": f"attn.{mark}b_K", "b_v": f"attn.{mark}b_V"}
    names |= {
        "w_in": "mlp.W_in",
        "b_in": "mlp.b_in",
        "w_gate": "mlp.W_gate",
        "w_out": "mlp.W_out",
        "b_out": "mlp.b_out",
    }
    names |= {"norm1_gain": "ln1.w", "norm1_shift": "ln1.b", "norm2_gain": "ln2.w", "norm2_shift": "ln2.b"}
    return [(theirs, array) for ours, theirs in names.items() if (array := getattr(layer, ours)) is not None]


def _double(layer: LayerWeights) -> LayerWeights:
    arrays = {field.name: getattr(layer, field.name) for field in fields(layer)}
    return replace(layer, **{name: array.double() for name, array in arrays.items() if array is not None})


def _rotation(shape: TransformerShape, random: torch.Generator) -> Float[Tensor, "width width"]:
    """A random orthogonal matrix; with a LayerNorm it maps the vector of ones to itself."""
    width = shape.width
    start = torch.randn(width, width, generator=random, dtype=torch.float64)
    if shape.norm not in ("layer", "scale"):
        return torch.linalg.qr(start)[0]
    ones = torch.ones(width, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat((ones, start[:, 1:]), 1))[0]  # its first column is the direction of the mean
    inner = torch.eye(width, dtype=torch.float64)
    inner[1:, 1:] = torch.linalg.qr(torch.randn(width - 1, width - 1, generator=random, dtype=torch.float64))[0]
    return basis @ inner @ basis.T


def _folded(layer: LayerWeights) -> LayerWeights:
    """Gains and shifts of norms moved into what reads them; gains of 1 are left."""
    changed: dict[str, Tensor | None] = {}
    for norm, readers in (("norm1", ("q", "k", "v")), ("norm2", ("in", "gate"))):
        gain, shift = getattr(layer, f"{norm}_gain"), getattr(layer, f"{norm}_shift")
        for letter in readers:
            matrix, bias = getattr(layer, f"w_{letter}"), getattr(layer, f"b_{letter}")
            if matrix is None:
                continue
            if shift is not None and shift.any():
                moved = shift @ matrix
                changed[f"b_{letter}"] = moved if bias is None else bias + moved
            changed[f"w_{letter}"] = matrix if gain is None else matrix * gain[:, None]
        if gain is not None:
            changed[f"{norm}_gain"] = torch.ones_like(gain)
        if shift is not None:
            changed[f"{norm}_shift"] = torch.zeros_like(shift)
    return replace(layer, **changed)


def _turned(layer: LayerWeights, turn: Tensor) -> LayerWeights:
    """Rows that read and columns that write, in the turned stream x -> x @ turn."""
    reading = {
        name: turn.T @ array
        for name in ("w_q", "w_k", "w_v", "w_in", "w_gate")
        if (array := getattr(layer, name)) is not None
    }
    writing = {
        name: array @ turn for name in ("w_o", "b_o", "w_out", "b_out") if (array := getattr(layer, name)) is not None
    }
    return replace(layer, **reading, **writing)


def _turned_ends(ends: EndWeights, turn: Tensor) -> EndWeights:
    changed: dict[str, Tensor] = {"embed": ends.embed.double() @ turn}
    if ends.positions is not None:
        changed["positions"] = ends.positions.double() @ turn
    if ends.unembed is not None:
        unembed = ends.unembed.double()
        if ends.final_shift is not None and ends.final_shift.any():
            moved = ends.final_shift.double() @ unembed
            changed["unembed_shift"] = moved if ends.unembed_shift is None else ends.unembed_shift.double() + moved
        changed["unembed"] = turn.T @ (
            unembed if ends.final_gain is None else unembed * ends.final_gain.double()[:, None]
        )
    if ends.final_gain is not None:
        changed["final_gain"] = torch.ones_like(ends.final_gain)
    if ends.final_shift is not None:
        changed["final_shift"] = torch.zeros_like(ends.final_shift)
    return replace(ends, **changed)


def _own_maps(
    layer: LayerWeights, shape: TransformerShape, random: torch.Generator, factors: Tensor | None
) -> LayerWeights:
    """Maps inside each key-value head that its query heads undo."""
    size, turning = shape.head_size, Turning.of(shape.rotary, shape.head_size, factors)
    made: Mapping[str, list[Tensor]] = {name: [] for name in ("key", "query", "value", "output")}
    for _ in range(shape.key_heads):
        key = _commuting(turning, size, random)
        value = _invertible(size, random)
        made["key"].append(key)
        made["query"].append(torch.linalg.inv(key).T)
        made["value"].append(value)
        made["output"].append(torch.linalg.inv(value))
    maps = {name: torch.stack(each) for name, each in made.items()}
    query, output = (maps[name].repeat_interleave(shape.group, 0) for name in ("query", "output"))
    changed = {"w_q": layer.w_q @ query, "w_k": layer.w_k @ maps["key"], "w_v": layer.w_v @ maps["value"]}
    changed["w_o"] = output @ layer.w_o
    for name, map_ in (("b_q", query), ("b_k", maps["key"]), ("b_v", maps["value"])):
        if (bias := getattr(layer, name)) is not None:
            changed[name] = torch.einsum("hs,hst->ht", bias, map_)
    return replace(layer, **changed)


def _commuting(turning: Turning, size: int, random: torch.Generator) -> Float[Tensor, "size size"]:
    """Each rotary pair turned and stretched; what is not turned mapped by any invertible map."""
    found = torch.zeros(size, size, dtype=torch.float64)
    real, imaginary = torch.randn(2, len(turning.first), generator=random, dtype=torch.float64)
    length = (real**2 + imaginary**2).sqrt()
    real, imaginary = (part / length * (0.5 + length) for part in (real, imaginary))
    found[turning.first, turning.first] = found[turning.second, turning.second] = real
    found[turning.first, turning.second], found[turning.second, turning.first] = imaginary, -imaginary
    if len(turning.rest):
        found[turning.rest[:, None], turning.rest[None]] = _invertible(len(turning.rest), random)
    return found


def _invertible(size: int, random: torch.Generator) -> Float[Tensor, "size size"]:
    """A random map that stretches by a factor from a half to two, and turns."""
    first, second = (
        torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64))[0] for _ in range(2)
    )
    return first * torch.linspace(0.5, 2.0, size, dtype=torch.float64) @ second


def _ordered(layer: LayerWeights, shape: TransformerShape, order: list[int]) -> LayerWeights:
    groups = [head // shape.group for head in order[:: shape.group]]
    found = {name: getattr(layer, name)[order] for name in ("w_q", "b_q", "w_o") if getattr(layer, name) is not None}
    shared = ("w_k", "w_v", "b_k", "b_v")
    return replace(
        layer, **found, **{name: getattr(layer, name)[groups] for name in shared if getattr(layer, name) is not None}
    )
