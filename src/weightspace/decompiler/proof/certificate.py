"""Whether a program's transformer is a given one up to what changes nothing in what it does, compared entry by entry.

Nothing changes in what a transformer does when its residual directions, the hidden units of a layer, the heads of a
layer or the columns within a head change places, and when the stream is scaled or rotated, hidden units are scaled, or
heads are changed inside by invertible maps (`Rewrite`). A certificate is such a change, applied to a compiled program
and compared with the given weights entry by entry; how it was found proves nothing and need not be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from weightspace import clock
from weightspace.decompiler.lifting.rewrite import Rewrite
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.compiler.transformer import CompiledTransformer, Configuration, Layout, Output, layout_of
from weightspace.rasp.functions import Value, counted, is_number
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode, check_mode

MODES: tuple[Mode, ...] = ("fixed", "tracr_compat")
SMALL = 0.01
"""Entries below this share of the largest of their matrix are compared as if they were as large as that share."""
TRIES = 500
"""So many choices between nodes that look alike are tried before a search for a permutation is given up."""


class Columns(NamedTuple):
    """Where things of a candidate stand in the target; each row of an array is a permutation.

    Attributes:
        directions: (width,) of each residual direction of the candidate its place in the target.
        units: (layers, hidden) the same of hidden units.
        heads: (layers, heads) the same of heads.
        compared: (layers, heads * key_size) the same of the columns of queries and keys.
        moved: (layers, heads * key_size) the same of the columns of values and rows of the matrix behind them.
    """

    directions: np.ndarray
    units: np.ndarray
    heads: np.ndarray
    compared: np.ndarray
    moved: np.ndarray


@dataclass(frozen=True, eq=False)
class Certificate:
    """A permutation under which a compiled program's parameters are the target's, compared one by one.

    Attributes:
        columns: the permutation.
        mode: how the program was compiled.
        parameters: how many were compared: all there are, biases too.
        largest: largest absolute difference of two entries.
        relative: largest difference relative to the entry, or to 1% of its matrix's largest entry if that is more;
            after a rewrite, relative to the sum of the absolute products that make the entry.
        tolerance: what `relative` was allowed to be.
        answer: True if the program's output stands on the target's readout with equal values; None if that could not be
            asked, because the target's readout, or what its directions mean, is not known; False if it does not, which
            only `certify_transformer(..., need_answer=False)` gives.
        rewrite: what was done to the weights besides; None if they only stand in another order.
    """

    columns: Columns
    mode: str
    parameters: int
    largest: float
    relative: float
    tolerance: float
    answer: bool | None
    rewrite: Rewrite | None = None

    def explain(self) -> str:
        """What was shown, in two or three sentences."""
        c = self.columns
        layers, heads = c.heads.shape
        exact = "no two differ at all" if self.largest == 0 else f"none differ by more than {self.largest:.2g}"
        where = {
            True: "Its output stands on the directions on which the answer is read, with the same values.",
            None: "Where the answer is read, or what it means, is not written in the weights; its output was taken.",
            False: "But its output is not what is read as the answer, or means other values.",
        }[self.answer]
        of_layer = f"{counted(heads, 'head')} of {counted(c.compared.shape[1] // heads, 'column')} and "
        of_layer += counted(c.units.shape[1], "hidden unit")
        return (
            f"All {self.parameters:,} parameters of the compiled program ({self.mode}) were compared with the given "
            f"ones, one by one: {exact}. Before that, its {counted(len(c.directions), 'residual direction')} and what "
            f"is in each of its {counted(layers, 'layer')}, {of_layer}, were put in the given order"
            f"{self._rewritten()}. {where}"
        )

    def _rewritten(self) -> str:
        if self.rewrite is None:
            return ""
        changes = "none of which changes what it computes"
        if self.rewrite.lossy:
            changes = "which changes what it computes only as far as the compression does"
        return (
            f"; then {self.rewrite.explain()}, {changes}. Equal means within {self.tolerance:.2g} of the sum of the "
            "absolute products that make an entry, which is what rounding in float32 can do"
        )

    def to_json(self) -> dict[str, Any]:
        """The whole permutation and the differences, JSON-serialisable."""
        facts = {"mode": self.mode, "parameters": self.parameters, "largest_difference": self.largest}
        facts |= {"largest_relative_difference": self.relative, "tolerance": self.tolerance, "answer": self.answer}
        facts |= {"rewrite": None if self.rewrite is None else self.rewrite.to_json()}
        return facts | {name: array.tolist() for name, array in self.columns._asdict().items()}


def certify(
    program: Program, target: BareTransformer, *, mode: Mode | None = None, tolerance: float = 1e-4
) -> Certificate | None:
    """The certificate that a program's transformer is the target, or None if there is none.

    Args:
        program: compiled for the target's vocabulary, length and `causal`, whatever it was meant for.
        mode: how; unless given the target's, and where that is not known both are tried.
        tolerance: largest relative difference of two entries that is taken for rounding.
    Returns:
        None if the program cannot be compiled, if no permutation makes the weights equal, and if its output does not
        stand where the target's readout is, or means other values.
    """
    for chosen in modes_of(target, mode):
        candidate = compiled_for(program, target, chosen)
        if candidate is not None:
            found = certify_transformer(candidate, target, tolerance)
            if found is not None:
                return found
    return None


MOST_TOLERANCE = 2e-3
"""A rewrite after which rounding could hide more than this share of an entry is no proof."""


def certify_rewritten(
    program: Program,
    given: BareTransformer,
    standard: BareTransformer,
    rewrite: Rewrite,
    *,
    mode: Mode | None = None,
    tolerance: float = 1e-4,
) -> Certificate | None:
    """The certificate that a program's transformer, put in order and rewritten, is the given one, or None.

    Args:
        given: with which every parameter is compared.
        standard: what was given with the rewrite undone as far as rounding lets it: it says in which order things are.
        rewrite: from `standard` to `given`.
        mode: how the program is compiled; unless given as the target says, and where that is not known both are tried.
        tolerance: as of `certify`; after a rewrite what rounding can do, if that is more.
    """
    if rewrite.trivial:
        return certify(program, given, mode=mode, tolerance=tolerance)
    allowed = max(tolerance, rewrite.tolerance())
    if allowed > MOST_TOLERANCE:
        return None
    for chosen in modes_of(standard, mode):
        candidate = compiled_for(program, standard, chosen)
        # what is left of rounding after the rewrite is undone; what counts is the comparison with what was given
        found = None if candidate is None else certify_transformer(candidate, standard, allowed)
        if candidate is not None and found is not None:
            largest, relative = _compared_rewritten(candidate, given, found.columns, rewrite)
            if relative <= allowed:
                return replace(found, largest=largest, relative=relative, tolerance=allowed, rewrite=rewrite)
    return None


def _compared_rewritten(
    candidate: CompiledTransformer, given: BareTransformer, columns: Columns, rewrite: Rewrite
) -> tuple[float, float]:
    """The largest difference of two entries of all parameters, absolute and relative to the sum that an entry is."""
    params = in_order(candidate.params, columns)
    made = rewrite.applied(params, given.num_heads)
    sums = rewrite.applied(params, given.num_heads, sizes=True)
    largest = relative = 0.0
    for name, array in given.params.items():
        clock.look()
        difference = np.abs(array - made[name])
        most = float(difference.max(initial=0.0))
        against = np.maximum(sums[name], SMALL * float(sums[name].max(initial=0.0)))
        largest = max(largest, most)
        if most > 0:
            relative = max(relative, float((difference / np.maximum(against, 1e-30)).max()))
    return largest, relative


def in_order(params: Mapping[str, np.ndarray], columns: Columns) -> dict[str, np.ndarray]:
    """Parameters of a candidate with everything where it stands in the target."""
    found = {}
    for name, array in params.items():
        rows, across = axes_of(name, columns)
        new = np.empty_like(array)
        if rows is None or array.ndim == 1:
            new[..., across] = array
        else:
            new[np.ix_(rows, across)] = array
        found[name] = new
    return found


def modes_of(target: BareTransformer, mode: Mode | None = None) -> tuple[Mode, ...]:
    """How a program may have been compiled to be a target: as it is said, or in each way."""
    if mode is not None:
        check_mode(mode)
        return (mode,)
    return tuple(known for known in MODES if target.mode in (None, known))


def compiled_for(program: Program, target: BareTransformer, mode: Mode) -> CompiledTransformer | None:
    """A program compiled for what the target is for, or None if it cannot be compiled."""
    try:
        meant = replace(program, causal=target.causal) if program.causal != target.causal else program
        return compile_program(meant, vocab=target.vocab, max_seq_len=target.max_seq_len, mode=mode)
    except RaspError:  # NotCompilable, or too large
        return None


def certify_transformer(
    candidate: CompiledTransformer, target: BareTransformer, tolerance: float = 1e-4, *, need_answer: bool = True
) -> Certificate | None:
    """The certificate that a compiled transformer is the target, or None if there is none.

    Args:
        need_answer: whether equal weights are no certificate where the output stands elsewhere than the target's
            readout, or means other values.
    """
    known = _known(target, tolerance)
    shape = known.shape
    if candidate.layout is not shape.layout and _sizes(candidate.layout) != _sizes(shape.layout):
        return None
    graph = _graph_like(known, candidate.flat)
    if graph is None:
        return None
    roles = _roles(candidate.output, target)
    if roles is not None:
        colours = np.concatenate([shape.colours, shape.colours])
        of_candidate, of_target = roles
        for offset, some in ((0, of_candidate), (shape.size, of_target)):
            for direction, role in some:
                colours[offset + shape.directions + direction] += np.uint64(7_000_003 * (role + 1))
        found = _proved(graph, known, colours, candidate, tolerance)
        if found is not None:
            unknown = target.readout is None or target.readout.values == ()
            return replace(found, answer=None if unknown else True)
    if need_answer:
        return None
    return _proved(graph, known, np.concatenate([shape.colours, shape.colours]), candidate, tolerance)


def _sizes(layout: Layout) -> tuple[Any, ...]:
    c = layout.configuration
    return layout.tokens, layout.positions, layout.width, c.num_heads, c.num_layers, c.key_size, c.mlp_hidden_size


Roles = list[tuple[int, int]]
"""(direction, what it is of the answer)"""


def _roles(output: Output, target: BareTransformer) -> tuple[Roles, Roles] | None:
    """What each direction of the answer is, of the candidate and of the target; None if they cannot be the same.

    Where the target's readout is not known nothing is a role, so nothing is asked.
    """
    readout = target.readout
    if readout is None:
        return [], []
    count = 1 if output.values is None else len(output.values)
    if readout.directions.shape[1] != count or (output.none is None) != (readout.none is None):
        return None
    held = _held(readout.directions)
    if held is None:
        return None
    own = [output.start + i for i in range(count)]
    if readout.values == ():
        numbers = [0] * count
    elif readout.values is None or output.values is None:
        if readout.values is not output.values:
            return None
        numbers = [0]
    else:
        places = _places_of(output.values, readout.values)
        if places is None:
            return None
        numbers = places
    roles = list(zip(own, numbers, strict=True))
    wanted = [(direction, 0 if readout.values == () else i) for i, direction in enumerate(held)]
    if output.none is not None and readout.none is not None:
        none = _held(readout.none[:, None])
        if none is None:
            return None
        roles.append((output.none, count))
        wanted.append((none[0], count))
    return roles, wanted


def _held(directions: np.ndarray) -> list[int] | None:
    """The residual direction that each column of a readout is, or None if they are no single directions."""
    best = np.abs(directions).argmax(0)
    exact = np.zeros_like(directions)
    exact[best, np.arange(directions.shape[1])] = 1.0
    return best.tolist() if np.abs(directions - exact).max() < 1e-3 else None


def _places_of(values: Sequence[Value], among: Sequence[Value]) -> list[int] | None:
    """Where each of `values` stands in `among`, each place once; None if they are not the same values."""
    places = []
    for value in values:
        same = [i for i, other in enumerate(among) if other == value] or [
            i for i, other in enumerate(among) if is_number(value) and is_number(other) and math.isclose(value, other)
        ]
        places += same[:1]
    return places if len(set(places)) == len(values) == len(among) else None


# -- what is the same for all transformers of one shape --------------------------------------------------------------


class _Shape(NamedTuple):
    """How the parameters of a layout are edges of a graph.

    Its nodes are the rows of the embeddings, and one for the biases, which all stay where they are; then directions,
    units, columns and heads. An entry of a matrix is an edge between its row's node and its column's.
    """

    layout: Layout
    size: int
    directions: int
    units: int
    compared: int
    moved: int
    heads: int
    offsets: np.ndarray
    across: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    colours: np.ndarray


@lru_cache(256)
def _shape_of(layout: Layout) -> _Shape:
    c = layout.configuration
    across, hidden, layers = c.num_heads * c.key_size, c.mlp_hidden_size, c.num_layers
    sizes = [1 + layout.positions + layout.tokens, layout.width, *(layers * n for n in (hidden, across, across))]
    directions, units, compared, moved, heads = np.cumsum(sizes).tolist()
    size = heads + layers * c.num_heads
    rows, columns = [], []
    for name, shape, _ in layout.leaves:
        parts = name.split("/")
        if len(parts) == 2:
            row, column = (1 if name == POSITIONS else 1 + layout.positions), directions
        else:
            layer = int(parts[1].removeprefix("layer_"))
            inside, behind = {
                "query": (directions, compared + layer * across),
                "key": (directions, compared + layer * across),
                "value": (directions, moved + layer * across),
                "linear": (moved + layer * across, directions),
                "linear_1": (directions, units + layer * hidden),
                "linear_2": (units + layer * hidden, directions),
            }[parts[3]]
            row, column = (inside if len(shape) == 2 else 0), behind
        rows.append(row)
        columns.append(column)
    kinds = np.zeros(size, np.uint64)
    kinds[:directions] = np.arange(directions)
    numbers = np.repeat(np.arange(layers), across)
    kinds[directions:units] = 1_000_000
    kinds[units:compared] = 2_000_000 + np.repeat(np.arange(layers), hidden)
    kinds[compared:moved], kinds[moved:heads] = 3_000_000 + numbers, 4_000_000 + numbers
    kinds[heads:] = 5_000_000 + np.repeat(np.arange(layers), c.num_heads)
    offsets = np.array([offset for _, _, offset in layout.leaves])
    widths = np.array([shape[-1] for _, shape, _ in layout.leaves])
    found = (offsets, widths, np.array(rows), np.array(columns), _mixed(kinds))
    return _Shape(layout, size, directions, units, compared, moved, heads, *found)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A hash of each uint64 (splitmix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# -- graphs ----------------------------------------------------------------------------------------------------------


class _Graph(NamedTuple):
    """The entries of a transformer as edges, both ways, sorted by the node at which they begin.

    Attributes:
        nodes: (n,) those that have edges.
        starts: (n,) where the edges of each begin.
        ends: (edges,) the node at the other end.
        codes: (edges,) a hash of matrix, way and value.
        live: (nodes of the graph,) whether it has edges.
    """

    nodes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    codes: np.ndarray
    live: np.ndarray

    def sums(self, colours: np.ndarray) -> np.ndarray:
        """For each of `nodes` a hash of the colours around it."""
        return np.add.reduceat(_mixed(colours[self.ends] + self.codes), self.starts)


class _Known(NamedTuple):
    """What is known of a target, for one tolerance.

    Attributes:
        flat: (parameters,) in the order of the layout.
        scales: (leaves,) largest entry of each matrix.
        leaves, sorted: (n,) matrix and value of the entries that are not zero, sorted by both.
        buckets: (n,) number of each one's value: the same for values that are the same within the tolerance.
    """

    shape: _Shape
    tolerance: float
    flat: np.ndarray
    scales: np.ndarray
    leaves: np.ndarray
    sorted: np.ndarray
    buckets: np.ndarray
    graph: _Graph


_targets: WeakKeyDictionary[BareTransformer, dict[float, _Known]] = WeakKeyDictionary()


def _known(target: BareTransformer, tolerance: float) -> _Known:
    kept = _targets.setdefault(target, {})
    if tolerance not in kept:
        c = Configuration(target.num_heads, target.num_layers, target.key_size, target.hidden_size, target.causal)
        shape = _shape_of(layout_of(len(target.tokens), target.max_seq_len, target.width, c))
        flat = np.concatenate([target.params[name].ravel() for name, _, _ in shape.layout.leaves])
        scales = np.maximum.reduceat(np.abs(flat), shape.offsets).astype(float)
        places, leaves, values = _entries(shape, flat, scales, tolerance)
        rises = np.diff(values) > _allowed(values[1:], values[:-1], scales[leaves[1:]], tolerance)
        buckets = np.concatenate([[0], np.cumsum(rises | (np.diff(leaves) > 0))])[: len(values)]
        graph = _graph(shape, places, leaves, buckets)
        kept[tolerance] = _Known(shape, tolerance, flat, scales, leaves, values, buckets, graph)
    return kept[tolerance]


def _allowed(a: np.ndarray, b: np.ndarray, scales: np.ndarray, tolerance: float) -> np.ndarray:
    return tolerance * np.maximum(np.maximum(np.abs(a), np.abs(b)), SMALL * scales)


def _entries(
    shape: _Shape, flat: np.ndarray, scales: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, matrices and values of the entries that are not zero, sorted by matrix and value."""
    places = np.flatnonzero(flat)
    leaves = np.searchsorted(shape.offsets, places, "right") - 1
    values = flat[places].astype(float)
    kept = np.abs(values) > tolerance * SMALL * scales[leaves]
    if not kept.all():
        places, leaves, values = places[kept], leaves[kept], values[kept]
    order = np.lexsort((values, leaves))
    return places[order], leaves[order], values[order]


