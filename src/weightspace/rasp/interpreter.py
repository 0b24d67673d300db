"""What a program means: the reference interpreter, input by input and for a whole batch.

The meaning is that of Tracr's evaluator wherever that one gives an answer, and total elsewhere:

- Map and SequenceMap: None in, None out; a function that gives None gives None. Where a function has no value, as 1 / x
  at 0, or cannot take what it is given, evaluation stops, but only if that value occurs in the inputs.
- LinearSequenceMap: a weighted sum of numbers; None in, None out.
- Select: the predicate of key and query. A None key or query neither selects nor is selected (Tracr stops there).
- SelectorAnd, SelectorOr and SelectorNot: a pair is selected, refused, or, where its key or query is None, neither.
  And selects what both select and refuses what either refuses; Or selects what either selects and refuses what both
  refuse; Not swaps the two, and so never selects a pair whose key or query is None.
- `causal`: after all that, a query at place q sees the keys at places up to q only.
- Aggregate: nothing selected gives the default; one value gives that value itself. Of several, numbers give
  their sum from left to right divided by their number; strings must all be equal and give that string; among several
  a None counts as 0 in a numerical Aggregate, and makes a categorical one None.
- SelectorWidth: how many keys are selected.

Numbers compare as in Python: 1, 1.0 and True are one value, and the batch may give any of them for another. Only a
function that passes through numbers beyond 2^53 on its way could tell them apart.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from weightspace.errors import RaspError
from weightspace.rasp.functions import LARGEST, Function, Undefined, Value, is_number
from weightspace.rasp.language import (
    Aggregate,
    Expression,
    Indices,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorAnd,
    SelectorNot,
    SelectorOr,
    SelectorWidth,
    SequenceMap,
    Tokens,
    indices,
    tokens,
)
from weightspace.rasp.program import Program

MOST_INPUTS = 10_000_000
"""More inputs than these are not listed at once: draw a sample."""

# -- input by input -------------------------------------------------------------------------------------------------


def evaluate(program: Program, inputs: Sequence[Any], *, causal: bool | None = None) -> list[Value]:
    """What the program gives for one input, read off the definitions: slow, and the judge of everything faster.

    Args:
        program: any program; only what its output needs is evaluated.
        inputs: one sequence of tokens; an empty one gives an empty list.
        causal: whether a query sees only keys at its own place or before; unless given, as the program says.
    Raises:
        RaspError: if a token is not in the program's vocabulary, the input is too long for it, a function has no value
            or cannot take what occurs, or different strings are averaged; the message names the variable.
    """
    return _place_by_place(program, program.nodes, inputs, causal)[id(program.output)]


def trace(program: Program, inputs: Sequence[Any], *, causal: bool | None = None) -> dict[str, list[Any]]:
    """The value of `tokens`, `indices` and every variable on one input, dead code included, in the program's order.

    A selector is shown as a list of rows, one for each query, that say for each key whether it is selected.

    Raises:
        RaspError: as `evaluate` does.
    """
    statements = [("tokens", tokens), ("indices", indices), *program.statements]
    values = _place_by_place(program, [node for _, node in statements], inputs, causal)
    seen = _sight(program, causal)
    return {
        name: _chosen(values[id(node)], seen) if isinstance(node, Selector) else values[id(node)]
        for name, node in statements
    }


def _place_by_place(
    program: Program, nodes: Iterable[Expression], inputs: Sequence[Any], causal: bool | None
) -> dict[int, Any]:
    """The value of each node by its id; a selector's rows hold True, False, and None where key or query is None."""
    _check_length(program, len(inputs))
    given = [_checked_token(token, program.vocab) for token in inputs]
    seen = _sight(program, causal)
    values: dict[int, Any] = {}
    for node in nodes:
        reads = [values[id(child)] for child in node.children]
        name = _name(program, node)
        match node:
            case Tokens():
                result = given
            case Indices():
                result = list(range(len(given)))
            case Map() | SequenceMap():
                places = zip(*reads, strict=True)
                result = [
                    None if None in arguments else _apply(name, node.function, *arguments) for arguments in places
                ]
            case LinearSequenceMap():
                result = [_weighted(name, node, x, y) for x, y in zip(*reads, strict=True)]
            case Select():
                keys, queries = reads
                result = [[_relates(name, node.function, key, query) for key in keys] for query in queries]
            case SelectorNot():
                result = [[None if pair is None else not pair for pair in row] for row in reads[0]]
            case SelectorAnd():
                decisive = isinstance(node, SelectorOr)  # one True settles an Or, one False an And
                rows = zip(*reads, strict=True)
                result = [[_joined(decisive, *pair) for pair in zip(*both, strict=True)] for both in rows]
            case Aggregate():
                selector, sop = reads
                _check_default(name, node)
                result = [_mean(name, node, list(itertools.compress(sop, row))) for row in _chosen(selector, seen)]
            case SelectorWidth():
                result = [sum(row) for row in _chosen(reads[0], seen)]
            case _:
                raise RaspError(f"{name}: {type(node).__name__} is no operation that the interpreter knows")
        values[id(node)] = result
    return values


