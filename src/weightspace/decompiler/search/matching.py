"""Matching one operation after the other against given weights: where each sits, and how much it explains.

The weights are taken to be compiled ones under Gaussian noise, of a strength of its own in every matrix (clean ones are
the limit of none). An operation whose inputs have been found is compiled alone into its block; its hidden units, heads
and output directions are then assigned to those of the given weights such that the log-likelihood grows most. So an
operation can be checked before what follows it is known, and what is left of its own columns says whether it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from weightspace.rasp.compiler.assemble import (
    AGGREGATED,
    BOS_PLACE,
    CLEANING,
    INPUT,
    INPUT_NONE,
    ONE,
    QUERIES,
    RESULT_NONE,
    SCRATCH,
    SECOND_NONE,
    Block,
    block_of,
    read_by,
)
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import FIRST, KEY, OUT, QUERY, SECOND, VALUE
from weightspace.rasp.language import BOS, SOp, indices, tokens
from weightspace.rasp.validate import Mode, Traits

QUIET = 0.3853
"""Of a half-normal distribution: three tenths of it lie below so many standard deviations."""
FAINTEST = 1e-3
"""Noise is taken to be at least this share of a matrix's root mean square, so that clean weights fit finitely well."""


def noise_of(matrix: np.ndarray) -> float:
    """The standard deviation of the noise on a matrix of which most entries would be zero without it."""
    scale = float(np.sqrt((matrix.astype(np.float64) ** 2).mean()))
    if scale == 0.0:
        return 1.0
    quiet = float(np.quantile(np.abs(matrix), 0.3)) / QUIET
    return max(quiet, FAINTEST * scale)


LIKENESS = 0.1
"""What it costs that a direction is read otherwise than expected, in energies of an entry of 1."""


TIED = 0.05
"""Units whose likelihoods differ by less than this, in energies of an entry of 1, read alike."""


LOST = -2
"""In place of a direction of a value that never occurs: a compression has dropped it, with what reads and writes it."""


@dataclass(frozen=True, eq=False)
class MatchTarget:
    """Weights prepared for matching.

    Attributes:
        bare: the weights, in a basis of directions.
        mode: by which compiler they are taken to be made.
        token_rows: (rows,) the direction of each row of the token embedding, BOS and PAD among them.
        places: (max_seq_len,) the direction of each place.
        one: the direction that is 1 everywhere, -1 if there is none.
        lossy: whether values that never occur may have no direction.
    """

    bare: BareTransformer
    mode: Mode
    token_rows: np.ndarray
    places: np.ndarray
    one: int
    lossy: bool = False

    @staticmethod
    def of(bare: BareTransformer, mode: Mode, lossy: bool = False) -> MatchTarget:
        """Find what the embeddings give away, under noise too."""
        shared = bare.tokens.mean(0)
        one = int(shared.argmax())
        used = shared[one] > 0.5 and len(bare.tokens) > 1
        rows = bare.tokens - (np.eye(1, bare.width, one) * 10 if used else 0)
        cost = -np.concatenate([rows, bare.positions[1:]])
        if used:
            cost[:, one] = 100.0
        _, found = linear_sum_assignment(cost)
        return MatchTarget(bare, mode, found[: len(rows)], found[len(rows) :], one if used else -1, lossy)

    @property
    def bos(self) -> int:
        return int(self.token_rows[self.bare.space.index(BOS)])

    @cached_property
    def anchored(self) -> np.ndarray:
        """(width,) which directions the embeddings write."""
        known = np.zeros(self.bare.width, bool)
        known[self.token_rows] = known[self.places] = True
        if self.one >= 0:
            known[self.one] = True
        return known

    @cached_property
    def profile(self) -> np.ndarray:
        return profile(self.bare)

    @cached_property
    def layers(self) -> tuple[_Layer, ...]:
        return tuple(_Layer(self.bare, number) for number in range(self.bare.num_layers))


class _Layer:
    """The matrices of a layer in units of their noise, in double precision.

    Attributes:
        first, second: (width, hidden), (hidden, width).
        query, key, value, linear: (width, heads * key_size), and the last the other way round.
        scale: by matrix name, one over its noise.
        unit_energy: (hidden,) sum of squares of each unit's column and row.
        head_energy: (heads,) the same of all that belongs to a head.
        units, heads: those that are not all zero.
    """

    def __init__(self, bare: BareTransformer, number: int) -> None:
        self.scale: dict[str, float] = {}
        for name in ("query", "key", "value", "linear", "first", "second"):
            matrix = getattr(bare, name)[number].astype(np.float64)
            self.scale[name] = 1 / noise_of(matrix)
            setattr(self, name, matrix * self.scale[name])
        self.first_energy, self.second_energy = (self.first**2).sum(0), (self.second**2).sum(1)
        self.unit_energy = self.first_energy + self.second_energy
        size = bare.key_size
        columns = sum((getattr(self, name) ** 2).sum(0) for name in ("query", "key", "value"))
        columns = columns + (self.linear**2).sum(1)
        self.head_energy = columns.reshape(-1, size).sum(1)
        self.units = np.flatnonzero(self.unit_energy)
        moving = (self.linear**2).sum(1).reshape(-1, size).sum(1)
        self.heads = np.flatnonzero(moving).tolist()
        self.moved_energy = moving

    first: np.ndarray
    second: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    linear: np.ndarray