def _graph_like(known: _Known, flat: np.ndarray) -> _Graph | None:
    """The graph of a candidate's parameters; None if they are not the same numbers in each matrix as the target's."""
    places, leaves, values = _entries(known.shape, flat, known.scales, known.tolerance)
    if not np.array_equal(leaves, known.leaves):
        return None
    allowed = _allowed(values, known.sorted, known.scales[leaves], known.tolerance)
    if (np.abs(values - known.sorted) > allowed).any():
        return None
    return _graph(known.shape, places, leaves, known.buckets)  # the k-th of the one is the k-th of the other


def _graph(shape: _Shape, places: np.ndarray, leaves: np.ndarray, buckets: np.ndarray) -> _Graph:
    along, across = np.divmod(places - shape.offsets[leaves], shape.across[leaves])
    rows, columns = shape.rows[leaves] + along, shape.columns[leaves] + across
    live = np.zeros(shape.size, bool)
    live[rows] = live[columns] = True
    # each column that is used hangs on its head
    hanging = shape.compared + np.flatnonzero(live[shape.compared : shape.heads])
    c = shape.layout.configuration
    heads = shape.heads + (hanging - shape.compared) % (shape.moved - shape.compared) // c.key_size
    live[heads] = True
    codes = _mixed(np.append(buckets.astype(np.uint64), np.full(len(hanging), 1 << 40, np.uint64)))
    begins = np.concatenate([rows, hanging, columns, heads])
    ends = np.concatenate([columns, heads, rows, hanging])
    codes = np.concatenate([codes, codes + np.uint64(1)])
    order = np.argsort(begins.astype(np.uint16) if shape.size < 65_536 else begins, kind="stable")
    begins = begins[order]
    starts = np.flatnonzero(np.diff(begins, prepend=-1))
    return _Graph(begins[starts], starts, ends[order], codes[order], live)