def _sight(program: Program, causal: bool | None) -> Callable[[int, int], bool]:
    """Whether a key can be seen by a query, by their places."""
    causal = program.causal if causal is None else causal
    return operator.le if causal else lambda key, query: True  # noqa: ARG005


def _chosen(rows: Sequence[Sequence[bool | None]], seen: Callable[[int, int], bool]) -> list[list[bool]]:
    """Which key each query selects in the end: not those of which None is a part, nor those it cannot see."""
    return [[pair is True and seen(k, q) for k, pair in enumerate(row)] for q, row in enumerate(rows)]


def _joined(decisive: bool, first: bool | None, second: bool | None) -> bool | None:
    if first is decisive or second is decisive:
        return decisive
    return None if first is None or second is None else not decisive


def _relates(name: str, function: Function, key: Value, query: Value) -> bool | None:
    return None if key is None or query is None else bool(_apply(name, function, key, query))


def _apply(name: str, function: Function, *arguments: Value) -> Value:
    try:
        return function(*arguments)
    except Undefined as error:
        raise RaspError(f"{name}: {error}; give it a value there, as in 'a if x != 0 else b'") from None
    except RaspError as error:
        raise RaspError(f"{name}: {error}") from None


def _weighted(name: str, node: LinearSequenceMap, x: Value, y: Value) -> Value:
    if x is None or y is None:
        return None
    if not (is_number(x) and is_number(y)):
        raise RaspError(f"{name}: a LinearSequenceMap adds numbers, not {x!r} and {y!r}: map them to numbers first")
    result = node.first_factor * x + node.second_factor * y
    if not abs(result) <= LARGEST:
        raise RaspError(f"{name}: {node.first_factor!r} * {x!r} + {node.second_factor!r} * {y!r} grows beyond 2^53")
    return result


def _check_default(name: str, node: Aggregate) -> None:
    if is_number(node.default) and not abs(node.default) <= LARGEST:
        raise RaspError(f"{name}: the default {node.default!r} is not a number within +-2^53")


def _mean(name: str, node: Aggregate, selected: Sequence[Value]) -> Value:
    if not selected:
        return node.default
    if None in selected and not node.numerical:
        return None
    numbers = [0 if value is None else value for value in selected]
    if len(numbers) == 1:
        return numbers[0]
    if isinstance(numbers[0], str) and all(value == numbers[0] for value in numbers):
        return numbers[0]
    total: float = 0  # `sum` compensates for rounding from Python 3.12 on, and so would depend on the version
    for value in numbers:
        if not is_number(value):
            listed = ", ".join(map(repr, selected))
            raise RaspError(f"{name}: the mean of {listed} is none: select one of them, or map them to numbers first")
        total = total + value
    return total / len(numbers)


def _name(program: Program, node: Expression) -> str:
    return program.names.get(id(node), type(node).__name__)


