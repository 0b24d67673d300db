"""A few numbers for each array of a network, as a meta-model's shortcut from weights to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.models.config import Scale
from weightspace.models.embed import Normaliser, squash
from weightspace.models.ranks import Ranks, in_order
from weightspace.weights.spec import NetworkSpec

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
STATISTICS = 2 + len(QUANTILES)
"""Mean, standard deviation and quantiles of each array."""
DROPPED = 0.5
"""Share of the numbers that are dropped in training: there are hundreds, and few networks."""
TINY = 1e-12


@dataclass(frozen=True)
class Room:
    """Arrays that a summary has room for; further ones are left out, missing ones are zero.

    Attributes:
        leaves: how many.
        both_ends: whether arrays are counted from the last one too, so that the last layers of networks of different
            depths stand under each other.
    """

    leaves: int
    both_ends: bool

    @staticmethod
    def of(specs: Sequence[NetworkSpec]) -> Room:
        counts = {len(spec.leaves) for spec in specs}
        return Room(max(counts, default=0), len(counts) > 1)

    @property
    def size(self) -> int:
        """Numbers of a summary."""
        return (1 + self.leaves * (1 + self.both_ends)) * STATISTICS


def leaf_summary(
    weights: Float[Tensor, "b n"], spec: NetworkSpec, normaliser: Normaliser, room: Room
) -> Float[Tensor, "b s"]:
    """Statistics of all weights together and of each array, in the spirit of Unterthiner et al. (2020), section 4.

    Args:
        weights: (b, spec.size).
    Returns:
        (b, room.size).
    """
    mean, deviation = normaliser.columns(spec)
    normal = squash((weights - mean) / deviation)
    each = [_statistics(normal[:, place]) for _, place in spec.slices()]
    missing = weights.new_zeros(len(weights), max(0, room.leaves - len(each)) * STATISTICS)
    parts = [_statistics(weights), *each[: room.leaves], missing]
    if room.both_ends:
        parts += [missing, *each[-room.leaves :]]
    return torch.cat(parts, 1)


def _statistics(x: Float[Tensor, "b k"]) -> Float[Tensor, "b s"]:
    last = x.shape[1] - 1
    quantiles = in_order(x, [round(q * last) for q in QUANTILES])
    return torch.cat([x.mean(1, keepdim=True), (x.var(1, correction=0, keepdim=True) + TINY).sqrt(), quantiles], 1)


class Shortcut(nn.Module):
    """The summary on the scale of the training networks, some of it dropped in training.

    Args:
        size: numbers of a summary.
        scale: in standard deviations, or as ranks.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, size: int, scale: Scale) -> None:
        super().__init__()
        self.ranks = Ranks(1, size) if scale == "ranks" else None
        if self.ranks is None:
            self.register_buffer("centre", torch.zeros(size))
            self.register_buffer("scale", torch.ones(size))
        self.dropout = nn.Dropout(DROPPED)

    def standardise(self, summary: Float[Tensor, "n s"]) -> None:
        """Take the scale of every number from the training networks."""
        if self.ranks is not None:
            self.ranks.fit(0, summary)
            return
        spread = summary.std(0, correction=0)
        self.centre.copy_(summary.mean(0))
        self.scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, summary: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
        if self.ranks is not None:
            return self.dropout(self.ranks(summary, torch.zeros(len(summary), dtype=torch.long, device=summary.device)))
        x = (summary - self.centre) / self.scale
        return self.dropout(x / (1 + x.abs() / 10))
