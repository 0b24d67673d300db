"""Small language models with random weights, and one whose heads are made by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weightspace.heads.small_models import SmallModel, first_weights
from weightspace.transformers.loading import load_trained
from weightspace.transformers.trained import TrainedTransformer

PLAIN = SmallModel(
    seed=3,
    layers=2,
    width=24,
    heads=4,
    key_heads=4,
    head_size=8,
    positions="rotary",
    base=1e3,
    hidden=0,
    bias=False,
    norm="RMS",
    vocabulary=20,
    length=16,
    rate=1e-2,
    steps=4,
    mixture=(1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
)


def random_model(model: SmallModel, seed: int = 0) -> TrainedTransformer:
    """Its weights with noise on everything, gains and biases too."""
    random = torch.Generator().manual_seed(seed)
    weights = {
        name: array + 0.3 * torch.randn(array.shape, generator=random) for name, array in first_weights(model).items()
    }
    return load_trained(weights, config=model.config)


def looking_back(*distances: int, places: int = 64, vocabulary: int = 40) -> TrainedTransformer:
    """One layer, one head for each distance, which attends that many places back: learned positions, one-hot."""
    width, heads = places + vocabulary, len(distances)
    embed = torch.zeros(vocabulary, width)
    embed[:, places:] = torch.eye(vocabulary)
    positions = torch.zeros(places, width)
    positions[:, :places] = torch.eye(places)
    query, key = torch.zeros(2, heads, width, places)
    for head, distance in enumerate(distances):
        key[head, :places] = torch.eye(places)
        for place in range(places):
            query[head, place, max(place - distance, 0)] = 100.0
    value = torch.zeros(heads, width, places)
    value[:, places:, :vocabulary] = torch.eye(vocabulary)
    output = torch.zeros(heads, places, width)
    output[:, :vocabulary, places:] = torch.eye(vocabulary)
    arrays: dict[str, Tensor] = {"embed.W_E": embed, "pos_embed.W_pos": positions, "unembed.W_U": embed.T}
    for name, array in (("W_Q", query), ("W_K", key), ("W_V", value), ("W_O", output)):
        arrays[f"blocks.0.attn.{name}"] = array
    settings: dict[str, Any] = {"normalization_type": "none", "use_attn_scale": False}
    return load_trained(arrays, config=settings)