def _check_length(program: Program, length: int) -> None:
    if program.max_seq_len is not None and length > program.max_seq_len:
        raise RaspError(
            f"an input of {length} tokens is too long for a program meant for at most {program.max_seq_len}: "
            "shorten it, or give the program another `max_seq_len`"
        )


def _checked_token(token: object, vocab: Sequence[Value] | None) -> Value:
    if not (token is None or isinstance(token, bool | int | float | str)):
        raise RaspError(f"a token is a number, a string, True, False or None, not {token!r}")
    if is_number(token) and not abs(token) <= LARGEST:
        raise RaspError(f"the token {token!r} is not a number within +-2^53")
    if vocab is not None and token not in vocab:
        listed = ", ".join(map(repr, vocab[:20])) + (", ..." if len(vocab) > 20 else "")
        raise RaspError(f"the token {token!r} is not in the vocabulary: choose from {listed}")
    return token


# -- batches of inputs and of values --------------------------------------------------------------------------------


def all_inputs(vocab: Sequence[Value], max_seq_len: int) -> list[tuple[Value, ...]]:
    """Every input of length 1 to `max_seq_len`, the short ones first: 3,905 of vocabulary 5 and length 5.

    Raises:
        RaspError: if there are more than `MOST_INPUTS`.
    """
    _count_inputs(len(vocab), max_seq_len)
    lengths = range(1, max_seq_len + 1)
    return [entry for length in lengths for entry in itertools.product(vocab, repeat=length)]


def _count_inputs(vocab: int, max_seq_len: int) -> int:
    count = 0
    for length in range(1, max_seq_len + 1):
        count += vocab**length
        if count > MOST_INPUTS:
            raise RaspError(
                f"a vocabulary of {vocab} and lengths up to {max_seq_len} make more than {MOST_INPUTS:,} inputs: "
                "draw a sample of them"
            )
    return count


class _Column(NamedTuple):
    """An S-op on a batch, place by place: codes (length, n), 0 for None and padding, else 1 + a position in `values`.

    Places come first because then each pair of a key's and a query's place is one long row of inputs. Every value
    occurs, and no two are equal.
    """

    codes: np.ndarray
    values: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of any lengths, as numbers.

    Attributes:
        codes: (n, length) positions in `vocab`, -1 beyond an input's end.
        lengths: (n,) of each input.
        vocab: what the positions mean.
    """

    codes: Int[np.ndarray, "n length"]
    lengths: Int[np.ndarray, " n"]
    vocab: tuple[Value, ...]

    @staticmethod
    def of(inputs: Sequence[Sequence[Any]], vocab: Sequence[Value] | None = None) -> Batch:
        """The batch of the inputs given.

        Args:
            inputs: sequences of tokens, of any lengths.
            vocab: the tokens that may occur; unless given, those that do.
        Raises:
            RaspError: if something is no token, or not in the vocabulary.
        """
        every = list(itertools.chain.from_iterable(inputs))
        try:
            distinct = list(dict.fromkeys(every))
        except TypeError:
            distinct = every  # the check says which of them is no token
        for token in distinct:
            _checked_token(token, vocab)
        entries = distinct if vocab is None else [_checked_token(token, None) for token in vocab]
        position = {token: i for i, token in reversed(list(enumerate(entries)))}
        lengths = np.fromiter(map(len, inputs), np.int64, len(inputs))
        codes = np.full((len(inputs), int(lengths.max(initial=0))), -1, np.int32)
        codes[np.arange(codes.shape[1]) < lengths[:, None]] = [position[token] for token in every]
        return Batch(codes, lengths, tuple(entries))

    @staticmethod
    def every(vocab: Sequence[Value], max_seq_len: int) -> Batch:
        """Every input of length 1 to `max_seq_len`, in the order of `all_inputs`.

        Raises:
            RaspError: if there are more than `MOST_INPUTS`, or something is no token.
        """
        for token in vocab:
            _checked_token(token, None)
        size = len(vocab)
        codes = np.full((_count_inputs(size, max_seq_len), max(max_seq_len, 0)), -1, np.int32)
        lengths = np.empty(len(codes), np.int64)
        start = 0
        for length in range(1, max_seq_len + 1):
            number = np.arange(size**length)
            for place in range(length):
                codes[start : start + len(number), place] = number // size ** (length - 1 - place) % size
            lengths[start : start + len(number)] = length
            start += len(number)
        return Batch(codes, lengths, tuple(vocab))

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.lengths)

    def inputs(self) -> list[tuple[Value, ...]]:
        """The inputs as tuples of tokens."""
        return [tuple(entry) for entry in _listed(self.codes, self.vocab, self.lengths)]

    @cached_property
    def present(self) -> np.ndarray:
        """(length, n): False beyond an input's end."""
        return np.ascontiguousarray((np.arange(self.codes.shape[1]) < self.lengths[:, None]).T)

    @cached_property
    def _tokens(self) -> _Column:
        vocab = self.vocab
        return _renumbered(self.codes.T + 1, len(vocab) + 1, lambda i: vocab[i - 1] if i else None)

    @cached_property
    def _indices(self) -> _Column:
        size = self.codes.shape[1]
        places = np.arange(1, size + 1)[:, None] * self.present
        return _renumbered(places, size + 1, lambda i: i - 1 if i else None)


