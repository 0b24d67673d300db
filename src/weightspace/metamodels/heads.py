"""Heads: from the encoder's vectors to an answer."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Head(nn.Module):
    """One map for all targets at once, starting at zero: every class equally likely.

    Args:
        width: size of the vector that is read.
        outputs: how many numbers come out.
        hidden: units of a hidden layer, half of which are dropped in training; 0 for a linear map.
    """

    def __init__(self, width: int, outputs: int, hidden: int = 0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.5)) if hidden else None
        self.linear = nn.Linear(hidden or width, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b outputs"]:
        return self.linear(x if self.hidden is None else self.hidden(x))
