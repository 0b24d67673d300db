"""Heads: from the encoder's vectors to an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class ClassificationHead(nn.Module):
    """One linear map for any number of targets at once, starting at zero: every class equally likely.

    Args:
        width: size of the vector that is read.
        classes: number of classes of each target.
    """

    def __init__(self, width: int, classes: Sequence[int]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.linear = nn.Linear(width, sum(classes))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "b d"]) -> tuple[Tensor, ...]:
        """Logits of each target, (b, classes)."""
        return self.linear(x).split(self.classes, dim=-1)


def classification_loss(logits: Sequence[Tensor], labels: Int[Tensor, "b targets"]) -> Float[Tensor, ""]:
    """Mean over the targets of the mean cross-entropy over the networks whose class is known (label not -1)."""
    losses = []
    for values, truth in zip(logits, labels.unbind(1), strict=True):
        known = (truth >= 0).sum().clamp(min=1)
        losses.append(F.cross_entropy(values.float(), truth, ignore_index=-1, reduction="sum") / known)
    return torch.stack(losses).mean()