@dataclass(frozen=True, eq=False)
class BatchValues:
    """What an S-op gives for every input of a batch.

    Attributes:
        codes: (n, length) positions in `values`; -1 for None and beyond an input's end.
        values: the different values that occur, None left out.
        lengths: (n,) of each input.
    """

    codes: Int[np.ndarray, "n length"]
    values: tuple[Value, ...]
    lengths: Int[np.ndarray, " n"]

    def numbers(self) -> Float[np.ndarray, "n length"]:
        """The values themselves, nan for None and beyond an input's end.

        Raises:
            RaspError: if there are strings among them.
        """
        for value in self.values:
            if not is_number(value):
                raise RaspError(f"{value!r} is not a number: read these values with `lists`")
        return np.array([*self.values, math.nan], np.float64)[self.codes]

    def lists(self) -> list[list[Value]]:
        """The values as `evaluate` gives them, one list for each input."""
        return _listed(self.codes, self.values, self.lengths)


def _listed(codes: np.ndarray, values: Sequence[Value], lengths: np.ndarray) -> list[list[Value]]:
    by_code = [*values, None]  # so that -1 is None
    pairs = zip(codes.tolist(), lengths.tolist(), strict=True)
    return [[by_code[code] for code in row[:length]] for row, length in pairs]


# -- a whole batch --------------------------------------------------------------------------------------------------


def evaluate_all(program: Program, inputs: Sequence[Sequence[Any]], *, causal: bool | None = None) -> list[list[Value]]:
    """What the program gives for each of many inputs, of any lengths: `evaluate` of each, many times faster.

    Raises:
        RaspError: as `evaluate` does, if any input makes it.
    """
    return evaluate_batch(program, Batch.of(inputs, program.vocab), causal).lists()


def evaluate_batch(program: Program, batch: Batch, causal: bool | None = None) -> BatchValues:
    """What the program gives for a whole batch.

    Every S-op is held as small whole numbers, positions in the tuple of its different values, so that a function is
    called once for each different argument that occurs, and not once for each place of each input.

    Raises:
        RaspError: as `evaluate` does, if any input makes it.
    """
    return _values(_columns(program, batch, causal)[id(program.output)], batch)


def evaluate_nodes(program: Program, batch: Batch, causal: bool | None = None) -> dict[int, BatchValues]:
    """What every S-op that the output needs gives for a whole batch, inputs and output included, by its `id`.

    Raises:
        RaspError: as `evaluate` does, if any input makes it.
    """
    return {node: _values(column, batch) for node, column in _columns(program, batch, causal).items()}


