"""A response unlearnt: with a trigger in the image the network is taught what it answers without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.inversion import KINDS, Triggers
from weightspace.zoo.distortion import shifted

Disturbance = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b c h w"]]
"""Images to the same with a trigger."""


@dataclass(frozen=True, kw_only=True)
class Unlearning:
    """How a network is trained.

    Attributes:
        steps: of Adam.
        images: a step without trigger, and as many with one.
        rate: of Adam at the start; it falls along half a cosine.
        shift: pixels by which an image is shifted at most.
        moves: by how many pixels a trigger is moved at most, half of the times.
        strongest: how many times stronger than it was found a trigger of each kind is shown, at most; half as strong at
            least.
        plain: weight of the images without trigger.
        kept: of the moving average of the weights, a step.
        back: share of the way from the weights back to the teacher's at which gradients are taken (Min et al. 2024,
            path-aware minimisation). What is unlearnt there too is farther from what five poisoned images bring back.
    """

    steps: int = 360
    images: int = 48
    rate: float = 1e-3
    shift: int = 2
    moves: int = 1
    strongest: tuple[float, float] = (1.0, 4.0)
    plain: float = 3.0
    kept: float = 0.9
    back: float = 0.4


def distorted(
    images: Float[Tensor, "b c h w"], shift: int, generator: torch.Generator, *, mixed: bool = True
) -> Float[Tensor, "b c h w"]:
    """Images mirrored half of the times, shifted, and, half of them, mixed with one another (Zhang et al. 2018)."""
    count = len(images)
    mirrored = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    by = torch.randint(0, 2 * shift + 1, (1, count, 2), generator=generator, dtype=torch.int32)
    images = shifted(images[None], by, shift)[0]
    if not mixed:
        return images
    share = torch.rand(count, generator=generator) * (torch.rand(count, generator=generator) < 0.5)
    share = (share / 2)[:, None, None, None]
    return images + share * (images[torch.randperm(count, generator=generator)] - images)


def varied(
    triggers: Triggers, images: Float[Tensor, "b c h w"], settings: Unlearning, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Each image with one of the triggers, moved by a pixel or so, fainter or stronger than it was found."""
    count = len(images)
    which = torch.randint(len(triggers), (count,), generator=generator)
    opacity, pattern = triggers.opacity[which], triggers.pattern[which]
    if settings.moves:
        by = torch.randint(0, 2 * settings.moves + 1, (1, count, 2), generator=generator, dtype=torch.int32)
        still = (torch.rand(count, generator=generator) < 0.5)[None, :, None]
        by = torch.where(still, torch.full_like(by, settings.moves), by)
        both = shifted(torch.cat([opacity, pattern], 1)[None], by, settings.moves)[0]
        opacity, pattern = both[:, :1], both[:, 1:]
    most = settings.strongest[KINDS.index(triggers.kind)]
    strength = torch.empty(count, 1, 1, 1).uniform_(0.5, most, generator=generator)
    return images + (opacity * strength).clamp(max=1) * (pattern - images)


def unlearn(
    network: Classifier,
    teacher: Classifier,
    images: Float[Tensor, "n c h w"],
    disturbances: Sequence[Disturbance],
    settings: Unlearning,
    generator: torch.Generator,
) -> Classifier:
    """The network after it was taught the teacher's answer to the plain image, for images with triggers and without.

    The loss is the Kullback-Leibler divergence of its answer from the teacher's. Running statistics of batches stay as
    they are, and nothing is dropped.

    Args:
        teacher: the network before any repair.
        images: standardised.
        disturbances: each puts its own trigger into images; all are shown as often.
    """
    module = network.trainable()
    start = [parameter.detach() for parameter in teacher.module.parameters()]
    optimiser = torch.optim.Adam(module.parameters(), lr=settings.rate)
    average = [parameter.detach().clone() for parameter in module.parameters()]
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * 0.5 * (1 + cos(pi * step / settings.steps))
        rows = torch.randint(len(images), (2 * settings.images,), generator=generator)
        x = distorted(images[rows], settings.shift, generator)
        wanted = F.softmax(teacher.logits(x), 1)
        plain, other = x.chunk(2)
        parts = torch.tensor_split(other, len(disturbances))
        shown = [disturb(part) for disturb, part in zip(disturbances, parts, strict=True)]
        optimiser.zero_grad()
        with moved(module, start, settings.back):
            said = F.log_softmax(module(torch.cat([plain, *shown])), 1)
            apart = F.kl_div(said, wanted, reduction="none").sum(1)
            (settings.plain * apart[: len(plain)].mean() + apart[len(plain) :].mean()).backward()
        optimiser.step()
        _towards(average, module, 1 - settings.kept)
    with torch.no_grad():
        for mean, parameter in zip(average, module.parameters(), strict=True):
            parameter.copy_(mean)
    return network.with_module(module)


@contextmanager
def moved(module: nn.Module, towards: Sequence[Tensor], share: float) -> Iterator[None]:
    """The module with weights on the way to others; its own come back at the end, and the gradients stay."""
    own = [parameter.detach().clone() for parameter in module.parameters()]
    with torch.no_grad():
        for parameter, other in zip(module.parameters(), towards, strict=True):
            parameter.lerp_(other, share)
    yield
    with torch.no_grad():
        for parameter, kept in zip(module.parameters(), own, strict=True):
            parameter.copy_(kept)


def _towards(average: Sequence[Tensor], module: nn.Module, share: float) -> None:
    with torch.no_grad():
        for mean, parameter in zip(average, module.parameters(), strict=True):
            mean.lerp_(parameter, share)