# -- the search for a permutation ------------------------------------------------------------------------------------


class _CounterpartSearch:
    """Colours two graphs together until each node of the one has its counterpart in the other.

    Args:
        one, other: graphs of the same `size` nodes.
    """

    def __init__(self, one: _Graph, other: _Graph, size: int) -> None:
        self.one, self.other, self.size = one, other, size
        self.tries = 0
        self.both = _Graph(
            np.concatenate([one.nodes, other.nodes + size]),
            np.concatenate([one.starts, other.starts + len(one.ends)]),
            np.concatenate([one.ends, other.ends + size]),
            np.concatenate([one.codes, other.codes]),
            np.concatenate([one.live, other.live]),
        )
        self.exact: tuple[np.ndarray, np.ndarray] | None = None

    def refined(self, colours: np.ndarray) -> np.ndarray | None:
        """Colours in which nodes of one colour have the same colours around them; None if the graphs differ."""
        nodes, count = self.both.nodes, -1
        while True:
            clock.look()
            one, other = np.sort(colours[: self.size]), np.sort(colours[self.size :])
            if not np.array_equal(one, other):
                return None
            distinct = int(np.count_nonzero(one[1:] != one[:-1]))
            if distinct in (count, self.size - 1):
                return colours
            count, before = distinct, colours
            colours = before.copy()
            colours[nodes] = _mixed(before[nodes] * np.uint64(0x2545F4914F6CDD1D) + self.both.sums(before))

    def neighbourhoods(self) -> tuple[np.ndarray, np.ndarray]:
        """For each node of both graphs a hash of what it is joined to: nodes of one hash may change places freely."""
        if self.exact is None:
            found = []
            for graph in (self.one, self.other):
                sums = np.zeros(self.size, np.uint64)
                sums[graph.nodes] = graph.sums(_mixed(np.arange(self.size, dtype=np.uint64)))
                found.append(sums)
            self.exact = (found[0], found[1])
        return self.exact

    def matches(self, colours: np.ndarray) -> Iterator[np.ndarray]:
        """(size,) counterparts of the first graph's nodes; several only where nodes that look alike are no twins."""
        refined = self.refined(colours)
        if refined is None:
            return
        orders = [np.argsort(part, kind="stable") for part in (refined[: self.size], refined[self.size :])]
        alike = np.diff(refined[orders[0]]) == 0
        torn = np.zeros(len(alike), bool)
        if alike.any():
            for order, exact in zip(orders, self.neighbourhoods(), strict=True):
                torn |= alike & (exact[order][1:] != exact[order][:-1])
        if not torn.any():
            match = np.empty(self.size, np.int64)
            match[orders[0]] = orders[1]
            yield match
            return
        first = int(np.flatnonzero(torn)[0])
        colour = refined[orders[0][first]]
        chosen = int(np.flatnonzero(refined[: self.size] == colour)[0])
        for counterpart in np.flatnonzero(refined[self.size :] == colour).tolist():
            self.tries += 1
            if self.tries > TRIES:
                return
            told = refined.copy()
            told[[chosen, self.size + counterpart]] += np.uint64(0xD1B54A32D192ED03)
            yield from self.matches(told)