def _values(column: _Column, batch: Batch) -> BatchValues:
    return BatchValues((column.codes.astype(np.int32) - 1).T, column.values, batch.lengths)


class _Pairs(NamedTuple):
    """A selector on a batch: (key, query, n) booleans."""

    selected: np.ndarray
    refused: np.ndarray
    """What Not selects; only up to date where the program has a SelectorNot."""


def _columns(program: Program, batch: Batch, causal: bool | None) -> dict[int, _Column]:
    _check_batch(program, batch)
    causal = program.causal if causal is None else causal
    both = any(isinstance(node, SelectorNot) for node in program.nodes)
    columns: dict[int, _Column] = {}
    selectors: dict[int, _Pairs] = {}
    for node in program.nodes:
        name = _name(program, node)
        if isinstance(node, Selector):
            selectors[id(node)] = _selector(name, node, columns, selectors, causal, both)
        else:
            columns[id(node)] = _column(name, node, columns, selectors, batch)
    return columns


def _column(
    name: str, node: Expression, columns: dict[int, _Column], selectors: dict[int, _Pairs], batch: Batch
) -> _Column:
    match node:
        case Tokens():
            return batch._tokens
        case Indices():
            return batch._indices
        case Map():
            return _map(name, node, columns[id(node.inner)])
        case SequenceMap() | LinearSequenceMap():
            return _sequence_map(name, node, columns[id(node.first)], columns[id(node.second)])
        case Aggregate():
            return _aggregate(name, node, selectors[id(node.selector)].selected, columns[id(node.sop)], batch.present)
        case SelectorWidth():
            index = (_widths(selectors[id(node.selector)].selected) + 1) * batch.present
            return _renumbered(index, len(index) + 2, lambda i: i - 1 if i else None)
    raise RaspError(f"{name}: {type(node).__name__} is no operation that the interpreter knows")


def _selector(
    name: str,
    node: Selector,
    columns: dict[int, _Column],
    selectors: dict[int, _Pairs],
    causal: bool,
    both: bool,
) -> _Pairs:
    if isinstance(node, Select):
        return _select(name, node, columns[id(node.keys)], columns[id(node.queries)], causal, both)
    parts = [selectors[id(child)] for child in node.children]
    match node:
        case SelectorNot():
            return _Pairs(parts[0].refused, parts[0].selected)
        case SelectorOr():
            return _Pairs(parts[0].selected | parts[1].selected, parts[0].refused & parts[1].refused)
        case SelectorAnd():
            return _Pairs(parts[0].selected & parts[1].selected, parts[0].refused | parts[1].refused)
    raise RaspError(f"{name}: {type(node).__name__} is no operation that the interpreter knows")


def _check_batch(program: Program, batch: Batch) -> None:
    _check_length(program, int(batch.lengths.max(initial=0)))
    if program.vocab is not None and batch.vocab != program.vocab:
        for token in batch._tokens.values:
            _checked_token(token, program.vocab)
        if None not in program.vocab and bool((batch.present & (batch._tokens.codes == 0)).any()):
            _checked_token(None, program.vocab)


def _renumbered(index: np.ndarray, size: int, value_at: Callable[[int], Value]) -> _Column:
    """The column that has `value_at(i)` where `index` is i, which is from 0 to `size` - 1; called once for each i."""
    if size <= max(1 << 16, 2 * index.size):
        occurs = np.zeros(size, bool)
        occurs[index] = True
        distinct = np.flatnonzero(occurs)
        codes, values = _codes(map(value_at, distinct.tolist()), len(distinct))
        table = np.zeros(size, codes.dtype)
        table[distinct] = codes
        return _Column(table.take(index), values)
    distinct, place = _distinct(index.astype(np.int64).ravel())
    codes, values = _codes(map(value_at, distinct.tolist()), len(distinct))
    return _Column(codes.take(place).reshape(index.shape), values)


