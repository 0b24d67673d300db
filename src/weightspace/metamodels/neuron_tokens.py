"""From flat weights to a token a neuron: what it reads and what reads it, in whatever order its neighbours stand."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import isqrt

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.metamodels.config import Scale
from weightspace.metamodels.embed import MAX_LAYERS, Normaliser, TokenBatch, gather_tokens, layer_numbers, squash
from weightspace.metamodels.order import NormalScores, in_order
from weightspace.weights.neurons import VECTORS, group_starts, neuron_entries
from weightspace.weights.population import Population
from weightspace.weights.spec import ROLES, NetworkSpec, SpecError

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
PLACES = 9
"""Places of a convolution kernel that are told apart: 3x3; of larger square ones the mean over each of 3x3 parts."""
POOLED = 4 + len(QUANTILES)
DIRECTION = POOLED + 2 * PLACES
FEATURES = 2 * DIRECTION + len(VECTORS)
"""Numbers of a token: of what it reads, of what reads it, and its entries of the vectors beside kernels."""
TINY = 1e-12
"""Added below square roots, whose slope at 0 is infinite."""
BLOCK = 2**24
"""Weights that are turned into tokens at once."""


@lru_cache(maxsize=256)
def _parts(spec: NetworkSpec) -> tuple[tuple[int, int, Tensor], ...]:
    """For each group's part of an array: group, first feature, entries (neurons, others, places)."""
    found = []
    for group, role, reads, places in neuron_entries(spec):
        slot = 2 * DIRECTION + VECTORS.index(role) if role in VECTORS else 0 if reads else DIRECTION
        found.append((group, slot, torch.from_numpy(places)))
    return tuple(found)


def neuron_count(spec: NetworkSpec) -> int:
    """Neurons of all groups, inputs and outputs too, which is the number of tokens."""
    return sum(group.size for group in spec.groups)


def neuron_tokens(weights: Float[Tensor, "b n"], spec: NetworkSpec, normaliser: Normaliser) -> TokenBatch:
    """Networks of one spec as a token a neuron, group by group.

    Of all weights that a neuron reads by (dimension 0 of a kernel), and of all by which it is read: mean, standard
    deviation, least, greatest and five quantiles; and for convolutions mean and root mean square over the other neurons
    at each place of a kernel, or in each of 3x3 parts of a larger one. Then its bias, scale, shift and running
    statistics. What several arrays say is averaged. All but the order of the tokens of a group stays as it is when
    neurons are put in another order.

    Args:
        weights: (b, spec.size).
    Returns:
        tokens with values (b, neurons, 59), and as kinds the layer that writes the neurons; inputs have role "other".
    Raises:
        SpecError: if the spec knows no neurons.
    """
    if not spec.groups:
        raise SpecError("this network's spec knows no neurons, as a bare state dict's: say that it is a chain")
    mean, deviation = normaliser.columns(spec)
    x = squash((weights - mean) / deviation)
    firsts = group_starts(spec)
    values = torch.zeros(len(x), firsts[-1], FEATURES)
    times = torch.zeros(firsts[-1], FEATURES)
    for group, slot, entries in _parts(spec):
        rows = slice(firsts[group], firsts[group + 1])
        own = x[:, entries]  # (b, neurons, others, places)
        if slot >= 2 * DIRECTION:
            values[:, rows, slot] += own.flatten(2).mean(2)
            times[rows, slot] += 1
            continue
        values[:, rows, slot : slot + POOLED] += _pooled(own.flatten(2))
        times[rows, slot : slot + POOLED] += 1
        side = isqrt(own.shape[3])
        if 1 < own.shape[3] <= PLACES or side * side == own.shape[3] > PLACES:
            for offset, square in ((0, own.mean(2)), (PLACES, own.square().mean(2))):
                summary = square
                if square.shape[2] > PLACES:
                    summary = F.adaptive_avg_pool2d(square.unflatten(2, (side, side)), 3).flatten(2)
                if offset:
                    summary = (summary + TINY).sqrt()
                first = slot + POOLED + offset
                values[:, rows, first : first + summary.shape[2]] += summary
                times[rows, first : first + summary.shape[2]] += 1
    values /= times.clamp(min=1)
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    return TokenBatch(values, mask, _kinds(spec).expand(len(x), -1, -1))


def _pooled(x: Float[Tensor, "b n m"]) -> Float[Tensor, "b n s"]:
    last = x.shape[2] - 1
    quantiles = in_order(x, [round(q * last) for q in QUANTILES])
    spread = (x.var(2, correction=0) + TINY).sqrt()
    return torch.cat([torch.stack([x.mean(2), spread, x.amin(2), x.amax(2)], 2), quantiles], 2)


