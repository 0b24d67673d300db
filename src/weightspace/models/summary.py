"""A few numbers for each array of a network, as a meta-model's shortcut from weights to answer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.models.config import Scale
from weightspace.models.embed import Normaliser, squash
from weightspace.models.ranks import Ranks, in_order
from weightspace.weights.room import Room
from weightspace.weights.spec import NetworkSpec

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
STATISTICS = 2 + len(QUANTILES)
"""Mean, standard deviation and quantiles of each array."""
DROPPED = 0.5
"""Share of the numbers that are dropped in training: there are hundreds, and few networks."""
TINY = 1e-12


def summary_size(room: Room) -> int:
    """Numbers of a summary."""
    return (1 + room.slots) * STATISTICS


def leaf_summary(
    weights: Float[Tensor, "b n"], spec: NetworkSpec, normaliser: Normaliser, room: Room
) -> Float[Tensor, "b s"]:
    """Statistics of all weights together and of each array, in the spirit of Unterthiner et al. (2020), section 4.

    Args:
        weights: (b, spec.size).
        room: for arrays; missing ones are zero.
    Returns:
        (b, summary_size(room)).
    """
    mean, deviation = normaliser.columns(spec)
    normal = squash((weights - mean) / deviation)
    each = [_statistics(normal[:, place]) for _, place in spec.slices()]
    missing = weights.new_zeros(len(weights), STATISTICS)
    return torch.cat([_statistics(weights), *room.arranged(each, missing)], 1)


def _statistics(x: Float[Tensor, "b k"]) -> Float[Tensor, "b s"]:
    last = x.shape[1] - 1
    quantiles = in_order(x, [round(q * last) for q in QUANTILES])
    return torch.cat([x.mean(1, keepdim=True), (x.var(1, correction=0, keepdim=True) + TINY).sqrt(), quantiles], 1)


class Shortcut(nn.Module):
    """The summary on the scale of the training networks, some of it dropped in training.

    With bins it is piecewise linear encodings of the ranks (Gorishniy et al. 2022, section 3.1): of each bin, how far
    into it the number reaches, -0.5 to 0.5. One layer then sees whether a number is beyond a threshold, as trees do.

    Args:
        size: numbers of a summary.
        scale: in standard deviations, or as ranks.
        bins: equally likely parts of the scale of ranks; 0 for the number itself.
    """

    centre: Tensor
    scale: Tensor
    edges: Tensor

    def __init__(self, size: int, scale: Scale, bins: int = 0) -> None:
        super().__init__()
        self.size = size * max(1, bins)
        """Numbers that come out."""
        places = (torch.arange(bins + 1, dtype=torch.float64) + 0.5) / (bins + 1)
        self.register_buffer("edges", torch.special.ndtri(places).float(), persistent=False)
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

    def forward(self, summary: Float[Tensor, "b s"]) -> Float[Tensor, "b o"]:
        if self.ranks is not None:
            scores = self.ranks(summary, torch.zeros(len(summary), dtype=torch.long, device=summary.device))
            if len(self.edges) > 1:
                inside = (scores[..., None] - self.edges[:-1]) / self.edges.diff()
                scores = (inside.clamp(0, 1) - 0.5).flatten(1)
            return self.dropout(scores)
        x = (summary - self.centre) / self.scale
        return self.dropout(x / (1 + x.abs() / 10))
