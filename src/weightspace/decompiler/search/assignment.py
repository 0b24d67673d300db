"""Which head and which hidden units of a layer are an operation's, and which directions they write, by likelihood.

Each is a linear sum assignment, or a few in turn: of the columns of a head, of hidden units, of directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from weightspace import clock
from weightspace.decompiler.search.target import MatchTarget
from weightspace.rasp.compiler.assemble import (
    CLEANING,
    RESULT_NONE,
    SCRATCH,
    Block,
)
from weightspace.rasp.compiler.transformer import FIRST, KEY, OUT, QUERY, SECOND, VALUE

LOST = -2
"""In place of a direction of a value that never occurs: a compression has dropped it, with what reads and writes it."""
TIED = 0.05
"""Units whose likelihoods differ by less than this, in energies of an entry of 1, read alike."""


class Sought(NamedTuple):
    """An operation's block, and what of the weights may be its.

    Attributes:
        target: the weights.
        block: the operation, compiled alone.
        rows: the directions of each group that the block reads, -1 where one is not there.
        layer: in which its head or MLP stands.
        results: how many directions its results have, that of None left out.
        room: (n,) the directions that are free.
        likeness: (results, width) by which each direction is preferred, in energies of an entry of 1.
    """

    target: MatchTarget
    block: Block
    rows: Mapping[int, np.ndarray]
    layer: int
    results: int
    room: np.ndarray
    likeness: np.ndarray

    @property
    def losable(self) -> int:
        """How many of the directions of its results may be lost; the one of a number never is."""
        return self.results if self.target.lossy and self.results > 1 else 0

    def assigned(self, gains: np.ndarray) -> np.ndarray:
        """Which of the free directions each result has, by gains (written, n); those beyond n are lost."""
        from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

        return linear_sum_assignment(-np.pad(gains, ((0, 0), (0, self.losable))))[1]

    def directions(self, outs: np.ndarray) -> np.ndarray:
        """The directions that `assigned` has chosen."""
        room = self.room
        return np.where(outs < len(room), np.append(room, LOST)[np.minimum(outs, len(room))], LOST)


# -- heads ----------------------------------------------------------------------------------------------------------


class FoundHead(NamedTuple):
    """The head that fits best.

    Attributes:
        head: its number in the layer.
        directions: that it writes, `LOST` where one is lost.
        gain: of the log-likelihood, in nats.
        entries: of the weights that belong to it.
        left: sum of squares of what is left of them, in units of the noise.
    """

    head: int
    directions: np.ndarray
    gain: float
    entries: int
    left: float


def match_head(sought: Sought, free: np.ndarray) -> FoundHead | None:
    """The best free head; None if there is no room.

    Args:
        free: (heads,) which heads of the layer are.
    """
    from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

    part, bare, room, count = sought.target.layers[sought.layer], sought.target.bare, sought.room, sought.results
    assert sought.block.head is not None
    if len(room) + sought.losable < count or max(sought.block.head[1:]) > bare.key_size:
        return None
    query, key, value, out = _head_matrices(sought)
    norms = ((query**2).sum(0) + (key**2).sum(0))[:, None] / 2
    value_norms, out_norms = (value**2).sum(0)[:, None] / 2, (out**2).sum(0)[:, None] / 2
    best = None
    for head in part.heads:
        clock.look()
        if not free[head]:
            continue
        own = bare.head(head)
        looks = query.T @ part.query[:, own] + key.T @ part.key[:, own] - norms  # (compared, key_size)
        kept, chosen = linear_sum_assignment(-looks)
        gain = float(looks[kept, chosen].sum())
        moves = value.T @ part.value[:, own] - value_norms  # (moved, key_size)
        kept, chosen = linear_sum_assignment(-moves)
        arriving = part.linear[own][chosen][:, room]  # (moved, room)
        gains = out.T @ arriving - out_norms  # (count, room)
        taste = part.scale["linear"] ** 2 * sought.likeness[:, room] if len(sought.likeness) == count else 0.0
        outs = sought.assigned(gains + taste)
        there = outs < len(room)
        if not there.any():
            continue
        gain += float(moves[kept, chosen].sum() + gains[there, outs[there]].sum())
        if best is None or gain > best.gain:
            energy = float(part.head_energy[head])
            entries = 4 * bare.width * bare.key_size
            best = FoundHead(head, sought.directions(outs), gain, entries, energy - 2 * gain)
    return best


def _head_matrices(sought: Sought) -> tuple[np.ndarray, ...]:
    """The block's query, key and value (width, columns) and output (columns, results), in units of the noise."""
    target, block = sought.target, sought.block
    part, width = target.layers[sought.layer], target.bare.width
    assert block.head is not None
    _, compared, moved = block.head
    query, key = np.zeros((width, compared)), np.zeros((width, compared))
    value, out = np.zeros((width, moved)), np.zeros((moved, sought.results))
    steep = target.bare.key_size**0.5 if target.mode == "fixed" else 1.0
    for number, (matrix, group, _) in enumerate(block.codes):
        own = block.code == number
        along, across, values = block.along[own], block.across[own], block.values[own]
        if matrix == OUT:
            out[along, across] = values
        if matrix not in (QUERY, KEY, VALUE):
            continue
        where = sought.rows[group][along]
        where, across, values = (array[where != LOST] for array in (where, across, values))
        if matrix == QUERY:
            query[where, across] = values * steep
        else:
            (key if matrix == KEY else value)[where, across] = values
    named = (("query", query), ("key", key), ("value", value), ("linear", out))
    return tuple(matrix * part.scale[name] for name, matrix in named)