@lru_cache(maxsize=256)
def _kinds(spec: NetworkSpec) -> Float[Tensor, "t k"]:
    """Of each neuron the layer whose kernel writes it, encoded as `embed.composition` does; inputs are "other"."""
    firsts = group_starts(spec)
    kinds = torch.zeros(firsts[-1], len(ROLES) + MAX_LAYERS)
    numbers = {group.name: number for number, group in enumerate(spec.groups)}
    written: dict[int, int] = {}
    for leaf, layer in zip(spec.leaves, layer_numbers(spec), strict=True):
        if leaf.role == "kernel":
            for name in leaf.axes[0].groups:
                written.setdefault(numbers[name], layer)
    for number in range(len(spec.groups)):
        rows = slice(firsts[number], firsts[number + 1])
        kinds[rows, ROLES.index("kernel" if number in written else "other")] = 1
        kinds[rows, len(ROLES) + written.get(number, 0)] = 1
    return kinds


def tokens_of(networks: Population, normaliser: Normaliser) -> TokenBatch:
    """All networks of a population as one batch of neuron tokens."""
    parts = []
    for spec, positions in networks.groups():
        for block in np.array_split(positions, -(-len(positions) * spec.size // BLOCK)):
            parts.append((block, neuron_tokens(torch.from_numpy(networks.read(block)), spec, normaliser)))
    return gather_tokens(parts)


class NeuronEmbedding(nn.Module):
    """Neuron tokens to vectors: each number on the scale that it has among the training networks' neurons of its layer.

    There is no encoding of position: another order of the neurons of a group gives the same vectors in that order.

    Args:
        width: size of a vector.
        scale: in standard deviations, or as ranks.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, width: int, scale: Scale = "deviations") -> None:
        super().__init__()
        kinds = len(ROLES) + MAX_LAYERS
        self.ranks = NormalScores(kinds, FEATURES) if scale == "ranks" else None
        self.register_buffer("centre", torch.zeros(kinds, FEATURES))
        self.register_buffer("scale", torch.ones(kinds, FEATURES))
        self.features = nn.Sequential(nn.Linear(FEATURES, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.kind = nn.Linear(kinds, width, bias=False)

    def standardise(self, tokens: TokenBatch) -> None:
        """Take mean and standard deviation of every number in every layer from the training networks."""
        seen = tokens.kinds * tokens.mask[..., None]
        for kind in torch.unique(seen.flatten(0, 1), dim=0):
            if not kind.any():
                continue
            rows = tokens.values[(seen == kind).all(2)]
            layer = int(kind[len(ROLES) :].argmax()) if kind[ROLES.index("kernel")] else None
            row = ROLES.index("other") if layer is None else len(ROLES) + layer
            spread = rows.std(0, correction=0)
            self.centre[row] = rows.mean(0)
            self.scale[row] = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
            if self.ranks is not None:
                self.ranks.fit(row, rows)

    def forward(self, tokens: TokenBatch) -> Float[Tensor, "b t d"]:
        return self.features(self.standard(tokens)) + self.kind(tokens.kinds)

    def standard(self, tokens: TokenBatch) -> Float[Tensor, "b t f"]:
        """Every number on the scale of its layer; deviations are drawn in so that none is beyond 10."""
        if self.ranks is not None:
            return tokens.values  # `ranked` already, as that takes longer than all the rest
        x = (tokens.values - self.centre_of(tokens)) / self.scale[_rows(tokens)]
        return x / (1 + x.abs() / 10)

    def ranked(self, tokens: TokenBatch) -> TokenBatch:
        """The same tokens as normal scores of their ranks, where that is the scale."""
        if self.ranks is None:
            return tokens
        return replace(tokens, values=self.ranks(tokens.values, _rows(tokens)))

    def centre_of(self, tokens: TokenBatch) -> Float[Tensor, "b t f"]:
        """The mean neuron of each token's layer among the training networks."""
        if self.ranks is not None:
            return torch.zeros_like(tokens.values)
        return self.centre[_rows(tokens)]


def _rows(tokens: TokenBatch) -> Int[Tensor, "b t"]:
    """Which row of a table by layer each token has; inputs have one of their own."""
    inputs = tokens.kinds[..., ROLES.index("other")].bool()
    return torch.where(inputs, ROLES.index("other"), len(ROLES) + tokens.kinds[..., len(ROLES) :].argmax(-1))
