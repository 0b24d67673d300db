"""The values that an S-op can take, and functions as tables over them; each made once and kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import product, starmap
from typing import Any, TypeVar

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.functions import (
    LARGEST,
    Function,
    FunctionError,
    Undefined,
    Value,
    is_bounded,
    is_number,
    is_value,
)
from weightspace.rasp.language import BOS, PAD
from weightspace.rasp.rounding import settled, settled_all

MOST_VALUES = 10_000
"""An S-op of more values is refused: each is a direction of the residual stream, or a step of an MLP."""
MOST_PAIRS = 1_000_000
"""A function of two S-ops, or a selector, over more pairs of values is refused."""
MOST_KEPT = 200_000_000
"""Bytes of tables, value sets and blocks that are kept for the next program."""


T = TypeVar("T")


class ValueSet:
    """Distinct values in the order of their directions. Equal sets are one object, so tables can be kept by them.

    Attributes:
        values: sorted; of values that are equal in Python (1, 1.0, True) the first that came stands for all.
        index: place of each value.
        rows: (n,) where each stands among its group's directions: 0..n-1, but the tokens leave room for BOS and PAD.
        keys_before_bos: how many of `values` sort before the BOS direction; only the tokens share a group with it.
    """

    __slots__ = ("__dict__", "index", "keys_before_bos", "rows", "values")

    def __init__(self, values: tuple[Value, ...], rows: np.ndarray | None = None, keys_before_bos: int = -1) -> None:
        self.values = values
        self.index = {value: place for place, value in enumerate(values)}
        self.rows = np.arange(len(values)) if rows is None else rows
        self.keys_before_bos = keys_before_bos

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"ValueSet{self.values!r}"

    @cached_property
    def numbers(self) -> np.ndarray:
        """(n,) float64; only of values that are numbers."""
        return np.array([float(value) for value in self.values if is_number(value)])

    @cached_property
    def largest(self) -> float:
        """The largest number by absolute value; 1 if there is none."""
        return float(np.abs(self.numbers).max()) if len(self.numbers) else 1.0

    @cached_property
    def numeric(self) -> bool:
        return all(is_number(value) for value in self.values)

    @cached_property
    def whole(self) -> bool:
        """Whether all are whole numbers by type, as a weighted sum of them by whole factors then is too."""
        return all(isinstance(value, int) for value in self.values)


class Table:
    """A function over the values of its inputs.

    Attributes:
        values: what it can give.
        places: (n,) or (n, m) int64: the place of each result among `values`; -1 where there is none.
        undefined: a sentence on the first argument at which the function fails, as in a division by zero, or None.
        partial: whether it has no value somewhere.
        blocks: what the compiler has made of it, kept with it.
    """

    __slots__ = ("blocks", "partial", "places", "undefined", "values")

    def __init__(self, values: ValueSet, places: np.ndarray, undefined: str | None = None) -> None:
        self.values, self.places, self.undefined = values, places, undefined
        self.partial = bool((places < 0).any())
        self.blocks: dict[Any, Any] = {}


class Kept:
    """What is made once and kept for the next program; when it grows too large all of it is forgotten.

    So memory stays flat however many programs are compiled. Whoever still holds a part of it can go on using that.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most, self.held = most, 0
        self.stores: list[dict[Any, Any]] = []

    def store(self) -> dict[Any, Any]:
        """One more dictionary under the same limit."""
        self.stores.append({})
        return self.stores[-1]

    def keep(self, store: dict[Any, Any], key: Any, made: T, size: int) -> T:
        """Keep what was made, of about `size` bytes, and give it back."""
        if self.held > self.most:
            self.forget()
        self.held += size + 500  # the key, and the objects themselves
        store[key] = made
        return made

    def forget(self) -> None:
        for store in self.stores:
            store.clear()
        self.held = 0


KEPT = Kept()
_sets: dict[Any, ValueSet] = KEPT.store()
_tables: dict[Any, Table] = KEPT.store()
_predicates: dict[Any, np.ndarray] = KEPT.store()


def _keep_set(key: Any, made: ValueSet) -> ValueSet:
    return KEPT.keep(_sets, key, made, 200 * len(made))


def _keep_table(key: Any, made: Table) -> Table:
    return KEPT.keep(_tables, key, made, made.places.nbytes)


def in_order(values: Iterable[Value]) -> tuple[Value, ...]:
    """Values in the order of their directions: as they compare, and where they do not numbers, strings, tuples.

    Tracr compares as text what does not compare, where digits come before letters.
    """
    some = list(values)
    try:
        return tuple(sorted(some))  # type: ignore[type-var]
    except TypeError:
        return tuple(sorted(some, key=_sorting_key))