def _proved(
    graph: _Graph, known: _Known, colours: np.ndarray, candidate: CompiledTransformer, tolerance: float
) -> Certificate | None:
    """The first match under which the parameters are equal, entry by entry; None if none is found."""
    for number, match in enumerate(_CounterpartSearch(graph, known.graph, known.shape.size).matches(colours)):
        columns = _columns(match, graph, known)
        if columns is not None:
            largest, relative = compared(candidate.flat, known.flat, known.shape.layout, columns, known.scales)
            if relative <= tolerance:
                size = known.shape.layout.size
                return Certificate(columns, candidate.mode, size, largest, relative, tolerance, False)
        if number > TRIES:
            break
    return None


def _columns(match: np.ndarray, graph: _Graph, known: _Known) -> Columns | None:
    """A match of nodes as permutations; columns that nothing uses take the places that are left in their head."""
    shape, c = known.shape, known.shape.layout.configuration
    layers, across = c.num_layers, c.num_heads * c.key_size
    directions = match[shape.directions : shape.units] - shape.directions
    units = (match[shape.units : shape.compared] - shape.units).reshape(layers, -1)
    units = units - np.arange(layers)[:, None] * c.mlp_hidden_size
    heads = (match[shape.heads :] - shape.heads).reshape(layers, -1) - np.arange(layers)[:, None] * c.num_heads
    found = []
    for start in (shape.compared, shape.moved):
        end = start + layers * across
        places = match[start:end] - start
        live, taken = graph.live[start:end], known.graph.live[start:end]
        if not (live.all() and taken.all()):
            of_head = (heads + np.arange(layers)[:, None] * c.num_heads).ravel()
            wanted = np.repeat(of_head, c.key_size)  # the head in which each column has to stand
            unused = np.flatnonzero(~live)
            free = np.flatnonzero(~taken)
            unused = unused[np.argsort(wanted[unused], kind="stable")]
            if len(unused) != len(free):
                return None
            places = places.copy()
            places[unused] = free
        found.append(places.reshape(layers, across) - np.arange(layers)[:, None] * across)
    columns = Columns(directions, units, heads, *found)
    return columns if _is_permutation(columns, c) else None