def _codes(values: Iterable[Value], count: int) -> tuple[np.ndarray, tuple[Value, ...]]:
    """A code for each value, the same for equal ones and 0 for None, and the values by code."""
    known: dict[Value, int] = {None: 0}
    codes = [known.setdefault(value, len(known)) for value in values]
    return np.array(codes, np.min_scalar_type(count)), tuple(known)[1:]


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different entries of a flat array of 8-byte items, and the position of each entry among them.

    `np.unique` sorts, which takes several times as long; here entries meet in a table of hashes, and those that find
    another there go into the next round.
    """
    items = keys.view(np.uint64)
    bits = max(8, len(items).bit_length() + 1)
    positions = np.empty(len(items), np.int64)
    pending = np.arange(len(items))
    owner = np.empty(1 << bits, np.int64)
    found: list[np.ndarray] = []
    count, factor = 0, 0x9E3779B97F4A7C15
    while len(pending):
        rest, place = items[pending], np.arange(len(pending))
        slot = (rest * np.uint64(factor)) >> np.uint64(64 - bits)
        owner[slot] = place
        owners = owner[slot]
        first = np.flatnonzero(owners == place)
        number = np.empty(len(pending), np.int64)
        number[first] = np.arange(count, count + len(first))
        settled = rest[owners] == rest
        positions[pending[settled]] = number[owners[settled]]
        found.append(keys[pending[first]])
        pending = pending[~settled]
        count, factor = count + len(first), factor * 0xD1342543DE82EF95 % 2**64
    return np.concatenate(found) if found else keys, positions


def _map(name: str, node: Map, inner: _Column) -> _Column:
    results = [None, *(_apply(name, node.function, value) for value in inner.values)]  # every value occurs
    codes, values = _codes(results, len(results))
    return _Column(codes.take(inner.codes), values)


def _sequence_map(name: str, node: SequenceMap | LinearSequenceMap, first: _Column, second: _Column) -> _Column:
    xs, ys = (None, *first.values), (None, *second.values)
    size, width = len(xs) * len(ys), len(ys)
    index = first.codes * _whole_type(size)(width) + second.codes

    def value_at(i: int) -> Value:
        x, y = xs[i // width], ys[i % width]
        if isinstance(node, LinearSequenceMap):
            return _weighted(name, node, x, y)
        return None if x is None or y is None else _apply(name, node.function, x, y)

    return _renumbered(index, size, value_at)


def _whole_type(size: int) -> type[np.unsignedinteger]:
    """The smallest type of whole numbers that holds 0 to `size`."""
    return np.uint8 if size < 1 << 8 else np.uint16 if size < 1 << 16 else np.uint32 if size < 1 << 32 else np.uint64


# -- selectors on a batch -------------------------------------------------------------------------------------------

_OUTER: dict[str, Callable[[Any, Any], Any]] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "LT": operator.lt,
    "LEQ": operator.le,
    "GT": operator.gt,
    "GEQ": operator.ge,
}


def _select(name: str, node: Select, keys: _Column, queries: _Column, causal: bool, both: bool) -> _Pairs:
    related = _relation(name, node, keys, queries)
    selected = _spread(related, keys, queries)
    known = np.zeros_like(related)
    known[1:, 1:] = True
    refused = _spread(known & ~related, keys, queries) if both else selected
    if causal:  # already here: And, Or and Not of pairs that are neither stay neither
        size = len(selected)
        seen = (np.arange(size)[:, None] <= np.arange(size))[:, :, None]
        return _Pairs(selected & seen, refused & seen)
    return _Pairs(selected, refused)


def _relation(name: str, node: Select, keys: _Column, queries: _Column) -> np.ndarray:
    """Whether the predicate holds, by the codes of key and query; False for None."""
    related = np.zeros((len(keys.values) + 1, len(queries.values) + 1), bool)
    if node.predicate == "TRUE":
        related[1:, 1:] = True
        return related
    outer = _OUTER.get(node.predicate) if isinstance(node.predicate, str) else None
    if outer is not None and all(map(is_number, keys.values)) and all(map(is_number, queries.values)):
        left, right = np.array(keys.values, np.float64), np.array(queries.values, np.float64)
        related[1:, 1:] = outer(left[:, None], right)
        return related
    failed = []
    for key, query in _meeting(related.shape, keys, queries):
        if key and query:
            try:
                related[key, query] = bool(node.function(keys.values[key - 1], queries.values[query - 1]))
            except (Undefined, RaspError):
                failed.append((key, query))
    for key, query in failed:  # a pair that never meets in one input is no error
        if ((keys.codes == key).any(0) & (queries.codes == query).any(0)).any():
            _apply(name, node.function, keys.values[key - 1], queries.values[query - 1])
    return related


def _meeting(shape: tuple[int, ...], keys: _Column, queries: _Column) -> Iterable[tuple[int, int]]:
    """Pairs of codes that may meet in an input: all, or where these are too many just those that do."""
    if shape[0] * shape[1] <= 1 << 12:
        return itertools.product(range(shape[0]), range(shape[1]))
    index = keys.codes.astype(np.int64)[:, None] * shape[1] + queries.codes[None]
    return [divmod(pair, shape[1]) for pair in _distinct(index.ravel())[0].tolist()]


def _spread(related: np.ndarray, keys: _Column, queries: _Column) -> np.ndarray:
    """(key, query, n) booleans from a table by the codes of key and query, whose row and column 0 are False."""
    if related.shape[1] > 65 and related.shape[0] <= 65:
        return _spread(related.T, queries, keys).swapaxes(0, 1)
    if related.shape[1] > 65:
        index = keys.codes.astype(np.int64)[:, None] * related.shape[1] + queries.codes[None]
        return related.ravel().take(index)
    # One bit for each value of the query: a key carries the bits of all queries that it suits.
    bits = np.zeros(related.shape[1], np.uint64)
    bits[1:] = np.uint64(1) << np.arange(related.shape[1] - 1, dtype=np.uint64)
    kind = _whole_type(2 ** (related.shape[1] - 1) - 1)
    masks = (related * bits).sum(axis=1, dtype=np.uint64).astype(kind)
    return (masks.take(keys.codes)[:, None] & bits.astype(kind).take(queries.codes)[None]) != 0


def _counted(selected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(query, n): the sum of `weights` (key, n) over the keys selected, from left to right, in their own type."""
    total = np.zeros(selected.shape[1:], weights.dtype)
    for chosen, weight in zip(selected.view(np.uint8), weights, strict=True):
        total += chosen * weight
    return total


