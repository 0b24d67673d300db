"""A program out of weights by trying every operation of the `typed` language at every place: a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from weightspace import clock
from weightspace.decompiler.lifting.blocks import Anchors, find_anchors
from weightspace.errors import RaspError
from weightspace.rasp.compiler import assemble as compiler
from weightspace.rasp.compiler.assemble import COLDNESS, Block
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.transformer import FIRST, SECOND
from weightspace.rasp.functions import Function
from weightspace.rasp.language import (
    BOS,
    ENCODINGS,
    EXACTNESS,
    PAD,
    PREDICATES,
    Aggregate,
    Comparison,
    LinearSequenceMap,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    rebuild,
    tokens,
    walk,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import FACTORS
from weightspace.rasp.tokens import TYPED_COMPARISONS, TYPED_MAPS, TYPED_SEQUENCE_MAPS
from weightspace.rasp.validate import Mode, Selection, Traits, selection_of, traits_of
from weightspace.rasp.values import predicate_table, token_set, value_set

EXACT = 3e-6
"""Noise that clean float32 weights are taken to have, in units of a matrix's largest entry."""
MOST_MISFIT = 2.0
"""A block may miss the weights by so much, as chi square for each entry; noise alone makes it 1."""
MOST_SCORES_MISFIT = 40.0
"""A selector may miss the scores of a head by so much more than the best of all masks, as chi square."""
MOST_MOVED_MISFIT = 0.35
"""What is moved may miss a head's weights by so much of their square."""
_MAPS = tuple(Function.parse(source, 1) for source in sorted(TYPED_MAPS, key=lambda source: (len(source), source)))
_JOINS = tuple(Function.parse(source, 2) for source in sorted(TYPED_SEQUENCE_MAPS, key=lambda s: (len(s), s)))
_COMPARISONS: tuple[Comparison, ...] = (*TYPED_COMPARISONS, "FALSE")


@dataclass(frozen=True)
class Found:
    """What enumeration has found.

    Attributes:
        program: that explains everything, or as much as was explained; None if nothing was.
        complete: whether every head and every hidden unit is explained.
        mode: by which compiler.
        checked: operations that were compared with the weights.
        seconds: that it took.
        misfit: chi square for each entry of the blocks of the program; noise alone makes it 1, and 0 is exact.
    """

    program: Program | None
    complete: bool
    mode: Mode
    checked: int
    seconds: float
    misfit: float

    @property
    def rate(self) -> float:
        """Operations checked in a second."""
        return self.checked / max(self.seconds, 1e-9)


def enumerate_program(
    bare: BareTransformer, budget: int | float = 10.0, *, exactness: int | float = EXACTNESS
) -> Found:
    """Explain weights operation by operation, front to back, by trying all operations of the `typed` language.

    Each is compared with its own block of the weights alone: a head by the scores that it gives and by what it moves,
    an MLP by its hidden units, after its units and its output directions have been matched. What misses least comes
    first; where later half-layers cannot be explained, the next is tried.

    Args:
        bare: weights, clean or noisy; the noise of each matrix is estimated from its entries.
        budget: seconds.
        exactness: of the MLPs, if Tracr made them.
    Raises:
        NotLiftable: if not even the embeddings can be read.
    """
    modes: list[Mode] = ["tracr_compat", "fixed"]
    modes = [mode for mode in modes if bare.mode in (mode, None)] or modes
    start, best = clock.now(), None
    checked = 0
    for number, mode in enumerate(modes):
        until = start + budget * (number + 1) / len(modes)
        complete, search = False, None
        try:
            search = _Enumeration(bare, mode, exactness, until)
            complete = search.explain(0)
        except clock.OutOfTime:
            if search is None:
                continue
        checked += search.checked
        program, misfit = search.best()
        found = Found(program, complete, mode, checked, clock.now() - start, misfit)
        if complete:
            return found
        if best is None or search.deepest > best[0]:
            best = (search.deepest, found)
    if best is None:
        return Found(None, False, modes[0], checked, clock.now() - start, float("inf"))
    return Found(best[1].program, False, best[1].mode, checked, clock.now() - start, best[1].misfit)


