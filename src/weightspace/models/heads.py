"""Heads: from the encoder's vectors to an answer."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module):
    """One map for any number of targets at once, starting at zero: every class equally likely.

    Args:
        width: size of the vector that is read.
        outputs: of each target: its number of classes, or 1 of a quantity.
        hidden: units of a hidden layer, half of which are dropped in training; 0 for a linear map.
    """

    def __init__(self, width: int, outputs: Sequence[int], hidden: int = 0) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.5)) if hidden else None
        self.linear = nn.Linear(hidden or width, sum(outputs))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "b d"]) -> tuple[Tensor, ...]:
        """What each target's answer is made of, (b, outputs)."""
        return self.linear(x if self.hidden is None else self.hidden(x)).split(self.outputs, dim=-1)