def _sorting_key(value: Value) -> tuple[Any, ...]:
    if is_number(value):
        return 0, value
    if isinstance(value, str):
        return 1, value
    return (2, tuple(map(_sorting_key, value))) if isinstance(value, tuple) else (-1,)


def value_set(values: Iterable[Value]) -> ValueSet:
    """The set of `values` without None.

    Raises:
        RaspError: if there are more than 10,000.
    """
    distinct = dict.fromkeys(values)
    distinct.pop(None, None)
    if len(distinct) > MOST_VALUES:
        raise RaspError(f"{len(distinct):,} values are too many: an S-op may have {MOST_VALUES:,}")
    ordered = in_order(distinct)
    zeros = [repr(value) for value in ordered if value == 0]  # -0.0 has another name than 0.0
    key = (ordered, tuple(map(type, ordered)), *zeros)
    return _sets.get(key) or _keep_set(key, ValueSet(ordered))


def token_space(vocab: Sequence[Value]) -> tuple[Value, ...]:
    """The directions of the tokens in order: the vocabulary with BOS and PAD among it, as Tracr sorts them."""
    return in_order([*vocab, BOS, PAD])


def token_set(vocab: Sequence[Value]) -> ValueSet:
    """The values of `tokens`, which share their group of directions with BOS and PAD."""
    key = ("tokens", tuple(vocab), tuple(map(type, vocab)))
    known = _sets.get(key)
    if known is None:
        space = token_space(vocab)
        rows = np.array([place for place, value in enumerate(space) if value not in (BOS, PAD)])
        values = tuple(value for value in space if value not in (BOS, PAD))
        known = _keep_set(key, ValueSet(values, rows, int((rows < space.index(BOS)).sum())))
    return known


def tabulate(function: Function, inputs: ValueSet) -> Table:
    """A function of one value as a table.

    Raises:
        RaspError: if a value does not suit the function, or a result is no value.
    """
    key = (function, inputs)
    return _tables.get(key) or _keep_table(key, _table(function, [(value,) for value in inputs.values], (-1,)))


def tabulate_pairs(function: Function, first: ValueSet, second: ValueSet) -> Table:
    """A function of two values as a table of shape (n, m).

    Raises:
        RaspError: as `tabulate`, and if there are more than a million pairs.
    """
    key = (function, first, second)
    known = _tables.get(key)
    if known is None:
        check_pairs(first, second)
        pairs = list(product(first.values, second.values))
        known = _keep_table(key, _table(function, pairs, (len(first), len(second))))
    return known


def tabulate_twice(function: Function, inputs: ValueSet, every: bool = False) -> Table:
    """A function of two values as a table over one S-op given twice: f(x, x).

    Args:
        every: whether its values are those of all pairs, as Tracr has it, although only x and x ever meet.
    """
    key = (function, inputs, "twice", every)
    known = _tables.get(key)
    if known is None:
        if every:
            both = tabulate_pairs(function, inputs, inputs)
            known = _keep_table(key, Table(both.values, both.places.diagonal().copy(), both.undefined))
        else:
            known = _keep_table(key, _table(function, [(value, value) for value in inputs.values], (-1,)))
    return known


def check_pairs(first: ValueSet, second: ValueSet) -> None:
    if len(first) * len(second) > MOST_PAIRS:
        raise RaspError(f"{len(first):,} times {len(second):,} pairs of values are too many: at most {MOST_PAIRS:,}")


def _table(function: Function, arguments: list[tuple[Value, ...]], shape: tuple[int, ...]) -> Table:
    undefined: str | None = None
    results: list[Value] = []
    try:
        results = list(starmap(function.call, arguments))
        sound = all(_is_sound(value) for value in dict.fromkeys(results))
    except (ArithmeticError, TypeError, FunctionError):
        sound = False
    if not sound:  # one by one, for the sentence that says what is wrong where
        results = []
        for values in arguments:
            try:
                results.append(function(*values))
            except Undefined as error:
                results.append(None)
                undefined = undefined or str(error)
    out = value_set(results)
    index = out.index
    places = np.array([-1 if result is None else index[result] for result in results], dtype=np.int64)
    return Table(out, places.reshape(shape), undefined)


def _is_sound(value: Value) -> bool:
    if value is None or isinstance(value, str):
        return True
    return is_value(value) and is_bounded(value) if isinstance(value, tuple) else -LARGEST <= value <= LARGEST