def profile(bare: BareTransformer) -> np.ndarray:
    """(width, 4 * layers): how each direction is read in each layer, as query, as key, as value, and by how many units.

    It tells apart directions that are written alike; only what stands out of the noise counts.
    """
    parts = []
    for number in range(bare.num_layers):
        for name, least in (("query", 20.0), ("key", 0.4), ("value", 0.4)):
            matrix = np.abs(getattr(bare, name)[number])
            parts.append((matrix > max(least, 4 * noise_of(matrix))).any(1).astype(float))
        matrix = np.abs(bare.first[number])
        parts.append(np.log1p((matrix > max(0.4, 4 * noise_of(matrix))).sum(1)))
    return np.stack(parts, 1)


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
            found = self._match_head(block, rows, layer, 1 if block.scratch else count, free, likeness)
            if found is None:
                return None
            head, directions, score, own, rest = found
            gain, entries, left = gain + score, entries + own, left + rest
            free[directions[directions >= 0]] = False
            if block.scratch:
                scratch, directions = int(directions[0]), np.zeros(0, np.int64)
                rows[SCRATCH] = np.array([scratch])
        units, none, mlp = np.zeros(0, np.int64), -1, -1
        if block.groups:
            found = self._match_mlp(block, rows, layer, count, free, likeness)
            if found is None:
                return None
            units, directions, none, score, own, rest = found
            gain, entries, left, mlp = gain + score, entries + own, left + rest, layer
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

    def _losable(self, count: int) -> int:
        """How many of the directions of so many values may be lost; the one of a number never is."""
        return count if self.target.lossy and count > 1 else 0

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

    def _match_head(
        self, block: Block, rows: dict[int, np.ndarray], layer: int, count: int, free: np.ndarray, likeness: np.ndarray
    ) -> tuple[tuple[int, int], np.ndarray, float, int, float] | None:
        """The best free head: where it is, the directions it writes, gain, entries and what is left of them."""
        assert block.head is not None
        part, bare = self.target.layers[layer], self.target.bare
        width, size = bare.width, bare.key_size
        room = np.flatnonzero(free)
        lost = self._losable(count)
        if len(room) + lost < count or max(block.head[1:]) > size:
            return None
        compared, moved = block.head[1], block.head[2]
        query, key = np.zeros((width, compared)), np.zeros((width, compared))
        value, out = np.zeros((width, moved)), np.zeros((moved, count))
        steep = size**0.5 if self.target.mode == "fixed" else 1.0
        for number, (matrix, group, _) in enumerate(block.codes):
            own = block.code == number
            along, across, values = block.along[own], block.across[own], block.values[own]
            if matrix == OUT:
                out[along, across] = values
            if matrix not in (QUERY, KEY, VALUE):
                continue
            where = rows[group][along]
            where, across, values = (part[where != LOST] for part in (where, across, values))
            if matrix == QUERY:
                query[where, across] = values * steep
            else:
                (key if matrix == KEY else value)[where, across] = values
        query, key, value, out = (
            matrix * part.scale[name]
            for name, matrix in (("query", query), ("key", key), ("value", value), ("linear", out))
        )
        norms = ((query**2).sum(0) + (key**2).sum(0))[:, None] / 2
        value_norms, out_norms = (value**2).sum(0)[:, None] / 2, (out**2).sum(0)[:, None] / 2
        best = None
        for head in part.heads:
            if not self.free_heads[layer][head]:
                continue
            own = bare.head(head)
            looks = query.T @ part.query[:, own] + key.T @ part.key[:, own] - norms  # (compared, key_size)
            kept, chosen = linear_sum_assignment(-looks)
            gain = float(looks[kept, chosen].sum())
            moves = value.T @ part.value[:, own] - value_norms  # (moved, key_size)
            kept, chosen = linear_sum_assignment(-moves)
            arriving = part.linear[own][chosen][:, room]  # (moved, room)
            gains = out.T @ arriving - out_norms  # (count, room)
            taste = part.scale["linear"] ** 2 * likeness[:, room] if len(likeness) == count else 0.0
            outs = linear_sum_assignment(-np.pad(gains + taste, ((0, 0), (0, lost))))[1]
            there = outs < len(room)
            if not there.any():
                continue
            gain += float(moves[kept, chosen].sum() + gains[there, outs[there]].sum())
            if best is None or gain > best[2]:
                energy = float(part.head_energy[head])
                best = ((layer, head), _found(room, outs), gain, 4 * width * size, energy - 2 * gain)
        return best

    def _match_mlp(
        self, block: Block, rows: dict[int, np.ndarray], layer: int, count: int, free: np.ndarray, likeness: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int, float, int, float] | None:
        """The best free units: which, the directions they write, that of None, gain, entries and what is left."""
        part, bare = self.target.layers[layer], self.target.bare
        starts = np.cumsum([0, *(size for _, size in block.groups)])
        size = int(starts[-1])
        units = part.units[self.free_units[layer][part.units]]
        extra = int(block.writes_none)
        room = np.flatnonzero(free)
        lost = self._losable(count)
        if len(units) < size or not len(room) or len(room) + lost < count + extra:
            return None
        first = np.zeros((bare.width, size))
        second = np.zeros((size, count + extra))
        scratch = np.zeros(size)
        for number, (matrix, group, unit) in enumerate(block.codes):
            own = block.code == number
            along, across, values = block.along[own], block.across[own], block.values[own]
            if matrix == FIRST:
                where = rows[group][along]
                if (where == -1).any():
                    return None
                there = where != LOST
                np.add.at(first, (where[there], across[there] + starts[unit]), values[there])
            elif matrix == SECOND and group == SCRATCH:
                scratch[along + starts[unit]] = values
            elif matrix == SECOND:
                np.add.at(second, (along + starts[unit], across + (count if group == RESULT_NONE else 0)), values)
        for number, (suffix, _) in enumerate(block.groups):
            if suffix == CLEANING:
                first[self.target.bos, starts[number]] += 1
        read = np.flatnonzero(first.any(1))
        wanted = first[read] * part.scale["first"]
        reading = wanted.T @ part.first[np.ix_(read, units)] - (wanted**2).sum(0)[:, None] / 2  # (size, units)
        down = scratch * part.scale["second"]
        if scratch.any():
            column = part.second[units, rows[SCRATCH][0]]
            reading += down[:, None] * column - (down**2)[:, None] / 2
        writes = second * part.scale["second"]
        # what is left of a unit counts in full: other units are other operations', and no noise
        reading -= part.first_energy[units] / 2
        norms = np.sqrt((writes**2).sum(1) + down**2)[:, None]
        ahead = -((np.sqrt(part.second_energy[units]) - norms) ** 2) / 2  # at least this is left of its row
        if lost:  # unless all it writes is lost
            ahead[np.broadcast_to(part.second_energy[units] < norms**2 / 4, ahead.shape)] = 0.0
        writing = part.second[np.ix_(units, room)]
        heights = (writes**2).sum(0)[:, None] / 2
        taste = np.zeros((count + extra, len(room)))
        taste[:count] = likeness[:, room]
        # of units that read alike, that which writes where it should
        reading += part.scale["first"] ** 2 * taste[np.abs(second).argmax(1)][:, np.abs(writing).argmax(1)]
        taste *= part.scale["second"] ** 2
        fitting = reading + ahead
        chosen = linear_sum_assignment(-fitting)[1]
        # two operations may read alike in every unit: then only what all units that fit write tells which are whose
        apart = (fitting - fitting.max(1, keepdims=True)) / (TIED * part.scale["first"] ** 2)
        shares = np.exp(np.maximum(apart, -50.0))
        written = (shares / shares.sum(1, keepdims=True)) @ writing
        outs, there, kept = np.zeros(0, np.int64), np.ones(count + extra, bool), writes
        for step in range(4):
            gains = writes.T @ (written if step == 0 else writing[chosen]) - heights + taste  # (count, room)
            found = linear_sum_assignment(-np.pad(gains, ((0, 0), (0, lost))))[1]
            if np.array_equal(found, outs):
                break
            outs, there = found, found < len(room)
            kept = writes[:, there]
            both = (
                reading
                - part.second_energy[units] / 2
                + kept @ writing[:, outs[there]].T
                - (kept**2).sum(1)[:, None] / 2
            )
            again = linear_sum_assignment(-both)[1]
            if np.array_equal(again, chosen):
                break
            chosen = again
        wanted = first * part.scale["first"]
        gain = float((wanted * part.first[:, units[chosen]]).sum() - (wanted**2).sum() / 2)
        if scratch.any():
            gain += float((down * part.second[units[chosen], rows[SCRATCH][0]]).sum() - (down**2).sum() / 2)
        if not there[:count].any():
            return None
        gain += float((kept * writing[np.ix_(chosen, outs[there])]).sum() - (kept**2).sum() / 2)
        taken = units[chosen]
        energy = float(part.unit_energy[taken].sum())
        directions = _found(room, outs)
        none = int(directions[count]) if extra else -1
        return taken, directions[:count], none, gain, 2 * size * bare.width, energy - 2 * gain


def _found(room: np.ndarray, outs: np.ndarray) -> np.ndarray:
    """The directions that were chosen of those in `room`; what was chosen beyond them is lost."""
    return np.where(outs < len(room), np.append(room, LOST)[np.minimum(outs, len(room))], LOST)


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
