"""Where what is known of a network's parts stands in a vector that networks of different depths share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Room:
    """Parts of a network, arrays or groups of neurons, that a vector has room for.

    Attributes:
        parts: how many; of a network with more the middle is left out.
        both_ends: whether parts are counted from the last one too, so that the last layers of networks of different
            depths stand under each other.
    """

    parts: int
    both_ends: bool = False

    @staticmethod
    def of(counts: Iterable[int]) -> Room:
        """Room for networks with so many parts; from both ends where they differ."""
        known = set(counts)
        return Room(max(known, default=0), len(known) > 1)

    @property
    def slots(self) -> int:
        """Places for a part."""
        return self.parts * (1 + self.both_ends)

    def arranged(self, parts: Sequence[_Part], missing: _Part) -> list[_Part]:
        """A network's parts as they fill the slots, `missing` where it has none."""
        most = min(len(parts), self.parts)
        gap = [missing] * (self.parts - most)
        first = [*parts[:most], *gap]
        return [*first, *gap, *parts[len(parts) - most :]] if self.both_ends else first