class Explained(NamedTuple):
    """An S-op and where it stands.

    Attributes:
        node: the S-op.
        traits: what the compiler knows of it.
        directions: of its values in the order of a block's rows; the tokens have BOS and PAD among them.
        none: the direction that says None, or None.
        misfit, entries: chi square, and of how many entries.
    """

    node: SOp
    traits: Traits
    directions: np.ndarray
    none: int | None = None
    misfit: float = 0.0
    entries: int = 0


class OperationFit(NamedTuple):
    """How a candidate suits the hidden units.

    Attributes:
        z: chi square against what noise makes, in its standard deviations.
        misfit, entries: chi square, and of how many entries.
        units: that it takes.
        directions: that it writes to, in the order of its values, the one for None last.
    """

    z: float
    misfit: float
    entries: int
    units: tuple[int, ...]
    directions: tuple[int, ...]


class OperationCandidate(NamedTuple):
    """An operation that may explain some hidden units.

    Attributes:
        reads, writes: (units, width) and (units, slots): the weights that it wants; slots are its values and None.
    """

    node: SOp
    traits: Traits
    block: Block
    reads: np.ndarray
    writes: np.ndarray


class _Enumeration:
    """A depth-first search through half-layers."""

    def __init__(self, bare: BareTransformer, mode: Mode, exactness: int | float, until: float) -> None:
        self.bare, self.fixed, self.until, self.exactness = bare, mode == "fixed", until, exactness
        self.length, self.checked, self.deepest = bare.max_seq_len, 0, -1
        self.anchors: Anchors = find_anchors(bare)
        self.noise = [(_noise(bare.first[i]), _noise(bare.second[i])) for i in range(bare.num_layers)]
        self.heads = [self._products(layer) for layer in range(bare.num_layers)]
        self.active = [self._active(layer) for layer in range(bare.num_layers)]
        self.known: dict[int, Traits] = {
            id(tokens): Traits(tokens, token_set(bare.vocab), False, 0),
            id(indices): Traits(indices, value_set(range(self.length)), False, 0),
        }
        self.selections: dict[int, Selection] = {}
        self.alive: list[Any] = []
        rows = dict(zip(bare.vocab, self.anchors.tokens, strict=True)) | {BOS: self.anchors.bos, PAD: self.anchors.pad}
        space = np.array([rows[value] for value in bare.space])
        self.sops = [
            Explained(tokens, self.known[id(tokens)], space),
            Explained(indices, self.known[id(indices)], np.array(self.anchors.indices)),
        ]
        self.used = np.zeros(bare.width, dtype=bool)
        self.used[list(self.anchors.all)] = True
        self.guess: tuple[Explained, ...] = ()
        self.answer: Explained | None = None
        self.pending: list[tuple[Select, int]] = []
        self.memo: dict[Any, list[OperationFit]] = {}
        self.kinds, self.paired = self._kinds(), self._paired()
        self.made: dict[Any, OperationCandidate | None] = {}

    def _products(self, layer: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each head that moves something, between directions: the scores, their variance, and what it moves.

        Scores and variance are (query, key), in units of a selected key's score; what is moved is (from, to).
        """
        bare, found = self.bare, []
        scale = np.sqrt(bare.key_size) if self.fixed else 1.0
        for number in range(bare.num_heads):
            clock.look()
            columns = bare.head(number)
            moved = bare.value[layer][:, columns] @ bare.linear[layer][columns]
            if np.abs(moved).max(initial=0.0) > 0.5:
                query = bare.query[layer][:, columns].astype(np.float64) / (scale * COLDNESS)
                key = bare.key[layer][:, columns].astype(np.float64)
                of_query = (_noise(bare.query[layer]) / (scale * COLDNESS)) ** 2
                of_key = _noise(bare.key[layer]) ** 2
                variance = (query * query).sum(1)[:, None] * of_key + (key * key).sum(1)[None, :] * of_query
                found.append((query @ key.T, variance + 1e-8, moved.astype(np.float64)))
        return found

    def _active(self, layer: int) -> frozenset[int]:
        """Hidden units that write something."""
        second = np.abs(self.bare.second[layer]).max(1)
        return frozenset(np.flatnonzero(second > max(6 * self.noise[layer][1], 1e-3)).tolist())

    # -- the search

    def explain(self, half: int) -> bool:
        """Explain this half-layer and all behind it."""
        self._check_time()
        if half > self.deepest:
            self.deepest, self.guess = half, tuple(self.sops)
        if half == 2 * self.bare.num_layers:
            return self._is_whole()
        layer = half // 2
        if half % 2 == 0:
            return self._attend(layer, 0, [])
        units = frozenset(range(self.bare.hidden_size))
        return self._compute(layer, units - self._cleaning(layer, self.pending), self.pending[:], None)

    def _check_time(self) -> None:
        if clock.now() > self.until:
            raise clock.OutOfTime
        clock.look()

    def _is_whole(self) -> bool:
        """Whether the answer stands where it should, and everything is needed for it."""
        output = self._output()
        if output is None:
            return False
        needed = {id(node) for node in walk(output.node)}
        if any(id(sop.node) not in needed for sop in self.sops[2:]):
            return False
        self.guess, self.answer = tuple(self.sops), output
        return True

    def _output(self) -> Explained | None:
        readout = self.bare.readout
        if len(self.sops) < 3:
            return None
        if readout is None:
            return self.sops[-1]
        directions = np.abs(readout.directions).argmax(0).tolist()
        for sop in self.sops[2:]:
            if sop.directions.tolist() == directions or sorted(sop.directions.tolist()) == sorted(directions):
                if not readout.values or sop.node.numerical:
                    return sop if sop.node.numerical == (readout.values is None) else None
                wanted = dict(zip(directions, readout.values, strict=True))
                given = zip(sop.directions.tolist(), sop.traits.values.values, strict=True)
                return sop if all(wanted[d] == v for d, v in given) else None
        return None

    def best(self) -> tuple[Program | None, float]:
        """The program of what was explained furthest."""
        sops = self.guess[2:]
        if not sops:
            return None, float("inf")
        output = self.answer or sops[-1]
        program = Program.of(
            output.node,
            vocab=self.bare.vocab,
            max_seq_len=self.length,
            causal=self.bare.causal,
            mlp_exactness=self.exactness,
        )
        return program, sum(sop.misfit for sop in sops) / max(1, sum(sop.entries for sop in sops))

    # -- attention

    def _attend(self, layer: int, number: int, pending: list[tuple[Select, int]]) -> bool:
        if number == len(self.heads[layer]):
            self.pending = pending
            return self.explain(2 * layer + 1)
        scores, variance, moved = self.heads[layer][number]
        for keys, queries, comparison, sop, misfit in self._selectors(scores, variance, moved):
            selector = self._select(keys, queries, comparison)
            if sop is None:
                scratch = int(np.where(self.used, -np.inf, moved[self.anchors.bos]).argmax())
                self.used[scratch] = True
                if self._attend(layer, number + 1, [*pending, (selector, scratch)]):
                    return True
                self.used[scratch] = False
                continue
            added = self._aggregate(selector, sop, moved, misfit)
            if added is not None and self._with(added, lambda: self._attend(layer, number + 1, pending)):
                return True
        return False

    def _with(self, added: Explained, go_on: Any) -> bool:
        """Go on with one S-op more, and take it back if that leads nowhere."""
        taken = [*added.directions.tolist(), *([] if added.none is None else [added.none])]
        self.sops.append(added)
        self.used[taken] = True
        if go_on():
            return True
        self.sops.pop()
        self.used[taken] = False
        return False

    def _selectors(
        self, scores: np.ndarray, variance: np.ndarray, moved: np.ndarray
    ) -> list[tuple[Explained, Explained, Comparison, Explained | None, float]]:
        """Selectors and what they may move (None for a SelectorWidth), by how far they are from a head's weights."""
        anchors = self.anchors
        off, on = scores * scores / variance, (scores - 1) ** 2 / variance
        if anchors.one is not None:
            off[anchors.one, anchors.bos] = on[anchors.one, anchors.bos] = 0.0
        least = np.minimum(off, on)
        excess = float((off - least).sum())  # of a mask that selects nothing
        categorical = [sop for sop in self.sops if not sop.node.numerical]
        movable: list[tuple[Explained | None, float, float]] = []
        to_bos = scores[anchors.one, anchors.bos] if anchors.one is not None else 0.0
        squared = float((moved * moved).sum())
        for sop in [None, *self.sops]:
            self.checked += 1
            wanted = 1.0 if sop is None else 0.5
            rows = np.array([anchors.bos]) if sop is None else self._rows(sop)
            movable.append((sop, squared + _carried(moved, rows, self.used)[0], wanted * wanted - 2 * wanted * to_bos))
        found = []
        for keys in categorical:
            for queries in categorical:
                self._check_time()
                place = np.ix_(self._rows(queries), self._rows(keys))
                change = (on[place] - off[place]).T
                for comparison in _COMPARISONS:
                    self.checked += 1
                    mask = self._mask(comparison, keys, queries)
                    if mask is None:
                        continue
                    misfit = excess + float(change[mask].sum())
                    if misfit < MOST_SCORES_MISFIT:
                        found.append((misfit, keys, queries, comparison))
        options = []
        for misfit, keys, queries, comparison in found:
            for sop, carried, looks in movable:
                count = 1 if sop is None else len(self._rows(sop))
                if carried < MOST_MOVED_MISFIT * count:
                    order = misfit + looks + max(0.0, carried) / count
                    options.append((order, (keys, queries, comparison, sop, misfit)))
        options.sort(key=lambda option: option[0])
        return _distinct([option for _, option in options], self._mask)

    def _rows(self, sop: Explained) -> np.ndarray:
        """Directions of an S-op in the order of its values."""
        return sop.directions if sop.node.numerical else sop.directions[sop.traits.values.rows]

    def _mask(self, comparison: Comparison, keys: Explained, queries: Explained) -> np.ndarray | None:
        try:
            return predicate_table(PREDICATES[comparison], keys.traits.values, queries.traits.values)
        except RaspError:
            return None

    def _select(self, keys: Explained, queries: Explained, comparison: Comparison) -> Select:
        made = Select(keys.node, queries.node, comparison)
        selection = selection_of(made, self.known, self.selections)
        assert selection is not None
        self.selections[id(made)] = selection
        self.alive.append(made)
        return made

    def _aggregate(self, selector: Select, sop: Explained, moved: np.ndarray, misfit: float) -> Explained | None:
        node = Aggregate(selector, sop.node, encoding=sop.node.encoding)
        traits = self._traits(node)
        if traits is None:
            return None
        _, directions = _carried(moved, self._rows(sop), self.used)
        return Explained(node, traits, directions, None, misfit, 1)

    def _traits(self, node: SOp) -> Traits | None:
        self._check_time()
        try:
            traits = traits_of(node, self.known, self.selections, self.length, self.fixed)
        except RaspError:
            return None
        if traits is not None:
            self.known[id(node)] = traits
            self.alive.append(node)
        return traits

    # -- MLPs

    def _compute(
        self,
        layer: int,
        left: frozenset[int],
        pending: list[tuple[Select, int]],
        candidates: list[OperationCandidate] | None,
    ) -> bool:
        """Explain the units of a layer that are left, after those of SelectorWidths whose heads are pending."""
        self._check_time()
        if pending:
            selector, scratch = pending[0]
            for candidate, fit in self._fits(layer, left, self._widths(selector, scratch)):
                rest = left - set(fit.units)
                added = self._explained(candidate, fit)
                if self._with(added, lambda rest=rest: self._compute(layer, rest, pending[1:], None)):
                    return True
            return False
        active = self.active[layer] & left
        if not active:
            return self.explain(2 * layer + 2)
        first = candidates is None
        if candidates is None:
            candidates = list(self._candidates())
        fits = self._fits(layer, left, candidates)
        if first:
            candidates = [candidate for candidate, _ in fits]
        pivot = max(active, key=lambda unit: (float(np.abs(self.bare.second[layer][unit]).max()), -unit))
        seen = set()
        for candidate, fit in fits:
            same = candidate.writes.tobytes() if candidate.node.numerical else candidate.traits.values.values
            key = (fit.directions, fit.units, same)
            if pivot not in fit.units or key in seen:
                continue
            seen.add(key)
            rest = left - set(fit.units)
            added = self._explained(candidate, fit)
            if self._with(added, lambda rest=rest: self._compute(layer, rest, [], candidates)):
                return True
        return False

    def _cleaning(self, layer: int, pending: Sequence[tuple[Select, int]]) -> frozenset[int]:
        """Units that clean the place of BOS: they take back what a SelectorWidth's head has written there."""
        taken = self.bare.second[layer][:, [scratch for _, scratch in pending]] < -0.5
        return frozenset(np.flatnonzero(taken.any(1)).tolist())

    def _candidates(self) -> Iterator[OperationCandidate]:
        """Every operation of an MLP over the S-ops that are there."""
        for inner in self.sops:
            for encoding in ENCODINGS:
                for function in _MAPS:
                    made = self._made(
                        ("map", function, encoding),
                        (inner,),
                        partial(Map, function, inner.node, encoding=encoding),
                    )
                    if made is not None:
                        yield made
        categorical = [sop for sop in self.sops if not sop.node.numerical]
        numerical = [sop for sop in self.sops if sop.node.numerical]
        for place, one in enumerate(categorical):
            for other in categorical[:place]:
                for function in _JOINS:
                    for a, b in ((one, other), (other, one)):
                        made = self._made(("join", function), (a, b), partial(SequenceMap, function, a.node, b.node))
                        if made is not None:
                            yield made
        for place, one in enumerate(numerical):
            for other in numerical[:place]:
                for s in FACTORS:
                    for t in FACTORS:
                        made = self._made(
                            ("sum", s, t),
                            (one, other),
                            partial(LinearSequenceMap, one.node, other.node, s, t),
                        )
                        if made is not None:
                            yield made

    def _widths(self, selector: Select, scratch: int) -> Iterator[OperationCandidate]:
        for encoding in ENCODINGS:
            node = SelectorWidth(selector, encoding=encoding)
            made = self._candidate(node, (), scratch)
            if made is not None:
                yield made

    def _made(self, what: Any, reads: tuple[Explained, ...], make: Any) -> OperationCandidate | None:
        """A candidate, made once for the same operands."""
        key = (what, *((id(sop.node), sop.directions.tobytes(), sop.none) for sop in reads))
        if key not in self.made:
            self.made[key] = self._candidate(make(), reads, None)
        return self.made[key]

    def _candidate(self, node: SOp, reads: tuple[Explained, ...], scratch: int | None) -> OperationCandidate | None:
        traits = self._traits(node)
        if traits is None:
            return None
        try:
            block = compiler.block_of(traits, self.known, self.length, self.fixed, self.exactness)
        except RaspError:
            return None
        if block.reads_one and self.anchors.one is None:
            return None
        return OperationCandidate(node, traits, block, *self._dense(block, traits, reads, scratch))

    def _dense(
        self, block: Block, traits: Traits, reads: tuple[Explained, ...], scratch: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the units of a block read, by direction, and write, by value; without the unit that cleans BOS."""
        sizes = [size for _, size in block.groups]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        clean = next((i for i, (suffix, _) in enumerate(block.groups) if suffix == compiler.CLEANING), -1)
        count = int(starts[-1]) - (clean >= 0)
        slots = (1 if traits.node.numerical else len(traits.values)) + block.writes_none
        own, out = np.zeros((count, self.bare.width)), np.zeros((count, slots))
        for number, (matrix, group, unit) in enumerate(block.codes):
            chosen = block.code == number
            along, across, values = block.along[chosen], block.across[chosen], block.values[chosen]
            if matrix not in (FIRST, SECOND) or (unit == clean and clean >= 0):
                continue
            if matrix == FIRST:
                own[starts[unit] + across, self._group(group, reads, scratch)[along]] += values
            else:
                across = across + (slots - 1 if group == compiler.RESULT_NONE else 0)
                out[starts[unit] + along, across] += values
        return own, out

    def _group(self, group: int, reads: tuple[Explained, ...], scratch: int | None) -> np.ndarray:
        """The directions of a group that a block reads."""
        one = -1 if self.anchors.one is None else self.anchors.one
        match group:
            case compiler.INPUT:
                return reads[0].directions
            case compiler.QUERIES:
                return reads[1].directions
            case compiler.ONE:
                return np.array([one])
            case compiler.BOS_PLACE:
                return np.array([self.anchors.bos])
            case compiler.SCRATCH:
                return np.array([scratch])
            case _:
                none = reads[0 if group == compiler.INPUT_NONE else -1].none
                return np.array([-1 if none is None else none])

    def _fits(
        self, layer: int, left: frozenset[int], candidates: Sequence[OperationCandidate] | Iterator[OperationCandidate]
    ) -> list[tuple[OperationCandidate, OperationFit]]:
        """The candidates that suit the units that are left, best first."""
        units = np.array(sorted(left), dtype=int)
        first = self.bare.first[layer].T[units].astype(np.float64)
        second = self.bare.second[layer][units].astype(np.float64)
        noise = self.noise[layer]
        squares = (first * first).sum(1)
        found = []
        used = self.used.tobytes()
        for candidate in candidates:
            key = (layer, left, used, candidate.reads.tobytes(), candidate.writes.tobytes())
            if key not in self.memo:
                self._check_time()
                self.checked += 1
                self.memo[key] = self._fit(candidate, units, first, second, squares, noise)
            found += [(candidate, fit) for fit in self.memo[key]]
        found.sort(key=lambda pair: pair[1].z)
        return found

    def _fit(
        self,
        candidate: OperationCandidate,
        units: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        squares: np.ndarray,
        noise: tuple[float, float],
    ) -> list[OperationFit]:
        """Ways to match a candidate's units and directions with those of the weights; none if they are too far apart.

        Of two equal operations either can be given either's directions; those that the same heads and MLPs read go
        together.
        """
        from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

        reads, writes = candidate.reads, candidate.writes
        count, slots = writes.shape
        free = np.flatnonzero(~self.used)
        if count > len(units) or slots > len(free) or not count:
            return []
        bound = (MOST_MISFIT + 10 / np.sqrt(count * first.shape[1])) * 2 * count * first.shape[1]
        away = (squares[None, :] + (reads * reads).sum(1)[:, None] - 2 * reads @ first.T) / noise[0] ** 2
        nearest = away.min(1)
        if nearest.sum() > bound:
            return []
        # where several units suit, each may write what it should: the best of them counts for each direction
        near = away <= nearest[:, None] + 12 + 8 * np.sqrt(first.shape[1])
        written = second[:, free]
        gains = np.zeros((slots, len(free)))
        for e in np.flatnonzero((writes != 0).any(1)).tolist():
            some = written[near[e]]
            for slot in np.flatnonzero(writes[e]).tolist():
                gains[slot] += (writes[e, slot] * some).max(0)
        # nothing but the candidate writes to its directions
        energy = written * written
        gains = 2 * gains - energy.sum(0)
        ways, most = [], -np.inf
        for members in [np.arange(len(free)), *self._alike(free, slots)]:
            rows, columns = linear_sum_assignment(-gains[:, members])
            gain = float(gains[rows, members[columns]].sum())
            most = max(most, gain)
            ways.append((gain, members[columns]))
        enough = most - 12 * noise[1] * np.sqrt(len(units)) - 1e-6
        ways = [free[columns] for gain, columns in ways if gain >= enough]
        total = (second * second).sum(1)
        found: dict[tuple[int, ...], OperationFit] = {}
        for chosen in ways[1:] or ways:
            own = second[:, chosen]
            cost = away + (total[None, :] + (writes * writes).sum(1)[:, None] - 2 * writes @ own.T) / noise[1] ** 2
            rows, columns = linear_sum_assignment(cost)
            others = np.ones(len(units), dtype=bool)
            others[columns] = False
            misfit = float(cost[rows, columns].sum()) + float((own[others] ** 2).sum()) / noise[1] ** 2
            entries = 2 * count * first.shape[1] + int(others.sum()) * slots
            if misfit <= bound + MOST_MISFIT * int(others.sum()) * slots:
                z = (misfit - entries) / float(np.sqrt(2 * entries))
                directions = tuple(chosen.tolist())
                found[directions] = OperationFit(z, misfit, entries, tuple(units[columns].tolist()), directions)
        return [*found.values()]

    def _alike(self, free: np.ndarray, least: int) -> list[np.ndarray]:
        """Places among free directions of those that may be one S-op's, by their readers, where there are enough."""
        from scipy.sparse.csgraph import connected_components  # a fifth of a second that a clean lift does without

        found = []
        for kind in np.unique(self.kinds[free]):
            members = np.flatnonzero(self.kinds[free] == kind)
            together = self.paired[np.ix_(free[members], free[members])]
            if together.any():  # pairs are of two S-ops, and what is paired with the same is of one
                _, sides = connected_components(together @ together)
                found += [members[sides == side] for side in range(sides.max() + 1)]
            else:
                found.append(members)
        return [members for members in found if len(members) >= least]

    def _paired(self) -> np.ndarray:
        """(width, width): whether a hidden unit reads both directions, as that of a SequenceMap does."""
        one, width = self.anchors.one, self.bare.width
        found = np.zeros((width, width), dtype=int)
        if one is None:
            return found
        for layer, first in enumerate(self.bare.first):
            if self.noise[layer][0] < 0.2:
                reads = (first[:, first[one] < -0.5] > 0.5).astype(int)
                found |= (reads @ reads.T > 0).astype(int)
        np.fill_diagonal(found, 0)
        return found

    def _explained(self, candidate: OperationCandidate, fit: OperationFit) -> Explained:
        node, traits = candidate.node, candidate.traits
        if any(sop.node is node for sop in self.sops):  # the same once more is another
            copy = rebuild(node, node.children, None)
            assert isinstance(copy, SOp)
            node, traits = copy, self._traits(copy) or traits
        directions = np.array(fit.directions)
        none = int(directions[-1]) if candidate.block.writes_none else None
        own = directions if none is None else directions[:-1]
        return Explained(node, traits, own, none, fit.misfit, fit.entries)

    def _kinds(self) -> np.ndarray:
        """A number for each direction that is equal for those which the same heads and equally many units read."""
        bare, profile = self.bare, []
        for layer in range(bare.num_layers):
            for number in range(bare.num_heads):
                columns = bare.head(number)
                profile += [np.abs(matrix[layer][:, columns]).max(1) > 0.5 for matrix in (bare.key, bare.value)]
            profile.append((np.abs(bare.first[layer]) > max(0.5, 5 * self.noise[layer][0])).sum(1))
        return np.unique(np.array(profile), axis=1, return_inverse=True)[1].ravel()


def _carried(moved: np.ndarray, rows: np.ndarray, used: np.ndarray) -> tuple[float, np.ndarray]:
    """How much nearer to a head's weights it is to move these directions to new ones, and to which."""
    from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

    free = np.flatnonzero(~used)
    if len(rows) > len(free):
        return float("inf"), rows
    some = moved[np.ix_(rows, free)]
    chosen = linear_sum_assignment(-some)[1]
    return float(len(rows) - 2 * some[np.arange(len(rows)), chosen].sum()), free[chosen]


def _distinct(options: list[Any], mask_of: Any) -> list[Any]:
    """Options whose weights differ; of those that do not, the first."""
    found, seen = [], set()
    for keys, queries, comparison, sop, misfit in options:
        mask = mask_of(comparison, keys, queries)
        key = (id(keys.node), id(queries.node), mask.tobytes(), None if sop is None else id(sop.node))
        if key not in seen:
            seen.add(key)
            found.append((keys, queries, comparison, sop, misfit))
    return found


def _noise(matrix: np.ndarray) -> float:
    """The standard deviation of a matrix's noise, from the median: most entries of compiled weights are 0."""
    size = np.abs(matrix)
    largest = float(size.max(initial=0.0))
    return max(float(np.median(size)) / 0.6745, EXACT * max(1.0, largest))