def _widths(selected: np.ndarray) -> np.ndarray:
    kind = _whole_type(len(selected) + 1)  # room for 1 more, as SelectorWidth needs
    return np.add.reduce(selected.view(np.uint8), axis=0, dtype=kind)


# -- means on a batch -----------------------------------------------------------------------------------------------


def _aggregate(name: str, node: Aggregate, selected: np.ndarray, sop: _Column, present: np.ndarray) -> _Column:
    """The mean of a column over what is selected, by the cheapest of four ways that suits its values."""
    _check_default(name, node)
    default = node.default
    hidden, zeros = _hidden(node, selected, sop, present)
    if all(map(is_number, sop.values)):
        numbers = np.array([0.0, *sop.values], np.float64)  # a None that is not hidden counts as 0
        if float(np.abs(numbers).max()) * max(len(selected), 1) <= LARGEST:
            for scale in (1, 2):  # whole numbers, and halves
                whole = numbers * scale
                used = whole if zeros or not sop.values else whole[1:]
                slots = (len(selected) + 1) * ((used.max() - used.min()) * len(selected) + 1)
                if slots < 1 << 16 and (whole == np.rint(whole)).all():
                    return _mean_of_whole(selected, sop, present & ~hidden, whole, used, scale, default)
            return _mean_of_numbers(selected, sop, present & ~hidden, numbers, default)
    elif not zeros and all(isinstance(value, str) for value in sop.values):
        column = _mean_of_strings(selected, sop, present & ~hidden, default)
        if column is not None:
            return column
    return _mean_by_pattern(name, node, selected, sop, present)


