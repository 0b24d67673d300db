"""What a program leaves in weights: a key that is equal where weights are equal up to a permutation, and what is seen.

`canonical_key` keeps the order of every S-op's values, which is the order of their directions as the compiler lays them
out. Where directions were shuffled that order is gone, and a value is known by what leads to it alone: by the tokens,
places and values of earlier S-ops that a table maps to it. Here both are had: values are numbered by their order, or by
where each comes first in its table. Two more things are as the weights have them: operands of a selector that selects
nothing leave no trace but their own directions, and what is computed twice is there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np

from weightspace.rasp.language import Aggregate, Map, SelectorWidth, SequenceMap, SOp, fused, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Analysis, Traits, analyse, settings
from weightspace.rasp.values import Table, tabulate_pairs

Order = Literal["kept", "lost"]
"""Whether an S-op's directions stand in the order of its values, as they are compiled, or in any order."""
Numbering = Mapping[int, np.ndarray]
"""For S-ops, by the `id` of their node, the number of each of their sorted values."""


@dataclass(frozen=True, eq=False)
class Sight:
    """One S-op as weights show it.

    Attributes:
        kind: `tokens`, `indices`, `Map`, `SequenceMap`, `Aggregate` or `SelectorWidth`.
        reads: places, among all sights, of what it reads: of a head its keys, its queries and, of an Aggregate, what is
            moved.
        size: how many values it has.
        table: (n,) or (n, m) of a Map or SequenceMap, the number of the value that each (pair of) number(s) gives.
        mask: (keys, queries) of a head, what selects what.
    """

    kind: str
    reads: tuple[int, ...]
    size: int
    table: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Imprint:
    """What a program leaves in weights.

    Attributes:
        key: equal for equal weights.
        marks: of each S-op but the inputs, its digest and depth, sorted.
        output: the digest of the output.
        key_size: of the heads, as far as it follows from what is selected by what.
        sights: its S-ops, tokens and indices first, each after what it reads, the output last.
        order: what is known of values.
    """

    key: bytes
    marks: tuple[bytes, ...]
    output: bytes
    key_size: int
    sights: tuple[Sight, ...]
    order: Order


def imprint_key(program: Program, order: Order) -> bytes | None:
    """The key of a program's weights, Maps of Maps fused; None if Tracr cannot compile it."""
    meant = fused(program)
    analysis = analyse(meant, *settings(meant, None, None), "tracr_compat")
    return None if analysis.reasons else _Reader(analysis, order, {}).key()


def imprint_of(program: Program, order: Order, numbering: Numbering | None = None) -> Imprint | None:
    """What the program found leaves in weights, compiled as it stands; None if it cannot be, or has numerical S-ops.

    Args:
        numbering: the order in which the weights have the values of its S-ops, if that is not the program's own.
    """
    analysis = analyse(program, *settings(program, None, None), "tracr_compat")
    if analysis.reasons or any(t.node.numerical for t in analysis.traits.values()):
        return None
    reader = _Reader(analysis, order, numbering or {})
    return Imprint(reader.key(), tuple(reader.marks()), reader.output, reader.key_size(), reader.sights(), order)


