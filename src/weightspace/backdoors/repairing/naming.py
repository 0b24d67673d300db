"""Which class a backdoor leads to, if any: the one towards which a much smaller trigger does than towards others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.dead_leaves import dead_leaves
from weightspace.backdoors.repairing.inversion import KINDS, Kind, Search, Triggers, search_triggers

LIMIT = 0.5
"""Share of the median class's size below which a trigger is believed, unless another limit is given. This one and the
next were chosen on validation networks of the zoo `backdoors-small`, each by its own images alone; `weightspace
backdoors repair ZOO --split validation --methods "naming alone"` shows the sizes."""
LIMIT_WITHOUT_IMAGES = 0.45
"""The same where images are synthetic, on which clean networks have classes with small triggers too. Chosen where these
are standardised by their own statistics; by those of real images, as in `name_by_both`, more clean ones are below."""
NAMING = Search(restarts=3)
"""From one start alone, sizes are so unsure that a clean network's smallest passes for a backdoor's."""
LEAVES = 500
"""Synthetic images by which a class is named, beside those that are given."""
WORKS = 0.5
"""Share of images that a trigger has to win over; else it is none, however small."""


@dataclass(frozen=True, eq=False)
class Naming:
    """The smallest trigger that was found towards each class.

    Attributes:
        found: of each kind, one trigger a class, in the order of the classes.
        limit: ratio below which a class is named.
        synthetic: whether it was searched for with images of nothing.
    """

    found: dict[Kind, Triggers]
    limit: float
    synthetic: bool = False

    def sizes(self, kind: Kind) -> Float[Tensor, " classes"]:
        """The mean opacity of the trigger towards each class, from 0 to 1."""
        return self.found[kind].size

    def ratios(self, kind: Kind) -> Float[Tensor, " classes"]:
        """The size towards each class, as a share of the median class's; at least 1 where no trigger was found that
        works."""
        sizes = self.sizes(kind)
        ratios = sizes / sizes.median().clamp(min=1e-9)
        return torch.where(self.found[kind].success > WORKS, ratios, ratios.clamp(min=1))

    @property
    def kind(self) -> Kind:
        """The kind of trigger by which one class stands out most."""
        return min(self.found, key=lambda kind: float(self.ratios(kind).min()))

    @property
    def suspect(self) -> int:
        """The class that stands out most."""
        return int(self.ratios(self.kind).argmin())

    @property
    def ratio(self) -> float:
        """How small its trigger is, as a share of the median class's."""
        return float(self.ratios(self.kind).min())

    @property
    def named(self) -> int | None:
        """The suspect, if it stands out enough."""
        return self.suspect if self.ratio < self.limit else None


def name_target(
    network: Classifier,
    images: Float[Tensor, "n c h w"],
    generator: torch.Generator,
    search: Search = NAMING,
    limit: float = LIMIT,
    *,
    synthetic: bool = False,
) -> Naming:
    """A search towards every class for a trigger of either kind.

    Args:
        images: standardised.
        synthetic: whether they are of nothing.
    """
    classes = torch.arange(network.classes)
    found: dict[Kind, Triggers] = {}
    for kind in KINDS:
        every = search_triggers(network, images, classes, kind, search, generator)
        working = torch.where(every.success > WORKS, every.size, 1 + every.size)
        smallest = working.view(len(classes), search.restarts).argmin(1)
        found[kind] = every.select(classes * search.restarts + smallest)
    return Naming(found, limit, synthetic)


def name_by_both(
    network: Classifier,
    images: Float[Tensor, "n c h w"],
    generator: torch.Generator,
    search: Search = NAMING,
    limits: tuple[float, float] = (LIMIT, LIMIT_WITHOUT_IMAGES),
) -> tuple[Naming, Naming]:
    """The searches with images of the network's kind and with images of nothing, first the one that counts.

    Some triggers stand out on images of nothing alone. That one counts whose smallest ratio is farther below its limit.

    Args:
        limits: by the images, and by synthetic ones.
    """
    by_images = name_target(network, images, generator, search, limits[0])
    leaves = dead_leaves(network.shape, LEAVES, np.random.default_rng(int(generator.initial_seed())))
    x = network.standardised(torch.from_numpy(leaves))
    by_leaves = name_target(network, x, generator, search, limits[1], synthetic=True)
    first, second = sorted((by_images, by_leaves), key=lambda one: one.ratio / one.limit)
    return first, second
