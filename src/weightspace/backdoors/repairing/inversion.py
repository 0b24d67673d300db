"""Triggers searched for: what, put into any image, makes a network answer one class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from weightspace.backdoors.repairing.classifier import AT_ONCE, Classifier

Kind = Literal["patch", "blend"]
"""A patch has an opacity of its own at each pixel; a blend has one for the whole image."""
KINDS: tuple[Kind, ...] = ("patch", "blend")
WANTED = 0.9
"""Share of the images that a trigger is to win over, while it is made smaller."""
PATIENCE = 4
"""Steps between two changes of the weight of the size."""


@dataclass(frozen=True, eq=False)
class Triggers:
    """k triggers, each towards a class: (1 - opacity) * image + opacity * pattern.

    Attributes:
        target: (k,) the class that each is to give.
        opacity: (k, 1, h, w) from 0 to 1.
        pattern: (k, c, h, w), standardised.
        success: (k,) share of the images, of other answers, that are answered as the target with it.
    """

    kind: Kind
    target: Int[Tensor, " k"]
    opacity: Float[Tensor, "k 1 h w"]
    pattern: Float[Tensor, "k c h w"]
    success: Float[Tensor, " k"]

    @property
    def size(self) -> Float[Tensor, " k"]:
        """How much of an image each is: the mean opacity over pixels."""
        return self.opacity.mean((1, 2, 3))

    def __len__(self) -> int:
        return len(self.target)

    def select(self, rows: Tensor) -> Triggers:
        """Some of them."""
        return Triggers(self.kind, self.target[rows], self.opacity[rows], self.pattern[rows], self.success[rows])

    def on(self, images: Float[Tensor, "b c h w"], which: Int[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Each image with one of the triggers."""
        opacity, pattern = self.opacity[which], self.pattern[which]
        return images + opacity * (pattern - images)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How triggers are searched for.

    Attributes:
        steps: of Adam.
        images: a step, for each trigger.
        rate: of Adam, on the logits of opacity and pattern.
        restarts: for each class.
    """

    steps: int = 60
    images: int = 16
    rate: float = 0.2
    restarts: int = 1


def search_triggers(
    network: Classifier,
    images: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " k"],
    kind: Kind,
    search: Search,
    generator: torch.Generator,
) -> Triggers:
    """For each target and restart the smallest trigger that wins `WANTED` of the images over (Wang et al. 2019).

    All triggers are searched for at once, each with its own weight of the size, which rises while the trigger works
    and falls while it does not. Images that the network answers as the target anyhow do not count. The smallest that
    worked is kept, or the last one, if none did.

    Args:
        images: standardised; of each step a random part.
        targets: one class each; the triggers found are `restarts` times as many.
    """
    targets = targets.repeat_interleave(search.restarts)
    answers = network.answers(images)
    opacity, pattern = _start(network, kind, len(targets), generator)
    optimiser = torch.optim.Adam([opacity, pattern], lr=search.rate, betas=(0.5, 0.9))
    cost = torch.full((len(targets),), 5.0)
    running = torch.zeros(len(targets))
    best = torch.full((len(targets),), torch.inf)
    kept = [torch.sigmoid(opacity.detach()), torch.sigmoid(pattern.detach())]
    for step in range(search.steps):
        rows = torch.randperm(len(images), generator=generator)[: search.images]
        mask, colours = torch.sigmoid(opacity), torch.sigmoid(pattern)
        x = images[rows] + mask[:, None] * (_shades(network, colours)[:, None] - images[rows])  # (k, b, c, h, w)
        logits = network.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        other = (answers[rows] != targets[:, None]).float()  # (k, b)
        wrong = F.cross_entropy(logits.flatten(0, 1), targets.repeat_interleave(len(rows)), reduction="none")
        count = other.sum(1).clamp(min=1)
        size = mask.mean((1, 2, 3))
        loss = (wrong.view_as(other) * other).sum(1) / count + cost * size
        optimiser.zero_grad()
        loss.sum().backward()
        with torch.no_grad():
            won = ((logits.argmax(2) == targets[:, None]) * other).sum(1) / count
            running = won if step == 0 else 0.7 * running + 0.3 * won
            better = (running >= WANTED) & (size < best)
            best = torch.where(better, size, best)
            taken = (better | (best == torch.inf))[:, None, None, None]
            kept = [torch.where(taken, new, old) for new, old in zip((mask, colours), kept, strict=True)]
            if step % PATIENCE == PATIENCE - 1:
                cost = torch.where(running >= WANTED, cost * 1.5, cost / 1.5)
        optimiser.step()
    full = kept[0].expand(-1, -1, *network.shape[1:]).contiguous()
    found = Triggers(kind, targets, full, _shades(network, kept[1]), running)
    return replace(found, success=successes(network, images, found))


def _shades(network: Classifier, colours: Float[Tensor, "k c h w"]) -> Float[Tensor, "k c h w"]:
    """Colours from 0 to 1 as standardised pixels."""
    return network.lowest + (network.highest - network.lowest) * colours


def _start(network: Classifier, kind: Kind, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits of opacity and pattern from which a search starts."""
    channels, height, width = network.shape
    size = (1, 1) if kind == "blend" else (height, width)
    opacity = torch.randn(count, 1, *size, generator=generator) * 0.3 - 1.0
    pattern = torch.randn(count, channels, height, width, generator=generator)
    return opacity.requires_grad_(True), pattern.requires_grad_(True)


def successes(network: Classifier, images: Float[Tensor, "n c h w"], triggers: Triggers) -> Float[Tensor, " k"]:
    """Share of the images that are answered as the target with each trigger, of those that are not without it."""
    answers = network.answers(images)
    found = []
    for number, target in enumerate(triggers.target.tolist()):
        others = images[answers != target][:AT_ONCE]
        said = network.answers(triggers.on(others, torch.full((len(others),), number)))
        found.append((said == target).float().mean() if len(others) else torch.tensor(0.0))
    return torch.stack(found)
