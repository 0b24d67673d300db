"""A repair: name the target class, search for triggers towards it, unlearn the response, and look again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.inversion import Kind, Search, Triggers, search_triggers
from weightspace.backdoors.repairing.naming import (
    LIMIT,
    LIMIT_WITHOUT_IMAGES,
    NAMING,
    WORKS,
    Naming,
    name_by_both,
    name_target,
)
from weightspace.backdoors.repairing.unlearning import Unlearning, unlearn, varied

ALIKE = 2.0
"""How many times larger than the smallest of its search a trigger may be to be unlearnt: larger ones are weaknesses
that every network has, and to take these out costs accuracy."""


@dataclass(frozen=True, kw_only=True)
class RepairSettings:
    """How a network is repaired.

    Attributes:
        limit: a class is named if its trigger is below this share of the median class's.
        limit_without_images: the same, by synthetic images.
        enough: the rounds of search and unlearning end when no trigger below this share is found any more.
        rounds: at most.
    """

    limit: float = LIMIT
    limit_without_images: float = LIMIT_WITHOUT_IMAGES
    enough: float = 0.8
    rounds: int = 3
    naming: Search = NAMING
    search: Search = field(default_factory=lambda: Search(restarts=8))
    unlearning: Unlearning = field(default_factory=Unlearning)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Repair:
    """What came of it.

    Attributes:
        network: repaired; the one that was given if it abstained.
        triggers: those that were unlearnt, of the first round first; the first is the smallest.
        sizes: of the smallest trigger towards the target at the start of each round, and at the end, as a share of the
            median class's.
    """

    network: Classifier
    naming: Naming
    triggers: tuple[Triggers, ...]
    sizes: tuple[float, ...]

    @property
    def abstained(self) -> bool:
        """Whether nothing was changed: no class stood out, or no trigger towards it was found again."""
        return not self.triggers


def repair(
    network: Classifier, images: Float[Tensor, "n c h w"], settings: RepairSettings, *, synthetic: bool = False
) -> Repair:
    """Repair a network by clean images; their classes are not asked.

    Args:
        images: standardised.
        synthetic: whether they are of nothing, as there are no others.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    if synthetic:
        limit = settings.limit_without_images
        naming = by_images = name_target(network, images, generator, settings.naming, limit, synthetic=True)
    else:
        limits = settings.limit, settings.limit_without_images
        naming, other = name_by_both(network, images, generator, settings.naming, limits)
        by_images = other if naming.synthetic else naming
    if naming.named is None:
        return Repair(network, naming, (), ())
    return unlearn_target(network, images, naming, naming.named, by_images, settings, generator)


def unlearn_target(
    network: Classifier,
    images: Float[Tensor, "n c h w"],
    naming: Naming,
    target: int,
    by_images: Naming,
    settings: RepairSettings,
    generator: torch.Generator,
) -> Repair:
    """The rounds of search and unlearning towards one class.

    Args:
        by_images: what was found with the very images, in whose sizes triggers are measured.
    """
    kinds: list[Kind] = [kind for kind in naming.found if float(naming.ratios(kind)[target]) < naming.limit] or [
        naming.kind
    ]
    medians: dict[Kind, float] = {kind: float(by_images.sizes(kind).median()) for kind in kinds}
    pool: list[Triggers] = []
    found = [naming.found[kind].select(torch.tensor([target])) for kind in kinds]
    ratios: list[float] = []
    now, aim = network, torch.tensor([target])
    for number in range(settings.rounds + 1):
        again = [search_triggers(now, images, aim, kind, settings.search, generator) for kind in kinds]
        small = [_smallest(one, medians[one.kind] * settings.enough) for one in (*found, *again)]
        ratios.append(min(float(one.size.min()) / medians[one.kind] for one in again))
        found = []
        pool += [one for one in small if one is not None]
        done = number > 0 and all(one is None for one in small)
        if number == settings.rounds or done or not pool:
            break
        shown = [partial(varied, one, settings=settings.unlearning, generator=generator) for one in pool]
        now = unlearn(now, network, images, shown, settings.unlearning, generator)
    return Repair(now, naming, tuple(_by_size(pool, medians)), tuple(ratios))


def _smallest(found: Triggers, limit: float) -> Triggers | None:
    """Those of a search that are not much larger than its smallest, and below a limit; None if there are none."""
    most = min(limit, ALIKE * float(found.size.min()))
    rows = torch.nonzero((found.size <= most) & (found.success > WORKS))[:, 0]
    return found.select(rows) if len(rows) else None


def _by_size(pool: Sequence[Triggers], medians: dict[Kind, float]) -> list[Triggers]:
    return sorted(pool, key=lambda one: float(one.size.min()) / medians[one.kind])
