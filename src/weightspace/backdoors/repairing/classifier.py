"""An image classifier that runs: what a repair needs of a network besides its weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

AT_ONCE = 512
"""Images that are answered together."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network that answers images.

    Attributes:
        module: in evaluation mode; gives logits (b, classes) of standardised images (b, c, h, w).
        shape: channels, height and width of an image.
        classes: how many it tells apart.
        mean, deviation: (c, 1, 1) by which pixels from 0 to 1 are standardised.
    """

    module: nn.Module
    shape: tuple[int, int, int]
    classes: int
    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(
        module: nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> Classifier:
        """A classifier whose module is a copy in evaluation mode that nobody else trains."""
        own = copy.deepcopy(module).eval().requires_grad_(False)
        statistics = (torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1) for values in (mean, deviation))
        return Classifier(own, shape, classes, *statistics)

    @property
    def lowest(self) -> Float[Tensor, "c 1 1"]:
        """A black pixel, standardised."""
        return -self.mean / self.deviation

    @property
    def highest(self) -> Float[Tensor, "c 1 1"]:
        """A white pixel, standardised."""
        return (1 - self.mean) / self.deviation

    def standardised(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Pixels from 0 to 1 as the network takes them."""
        return (pixels - self.mean) / self.deviation

    def pixels(self, images: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Standardised images as pixels from 0 to 1."""
        return (images * self.deviation + self.mean).clamp(0, 1)

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """What it answers, without gradients, part by part."""
        with torch.no_grad():
            return torch.cat([self.module(part) for part in images.split(AT_ONCE)])

    def answers(self, images: Float[Tensor, "b c h w"]) -> Int[Tensor, " b"]:
        """The class that it gives each image."""
        return self.logits(images).argmax(1)

    def with_module(self, module: nn.Module) -> Classifier:
        """The same with other weights."""
        return replace(self, module=module.eval().requires_grad_(False))

    def trainable(self) -> nn.Module:
        """A copy whose weights take gradients, in evaluation mode: running statistics stay, nothing is dropped."""
        return copy.deepcopy(self.module).eval().requires_grad_(True)
