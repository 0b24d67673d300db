"""Matching one operation after the other against given weights: where each sits, and how much it explains.

An operation whose inputs have been found is compiled alone into its block; its hidden units, heads and output
directions are then assigned to those of the given weights such that the log-likelihood grows most. So an operation can
be checked before what follows it is known, and what is left of its own columns says whether it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from weightspace import clock
from weightspace.decompiler.search.assignment import Sought, match_head, match_units
from weightspace.decompiler.search.target import MatchTarget
from weightspace.rasp.compiler.assemble import (
    AGGREGATED,
    BOS_PLACE,
    INPUT,
    INPUT_NONE,
    ONE,
    QUERIES,
    SCRATCH,
    SECOND_NONE,
    Block,
    block_of,
    read_by,
)
from weightspace.rasp.language import SOp, indices, tokens
from weightspace.rasp.validate import Traits

LIKENESS = 0.1
"""What it costs that a direction is read otherwise than expected, in energies of an entry of 1."""


class Match(NamedTuple):
    """Where an operation sits, and how well it fits there.

    Attributes:
        gain: by how much the log-likelihood grows over leaving its entries to the noise, in nats.
        misfit: mean square of what is left in the columns and rows of its units and in its head, in units of the noise:
            about 1 if it is right, more if something else stands there.
        directions: of its results, in order of its values, `LOST` where one is lost; of a numerical one a single one.
        none, scratch: its further directions, -1 where it has none.
        head: (layer, head), or (-1, -1).
        units: of its MLP, in the order of its block.
        layer: of its MLP, -1 if it has none.
    """

    gain: float
    misfit: float
    directions: np.ndarray
    none: int
    scratch: int
    head: tuple[int, int]
    units: np.ndarray
    layer: int


class Placed:
    """A program as far as it has been matched: which direction holds what, and which parts of the weights are taken."""

    def __init__(self, target: MatchTarget) -> None:
        self.target = target
        self.directions: dict[int, np.ndarray] = {id(tokens): target.token_rows, id(indices): target.places}
        self.none: dict[int, int] = {}
        self.free = ~target.anchored
        self.free_units = [np.ones(target.bare.hidden_size, bool) for _ in range(target.bare.num_layers)]
        self.free_heads = [np.ones(target.bare.num_heads, bool) for _ in range(target.bare.num_layers)]
        self.matches: list[Match] = []
        self.gain = 0.0

    def copy(self) -> Placed:
        other = object.__new__(Placed)
        other.target, other.gain = self.target, self.gain
        other.directions, other.none, other.matches = dict(self.directions), dict(self.none), list(self.matches)
        other.free = self.free.copy()
        other.free_units = [part.copy() for part in self.free_units]
        other.free_heads = [part.copy() for part in self.free_heads]
        return other

    def place(self, node: SOp, match: Match) -> None:
        """Take a match for true."""
        self.directions[id(node)] = match.directions
        self.none[id(node)] = match.none
        for direction in (*match.directions.tolist(), match.none, match.scratch):
            if direction >= 0:
                self.free[direction] = False
        if match.head[0] >= 0:
            self.free_heads[match.head[0]][match.head[1]] = False
        if match.layer >= 0:
            self.free_units[match.layer][match.units] = False
        self.matches.append(match)
        self.gain += match.gain

    def left(self, layer: int, attention: bool) -> float:
        """What no operation explains yet of a half-layer: mean square in units of the noise, about 1 if nothing."""
        part = self.target.layers[layer]
        if attention:
            size = self.target.bare.key_size * self.target.bare.width
            free = [head for head in part.heads if self.free_heads[layer][head]]
            return max((float(part.moved_energy[head]) / size for head in free), default=0.0)
        free = part.units[self.free_units[layer][part.units]]
        return float(part.unit_energy[free].max()) / (2 * self.target.bare.width) if len(free) else 0.0

    # -- one operation ----------------------------------------------------------------------------------------------

    def match(
        self, t: Traits, traits: dict[int, Traits], layer: int, expected: np.ndarray | None = None
    ) -> Match | None:
        """Where an operation fits best in a layer, or None if there is no room for it.

        Args:
            t: of the operation, whose inputs have been placed.
            traits: of everything in scope.
            layer: in which its head or MLP stands.
            expected: (results, 4 * layers) the `profile` of the directions it writes, where it is known who reads them.
        """
        clock.look()
        target, node = self.target, t.node
        if layer >= target.bare.num_layers:
            return None
        block = block_of(t, traits, target.bare.max_seq_len, target.mode == "fixed")
        if block.reads_one and target.one < 0:
            return None
        rows = self._rows(t, block)
        if rows is None:
            return None
        count = 1 if node.numerical else len(t.values)
        likeness = self._likeness(expected, count, node.numerical)
        gain, entries, left = 0.0, 0, 0.0
        directions, scratch, head = np.zeros(0, np.int64), -1, (-1, -1)
        free = self.free.copy()
        if block.head is not None:
            moved = 1 if block.scratch else count
            found = match_head(
                Sought(target, block, rows, layer, moved, np.flatnonzero(free), likeness), self.free_heads[layer]
            )
            if found is None:
                return None
            head, directions = (layer, found.head), found.directions
            gain, entries, left = gain + found.gain, entries + found.entries, left + found.left
            free[directions[directions >= 0]] = False
            if block.scratch:
                scratch, directions = int(directions[0]), np.zeros(0, np.int64)
                rows[SCRATCH] = np.array([scratch])
        units, none, mlp = np.zeros(0, np.int64), -1, -1
        if block.groups:
            found = match_units(
                Sought(target, block, rows, layer, count, np.flatnonzero(free), likeness), self.free_units[layer]
            )
            if found is None:
                return None
            units, directions, none, mlp = found.units, found.directions, found.none, layer
            gain, entries, left = gain + found.gain, entries + found.entries, left + found.left
        return Match(gain, left / max(1, entries), directions, none, scratch, head, units, mlp)

    def _rows(self, t: Traits, block: Block) -> dict[int, np.ndarray] | None:
        """The directions of the groups that a block reads; None if one is not there."""
        read = read_by(t)
        rows = {ONE: np.array([self.target.one]), BOS_PLACE: np.array([self.target.bos])}
        for group, sop in zip((INPUT, QUERIES, AGGREGATED), read, strict=False):
            rows[group] = self.directions[id(sop)]
        if block.reads_none:
            for group, sop in ((INPUT_NONE, read[0]), (SECOND_NONE, read[-1])):
                rows[group] = np.array([self.none.get(id(sop), -1)])
        return rows

    def _likeness(self, expected: np.ndarray | None, count: int, numerical: bool) -> np.ndarray:
        """(count, width) by which a direction that is read as it should be is preferred, in energies of an entry of 1.

        Of directions that are written alike, noise alone would choose.
        """
        given = self.target.profile
        if expected is None:  # nobody compares numbers
            compared = given.reshape(len(given), -1, 4)[:, :, :2].any((1, 2))
            return np.broadcast_to(
                np.where(compared, -LIKENESS, 0.0) if numerical else np.zeros(len(given)), (count, len(given))
            )
        size = min(expected.shape[1], given.shape[1])
        apart = ((expected[:, None, :size] - given[None, :, :size]) ** 2).sum(2)
        return -LIKENESS * apart / (1 + apart)


def match_all(
    target: MatchTarget,
    lines: Sequence[tuple[SOp, int]],
    traits: dict[int, Traits],
    expected: Mapping[int, np.ndarray] | None = None,
) -> Placed | None:
    """Match a whole program, operation by operation; None if there is no room for one.

    Args:
        lines: (S-op, layer) in an order in which each reads only earlier ones.
        expected: the `profile` of the directions of each S-op, by its `id`.
    """
    placed = Placed(target)
    for node, layer in lines:
        match = placed.match(traits[id(node)], traits, layer, None if expected is None else expected.get(id(node)))
        if match is None:
            return None
        placed.place(node, match)
    return placed
