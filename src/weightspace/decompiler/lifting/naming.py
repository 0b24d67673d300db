"""Values for directions and expressions for tables: the shortest program that has the operations given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from weightspace import clock
from weightspace.decompiler.lifting.blocks import NotLiftable
from weightspace.decompiler.lifting.dissection import Dissection, Operation, Steps
from weightspace.errors import RaspError
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.expressions import shortest
from weightspace.rasp.functions import Function, Value, is_number
from weightspace.rasp.language import (
    PREDICATES,
    Aggregate,
    Comparison,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
)
from weightspace.rasp.sampler import PAPER_CONSTANTS, PAPER_JOINS, PAPER_LAMBDAS
from weightspace.rasp.tokens import TYPED_MAPS, TYPED_SEQUENCE_MAPS
from weightspace.rasp.validate import Selection, Traits, selection_of, traits_of
from weightspace.rasp.values import (
    CLOSEST,
    Table,
    ValueSet,
    predicate_table,
    tabulate,
    tabulate_pairs,
    tabulate_twice,
    token_set,
    value_set,
)

TWINS = 1e-12
"""Thresholds nearer than this, relative to the larger of 1 and themselves, differ by rounding alone."""
MOST_ROUNDINGS = 3
"""So many expressions are tried whose numbers differ by rounding alone."""
MOST_ASSIGNMENTS, FEWEST_ASSIGNMENTS = 400, 50
"""So many S-ops are named in a search before one more of them is allowed to be a table: in the first, in later ones."""
CLOSE = 2e-5
"""Numbers in float32 weights equal those of an expression within this share of the larger of 1 and the largest."""
COMPARISON_ORDER: tuple[Comparison, ...] = ("EQ", "LT", "GT", "LEQ", "GEQ", "NEQ", "TRUE", "FALSE")
DECIMALS = (3.5, 3.25, 7.31)
"""Stand for all constants with decimals where values are free: only what falls together with what matters there."""


class Named(NamedTuple):
    """An S-op with its expression.

    Attributes:
        node: the expression.
        directions: of a categorical its directions in the order of its values.
        table: whether its function or predicate is a bare table.
    """

    node: SOp
    directions: tuple[int, ...]
    table: bool = False


class _Exhausted(Exception):
    """A search that takes too long."""


def name_operations(dissection: Dissection, bare: BareTransformer) -> list[Named]:
    """Expressions for all operations, with as few tables as a short search finds.

    Args:
        dissection: what is to be named.
        bare: where it comes from; its readout, if it is known, says what the answer's values are.
    Raises:
        NotLiftable: if some operation cannot be that of a program whatever the values are.
    """
    search, most = _NamingSearch(dissection, bare), MOST_ASSIGNMENTS
    while True:
        search.failures.clear()
        search.left, most = most, max(most // 2, FEWEST_ASSIGNMENTS)
        try:
            if search.assign(2) is None:
                return search.named
        except _Exhausted:
            pass
        allowed = [n for n in search.failures if n not in search.tables]
        if not allowed:
            raise NotLiftable(search.obstacle or "no values fit the numbers in the weights")
        search.tables.add(max(allowed, key=lambda n: (search.failures[n], n)))


class _NamingSearch:
    """A depth-first search for names, which jumps back to what is to blame."""

    def __init__(self, dissection: Dissection, bare: BareTransformer) -> None:
        self.operations, self.fixed = dissection.operations, dissection.mode == "fixed"
        self.length, self.bare = bare.max_seq_len, bare
        self.known: dict[int, Traits] = {
            id(tokens): Traits(tokens, token_set(bare.vocab), False, 0),
            id(indices): Traits(indices, value_set(range(self.length)), False, 0),
        }
        first = self.operations
        self.named = [Named(tokens, first[0].directions), Named(indices, first[1].directions)]
        self.selections: dict[int, Selection] = {}
        self.alive: list[Any] = []  # nodes are known by their `id`, which must not be given to another
        self.selectors: dict[Any, Select] = {}
        self.found: dict[Any, tuple[list[Named], Iterator[Named]]] = {}
        self.tables: set[int] = set()
        self.failures: Counter[int] = Counter()
        self.left = 0
        self.obstacle: str | None = None
        self.readers: dict[int, frozenset[tuple[int, ...]]] = {}
        self.before = _ancestors(self.operations)
        self.pinned = self._pinned(dissection.output)

    def _pinned(self, output: int) -> dict[int, dict[int, Value]]:
        """The values of directions that are given from without, by S-op: those of the answer."""
        readout = self.bare.readout
        if readout is None or not readout.values:
            return {}
        directions = np.abs(readout.directions).argmax(0).tolist()
        values: dict[int, Value] = dict(zip(directions, readout.values, strict=True))
        found: dict[int, dict[int, Value]] = {}
        while True:
            found[output] = values
            operation = self.operations[output]
            if operation.kind != "aggregate" or operation.reads[2] is None:
                return found
            values = {source: values[target] for source, target in operation.data[1].items()}
            output = operation.reads[2]

    # -- the search

    def assign(self, number: int) -> set[int] | None:
        """Name this S-op and all after it.

        Returns:
            None if it is done, else the S-ops to blame.
        """
        if number == len(self.operations):
            return None
        blamed = set(self.before[number])
        some = False
        for named in self.candidates(number):
            some = True
            self.left -= 1
            if self.left < 0:
                raise _Exhausted
            del self.named[number:]
            self.named.append(named)
            result = self.assign(number + 1)
            if result is None:
                return None
            if number not in result:
                return result
            blamed |= result - {number}
        if not some:
            self.failures[number] += 1
        return blamed

    def candidates(self, number: int) -> Iterator[Named]:
        """Ways to write an S-op, each with other values; found once for the same operands."""
        reads = tuple(id(self.named[n].node) for n in self.operations[number].reads if n is not None)
        key = (number, number in self.tables, reads)
        known = self.found.get(key)
        if known is None:
            known = self.found[key] = ([], self._candidates(number))
        made, rest = known
        yield from made
        place = len(made)
        while True:
            if place == len(made):
                added = next(rest, None)
                if added is None:
                    return
                made.append(added)
            yield made[place]
            place += 1

    def _candidates(self, number: int) -> Iterator[Named]:
        operation = self.operations[number]
        reads = [self.named[n] for n in operation.reads if n is not None]
        seen: set[Any] = set()
        found: Iterator[tuple[SOp, bool]] = getattr(self, f"_{operation.kind}")(number, operation, reads)
        for node, is_table in found:
            try:
                traits = traits_of(node, self.known, self.selections, self.length, self.fixed)
            except RaspError as error:
                self.obstacle = str(error)
                continue
            if traits is None:
                continue
            directions = self._directions(operation, reads, traits)
            if directions is None or not self._allowed(number, directions, traits.values):
                continue
            key = (directions, traits.values.values)
            if key in seen:
                continue
            seen.add(key)
            self.known[id(node)] = traits
            self.alive.append(node)
            yield Named(node, directions, is_table)

    def _allowed(self, number: int, directions: tuple[int, ...], values: ValueSet) -> bool:
        pinned = self.pinned.get(number)
        return pinned is None or all(pinned[d] == v for d, v in zip(directions, values.values, strict=True))

    def _directions(self, operation: Operation, reads: list[Named], traits: Traits) -> tuple[int, ...] | None:
        """The directions of an S-op in the order of its values; None if there are more or fewer."""
        if operation.numerical:
            return operation.directions
        if operation.kind == "aggregate":
            return tuple(operation.data[1][d] for d in reads[2].directions)
        if operation.kind == "width":
            return tuple(operation.data[1][width] for width in range(self.length + 1))
        assert traits.table is not None
        found: dict[int, int] = {}
        places = traits.table.places.ravel().tolist()
        results = self._results(operation, reads, traits)
        for k in self._kept(reads[0]) if operation.kind == "steps" else range(len(places)):
            if places[k] >= 0:
                found[places[k]] = results[k]
        if len(found) < len(traits.values) and not self._met_alone(operation, traits, found):
            return None
        if len(found) < len(operation.directions):
            return None
        return tuple(found[place] for place in range(len(traits.values)))

    def _met_alone(self, operation: Operation, traits: Traits, found: dict[int, int]) -> bool:
        """Give the values that nothing gives their directions, those that are read most like their neighbours'.

        Args:
            found: the direction of each value by its place; the others are added.
        Returns:
            whether there are as many of one as of the other.
        """
        from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

        free = [d for d in operation.directions if d not in found.values()]
        missing = [place for place in range(len(traits.values)) if place not in found]
        if len(free) != len(missing) or not found:
            return False
        pinned = self.pinned.get(self.operations.index(operation), {})
        known = np.array(sorted(found))
        cost = np.zeros((len(missing), len(free)))
        for row, place in enumerate(missing):
            at = int(np.searchsorted(known, place))
            near = [found[int(known[k])] for k in (at - 1, at) if 0 <= k < len(known)]
            for column, d in enumerate(free):
                cost[row, column] = sum(len(self._readers(d) ^ self._readers(other)) for other in near)
                if d in pinned and pinned[d] != traits.values.values[place]:
                    cost[row, column] += 1e6
        rows, columns = linear_sum_assignment(cost)
        found.update({missing[row]: free[column] for row, column in zip(rows, columns, strict=True)})
        return True

    def _readers(self, d: int) -> frozenset[tuple[int, ...]]:
        """What reads a direction, and what reads what that writes: units, and which keys and queries are compared."""
        known = self.readers.get(d)
        if known is None:
            self.readers[d] = frozenset()  # a stream has no cycle, but noise may
            found: set[tuple[int, ...]] = set()
            for layer in range(self.bare.num_layers):
                units = np.flatnonzero(self.bare.first[layer][d]).tolist()
                found |= {(0, layer, unit) for unit in units}
                for target in np.flatnonzero(self.bare.second[layer][units].any(0)).tolist() if units else ():
                    found |= self._readers(target)
                query, key = self.bare.query[layer], self.bare.key[layer]
                found |= {(1, layer, column) for column in np.flatnonzero(query[d]).tolist()}
                asked = query[:, np.flatnonzero(key[d])].any(1)
                found |= {(2, layer, row) for row in np.flatnonzero(asked).tolist()}
            known = self.readers[d] = frozenset(found)
        return known

    def _results(self, operation: Operation, reads: list[Named], traits: Traits) -> list[Any]:
        """What an operation writes for each value, or pair of values, of what it reads; None is nothing."""
        data = operation.data
        if operation.kind == "pairs":
            a, b = self._ordered(reads, traits.node)
            return _pair_results(data, a, b)
        if operation.kind == "steps":
            return _step_results(data, self._values(reads[0]), self._kept(reads[0]))
        return [data.get(d) for d in reads[0].directions]

    @staticmethod
    def _ordered(reads: list[Named], node: SOp) -> tuple[Named, Named]:
        first, second = reads
        assert isinstance(node, SequenceMap)
        return (first, second) if node.first is first.node else (second, first)

    def _values(self, named: Named) -> ValueSet:
        return self.known[id(named.node)].values

    def _table(self, number: int) -> bool:
        return number in self.tables

    # -- one kind of operation each: expressions that do what it does, then a table if that is allowed

    def _map(self, number: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        values = self._values(reads[0])
        results = [operation.data.get(d) for d in reads[0].directions]
        wanted, inner = _pattern(results), reads[0].node
        pinned = self.pinned.get(number)
        targets = None if pinned is None else [pinned.get(r) for r in results]
        unmet = len(operation.directions) - len(set(results) - {None})
        for function in _functions(values, self.bare.vocab, len(set(wanted) - {-1}), targets) if not unmet else ():
            table = _try(tabulate, function, values)
            if table is not None and _pattern_of(table) == wanted:
                yield Map(function, inner), False
        for function in SEQUENCE_FUNCTIONS:
            table = _try(tabulate_twice, function, values, not self.fixed)
            if table is not None and _pattern_of(table) == wanted:
                yield SequenceMap(function, inner, inner), False
        if self._table(number) and unmet:
            for function in _more_sequence_functions():
                table = _try(tabulate_twice, function, values, True)
                if table is not None and _pattern_of(table) == wanted:
                    yield SequenceMap(function, inner, inner), False
            yield self._twice(number, operation, values, results, inner)
        elif self._table(number):
            names = self._names(number, results)
            function = _tabled(zip(values.values, results, strict=True), names, 1)
            yield Map(function, inner), function.table is not None

    def _twice(
        self, number: int, operation: Operation, values: ValueSet, results: list[Any], inner: SOp
    ) -> tuple[SOp, bool]:
        """A Map of which Tracr has more values than it gives, as a function of the same S-op twice."""
        names = self._names(number, results)
        taken = {name for name in names.values() if is_number(name)}
        counted_up = (k for k in range(len(values) ** 2 + len(taken) + 1) if k not in taken)
        more = [names.get(d, next(counted_up)) for d in operation.directions if d not in results]
        table = {(x, x): names[r] for x, r in zip(values.values, results, strict=True) if r is not None}
        for pair in ((x, y) for x in values.values for y in values.values if x != y):
            if more:
                table[pair] = more.pop()
        return SequenceMap(Function.from_table(table, 2), inner, inner), True

    def _number(self, number: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        values = self._values(reads[0])
        results = [operation.data.get(d, 0.0) for d in reads[0].directions]
        inner = reads[0].node
        seen: list[list[float]] = []
        for function in chain(
            _functions(values, self.bare.vocab, len(set(results)), results), _shares(values, results)
        ):
            table = _try(tabulate, function, values)
            if table is not None and table.values.numeric and _near(_numbers(table), results):
                numbers = _numbers(table).tolist()
                if numbers not in seen:  # Tracr tells apart what rounding does: 0.1 * x and x / 10
                    yield Map(function, inner, encoding="numerical"), False
                    seen.append(numbers)
                if self.fixed or len(seen) == MOST_ROUNDINGS:
                    return
        if seen:
            return
        if self._table(number):
            entries = dict(zip(values.values, map(_nice, results), strict=True))
            function = shortest(entries, 1) or Function.from_table(entries, 1)
            yield Map(function, inner, encoding="numerical"), function.table is not None

    def _pairs(self, number: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        for function in SEQUENCE_FUNCTIONS:
            for a, b in (reads, reads[::-1]):
                table = _try(tabulate_pairs, function, self._values(a), self._values(b))
                if table is not None and _pattern_of(table) == _pattern(_pair_results(operation.data, a, b)):
                    yield SequenceMap(function, a.node, b.node), False
        if self._table(number):
            a, b = reads
            results = _pair_results(operation.data, a, b)
            pairs = [(x, y) for x in self._values(a).values for y in self._values(b).values]
            named = _tabled(zip(pairs, results, strict=True), self._names(number, results), 2)
            if named.table is not None and number not in self.pinned and len(pairs) <= MOST_PAIRS_TRIED:
                wanted = _pattern(results)
                for function in _more_sequence_functions():
                    table = _try(tabulate_pairs, function, self._values(a), self._values(b))
                    if table is not None and _pattern_of(table) == wanted:
                        yield SequenceMap(function, a.node, b.node), False
                        break
            yield SequenceMap(named, a.node, b.node), named.table is not None

    def _steps(self, number: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        values, inner, steps = self._values(reads[0]), reads[0].node, operation.data
        kept = self._kept(reads[0])
        if not self._told_apart(steps, values, kept):
            self.obstacle = f"the steps of an operation in layer {operation.layer} are not between values of its input"
            return
        results = _step_results(steps, values, kept)
        if operation.numerical:
            for function in _functions(values, self.bare.vocab, len(set(results)), results):
                table = _try(tabulate, function, values)
                if (
                    table is not None
                    and table.values.numeric
                    and _near(_numbers(table)[kept], [results[k] for k in kept])
                ):
                    yield Map(function, inner, encoding="numerical"), False
                    return
        else:
            wanted, some = _pattern(results[k] for k in kept), len(kept) < len(values)
            pinned = self.pinned.get(number)
            targets = None if pinned is None else [pinned.get(r) for r in results]
            for function in _functions(values, self.bare.vocab, len(set(wanted) - {-1}), targets):
                table = _try(tabulate, function, values)
                if table is not None and (_pattern_at(table, kept) if some else _pattern_of(table)) == wanted:
                    yield Map(function, inner), False
        if self._table(number):
            names = {r: _nice(r) for r in results} if operation.numerical else self._names(number, results)
            function = _tabled(zip(values.values, results, strict=True), names, 1)
            encoding = "numerical" if operation.numerical else "categorical"
            yield Map(function, inner, encoding=encoding), function.table is not None

    def _kept(self, read: Named) -> list[int]:
        """The places of the numbers that are told apart: in `fixed` not near twins, in Tracr's two of each flock."""
        traits = self.known[id(read.node)]
        if not self.fixed:
            numbers = traits.values.numbers
            between = (numbers[1:] + numbers[:-1]) / 2  # thresholds that float32 rounds to the same are one
            alike = np.diff(between) <= TWINS * np.maximum(1.0, np.abs(between[1:])) if len(between) else between
            return [k for k in range(len(numbers)) if not (0 < k <= len(alike) and alike[k - 1])]
        near = np.diff(traits.values.numbers) < CLOSEST * max(1.0, traits.scale)
        return np.flatnonzero(np.concatenate([[True], ~near])).tolist()

    def _told_apart(self, steps: Steps, values: ValueSet, kept: Sequence[int]) -> bool:
        numbers = values.numbers
        if len(steps.thresholds) != len(kept) - 1:
            return not steps.thresholds and len(set(steps.levels)) == 1 and len(kept) == 1
        below = numbers[[k - 1 for k in kept[1:]]] if self.fixed else numbers[list(kept[:-1])]
        return _near((below + numbers[list(kept[1:])]) / 2, steps.thresholds)

    def _linear(self, _: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        first, second = operation.data
        yield LinearSequenceMap(reads[0].node, reads[1].node, first, second), False

    def _aggregate(self, number: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        for selector, is_table in self._selector(number, operation.data[0], reads[0], reads[1]):
            sop = reads[2].node
            yield Aggregate(selector, sop, encoding=sop.encoding), is_table

    def _width(self, number: int, operation: Operation, reads: list[Named]) -> Iterator[tuple[SOp, bool]]:
        encoding = "numerical" if operation.numerical else "categorical"
        for selector, is_table in self._selector(number, operation.data[0], reads[0], reads[1]):
            yield SelectorWidth(selector, encoding=encoding), is_table

    def _selector(
        self, number: int, chosen: frozenset[tuple[int, int]], keys: Named, queries: Named
    ) -> Iterator[tuple[Selector, bool]]:
        key_values, query_values = self._values(keys), self._values(queries)
        wanted = np.array([[(k, q) in chosen for q in queries.directions] for k in keys.directions])
        for name in COMPARISON_ORDER:
            table = _try(predicate_table, PREDICATES[name], key_values, query_values)
            if table is not None and np.array_equal(table, wanted):
                yield self._select(keys, queries, name), False
                return
        if self._table(number):
            pairs = [(k, q) for k in key_values.values for q in query_values.values]
            selected = dict(zip(pairs, wanted.ravel().tolist(), strict=True))
            function = shortest(selected, 2, truth=True)
            if function is None:
                function = Function.from_table({pair: True for pair, is_chosen in selected.items() if is_chosen}, 2)
            yield self._select(keys, queries, function), function.table is not None

    def _select(self, keys: Named, queries: Named, predicate: Any) -> Select:
        key = (id(keys.node), id(queries.node), predicate)
        found = self.selectors.get(key)
        if found is None:
            found = self.selectors[key] = Select(keys.node, queries.node, predicate)
            selection = selection_of(found, self.known, self.selections)
            assert selection is not None
            self.selections[id(found)] = selection
        return found

    def _names(self, number: int, results: Sequence[Any]) -> dict[int, Value]:
        """Values for the directions of a table: those given, or 0, 1, 2, ..."""
        pinned = self.pinned.get(number)
        if pinned is not None:
            return dict(pinned)
        distinct = [d for d in dict.fromkeys(results) if d is not None]
        return {d: place for place, d in enumerate(distinct)}


def _ancestors(operations: Sequence[Operation]) -> list[set[int]]:
    """For each S-op the operations that it depends on."""
    found: list[set[int]] = []
    for operation in operations:
        direct = {n for n in operation.reads if n is not None}
        found.append({n for n in direct.union(*(found[n] for n in direct)) if n > 1})
    return found


# -- functions that may fit ------------------------------------------------------------------------------------------

SEQUENCE_FUNCTIONS = tuple(
    Function.parse(source, 2)
    for source in sorted({*TYPED_SEQUENCE_MAPS, *PAPER_JOINS.values()}, key=lambda s: (len(s), s))
)
MOST_PAIRS_TRIED = 2_000
"""Of more pairs of values only the table is printed where no published function fits."""


@lru_cache(1)
def _more_sequence_functions() -> tuple[Function, ...]:
    """Functions of two values that people write and the published samplers do not."""
    sources = ["x - y", "y - x", "x * y", "abs(x - y)", "min(x, y)", "max(x, y)", "x % y", "y % x", "(x, y)"]
    for c in range(1, 11):
        sources += [f"(x + {c}) % y", f"(x - {c}) % y", f"(y + {c}) % x", f"(y - {c}) % x"]
        if c > 1:
            sources += [f"(x + y) % {c}", f"(x - y) % {c}", f"{c} * x + y", f"x + {c} * y"]
    return tuple(Function.parse(source, 2) for source in sources)


_SHORT = tuple(Function.parse(source, 1) for source in sorted(TYPED_MAPS, key=lambda source: (len(source), source)))
_BOOLEAN = [
    text for name, text in PAPER_LAMBDAS.items() if name in ("LAM_LT", "LAM_LE", "LAM_GT", "LAM_GE", "LAM_NE", "LAM_EQ")
]
_ARITHMETIC = [PAPER_LAMBDAS[name] for name in ("LAM_ADD", "LAM_MUL", "LAM_SUB")]
_CONSTANT = [PAPER_LAMBDAS[name] for name in ("LAM_OR", "LAM_IV", "LAM_AND")]


def _functions(
    values: ValueSet, vocab: tuple[Value, ...], count: int, targets: Sequence[Any] | None
) -> Iterable[Function]:
    """Functions of one value that may give so many different results, short ones first.

    Args:
        values: what comes in.
        vocab: whose items may be constants.
        count: of different results.
        targets: the results, where they are known.
    """
    parts: list[Iterable[Function]] = [_SHORT]
    items = tuple(v for v in vocab if isinstance(v, str)) if not values.numeric else ()
    if count <= 2:
        if items:  # of texts people ask whether they are equal; which comes first is a last resort
            parts.append(_with_constants(("x == {c}", "x != {c}"), values.values[:40]))
        parts.append(_with_constants(tuple(_BOOLEAN), items or tuple(PAPER_CONSTANTS)))
        parts.append(_comparisons(values))
    if count == 1:
        parts.append(_with_constants(tuple(_CONSTANT), items or tuple(PAPER_CONSTANTS)))
    if count == len(values) and values.numeric:
        parts.append(_with_constants(tuple(_ARITHMETIC), tuple(PAPER_CONSTANTS)))
        parts.append(_solved(values, targets) if targets is not None else _with_constants(tuple(_ARITHMETIC), DECIMALS))
    elif targets is not None and values.numeric:
        parts.append(_solved(values, targets))
    return chain.from_iterable(parts)


@lru_cache(200)
def _with_constants(templates: tuple[str, ...], constants: tuple[Value, ...]) -> tuple[Function, ...]:
    return tuple(Function.parse(text.format(c=repr(c)), 1) for text in templates for c in constants)


@lru_cache(200)
def _comparisons(values: ValueSet) -> tuple[Function, ...]:
    """Comparisons with each of the values themselves, where a published constant does not do."""
    some = values.values[:40]
    return tuple(Function.parse(f"x {sign} {v!r}", 1) for sign in ("==", "!=", "<", ">") for v in some)


def _solved(values: ValueSet, targets: Sequence[Any]) -> Iterator[Function]:
    """An operator with the constant that leads from the first two values to their results."""
    known = [(x, t) for x, t in zip(values.values, targets, strict=True) if is_number(x) and is_number(t)]
    constants: list[tuple[str, float]] = []
    for x, target in known[:2]:
        constants += [("{c} + x", target - x), ("{c} - x", target + x)]
        if x:
            constants.append(("{c} * x", target / x))
    for text, constant in constants:
        yield Function.parse(text.format(c=repr(_nice(constant, 4))), 1)


def _shares(values: ValueSet, targets: Sequence[Any]) -> Iterator[Function]:
    """Quotients by a whole number, which are rounded otherwise than the product with its inverse."""
    for x, target in zip(values.values, targets, strict=True):
        if is_number(x) and target and abs(x / target - round(x / target)) < 1e-4 and round(x / target) not in (0, 1):
            yield Function.parse(f"x / {round(x / target)}", 1)
            return


def _try(tabulate_: Any, *arguments: Any) -> Any:
    clock.look()
    try:
        return tabulate_(*arguments)
    except RaspError:
        return None


# -- tables against what the weights say -----------------------------------------------------------------------------


def _pattern(results: Iterable[Any]) -> tuple[int, ...]:
    """Which results are equal, whatever they are; -1 where there is none."""
    seen: dict[Any, int] = {}
    return tuple(-1 if r is None else seen.setdefault(r, len(seen)) for r in results)


def _pattern_of(table: Table) -> tuple[int, ...]:
    known = table.blocks.get("pattern")
    if known is None:
        known = table.blocks["pattern"] = _pattern(None if p < 0 else p for p in table.places.ravel().tolist())
    return known


def _pattern_at(table: Table, kept: Sequence[int]) -> tuple[int, ...]:
    return _pattern(None if p < 0 else p for p in table.places[list(kept)].tolist())


def _numbers(table: Table) -> np.ndarray:
    known = table.blocks.get("numbers as they come")
    if known is None:
        known = table.blocks["numbers as they come"] = np.append(table.values.numbers, 0.0)[table.places]
    return known


def _near(numbers: np.ndarray, wanted: Sequence[int | float]) -> bool:
    if len(numbers) != len(wanted):
        return False
    largest = max(1.0, max(map(abs, wanted), default=0.0))
    return all(abs(a - b) <= CLOSE * largest for a, b in zip(numbers.tolist(), wanted, strict=True))


def _pair_results(data: Mapping[tuple[int, int], int], a: Named, b: Named) -> list[int | None]:
    pairs = [(x, y) for x in a.directions for y in b.directions]
    return [data.get((x, y), data.get((y, x))) for x, y in pairs]


def _step_results(steps: Steps, values: ValueSet, kept: Sequence[int]) -> list[Any]:
    """What is written for each number; twins share what the first of them has."""
    if not steps.thresholds:
        return [steps.levels[0]] * len(values)
    places = np.searchsorted(kept, np.arange(len(values)), side="right") - 1
    return [steps.levels[place] for place in places.tolist()]


def _tabled(entries: Iterable[tuple[Any, Any]], names: Mapping[Any, Value], arity: int) -> Function:
    """The function that gives these results: a short expression, or else a table."""
    every = {key: None if result is None else names[result] for key, result in entries}
    found = shortest(every, arity)
    return found or Function.from_table({key: value for key, value in every.items() if value is not None}, arity)


def _nice(value: int | float, digits: int = 7) -> int | float:
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded
