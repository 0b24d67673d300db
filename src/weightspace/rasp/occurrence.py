"""Which values an S-op can really have: place by place for inputs of each length, or by a try of all inputs.

A value set holds whatever the functions before could give; not all of it need ever occur. A length is never 0, a place
is always smaller than the length. What is found here is never too little: a value that it leaves out occurs in no
input, whether queries look back only or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.functions import Value
from weightspace.rasp.language import (
    Aggregate,
    LinearSequenceMap,
    Map,
    SelectorWidth,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
)
from weightspace.rasp.rounding import settled

if TYPE_CHECKING:
    from weightspace.rasp.validate import Selection, Traits

MOST_WORK = 20_000_000
"""Place by place is given up where places times values would be more."""
MOST_INPUTS = 120_000
"""So many inputs are all tried: every one of vocabulary 10 and length 5."""
LONGEST = 30
"""Of longer inputs the places are not told apart: only what holds at every one of them is known."""
MOST_SUMS = 20_000
"""So many sums at one place are kept apart."""


class World(NamedTuple):
    """A place of an input of some length, in a program that looks at all of it or back only."""

    length: int
    place: int
    causal: bool

    @property
    def seen(self) -> range:
        """The places that a query there can see."""
        return range(self.place + 1 if self.causal else self.length)


def worlds_of(length: int) -> list[World]:
    """Every place of inputs up to a length."""
    return [World(n, i, causal) for causal in (False, True) for n in range(1, length + 1) for i in range(n)]


class Occurrence:
    """What the S-ops of one program can be, place by place.

    Attributes:
        known: what the compiler knows of the S-ops, by the `id` of the node; an S-op's part is kept with it.
        length: of the longest input.
    """

    def __init__(self, known: Mapping[int, Traits], length: int) -> None:
        self.known, self.length = known, length
        self.coarse = length > LONGEST
        self.worlds = [World(length, 0, False)] if self.coarse else worlds_of(length)
        self.row = {world: number for number, world in enumerate(self.worlds)}

    def of(self, sop: SOp) -> np.ndarray:
        """(worlds, values + 1) booleans: which of its values an S-op can have there, None the last."""
        t = self.known[id(sop)]
        if t.possible is None:
            t.possible = self._of(t)
        return t.possible

    def values(self, sop: SOp) -> np.ndarray:
        """(values,) booleans: which can occur at all."""
        return np.any(self.of(sop)[:, :-1], axis=0, keepdims=True)[0]

    def pairs(self, first: SOp, second: SOp) -> np.ndarray:
        """(values, values) booleans: which values can stand at one place."""
        a, b = self.of(first)[:, :-1], self.of(second)[:, :-1]
        together: np.ndarray = np.matmul(a.T.astype(np.float32), b.astype(np.float32))
        return together.astype(bool)

    def _everything(self, t: Traits) -> np.ndarray:
        possible = np.ones((len(self.worlds), len(t.values) + 1), bool)
        possible[:, -1] = t.partial
        return possible

    def _of(self, t: Traits) -> np.ndarray:
        node, count = t.node, len(t.values)
        if node is indices and not self.coarse:
            possible = np.zeros((len(self.worlds), count + 1), bool)
            possible[np.arange(len(self.worlds)), [world.place for world in self.worlds]] = True
            return possible
        if node is tokens or node is indices or len(self.worlds) * count > MOST_WORK:
            return self._everything(t)
        match node:
            case Map() if t.table is not None:
                return self._looked_up(t, self.of(node.inner), t.table.places)
            case SequenceMap() if t.table is not None and t.table.places.ndim == 1:
                return self._looked_up(t, self.of(node.first), t.table.places)
            case SequenceMap() if t.table is not None:
                return self._joined(t, node.first, node.second, t.table.places)
            case LinearSequenceMap():
                return self._joined(t, node.first, node.second, _sum_places(node, t, self.known))
            case SelectorWidth() if t.selection is not None:
                return self._width(t, t.selection)
            case Aggregate() if t.selection is not None and not node.numerical:
                return self._selected(t, node.sop, t.selection)
            case Aggregate() if t.selection is not None:
                return self._mean(t, node.sop, t.selection)
        return self._everything(t)

    def _looked_up(self, t: Traits, inner: np.ndarray, places: np.ndarray) -> np.ndarray:
        possible = np.zeros((len(self.worlds), len(t.values) + 1), bool)
        for value, place in enumerate(places.tolist()):  # a place of -1 is the last column, None
            possible[:, place] |= inner[:, value]
        possible[:, -1] |= inner[:, -1]
        return possible

    def _joined(self, t: Traits, first: SOp, second: SOp, places: np.ndarray) -> np.ndarray:
        a, b = self.of(first), self.of(second)
        if len(self.worlds) * places.size > 10 * MOST_WORK:
            return self._everything(t)
        possible = np.zeros((len(self.worlds), len(t.values) + 1), bool)
        made: dict[bytes, np.ndarray] = {}
        for number in range(len(self.worlds)):
            key = a[number].tobytes() + b[number].tobytes()
            if key not in made:
                row = np.zeros(len(t.values) + 1, bool)
                row[places[np.ix_(np.flatnonzero(a[number, :-1]), np.flatnonzero(b[number, :-1]))]] = True
                made[key] = row
            possible[number] = made[key]
        possible[:, -1] |= a[:, -1] | b[:, -1]
        return possible

    def _selects(self, selection: Selection) -> tuple[list[list[int]], list[set[int]]]:
        """For each world the places that its query may select, and those that it surely selects."""
        keys, queries, mask = selection
        k, q = self.of(keys), self.of(queries)
        may, must = [], []
        for number, world in enumerate(self.worlds):
            asked = np.flatnonzero(q[number, :-1])
            some, sure = [], set()
            for place in world.seen:
                other = self.row[world._replace(place=place)]
                part = mask[np.ix_(np.flatnonzero(k[other, :-1]), asked)]
                if part.any():
                    some.append(place)
                    whole = part.all() or (
                        keys is queries and place == world.place and bool(mask.diagonal()[asked].all())
                    )
                    if whole and not q[number, -1] and not k[other, -1]:
                        sure.add(place)
            may.append(some)
            must.append(sure)
        return may, must

    def _never_empty(self, selection: Selection) -> bool:
        """Whether every query selects itself, or the first place, or whatever there is."""
        keys, queries, mask = selection
        k, q = self.of(keys)[0], self.of(queries)[0]
        if k[-1] or q[-1]:
            return False
        part = mask[np.ix_(np.flatnonzero(k[:-1]), np.flatnonzero(q[:-1]))]
        return bool(part.all() or (keys is queries and part.diagonal().all()) or (keys is indices and part[0].all()))

    def _width(self, t: Traits, selection: Selection) -> np.ndarray:
        possible = np.zeros((len(self.worlds), len(t.values) + 1), bool)
        if self.coarse:
            possible[:, int(self._never_empty(selection)) : self.length + 1 if selection[2].any() else 1] = True
            return possible
        for number, (some, sure) in enumerate(zip(*self._selects(selection), strict=True)):
            possible[number, len(sure) : len(some) + 1] = True
        return possible

    def _selected(self, t: Traits, sop: SOp, selection: Selection) -> np.ndarray:
        inner = self.of(sop)
        possible = np.zeros((len(self.worlds), len(t.values) + 1), bool)
        order = [t.values.index[value] for value in self.known[id(sop)].values.values]
        if self.coarse:
            possible[:, order] = inner[:, :-1]
            possible[:, -1] = inner[:, -1] | (not self._never_empty(selection))
            return possible
        for number, (some, sure) in enumerate(zip(*self._selects(selection), strict=True)):
            for place in some:
                row = inner[self.row[self.worlds[number]._replace(place=place)]]
                possible[number, order] |= row[:-1]
                possible[number, -1] |= row[-1]
            possible[number, -1] |= not sure
        return possible

    def _mean(self, t: Traits, sop: SOp, selection: Selection) -> np.ndarray:
        try:
            found = self.means(sop, selection)
        except RaspError:
            return self._everything(t)
        possible = np.zeros((len(self.worlds), len(t.values) + 1), bool)
        for number, means in enumerate(found):
            for value in means:
                if value not in t.values.index:
                    return self._everything(t)
                possible[number, t.values.index[value]] = True
        return possible

    def means(self, sop: SOp, selection: Selection) -> list[frozenset[float]]:
        """For each world the means of a number that its query can find, 0 where it may select nothing.

        Raises:
            RaspError: if there are too many.
        """
        if self.coarse:
            raise RaspError("its inputs are too long for every place to be looked at")
        inner, numbers = self.of(sop), [*self.known[id(sop)].values.numbers.tolist(), 0.0]
        made: dict[Any, frozenset[float]] = {}
        found = []
        for number, (some, sure) in enumerate(zip(*self._selects(selection), strict=True)):
            rows = [inner[self.row[self.worlds[number]._replace(place=place)]] for place in some]
            key = tuple(sorted((row.tobytes(), place in sure) for row, place in zip(rows, some, strict=True)))
            if key not in made:
                options = [
                    ([numbers[v] for v in np.flatnonzero(row)], place in sure)
                    for row, place in zip(rows, some, strict=True)
                ]
                made[key] = frozenset(_means(options))
            found.append(made[key])
        return found


def _means(options: list[tuple[list[float], bool]]) -> set[float]:
    """The means of one number of each option, of those that are not sure any or none."""
    sums: dict[int, set[float]] = {0: {0.0}}
    for numbers, sure in options:
        after: dict[int, set[float]] = {} if sure else {count: set(totals) for count, totals in sums.items()}
        for count, totals in sums.items():
            if len(totals) * len(numbers) > 50 * MOST_SUMS:
                raise RaspError("too many sums")
            after.setdefault(count + 1, set()).update(settled(a + b) for a in totals for b in numbers)
        if sum(map(len, after.values())) > MOST_SUMS:
            raise RaspError("too many sums")
        sums = after
    return {settled(total / count) if count else 0.0 for count, totals in sums.items() for total in totals}


def _sum_places(node: LinearSequenceMap, t: Traits, known: Mapping[int, Traits]) -> np.ndarray:
    """(n, m) the place of each sum among the values."""
    first, second = known[id(node.first)].values.numbers, known[id(node.second)].values.numbers
    sums = np.add.outer(node.first_factor * first, node.second_factor * second)
    order = t.values.numbers
    after = np.searchsorted(order, sums).clip(0, len(order) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(order[before] - sums) < np.abs(order[after] - sums), before, after)


def tried_on_all(node: SOp, known: Mapping[int, Traits], length: int) -> set[Value] | None:
    """The values that an S-op has on all inputs there are, or None where these are too many.

    Raises:
        RaspError: if it has no value on one of them.
    """
    vocab = known[id(tokens)].values.values
    if sum(len(vocab) ** n for n in range(1, length + 1)) > MOST_INPUTS:
        return None
    program, batch = Statements.of(node), Batch.every(vocab, length)
    found: set[Value] = set()
    for causal in (False, True):
        found |= set(evaluate_batch(program, batch, causal).values)
    return found