# -- hidden units ---------------------------------------------------------------------------------------------------


class FoundUnits(NamedTuple):
    """The hidden units that fit best.

    Attributes:
        units: in the order of the block.
        directions: that they write, `LOST` where one is lost.
        none: the direction of None, -1 if it is not written.
        gain, entries, left: as of a head.
    """

    units: np.ndarray
    directions: np.ndarray
    none: int
    gain: float
    entries: int
    left: float


def match_units(sought: Sought, free: np.ndarray) -> FoundUnits | None:
    """The best free units for a block's MLP; None if there is no room, or a direction that it reads is not there.

    Args:
        free: (hidden,) which units of the layer are.
    """
    block, count, room = sought.block, sought.results, sought.room
    part = sought.target.layers[sought.layer]
    units = part.units[free[part.units]]
    size, written = sum(size for _, size in block.groups), count + int(block.writes_none)
    if len(units) < size or not len(room) or len(room) + sought.losable < written:
        return None
    matrices = _mlp_matrices(sought, size, written)
    if matrices is None:
        return None
    fit = _Fit(sought, units, *matrices)
    chosen, outs = fit.settle(*fit.guess())
    if not (outs[:count] < len(room)).any():
        return None
    gain = fit.gain(chosen, outs)
    taken = units[chosen]
    energy = float(part.unit_energy[taken].sum())
    directions = sought.directions(outs)
    none = int(directions[count]) if block.writes_none else -1
    entries = 2 * size * sought.target.bare.width
    return FoundUnits(taken, directions[:count], none, gain, entries, energy - 2 * gain)


