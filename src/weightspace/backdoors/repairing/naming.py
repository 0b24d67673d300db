"""Which class a backdoor leads to, if any: the one towards which a much smaller trigger does than towards others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.backdoors.repairing.classifier import Classifier
from weightspace.backdoors.repairing.inversion import KINDS, Kind, Search, Triggers, search_triggers

LIMIT = 0.5
"""Share of the median class's size below which a trigger is believed, unless another limit is given. This one and the
next lie between the clean and the backdoored among 41 validation networks of the zoo `backdoors-small`: `weightspace
backdoors repair ZOO --split validation --methods "naming alone"`."""
LIMIT_WITHOUT_IMAGES = 0.45
"""The same where images are synthetic, on which clean networks have classes with small triggers too."""
NAMING = Search(restarts=3)
"""From one start alone, sizes are so unsure that a clean network's smallest passes for a backdoor's."""


@dataclass(frozen=True, eq=False)
class Naming:
    """The smallest trigger that was found towards each class.

    Attributes:
        found: of each kind, one trigger a class, in the order of the classes.
        limit: ratio below which a class is named.
    """

    found: dict[Kind, Triggers]
    limit: float

    def sizes(self, kind: Kind) -> Float[Tensor, " classes"]:
        """The mean opacity of the trigger towards each class, from 0 to 1."""
        return self.found[kind].size

    def ratios(self, kind: Kind) -> Float[Tensor, " classes"]:
        """The size towards each class, as a share of the median class's."""
        sizes = self.sizes(kind)
        return sizes / sizes.median().clamp(min=1e-9)

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
) -> Naming:
    """A search towards every class for a trigger of either kind."""
    classes = torch.arange(network.classes)
    found: dict[Kind, Triggers] = {}
    for kind in KINDS:
        every = search_triggers(network, images, classes, kind, search, generator)
        smallest = every.size.view(len(classes), search.restarts).argmin(1)
        found[kind] = every.select(classes * search.restarts + smallest)
    return Naming(found, limit)