def _is_permutation(columns: Columns, c: Configuration) -> bool:
    """Whether every array is one, and columns stay in their heads."""
    for array in columns:
        if not np.array_equal(np.sort(array, -1), np.broadcast_to(np.arange(array.shape[-1]), array.shape)):
            return False
    wanted = np.repeat(columns.heads, c.key_size, axis=-1)
    return all(np.array_equal(array // c.key_size, wanted) for array in (columns.compared, columns.moved))


def compared(
    flat: np.ndarray, target: np.ndarray, layout: Layout, columns: Columns, scales: np.ndarray | None = None
) -> tuple[float, float]:
    """The largest difference of two entries of all parameters, absolute and relative.

    Args:
        flat: (parameters,) of the candidate.
        target: (parameters,) in the same layout, in its own order.
        columns: where things of the candidate stand in the target.
        scales: (leaves,) largest entry of each of the target's matrices, if it is known.
    """
    if scales is None:
        scales = np.maximum.reduceat(np.abs(target), [offset for _, _, offset in layout.leaves]).astype(float)
    moved = reordered(target, layout, columns)
    difference = np.abs(flat - moved)
    places = np.flatnonzero(difference)
    if not len(places):
        return 0.0, 0.0
    leaves = np.searchsorted(np.array([offset for _, _, offset in layout.leaves]), places, "right") - 1
    against = np.maximum(np.maximum(np.abs(flat[places]), np.abs(moved[places])), SMALL * scales[leaves])
    return float(difference.max()), float((difference[places] / np.maximum(against, 1e-30)).max())


def reordered(target: np.ndarray, layout: Layout, columns: Columns) -> np.ndarray:
    """(parameters,) the target's parameters in the order in which the candidate has its directions, units and heads."""
    parts = []
    for name, shape, offset in layout.leaves:
        array = target[offset : offset + math.prod(shape)].reshape(shape)
        rows, across = axes_of(name, columns)
        array = array[..., across]
        parts.append((array if rows is None or array.ndim == 1 else array[rows]).ravel())
    return np.concatenate(parts)


def axes_of(name: str, columns: Columns) -> tuple[np.ndarray | None, np.ndarray]:
    """By which permutation the rows and the columns of a parameter go; None for the rows of embeddings."""
    if name in (TOKENS, POSITIONS):
        return None, columns.directions
    _, layer, *matrix, _ = name.split("/")
    number = int(layer.removeprefix("layer_"))
    match "/".join(matrix):
        case "attn/query" | "attn/key":
            return columns.directions, columns.compared[number]
        case "attn/value":
            return columns.directions, columns.moved[number]
        case "attn/linear":
            return columns.moved[number], columns.directions
        case "mlp/linear_1":
            return columns.directions, columns.units[number]
        case _:
            return columns.units[number], columns.directions


def permuted(bare: BareTransformer, seed: int) -> BareTransformer:
    """The same transformer with its directions, hidden units, heads and columns in a random order."""
    random = np.random.default_rng(seed)
    layers, heads, key_size = bare.num_layers, bare.num_heads, bare.key_size
    of_heads = np.array([random.permutation(heads) for _ in range(layers)])

    def inside() -> np.ndarray:
        order = [[head * key_size + random.permutation(key_size) for head in row] for row in of_heads]
        return np.array(order).reshape(layers, heads * key_size)

    units = np.array([random.permutation(bare.hidden_size) for _ in range(layers)])
    columns = Columns(random.permutation(bare.width), units, of_heads, inside(), inside())
    params = {}
    for name, array in bare.params.items():
        rows, across = axes_of(name, columns)
        moved = array[..., across]
        params[name] = np.ascontiguousarray(moved if rows is None or array.ndim == 1 else moved[rows])
    readout = bare.readout
    if readout is not None:
        none = None if readout.none is None else readout.none[columns.directions]
        readout = readout._replace(directions=readout.directions[columns.directions], none=none)
    return replace(bare, params=params, readout=readout)