def _mlp_matrices(sought: Sought, size: int, written: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """What the block's units read (width, size), write (size, written), and write to scratch (size,), as compiled.

    None if a direction that they read is not there.
    """
    target, block = sought.target, sought.block
    starts = np.cumsum([0, *(units for _, units in block.groups)])
    first, second, scratch = np.zeros((target.bare.width, size)), np.zeros((size, written)), np.zeros(size)
    for number, (matrix, group, unit) in enumerate(block.codes):
        own = block.code == number
        along, across, values = block.along[own], block.across[own], block.values[own]
        if matrix == FIRST:
            where = sought.rows[group][along]
            if (where == -1).any():
                return None
            there = where != LOST
            np.add.at(first, (where[there], across[there] + starts[unit]), values[there])
        elif matrix == SECOND and group == SCRATCH:
            scratch[along + starts[unit]] = values
        elif matrix == SECOND:
            column = across + (sought.results if group == RESULT_NONE else 0)
            np.add.at(second, (along + starts[unit], column), values)
    for number, (suffix, _) in enumerate(block.groups):
        if suffix == CLEANING:
            first[target.bos, starts[number]] += 1
    return first, second, scratch


class _Fit:
    """A block's MLP against the free units of a layer, in units of the noise.

    Attributes:
        units: (n,) that are free.
        wanted: (width, size) what the block's units read.
        writes: (size, written) what they write, and `down` (size,) what they write to scratch.
        column: (n,) what the free units write to scratch; None if the block's write nothing there.
        writing: (n, room) what the free units write to the free directions.
        taste: (written, room) by which a direction is preferred.
        reading: (size, n) log-likelihood of what each reads, if the other is its unit.
    """

    def __init__(
        self, sought: Sought, units: np.ndarray, first: np.ndarray, second: np.ndarray, scratch: np.ndarray
    ) -> None:
        self.sought, self.units = sought, units
        self.part = sought.target.layers[sought.layer]
        scale = self.part.scale
        self.wanted, self.writes = first * scale["first"], second * scale["second"]
        self.down = scratch * scale["second"]
        self.column = self.part.second[units, sought.rows[SCRATCH][0]] if scratch.any() else None
        self.writing = self.part.second[np.ix_(units, sought.room)]
        taste = np.zeros((second.shape[1], len(sought.room)))
        taste[: sought.results] = sought.likeness[:, sought.room]
        self.reading = self._reading()
        # of units that read alike, that which writes where it should
        self.reading += scale["first"] ** 2 * taste[np.abs(second).argmax(1)][:, np.abs(self.writing).argmax(1)]
        self.taste = taste * scale["second"] ** 2

    def _reading(self) -> np.ndarray:
        part, units = self.part, self.units
        read = np.flatnonzero(self.wanted.any(1))
        wanted = self.wanted[read]
        reading = wanted.T @ part.first[np.ix_(read, units)] - (wanted**2).sum(0)[:, None] / 2
        if self.column is not None:
            reading += self.down[:, None] * self.column - (self.down**2)[:, None] / 2
        # what is left of a unit counts in full: other units are other operations', and no noise
        return reading - part.first_energy[units] / 2

    def guess(self) -> tuple[np.ndarray, np.ndarray]:
        """Units by what they read alone: (size,) which, and (size, room) what those that fit write on average."""
        from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

        energy = self.part.second_energy[self.units]
        norms = np.sqrt((self.writes**2).sum(1) + self.down**2)[:, None]
        ahead = -((np.sqrt(energy) - norms) ** 2) / 2  # at least this is left of its row
        if self.sought.losable:  # unless all it writes is lost
            ahead[np.broadcast_to(energy < norms**2 / 4, ahead.shape)] = 0.0
        fitting = self.reading + ahead
        chosen = linear_sum_assignment(-fitting)[1]
        # two operations may read alike in every unit: then only what all units that fit write tells which are whose
        apart = (fitting - fitting.max(1, keepdims=True)) / (TIED * self.part.scale["first"] ** 2)
        shares = np.exp(np.maximum(apart, -50.0))
        return chosen, (shares / shares.sum(1, keepdims=True)) @ self.writing

    def settle(self, chosen: np.ndarray, written: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Directions by what units write, units by the directions, in turn: (size,) units, (written,) directions."""
        from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

        heights = (self.writes**2).sum(0)[:, None] / 2
        outs = np.zeros(0, np.int64)
        for step in range(4):
            clock.look()
            found = self.sought.assigned(
                self.writes.T @ (written if step == 0 else self.writing[chosen]) - heights + self.taste
            )
            if np.array_equal(found, outs):
                break
            outs = found
            kept, where = self._kept(outs)
            both = (
                self.reading
                - self.part.second_energy[self.units] / 2
                + kept @ self.writing[:, where].T
                - (kept**2).sum(1)[:, None] / 2
            )
            again = linear_sum_assignment(-both)[1]
            if np.array_equal(again, chosen):
                break
            chosen = again
        return chosen, outs

    def _kept(self, outs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is written to directions that are not lost, and which of the free ones these are."""
        there = outs < len(self.sought.room)
        return self.writes[:, there], outs[there]

    def gain(self, chosen: np.ndarray, outs: np.ndarray) -> float:
        """By how much the log-likelihood grows over leaving the entries to the noise."""
        gain = float((self.wanted * self.part.first[:, self.units[chosen]]).sum() - (self.wanted**2).sum() / 2)
        if self.column is not None:
            gain += float((self.down * self.column[chosen]).sum() - (self.down**2).sum() / 2)
        kept, where = self._kept(outs)
        return gain + float((kept * self.writing[np.ix_(chosen, where)]).sum() - (kept**2).sum() / 2)