def predicate_table(function: Function, keys: ValueSet, queries: ValueSet) -> np.ndarray:
    """(keys, queries) booleans: which key each query selects.

    Raises:
        RaspError: if the values cannot be compared, or there are more than a million pairs.
    """
    key = (function, keys, queries)
    known = _predicates.get(key)
    if known is None:
        check_pairs(keys, queries)
        try:
            chosen = list(map(bool, starmap(function.call, product(keys.values, queries.values))))
        except (ArithmeticError, TypeError, FunctionError):  # once more, for the sentence that says what is wrong where
            try:
                chosen = [bool(function(*pair)) for pair in product(keys.values, queries.values)]
            except Undefined as error:
                raise RaspError(str(error)) from None
        table = np.array(chosen, dtype=bool).reshape(len(keys), len(queries))
        known = KEPT.keep(_predicates, key, table, table.nbytes)
    return known


def linear(
    first: ValueSet, second: ValueSet, first_factor: int | float, second_factor: int | float, fixed: bool = True
) -> ValueSet:
    """The values of a weighted sum.

    Args:
        fixed: whether what rounding alone tells apart is one value, which Tracr takes for several.
    Raises:
        RaspError: if there are too many, or numbers beyond 2^53.
    """
    key = ("linear", first, second, first_factor, second_factor, fixed)
    known = _sets.get(key)
    if known is None:
        check_pairs(first, second)
        sums = np.add.outer(first_factor * first.numbers, second_factor * second.numbers)
        if not (np.abs(sums) <= LARGEST).all():
            raise RaspError("the sum grows beyond 2^53")
        sums = settled_all(sums) if fixed else sums
        whole = float(first_factor).is_integer() and float(second_factor).is_integer() and first.whole and second.whole
        known = _keep_set(key, value_set(np.unique(sums).astype(np.int64 if whole else float).tolist()))
    return known


def quotients(values: ValueSet, max_seq_len: int) -> ValueSet:
    """What Tracr takes the values of a numerical Aggregate to be: each divided by 1, ..., max_seq_len.

    It misses k/n for k > 1; `means` does not.
    """
    key = ("quotients", values, max_seq_len)
    if len(values) * max_seq_len > MOST_PAIRS:
        raise RaspError(f"it averages {len(values):,} values, which are too many")
    numbers = (value / n for value in values.numbers.tolist() for n in range(1, max_seq_len + 1))
    return _sets.get(key) or _keep_set(key, value_set(numbers))


def means(values: ValueSet, max_seq_len: int) -> ValueSet:
    """Every mean of 1 to max_seq_len of the values.

    Raises:
        RaspError: if there are more than 10,000.
    """
    key = ("means", values, max_seq_len)
    known = _sets.get(key)
    if known is None:
        sums, found = {0.0}, {0.0}
        for n in range(1, max_seq_len + 1):
            if len(sums) * len(values) > MOST_PAIRS:
                raise RaspError(f"it averages {len(values):,} values, which can have too many different means")
            sums = {settled(total + value) for total in sums for value in values.numbers.tolist()}
            found |= {settled(total / n) for total in sums}
            if len(sums) > MOST_VALUES or len(found) > MOST_VALUES:
                raise RaspError(f"it can have more than {MOST_VALUES:,} different means")
        known = _keep_set(key, value_set(found))
    return known


CLOSEST = 2e-5
"""Numbers nearer to each other than this, in units of the largest, cannot be told apart by a float32 MLP."""


def distinguishable(table: Table, inputs: ValueSet, scale: float) -> np.ndarray:
    """The places among the numbers of `inputs` that an MLP has to tell apart: of near twins only the first.

    Args:
        scale: the largest number that float32 has to hold on the way to these.

    Raises:
        RaspError: if a function gives different results for near twins.
    """
    known = table.blocks.get(("distinguishable", scale))
    if known is None:
        numbers, results = inputs.numbers, table.places
        gaps = np.diff(numbers)
        near = gaps < CLOSEST * max(1.0, scale)
        torn = near & (results[1:] != results[:-1])
        if torn.any():
            place = int(np.flatnonzero(torn)[0])
            raise RaspError(
                f"its input can be {float(numbers[place])!r} and {float(numbers[place + 1])!r}, which are too near to "
                "each other for an MLP to give them different results"
            )
        known = table.blocks["distinguishable", scale] = np.flatnonzero(np.concatenate([[True], ~near]))
    return known