class _Reader:
    """Goes through an analysed program's S-ops in order, and numbers their values."""

    def __init__(self, analysis: Analysis, order: Order, numbering: Numbering) -> None:
        self.analysis, self.kept, self.given = analysis, order == "kept", numbering
        self.numbers: dict[int, np.ndarray] = {}
        self.digests: dict[int, bytes] = {}
        self.tables: dict[int, np.ndarray] = {}
        self.masks: dict[int, np.ndarray] = {}
        for key, t in analysis.traits.items():
            self.digests[key], self.numbers[key] = self._seen(t)

    def _seen(self, t: Traits) -> tuple[bytes, np.ndarray]:
        node = t.node
        match node:
            case Map(inner=inner) | SequenceMap(first=inner) if isinstance(node, Map) or inner is node.second:
                assert t.table is not None
                pairs = None
                if isinstance(node, SequenceMap):
                    values = self.analysis.traits[id(inner)].values
                    pairs = tabulate_pairs(node.function, values, values).places
                axes = (self.numbers[id(inner)],)
                digest, numbers, shown = self._numbered(node, t.table, axes, pairs=pairs)
                self.tables[id(node)] = shown
                unmet = len(t.values) - len(np.unique(shown[shown >= 0]))
                return joined_hash(b"Map", self.digests[id(inner)], digest, *unmet_mark(unmet)), numbers
            case SequenceMap():
                return self._pairs(node, t)
            case Aggregate():
                moved = id(node.sop)
                return joined_hash(b"Aggregate", self._selects(t), self.digests[moved]), self.numbers[moved]
            case SelectorWidth():
                return joined_hash(b"SelectorWidth", self._selects(t)), np.arange(len(t.values))
        return (b"tokens" if node is tokens else b"indices"), np.arange(len(t.values))

    def _pairs(self, node: SequenceMap, t: Traits) -> tuple[bytes, np.ndarray]:
        """Operands have no order in weights: of both ways to read them that of the lesser digest is taken."""
        assert t.table is not None
        operands = [node.first, node.second]
        first, second = (self.digests[id(one)] for one in operands)
        axes = (self.numbers[id(node.first)], self.numbers[id(node.second)])
        found = []
        for swapped in (False, True):
            if (second < first) != swapped and first != second:
                continue
            digest, numbers, table = self._numbered(node, t.table, axes, swapped)
            pair = (second, first) if swapped else (first, second)
            found.append((joined_hash(b"SequenceMap", *pair, digest), numbers, table.T if swapped else table))
        digest, numbers, self.tables[id(node)] = min(found, key=lambda one: one[0])
        return digest, numbers

    def _numbered(
        self,
        node: SOp,
        table: Table,
        axes: tuple[np.ndarray, ...],
        swapped: bool = False,
        pairs: np.ndarray | None = None,
    ) -> tuple[bytes, np.ndarray, np.ndarray]:
        """The digest of a table over numbered inputs, the numbers of its values, and the table in numbers.

        Args:
            pairs: of a SequenceMap of an S-op with itself, whose table is of equal values only, that of all.
        """
        given = self.given.get(id(node))
        name = ("imprint", self.kept, swapped, *(axis.tobytes() for axis in axes))
        found = None if given is not None else table.blocks.get(name)
        if found is None:
            places = np.empty_like(table.places)
            places[np.ix_(*axes)] = table.places
            if swapped:
                places = np.ascontiguousarray(places.T)
            met = places
            if pairs is not None:
                both = np.empty_like(pairs)
                both[np.ix_(*axes, *axes)] = pairs
                met = np.concatenate([places, both.ravel()])
            numbers = given if given is not None else np.arange(len(table.values)) if self.kept else _first(met)
            shown = np.append(numbers, -1)[places]
            found = blake2b(shown.astype(np.int16).tobytes(), digest_size=8).digest(), numbers, shown
            if given is None:
                table.blocks[name] = found
        return found

    def _selects(self, t: Traits) -> bytes:
        assert t.selection is not None
        keys, queries, mask = t.selection
        shown = np.empty_like(mask)
        shown[np.ix_(self.numbers[id(keys)], self.numbers[id(queries)])] = mask
        self.masks[id(t.node)] = shown
        if not shown.any():
            return b"nothing"
        return joined_hash(self.digests[id(keys)], self.digests[id(queries)], np.packbits(shown).tobytes())

    def marks(self) -> list[bytes]:
        traits = self.analysis.traits.items()
        return sorted(self.digests[key] + bytes([t.depth]) for key, t in traits if t.depth)

    @property
    def output(self) -> bytes:
        return self.digests[id(self.analysis.program.output)]

    def key_size(self) -> int:
        size, traits = 0, self.analysis.traits
        for t in traits.values():
            if t.selection is not None:
                keys, queries, _ = t.selection
                size = max(size, len(traits[id(queries)].values) + 2, len(traits[id(keys)].values) + 1)
        return size

    def key(self) -> bytes:
        head = f"{len(self.analysis.vocab)} {self.analysis.max_seq_len} {self.key_size()} ".encode()
        return joined_hash(head, self.output, *self.marks())

    def sights(self) -> tuple[Sight, ...]:
        traits = [t for t in self.analysis.traits.values() if t.node is not self.analysis.program.output]
        traits.append(self.analysis.traits[id(self.analysis.program.output)])
        place = {id(t.node): number for number, t in enumerate(traits)}
        return tuple(self._sight(t, place) for t in traits)

    def _sight(self, t: Traits, place: dict[int, int]) -> Sight:
        node, size = t.node, len(t.values)
        table, mask = self.tables.get(id(node)), self.masks.get(id(node))
        if isinstance(node, Map) or (isinstance(node, SequenceMap) and node.first is node.second):
            twice = isinstance(node, SequenceMap)
            read = place[id(node.children[0])]
            return Sight(type(node).__name__, (read, read) if twice else (read,), size, table)
        if isinstance(node, SequenceMap):
            return Sight("SequenceMap", (place[id(node.first)], place[id(node.second)]), size, table)
        if t.selection is None:
            return Sight("tokens" if node is tokens else "indices", (), size)
        reads = [place[id(t.selection[0])], place[id(t.selection[1])]]
        if isinstance(node, Aggregate):
            reads.append(place[id(node.sop)])
        return Sight(type(node).__name__, tuple(reads), size, None, mask)


def unmet_mark(unmet: int) -> tuple[bytes, ...]:
    """What tells a SequenceMap of an S-op with itself from a Map: so many values that f(x, y) gives and f(x, x) never.

    Tracr has directions for all; where there are none, both are one block.
    """
    return (b"unmet %d" % unmet,) if unmet else ()


def _first(places: np.ndarray) -> np.ndarray:
    """The number of each value: in the order in which they come first in a table."""
    found, first = np.unique(places, return_index=True)
    order = found[np.argsort(first)]
    order = order[order >= 0]
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order))
    return numbers


def joined_hash(*parts: bytes) -> bytes:
    """16 bytes of several."""
    return blake2b(b"|".join(parts), digest_size=16).digest()