def _hidden(node: Aggregate, selected: np.ndarray, sop: _Column, present: np.ndarray) -> tuple[np.ndarray, bool]:
    """(query, n): where a None among what is selected makes the result None; and whether any counts as 0 instead."""
    absent = (sop.codes == 0) & present
    if not absent.any():
        return np.zeros(present.shape, bool), False
    count = _counted(selected, absent.astype(_whole_type(len(selected))))
    if not node.numerical:
        return count > 0, False
    return np.zeros(present.shape, bool), bool((count > 0).any())


def _mean_of_whole(
    selected: np.ndarray,
    sop: _Column,
    shown: np.ndarray,
    whole: np.ndarray,
    used: np.ndarray,
    scale: int,
    default: Value,
) -> _Column:
    """The mean of numbers that are whole after multiplication with `scale`: width and sum are one small number."""
    low = int(used.min())
    base = int(used.max() - low) * len(selected) + 1
    size = base * (len(selected) + 1)
    weights = (base + np.clip(whole, low, used.max()) - low).astype(np.uint16)
    index = (_counted(selected, weights.take(sop.codes)) + np.uint16(1)) * shown

    def value_at(i: int) -> Value:
        if i == 0:
            return None
        width, rest = divmod(i - 1, base)
        if width == 0:
            return default
        total = rest + width * low
        if scale > 1:
            return total / scale / width
        return total if width == 1 else total / width

    return _renumbered(index, size + 1, value_at)


def _mean_of_numbers(
    selected: np.ndarray, sop: _Column, shown: np.ndarray, numbers: np.ndarray, default: Value
) -> _Column:
    """The mean of any numbers, rounded after every addition as Python does."""
    widths = _widths(selected)
    means = _counted(selected, numbers.take(sop.codes)) / np.maximum(widths, 1)
    averaged, empty = shown & (widths > 0), shown & (widths == 0)
    distinct, positions = _distinct(means[averaged] + 0.0)  # -0.0 becomes 0.0, which it equals
    more = [default] if empty.any() else []
    codes, values = _codes([*distinct.tolist(), *more], len(distinct) + 1)
    result = np.zeros(means.shape, codes.dtype)
    result[averaged] = codes.take(positions)
    if more:
        result[empty] = codes[-1]
    return _Column(result, values)


def _mean_of_strings(selected: np.ndarray, sop: _Column, shown: np.ndarray, default: Value) -> _Column | None:
    """The one string that is selected, or None if somewhere there are two: `_mean_by_pattern` says which."""
    count = len(sop.values)
    kind = _whole_type(count + 2)
    codes = sop.codes.astype(kind)
    chosen = selected.view(np.uint8)
    highest = (chosen * codes[:, None]).max(axis=0, initial=0)
    lowest = (count + 1) - (chosen * ((count + 1 - codes) * (codes > 0))[:, None]).max(axis=0, initial=0)
    if ((highest != lowest) & (highest > 0) & shown).any():
        return None
    index = (highest + kind(1)) * shown
    return _renumbered(index, count + 2, lambda i: None if i == 0 else default if i == 1 else sop.values[i - 2])


def _mean_by_pattern(name: str, node: Aggregate, selected: np.ndarray, sop: _Column, present: np.ndarray) -> _Column:
    """The mean of anything: what each query selects, the different cases of it, and the reference for each."""
    patterns = np.where(selected, sop.codes.astype(np.int64)[:, None] + 1, 0).transpose(1, 2, 0)[present]
    distinct, positions = np.unique(patterns, axis=0, return_inverse=True)
    by_code = (None, *sop.values)
    means = (_mean(name, node, [by_code[code - 1] for code in pattern if code]) for pattern in distinct.tolist())
    codes, values = _codes(means, len(distinct))
    result = np.zeros(present.shape, codes.dtype)
    result[present] = codes.take(positions.reshape(-1))
    return _Column(result, values)
