"""A small transformer to be trained: its sizes and settings, its first weights, and its state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace.pairs.correspondence import Slot, slots_of
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

EPSILON = 1e-5
Weights = dict[str, Tensor]
"""What is trained, by names of our own: the matrices of queries, keys and values of all heads of a layer are one."""


@dataclass(frozen=True)
class NetworkPlan:
    """What a network is and how it is trained: the labels of a zoo.

    Attributes:
        width: of the residual stream.
        hidden: units of an MLP.
        norm: LN or none.
        activation: relu or gelu.
        optimiser: adamw or adam.
        rate: the highest learning rate.
        weight_decay: of matrices.
        batch: pairs of inputs a step.
        steps: at most.
        chained: whether half of the sources of swaps are runs in which something was swapped already.
    """

    seed: int
    layers: int
    width: int
    heads: int
    head_size: int
    hidden: int
    norm: str
    activation: str
    optimiser: str = "adamw"
    rate: float = 1e-2
    weight_decay: float = 1e-3
    batch: int = 128
    steps: int = 2_000
    chained: bool = False

    @classmethod
    def drawn(cls, random: Random, seed: int) -> NetworkPlan:
        """Sizes and settings at random, whatever the program."""
        width = random.choice((16, 24, 32, 32, 48, 64))
        return cls(
            seed=seed,
            layers=random.choice((4, 4, 5, 6)),
            width=width,
            heads=random.choice((2, 4, 4, 4)),
            head_size=8 if width < 48 else random.choice((8, 16)),
            hidden=random.choice((48, 64, 96)),
            norm=random.choice(("none", "none", "LN")),
            activation=random.choice(("relu", "gelu")),
            weight_decay=random.choice((0.0, 1e-4, 1e-3, 1e-2)),
        )

    @classmethod
    def tiny(cls, random: Random, seed: int) -> NetworkPlan:
        """The same for networks that train in seconds."""
        return cls(
            seed=seed,
            layers=random.choice((3, 4)),
            width=random.choice((16, 24, 32)),
            heads=random.choice((2, 3)),
            head_size=random.choice((4, 8)),
            hidden=random.choice((32, 48)),
            norm=random.choice(("none", "none", "LN")),
            activation=random.choice(("relu", "gelu")),
            weight_decay=random.choice((0.0, 1e-4, 1e-3, 1e-2)),
            batch=64,
            steps=1_500,
        )

    @property
    def slots(self) -> list[Slot]:
        """All its components."""
        return slots_of(self.layers, self.heads)

    @property
    def config(self) -> dict[str, Any]:
        """Its settings by TransformerLens's names."""
        return {
            "n_layers": self.layers,
            "d_model": self.width,
            "n_heads": self.heads,
            "d_head": self.head_size,
            "d_mlp": self.hidden,
            "act_fn": self.activation,
            "normalization_type": self.norm,
            "attention_dir": "bidirectional",
            "positional_embedding_type": "standard",
            "eps": EPSILON,
        }

    def to_record(self) -> dict[str, Any]:
        """Itself, JSON-serialisable."""
        return asdict(self)


def first_weights(plan: NetworkPlan, tokens: int, places: int, outputs: int) -> Weights:
    """Random weights.

    Args:
        tokens: of its vocabulary, the one that begins an input included.
        places: of its inputs, with this one.
    """
    random = torch.Generator().manual_seed(plan.seed)
    width, across, hidden = plan.width, plan.heads * plan.head_size, plan.hidden

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=random) * scale

    found = {"embed": normal(tokens, width, scale=0.5), "positions": normal(places, width, scale=0.5)}
    for layer in range(plan.layers):
        found |= {
            f"{layer}.qkv": normal(width, 3 * across, scale=width**-0.5),
            f"{layer}.qkv_bias": torch.zeros(3 * across),
            f"{layer}.out": normal(across, width, scale=0.7 * across**-0.5),
            f"{layer}.out_bias": torch.zeros(width),
            f"{layer}.first": normal(width, hidden, scale=width**-0.5),
            f"{layer}.first_bias": torch.zeros(hidden),
            f"{layer}.second": normal(hidden, width, scale=0.7 * hidden**-0.5),
            f"{layer}.second_bias": torch.zeros(width),
        }
    if plan.norm == "LN":
        for name in ("last", *(f"{layer}.{half}" for layer in range(plan.layers) for half in ("norm1", "norm2"))):
            found |= {f"{name}_gain": torch.ones(width), f"{name}_shift": torch.zeros(width)}
    found |= {"unembed": normal(width, outputs, scale=width**-0.5), "unembed_bias": torch.zeros(outputs)}
    return found


def state_dict(plan: NetworkPlan, weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The weights by TransformerLens's names, with an axis for heads."""
    heads, size = plan.heads, plan.head_size
    found = {"embed.W_E": weights["embed"], "pos_embed.W_pos": weights["positions"]}
    for layer in range(plan.layers):
        at = f"blocks.{layer}"
        qkv = weights[f"{layer}.qkv"].unflatten(1, (3, heads, size))
        bias = weights[f"{layer}.qkv_bias"].unflatten(0, (3, heads, size))
        for number, letter in enumerate("QKV"):
            found[f"{at}.attn.W_{letter}"] = qkv[:, number].permute(1, 0, 2)
            found[f"{at}.attn.b_{letter}"] = bias[number]
        found |= {
            f"{at}.attn.W_O": weights[f"{layer}.out"].unflatten(0, (heads, size)),
            f"{at}.attn.b_O": weights[f"{layer}.out_bias"],
            f"{at}.mlp.W_in": weights[f"{layer}.first"],
            f"{at}.mlp.b_in": weights[f"{layer}.first_bias"],
            f"{at}.mlp.W_out": weights[f"{layer}.second"],
            f"{at}.mlp.b_out": weights[f"{layer}.second_bias"],
        }
    for ours, theirs in (
        ("last", "ln_final"),
        *((f"{n}.norm{half}", f"blocks.{n}.ln{half}") for n in range(plan.layers) for half in (1, 2)),
    ):
        if f"{ours}_gain" in weights:
            found |= {f"{theirs}.w": weights[f"{ours}_gain"], f"{theirs}.b": weights[f"{ours}_shift"]}
    found |= {"unembed.W_U": weights["unembed"], "unembed.b_U": weights["unembed_bias"]}
    return {name: np.ascontiguousarray(array.detach().numpy()) for name, array in found.items()}


def transformer_of(plan: NetworkPlan, weights: Mapping[str, Tensor]) -> TrainedTransformer:
    """The network as everybody else reads it."""
    return load_trained(state_dict(plan, weights), config=plan.config)
