"""Linear layers that multiply in bfloat16, where a CPU does that three times faster; everything else stays float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HalfLinear(nn.Linear):
    """A linear layer whose weights are float32 and whose products are taken in bfloat16, summed in float32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        bias = None if self.bias is None else self.bias.bfloat16()
        return F.linear(input.bfloat16(), self.weight.bfloat16(), bias).float()


def with_half_linears(module: nn.Module) -> None:
    """Put a `HalfLinear` with the same parameters in the place of every linear layer within a module."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            with torch.device("meta"):
                half = HalfLinear(child.in_features, child.out_features, child.bias is not None)
            half.weight, half.bias = child.weight, child.bias
            setattr(module, name, half)
        else:
            with_half_linears(child)
