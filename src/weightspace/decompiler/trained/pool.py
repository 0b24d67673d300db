"""S-ops that have been tried on some strings: one of those that give the same there, in the order of their costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from weightspace.decompiler.trained.columns import Column
from weightspace.rasp.choices import Pick, Which
from weightspace.rasp.functions import Value
from weightspace.rasp.language import Map, Select, Selector, SOp

Sort = Literal["bool", "number", "token"]
MOST_OTHERS, MOST_OTHERS_COST = 2, 4
"""Other expressions of one feature that are kept, and up to which cost they are looked for once there are enough."""
WIDE, WIDELY = 4, ("last", "logic")
"""So many times more are kept of some operators, as these have two S-ops to be made of."""


@dataclass(eq=False)
class Feature:
    """An S-op and what it is on the strings of a pool.

    Attributes:
        sort: how its values are to be read.
        values: see `columns.Column`.
        cost: about how many lines it takes.
        operator: by whose name it is counted.
        make: gives its expression.
        others: give expressions of other operators, about as cheap, that are the same on the strings.
    """

    sort: Sort
    values: Column
    cost: float | int
    operator: str
    make: Callable[[], SOp]
    others: list[Callable[[], SOp]] = field(default_factory=list)

    @cached_property
    def node(self) -> SOp:
        """The expression, always the same object."""
        return self.make()

    def chosen(self, holds: bool = True) -> Selector:
        """The selector of the keys at which a boolean holds, or does not."""
        node = self.node
        if isinstance(node, Map) and node.function.has_expression:
            source, inner = node.function.source, node.inner
        else:
            source, inner = "x", node
        source = source if holds else f"not {source}" if source == "x" else f"not ({source})"
        return Select(inner, inner, source)


def pick(which: Which, selector: Selector, sop: SOp, default: Value) -> Pick:
    """A Pick whose values are what the picked S-op's are."""
    return Pick(which, selector, sop, default=default, encoding=sop.encoding)


class Pool:
    """Features by their sort, no two of which give the same on the strings (a boolean and its negation are one).

    Attributes:
        real: which cells are places of a string.
        quota: how many features of one operator and cost are kept.
    """

    def __init__(self, real: np.ndarray, quota: int, most: int) -> None:
        self.real, self.quota, self.most = real, quota, most
        self.features: dict[Sort, list[Feature]] = {"bool": [], "number": [], "token": []}
        self.known: dict[tuple[Sort, bytes], Feature] = {}
        self.counts: dict[tuple[str, float | int], int] = {}
        self.tried = 0

    def __len__(self) -> int:
        return sum(map(len, self.features.values()))

    def full(self, operator: str, cost: float | int) -> bool:
        """Whether no more of an operator and a cost are kept."""
        quota = self.quota * (WIDE if operator in WIDELY else 1)
        return self.counts.get((operator, cost), 0) >= quota or len(self) >= self.most

    def add(
        self, sort: Sort, values: np.ndarray, cost: float | int, operator: str, make: Callable[[], SOp]
    ) -> Feature | None:
        """Keep an S-op unless its values are known, constant, or there are enough of its kind."""
        self.tried += 1
        if self.full(operator, cost) and cost > MOST_OTHERS_COST:
            return None
        kind = np.uint8 if sort == "bool" else np.int16
        flat = values[self.real].astype(kind)
        if not len(flat) or (flat == flat[0]).all():
            return None
        key = (sort, np.packbits(flat ^ flat[0]).tobytes() if sort == "bool" else flat.tobytes())
        if key in self.known:
            first = self.known[key]
            same = sort != "bool" or bool(first.values[self.real][0]) == bool(flat[0])
            if same and cost <= first.cost + 1 and operator != first.operator and len(first.others) < MOST_OTHERS:
                first.others.append(make)
            return None
        if self.full(operator, cost):
            return None
        whole = np.where(self.real, values, 0).astype(kind)
        feature = Feature(sort, whole, cost, operator, make)
        self.known[key] = feature
        self.features[sort].append(feature)
        self.counts[operator, cost] = self.counts.get((operator, cost), 0) + 1
        return feature

    def of(self, sort: Sort, least: float | int, most: float | int, count: int | None = None) -> list[Feature]:
        """The features of a sort whose cost is in a range, both ends counted, in the order in which they were made.

        Args:
            count: how many at most; then of each cost and operator the first come first, then the second, and so on.
        """
        found = [feature for feature in self.features[sort] if least <= feature.cost <= most]
        if count is None:
            return found
        turns: dict[tuple[float | int, str], int] = {}
        ranked = []
        for number, feature in enumerate(found):
            kind = (feature.cost, feature.operator)
            turns[kind] = turns.get(kind, 0) + 1
            ranked.append((turns[kind], feature.cost, number))
        return [found[number] for _, _, number in sorted(ranked)[:count]]
