"""A few numbers for each array of a network, as a meta-model's shortcut from weights to answer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weightspace.metamodels.config import Scale
from weightspace.metamodels.embed import Normaliser, squash
from weightspace.metamodels.order import NormalScores, in_order
from weightspace.weights.slots import Room
from weightspace.weights.spec import ROLES, NetworkSpec

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
STATISTICS = 2 + len(QUANTILES)
"""Mean, standard deviation and quantiles of each array."""
EXACT_SUMMARY = (3 + len(ROLES)) * STATISTICS
"""Numbers of an exact summary."""
THRESHOLDS = 64
"""Equally likely parts in which each of those numbers is encoded."""
DROPPED = 0.5
"""Share of the numbers that are dropped in training: there are hundreds, and few networks."""
DROPPED_EXACT = 0.1
"""The same of exact statistics, of which a single number may be all that tells."""
TINY = 1e-12


def summary_size(room: Room) -> int:
    """Numbers of a summary."""
    return (1 + room.slots) * STATISTICS


def leaf_summary(
    weights: Float[Tensor, "b n"], spec: NetworkSpec, normaliser: Normaliser | None, room: Room
) -> Float[Tensor, "b s"]:
    """Statistics of all weights together and of each array, in the spirit of Unterthiner et al. (2020), section 4.

    Args:
        weights: (b, spec.size).
        normaliser: what arrays are put on a scale by; None takes them as they are, in float64, see `exact_summary`.
        room: for arrays; missing ones are zero.
    Returns:
        (b, summary_size(room)).
    """
    if normaliser is None:
        normal, statistics = weights, _exact_statistics
    else:
        mean, deviation = normaliser.columns(spec)
        normal, statistics = squash((weights - mean) / deviation), _statistics
    each = [statistics(normal[:, place]) for _, place in spec.slices()]
    missing = weights.new_zeros(len(weights), STATISTICS)
    return torch.cat([statistics(weights), *room.arranged(each, missing)], 1)


def exact_summary(weights: Float[Tensor, "b n"], spec: NetworkSpec) -> Float[Tensor, "b s"]:
    """The same statistics of the weights as they are: of all, of all arrays of each role, of the last kernel and bias.

    Some of what training leaves behind stands in numbers so small that a scale takes them away. Gradients of the output
    biases add up to zero, so their mean tells SGD (1e-8, from rounding) from Adam (1e-3); a neuron that never fires has
    a running variance of 0.9 to the power of the updates, so the least of all tells the batch size. Hence float64, and
    no normalisation.

    Args:
        weights: (b, spec.size).
    Returns:
        (b, EXACT_SUMMARY); zeros for a role that the network does not have.
    """
    places = {role: [place for leaf, place in spec.slices() if leaf.role == role] for role in ROLES}
    groups = [[slice(None)], *places.values(), places["kernel"][-1:], places["bias"][-1:]]
    missing = weights.new_zeros(len(weights), STATISTICS)
    found = [
        _exact_statistics(torch.cat([weights[:, place] for place in group], 1)) if group else missing
        for group in groups
    ]
    return torch.cat(found, 1)


def _statistics(x: Float[Tensor, "b k"]) -> Float[Tensor, "b s"]:
    return torch.cat([x.mean(1, keepdim=True), (x.var(1, correction=0, keepdim=True) + TINY).sqrt(), _quantiles(x)], 1)


def _exact_statistics(x: Float[Tensor, "b k"]) -> Float[Tensor, "b s"]:
    """The same with moments in float64; quantiles are weights, and need no more than those."""
    long = x.double()
    moments = long.mean(1, keepdim=True), (long.var(1, correction=0, keepdim=True) + TINY**4).sqrt()
    return torch.cat([*(moment.float() for moment in moments), _quantiles(x)], 1)


def _quantiles(x: Float[Tensor, "b k"]) -> Float[Tensor, "b q"]:
    last = x.shape[1] - 1
    return in_order(x, [round(q * last) for q in QUANTILES])


class Shortcut(nn.Module):
    """The summary on the scale of the training networks, some of it dropped in training.

    With bins it is piecewise linear encodings of the ranks (Gorishniy et al. 2022, section 3.1): of each bin, how far
    into it the number reaches, -0.5 to 0.5. One layer then sees whether a number is beyond a threshold, as trees do.

    Args:
        size: numbers of a summary.
        scale: in standard deviations, or as ranks.
        bins: equally likely parts of the scale of ranks; 0 for the number itself.
        dropped: share of what comes out that is dropped in training.
    """

    centre: Tensor
    scale: Tensor
    edges: Tensor

    def __init__(self, size: int, scale: Scale, bins: int = 0, dropped: float = DROPPED) -> None:
        super().__init__()
        self.numbers = size
        self.size = size * max(1, bins)
        """Numbers that come out."""
        places = (torch.arange(bins + 1, dtype=torch.float64) + 0.5) / (bins + 1)
        self.register_buffer("edges", torch.special.ndtri(places).float(), persistent=False)
        self.ranks = NormalScores(1, size) if scale == "ranks" else None
        if self.ranks is None:
            self.register_buffer("centre", torch.zeros(size))
            self.register_buffer("scale", torch.ones(size))
        self.dropout = nn.Dropout(dropped)

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
                scores = _piecewise(scores, self.edges)
            return self.dropout(scores)
        x = (summary - self.centre) / self.scale
        return self.dropout(x / (1 + x.abs() / 10))


class Thresholds(nn.Module):
    """Piecewise linear encodings of numbers as they are (Gorishniy et al. 2022, section 3.1), -0.5 to 0.5 for each bin.

    Bins end at quantiles of the training networks, so that a value that many of them share is told from every other.

    Args:
        size: numbers.
    """

    edges: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.numbers = size
        self.size = size * THRESHOLDS
        """Numbers that come out."""
        self.register_buffer("edges", torch.zeros(size, THRESHOLDS + 1))
        self.dropout = nn.Dropout(DROPPED_EXACT)

    def standardise(self, values: Float[Tensor, "n s"]) -> None:
        """Take the edges from the training networks."""
        shares = torch.linspace(0, 1, THRESHOLDS + 1, dtype=torch.float64)
        self.edges.copy_(torch.quantile(values.double(), shares, 0).T)

    def forward(self, values: Float[Tensor, "b s"]) -> Float[Tensor, "b o"]:
        return self.dropout(_piecewise(values, self.edges))


def _piecewise(x: Float[Tensor, "b s"], edges: Float[Tensor, "*sizes e"]) -> Float[Tensor, "b o"]:
    """How far into each bin between its edges a number reaches, -0.5 to 0.5; a bin without width is a step."""
    inside = (x[..., None] - edges[..., :-1]) / edges.diff().clamp(min=1e-37)
    return (inside.clamp(0, 1) - 0.5).flatten(1)
