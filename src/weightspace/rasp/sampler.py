"""Random programs, by the two published distributions: `paper` and `typed`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from random import Random
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.functions import Function
from weightspace.rasp.language import (
    Aggregate,
    Comparison,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    rebuild,
    tokens,
)
from weightspace.rasp.program import Program

Distribution = Literal["paper", "typed"]
DISTRIBUTIONS: tuple[Distribution, ...] = get_args(Distribution)

T = TypeVar("T")


class Rejected(RaspError):
    """A draw that the distribution does not accept; its text is the reason, to be counted."""


def sample(distribution: Distribution, seed: int, lengths: Sequence[int] | None = None) -> Iterator[Program]:
    """Programs of a distribution without end; the same seed gives the same programs.

    Args:
        distribution: `paper` (Langosco et al., appendix B.1) or `typed` (its 2024 successor).
        seed: any whole number.
        lengths: what lengths are wanted, equally likely; by default those published: of `typed` 4 to 8 S-ops, inputs
            counted; of `paper` 3 to 15 instructions, long ones likelier.
    Raises:
        RaspError: if there is no such distribution, or a length it does not have.
    """
    for drawn in attempts(distribution, seed, lengths):
        if isinstance(drawn, Program):
            yield drawn


def attempts(distribution: Distribution, seed: int, lengths: Sequence[int] | None = None) -> Iterator[Program | str]:
    """As `sample`, with the reason for each draw that was rejected in its place."""
    check_lengths(distribution, lengths or ())
    random = Random(f"{distribution} {seed}")
    draw = _sampler(distribution, tuple(lengths or ()))
    while True:
        try:
            yield draw(random)
        except Rejected as reason:
            yield str(reason)


def check_lengths(distribution: str, lengths: Sequence[int]) -> None:
    """Refuse a distribution that does not exist, or lengths that it does not have.

    Raises:
        RaspError: that says which there are.
    """
    if distribution not in DISTRIBUTIONS:
        raise RaspError(f"no distribution is named {distribution!r}: there are {', '.join(DISTRIBUTIONS)}")
    bounds = (2, 20) if distribution == "typed" else (3, 15)
    for length in lengths:
        if not bounds[0] <= length <= bounds[1]:
            raise RaspError(f"lengths of {distribution} are {bounds[0]} to {bounds[1]}, not {length}")


@lru_cache(4)
def _sampler(distribution: Distribution, lengths: tuple[int, ...]) -> Callable[[Random], Program]:
    """A sampler is kept for what it knows; what it draws depends on the random numbers alone."""
    if distribution == "typed":
        return TypedSampler(lengths or range(4, 9))
    return PaperSampler(lengths or None)


def choose(random: Random, items: Sequence[T], weights: Sequence[int | float] | None = None) -> T:
    """One of `items`; by `random()` alone, whose sequence does not change between versions of Python."""
    if weights is None:
        return items[int(random.random() * len(items))]
    sums = list(accumulate(weights))
    return items[min(bisect_right(sums, random.random() * sums[-1]), len(items) - 1)]


# -- typed -----------------------------------------------------------------------------------------------------------

Kind = Literal["bool", "float", "freq", "categorical"]
"""The sampler's types; `freq` is what a numerical Aggregate gives, a float between 0 and 1."""

_SHIFTS = ("x", "x + 0.5", "x + 1", "x * 2")
_FLAGS = ("x", "not x")
_ROUNDS = ("x", "int(x)")
MAPS: dict[tuple[Kind, Kind], tuple[str, ...]] = {
    ("bool", "bool"): _FLAGS,
    ("bool", "float"): _FLAGS,
    ("bool", "categorical"): _FLAGS,
    ("float", "bool"): ("x > 3.5", "x < 3.5", "x == 0"),
    ("float", "float"): _SHIFTS,
    ("float", "categorical"): _ROUNDS,
    ("categorical", "bool"): (
        "x == 0", "x == 1", "x == 2", "x == 3", "x != 2", "x != 3", "x > 2", "x > 3", "x < 2", "x < 3",
    ),
    ("categorical", "float"): _SHIFTS,
    ("categorical", "categorical"): ("x + 1", "x - 1"),
    ("freq", "bool"): ("x > 0.5",),
    ("freq", "float"): _SHIFTS,
    ("freq", "categorical"): _ROUNDS,
}  # fmt: skip
"""The functions of a Map from one type to another."""
SEQUENCE_MAPS = ("x * y", "x + y % 10", "x - y", "x or y", "x and y")
FACTORS = (-3, -2, -1, 1, 2, 3)
TYPED_COMPARISONS: tuple[Comparison, ...] = ("EQ", "TRUE", "GEQ", "GT", "LEQ", "LT", "NEQ")
TYPED_VOCAB = (0, 1, 2, 3, 4)
TYPED_LENGTH = 5
MOST_ADDED = 60
"""A draw that has not reached its length after so many S-ops is given up; the original gives up after 30 s."""

Array = np.ndarray
MAPPED: dict[str, Callable[[Array], Array]] = {
    "x": lambda x: x,
    "x + 0.5": lambda x: x + 0.5,
    "x + 1": lambda x: x + 1,
    "x - 1": lambda x: x - 1,
    "x * 2": lambda x: x * 2,
    "not x": lambda x: x == 0,
    "int(x)": np.trunc,
    **{f"x == {n}": lambda x, n=n: x == n for n in range(4)},
    **{f"x != {n}": lambda x, n=n: x != n for n in range(4)},
    **{f"x > {n}": lambda x, n=n: x > n for n in (0.5, 2, 3, 3.5)},
    **{f"x < {n}": lambda x, n=n: x < n for n in (2, 3, 3.5)},
}
JOINED: dict[str, Callable[[Array, Array], Array]] = {
    "x * y": lambda x, y: x * y,
    "x + y % 10": lambda x, y: x + y % 10,
    "x - y": lambda x, y: x - y,
    "x or y": lambda x, y: np.where(x != 0, x, y),
    "x and y": lambda x, y: np.where(x != 0, y, x),
}
COMPARED: dict[str, Callable[[Array, Array], Array]] = {
    "EQ": np.equal,
    "TRUE": lambda x, y: np.ones(np.broadcast_shapes(x.shape, y.shape), dtype=bool),
    "GEQ": np.greater_equal,
    "GT": np.greater,
    "LEQ": np.less_equal,
    "LT": np.less,
    "NEQ": np.not_equal,
}


class Known:
    """An S-op, and what it gives on the inputs on which the sampler looks at it.

    Attributes:
        node: the S-op.
        kind: its type.
        whole: whether it is never None on the first inputs, those that decide what may be drawn.
        crowded: whether it is None at more than half of the places of one of the first inputs.
        past: the S-ops that it depends on, itself among them.
        original: the first of those that do the same.
    """

    kind: Kind
    __slots__ = (
        "_filled", "_flaw", "_make", "_values", "_wrong", "crowded", "kind", "node", "original", "past", "whole",
    )  # fmt: skip

    def __init__(
        self,
        node: SOp,
        kind: Kind,
        past: Iterable[Known],
        make: Callable[[int], Array],
        flaw: Callable[[], bool] | None = None,
    ) -> None:
        self.node, self.kind, self.past = node, kind, frozenset([*past, self])
        self._make, self._flaw = make, flaw
        self._values: list[Array | None] = [None, None]
        self._filled: list[Array | None] = [None, None]
        self._wrong: bool | None = None
        self.original = self
        self.whole, self.crowded = True, False

    def values(self, part: int) -> Array:
        """(inputs, places) float64 on the first (0) or later (1) inputs; NaN where it is None or behind the end."""
        found = self._values[part]
        if found is None:
            found = self._values[part] = self._make(part)
        return found

    def forget(self) -> None:
        """Break the circles that it is part of, so that it goes without waiting for a collector of garbage."""
        del self.past, self.original, self._make, self._flaw

    def filled(self, part: int) -> Array:
        """As `values`, with 0 for NaN."""
        found = self._filled[part]
        if found is None:
            values = self.values(part)
            found = self._filled[part] = np.where(np.isnan(values), 0.0, values)
        return found

    @property
    def wrong(self) -> bool:
        """Whether on a later input it compares or averages a None, or averages what Tracr's validator forbids."""
        if self._wrong is None:
            self._wrong = self._flaw is not None and self._flaw()
        return self._wrong


Choice = tuple[Known, Known, Comparison]
"""Keys, queries and how they are compared."""


class TypedSampler:
    """The distribution of the paper's 2024 successor: S-ops are drawn by type until one has the wanted ancestors.

    Types are bool, float and categorical. An operation is drawn by weight (Map 1, SequenceMap 0.8, LinearSequenceMap 1,
    numerical Aggregate 1, categorical Aggregate 1, SelectorWidth 0.05); one that fails is left out until the next
    success. `tokens` is three times as likely an argument as any other S-op. What each S-op gives on 18 fixed inputs
    decides what may be drawn; 100 further ones whether the program is accepted.

    S-ops are kept from one program to the next with what they give, since short ones come again and again.
    """

    MOST_KNOWN = 12_000

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = tuple(lengths)
        self.inputs = _inputs()
        self.present = [~np.isnan(part) for part in self.inputs]
        self.counts = [part.sum(1) for part in self.present]
        self.pairs = [part[:, None, :] & part[:, :, None] for part in self.present]
        self.full = self.counts[1] == TYPED_LENGTH  # the commonest length: every other later input has it
        self.behind = int((~self.present[0]).sum())
        self.known: dict[Any, Known] = {}
        self._start()

    def _start(self) -> None:
        """Forget what is known, so that memory stays flat."""
        for known in self.known.values():
            known.forget()
        places = [np.where(part, np.arange(float(TYPED_LENGTH)), np.nan) for part in self.present]
        self.roots = (
            Known(tokens, "categorical", (), self.inputs.__getitem__),
            Known(indices, "categorical", (), places.__getitem__),
        )
        self.known = {}
        self.kept: dict[tuple[Choice, Known], bool] = {}
        self.selectors: dict[Choice, Select] = {}
        self.selections: dict[tuple[Choice, int], tuple[Array, Array, Array]] = {}

    def __call__(self, random: Random) -> Program:
        """Draw a program.

        Raises:
            Rejected: if the draw is not accepted, with the reason.
        """
        length = choose(random, self.lengths)
        if len(self.known) > self.MOST_KNOWN or len(self.kept) > 20 * self.MOST_KNOWN:
            self._start()
        scope = list(self.roots)
        avoided: set[str] = set()
        for _ in range(MOST_ADDED):
            if len(scope[-1].past) == length:
                return self._accepted(scope[-1])
            kinds, sums = _allowed(frozenset(avoided))
            if not kinds:
                raise Rejected("no operation is left that could be added")
            kind = kinds[min(bisect_right(sums, random.random() * sums[-1]), len(kinds) - 1)]
            added = getattr(self, f"_{kind}")(random, scope)
            if added is None or added.crowded:
                avoided.add(kind)
            else:
                copies = sum(known.original is added for known in scope)
                scope.append(self._again(added, copies) if copies else added)
                avoided.clear()
        raise Rejected("it does not reach its length")

    def _again(self, known: Known, copies: int) -> Known:
        """The same S-op drawn once more is another one, as in the published sampler."""
        key = ("again", known, copies)
        found = self.known.get(key)
        if found is None:
            node = rebuild(known.node, known.node.children, None)
            assert isinstance(node, SOp)
            found = Known(node, known.kind, known.past - {known}, known.values, lambda: known.wrong)
            found.original, found.whole = known, known.whole
            self.known[key] = found
        return found

    # -- one S-op more; None where none can be drawn

    @staticmethod
    def _pick(scope: list[Known], kind: Kind | None = None, whole: bool = False) -> list[Known]:
        chosen = scope
        if kind is not None:
            kinds = ("float", "freq") if kind == "float" else (kind,)
            chosen = [known for known in chosen if known.kind in kinds]
        return [known for known in chosen if known.whole] if whole else chosen

    @staticmethod
    def _draw(random: Random, eligible: list[Known]) -> Known:
        # all weigh 1 but the tokens, which always stand first, 3
        if eligible[0].node is not tokens:
            return choose(random, eligible)
        return eligible[max(0, int(random.random() * (len(eligible) + 2)) - 2)]

    def _two(self, random: Random, eligible: list[Known]) -> tuple[Known, Known] | None:
        if len(eligible) < 2:
            return None
        first = self._draw(random, eligible)
        return first, self._draw(random, [known for known in eligible if known is not first])

    def _map(self, random: Random, scope: list[Known]) -> Known | None:
        inner = self._draw(random, scope)
        kind: Kind = choose(random, ("bool", "float", "categorical"))
        source = choose(random, MAPS[inner.kind, kind])
        key = ("map", source, kind, inner)
        known = self.known.get(key)
        if known is None:
            node = Map(_FUNCTIONS[source, 1], inner.node, encoding=_encoding(kind))
            apply = MAPPED[source]

            def make(part: int) -> Array:
                values = inner.values(part)
                return np.where(np.isnan(values), np.nan, apply(values))

            known = self._enter(key, Known(node, kind, inner.past, make))
        return known

    def _sequence_map(self, random: Random, scope: list[Known]) -> Known | None:
        drawn = self._two(random, self._pick(scope, "categorical"))
        if drawn is None:
            return None
        first, second = drawn
        source = choose(random, SEQUENCE_MAPS)
        key = ("sequence_map", source, first, second)
        known = self.known.get(key)
        if known is None:
            node = SequenceMap(_FUNCTIONS[source, 2], first.node, second.node)
            apply = JOINED[source]

            def make(part: int) -> Array:
                x, y = first.values(part), second.values(part)
                return np.where(np.isnan(x) | np.isnan(y), np.nan, apply(x, y))

            known = self._enter(key, Known(node, "categorical", first.past | second.past, make))
        return known

    def _linear_sequence_map(self, random: Random, scope: list[Known]) -> Known | None:
        drawn = self._two(random, self._pick(scope, "float"))
        if drawn is None:
            return None
        first, second = drawn
        a, b = choose(random, FACTORS), choose(random, FACTORS)
        key = ("linear", a, b, first, second)
        known = self.known.get(key)
        if known is None:
            node = LinearSequenceMap(first.node, second.node, a, b)

            def make(part: int) -> Array:
                return a * first.values(part) + b * second.values(part)

            known = self._enter(key, Known(node, "float", first.past | second.past, make))
        return known

    def _numerical_aggregate(self, random: Random, scope: list[Known]) -> Known | None:
        choice = self._select(random, scope)
        flags = self._pick(scope, "bool", whole=True)
        if choice is None or not flags:
            return None
        return self._aggregate(choice, self._draw(random, flags), "freq")

    def _categorical_aggregate(self, random: Random, scope: list[Known]) -> Known | None:
        eligible = self._pick(scope, "categorical", whole=True)
        if len(eligible) < 2:
            return None
        for _ in range(11):
            inner = self._draw(random, eligible)
            choice = self._drawn_selection(random, eligible)
            if self._keeps_values(choice, inner):
                return self._aggregate(choice, inner, "categorical")
        return None

    def _keeps_values(self, choice: Choice, inner: Known) -> bool:
        """Whether on the first inputs the means are all among what is read."""
        found = self.kept.get((choice, inner))
        if found is None:
            chosen, width, divisor = self._selection(choice, 0)
            read = inner.filled(0)
            given = np.matmul(chosen, read[:, :, None])[:, :, 0] / divisor
            equal = (given[:, :, None] == read[:, None, :]) & self.present[0][:, None, :]
            kept = np.logical_or.reduce(equal, -1) | (width == 0)
            found = self.kept[choice, inner] = bool(np.logical_and.reduce(kept, None))
        return found

    def _selector_width(self, random: Random, scope: list[Known]) -> Known | None:
        choice = self._select(random, scope)
        if choice is None:
            return None
        key = ("width", choice)
        known = self.known.get(key)
        if known is None:

            def make(part: int) -> Array:
                return np.where(self.present[part], self._selection(choice, part)[1], np.nan)

            past = choice[0].past | choice[1].past
            node = SelectorWidth(self._selector(choice))
            known = self._enter(key, Known(node, "categorical", past, make, lambda: self._compares_none(choice)))
        return known

    def _select(self, random: Random, scope: list[Known]) -> Choice | None:
        eligible = self._pick(scope, "categorical", whole=True)
        return self._drawn_selection(random, eligible) if len(eligible) > 1 else None

    def _drawn_selection(self, random: Random, eligible: list[Known]) -> Choice:
        keys, queries = self._draw(random, eligible), self._draw(random, eligible)
        return keys, queries, choose(random, TYPED_COMPARISONS)

    def _selector(self, choice: Choice) -> Select:
        found = self.selectors.get(choice)
        if found is None:
            keys, queries, comparison = choice
            found = self.selectors[choice] = Select(keys.node, queries.node, comparison)
        return found

    def _selection(self, choice: Choice, part: int) -> tuple[Array, Array, Array]:
        """(inputs, queries, keys) what is selected, 1 or 0, (inputs, queries) how many, and the same but at least 1."""
        found = self.selections.get((choice, part))
        if found is None:
            if len(self.selections) > self.MOST_KNOWN // 3:
                self.selections.clear()
            keys, queries, comparison = choice
            chosen = COMPARED[comparison](keys.values(part)[:, None, :], queries.values(part)[:, :, None])
            chosen = (chosen & self.pairs[part]).astype(float)
            width = np.add.reduce(chosen, -1)
            found = self.selections[choice, part] = (chosen, width, np.maximum(width, 1.0))
        return found

    def _compares_none(self, choice: Choice) -> bool:
        missing = np.isnan(choice[0].values(1)) | np.isnan(choice[1].values(1))
        return bool((missing & self.present[1]).any())

    def _aggregate(self, choice: Choice, inner: Known, kind: Kind) -> Known:
        key = ("aggregate", choice, inner)
        known = self.known.get(key)
        if known is None:
            empty = np.nan if kind == "categorical" else 0.0

            def make(part: int) -> Array:
                chosen, width, divisor = self._selection(choice, part)
                means = np.matmul(chosen, inner.filled(part)[:, :, None])[:, :, 0] / divisor
                values = np.where(width > 0, means, empty)
                return np.where(self.present[part], values, np.nan)

            node = Aggregate(self._selector(choice), inner.node, encoding=_encoding(kind))
            past = choice[0].past | choice[1].past | inner.past
            known = Known(node, kind, past, make)
            known._flaw = lambda: self._compares_none(choice) or self._mixes(choice, inner, known)
            self._enter(key, known)
        return known

    def _mixes(self, choice: Choice, inner: Known, known: Known) -> bool:
        """Whether Tracr's own check fails on one of the later inputs, or a None is averaged.

        A categorical Aggregate that anywhere selects more than one place must give just the values that it reads.
        """
        read, given, present = inner.values(1), known.values(1), self.present[1]
        if np.isnan(read[present]).any():
            return True
        if known.kind != "categorical":
            return bool((~np.isin(read, (0, 1)) & present).any())
        wide = self._selection(choice, 1)[1].max(1) > 1
        equal = given[:, :, None] == read[:, None, :]
        all_given_read = (equal.any(2) | ~present).all(1)
        all_read_given = (equal.any(1) | ~present).all(1)
        return bool((wide & ~(all_given_read & all_read_given)).any())

    def _enter(self, key: Any, known: Known) -> Known:
        missing = np.isnan(known.values(0))
        if np.count_nonzero(missing) > self.behind:
            missing &= self.present[0]
            known.whole = False
            known.crowded = bool((missing.sum(1) > 0.5 * self.counts[0]).any())
        self.known[key] = known
        return known

    def _accepted(self, last: Known) -> Program:
        if any(known.wrong for known in last.past):
            raise Rejected("Tracr's validator refuses it, or its evaluator meets a None")
        values = last.values(1)
        missing = np.isnan(values) & self.present[1]
        if (missing.sum(1) > 0.5 * self.counts[1]).any():
            raise Rejected("it is None too often")
        compared = last.filled(1)[self.full]
        spread = compared - compared.mean(0)
        if np.sqrt((spread * spread).mean(0)).sum() < 0.5:
            raise Rejected("it is constant, or nearly")
        return Program.of(last.node, vocab=TYPED_VOCAB, max_seq_len=TYPED_LENGTH)


_ADDED = {
    "map": 1.0,
    "sequence_map": 0.8,
    "linear_sequence_map": 1.0,
    "numerical_aggregate": 1.0,
    "categorical_aggregate": 1.0,
    "selector_width": 0.05,
}


@cache
def _allowed(avoided: frozenset[str]) -> tuple[list[str], list[float]]:
    """The operations that may be drawn, and their weights summed."""
    kinds = [name for name in _ADDED if name not in avoided]
    return kinds, list(accumulate(_ADDED[name] for name in kinds))


_FUNCTIONS = {(source, 1): Function.parse(source, 1) for source in MAPPED} | {
    (source, 2): Function.parse(source, 2) for source in JOINED
}


def _encoding(kind: Kind) -> Literal["categorical", "numerical"]:
    return "categorical" if kind == "categorical" else "numerical"


def _inputs() -> list[Array]:
    """The inputs on which programs are judged: (18, 5), 15 random and three chosen, and (100, 5) later ones.

    NaN stands behind the end of each.
    """
    random = Random("inputs of the typed distribution")

    def drawn(length: int) -> list[int]:
        return [choose(random, TYPED_VOCAB) for _ in range(length)]

    first = [drawn(1 + int(random.random() * TYPED_LENGTH)) for _ in range(15)]
    first += [[0], [0, 0, 0, 0, 0], [1, 2, 3, 4]]
    later = [drawn(1 + int(random.random() * TYPED_LENGTH)) for _ in range(50)]
    later += [drawn(TYPED_LENGTH) for _ in range(50)]
    return [np.array([row + [np.nan] * (TYPED_LENGTH - len(row)) for row in rows]) for rows in (first, later)]


# -- paper -----------------------------------------------------------------------------------------------------------

PAPER_OPERATIONS = {"Map": 4, "Select": 3, "SequenceMap": 2, "Aggregate": 2, "SelectorWidth": 2}
PAPER_CONSTANTS = range(3, 15)
PAPER_VOCAB_SIZES = range(3, 16)
PAPER_SEQUENCES = range(3, 16)
PAPER_LAMBDAS = {
    "LAM_LT": "{c} < x",
    "LAM_LE": "{c} <= x",
    "LAM_GT": "{c} > x",
    "LAM_GE": "{c} >= x",
    "LAM_NE": "{c} != x",
    "LAM_EQ": "{c} == x",
    "LAM_IV": "not {c}",
    "LAM_ADD": "{c} + x",
    "LAM_MUL": "{c} * x",
    "LAM_SUB": "{c} - x",
    "LAM_AND": "{c} and x",
    "LAM_OR": "{c} or x",
}
"""What a Map's lambda is in the published code: the constant is the first operand, and `not` negates it alone."""
PAPER_BOOLEAN, PAPER_ARITHMETIC = tuple(PAPER_LAMBDAS)[:7], tuple(PAPER_LAMBDAS)[7:]
PAPER_JOINS = {"LAM_ADD": "x + y", "LAM_MUL": "x * y", "LAM_SUB": "x - y", "LAM_AND": "x and y", "LAM_OR": "x or y"}
PAPER_PREDICATES: tuple[Comparison, ...] = ("EQ", "FALSE", "TRUE", "GEQ", "GT", "LEQ", "LT", "NEQ")
PaperKind = Literal["numeric", "categorical", "boolean"]


class PaperSampler:
    """The distribution of the paper (appendix B.1 and its code).

    1.8 times the wanted operations are drawn by weight (Map 4, Select 3, SequenceMap 2, Aggregate 2, SelectorWidth 2),
    arguments by type with a liking for recent ones; the program is what the end of the longest path from the tokens
    depends on. Every S-op is categorical. Most programs average, compare or count what no RASP program should; the
    weights are defined all the same.
    """

    def __init__(self, lengths: Sequence[int] | None) -> None:
        if lengths is None:
            self.lengths: Sequence[int] = range(3, 16)
            # three times as many of the longest as of the shortest
            self.weights = [1 + 2 * place / (len(self.lengths) - 1) for place in range(len(self.lengths))]
        else:
            self.lengths, self.weights = tuple(lengths), [1.0] * len(lengths)

    def __call__(self, random: Random) -> Program:
        """Draw a program.

        Raises:
            Rejected: if what is left after pruning is too short or too long.
        """
        wanted = choose(random, self.lengths, self.weights)
        size = choose(random, PAPER_VOCAB_SIZES)
        places = choose(random, PAPER_SEQUENCES)
        numeric = random.random() < 0.5
        vocab = list(range(size)) if numeric else [f"t{i}" for i in range(size)]
        scope = Variables(random, vocab, "numeric" if numeric else "categorical")
        least, most = max(2, wanted - 2), min(wanted + 2, 15)
        while not scope.made:
            scope.add()
        scope.enter(indices, "numeric", weight=1)
        for _ in range(int(1.8 * most) - 1):
            scope.add()
        output = _longest(scope.made)
        if output is None:
            raise Rejected("no path leads from the tokens to an S-op")
        program = Program.of(output, vocab=sorted(vocab), max_seq_len=places)
        if not least < len(program) <= most:
            raise Rejected("it is too short or too long after pruning")
        return program


class Variables:
    """The variables of a `paper` program while it is drawn, each with its type and weight."""

    def __init__(self, random: Random, vocab: Sequence[int | str], kind: PaperKind) -> None:
        self.random, self.vocab = random, vocab
        self.entered: list[tuple[Expression, PaperKind, int]] = []
        self.made: list[Expression] = []
        self.enter(tokens, kind, weight=1)

    def enter(self, node: Expression, kind: PaperKind, weight: int | None = None) -> None:
        weights = [entry[2] for entry in self.entered[-2:]]
        # each new variable is further ahead of the last than that was of the one before: 1, 2, 4, 7, 11, ...
        grown = 2 * weights[1] - weights[0] + 1 if len(weights) == 2 else 1
        self.entered.append((node, kind, grown if weight is None else weight))

    def pick(self, selector: bool = False, kind: PaperKind | None = None) -> tuple[Any, PaperKind] | None:
        some = [e for e in self.entered if isinstance(e[0], Selector) is selector and kind in (None, e[1])]
        if not some:
            return None
        node, found, _ = choose(self.random, some, [weight for _, _, weight in some])
        return node, found

    def constant(self, node: SOp, kind: PaperKind) -> int | str | bool:
        if node is tokens or kind == "categorical":
            return choose(self.random, self.vocab)
        return choose(self.random, (False, True)) if kind == "boolean" else choose(self.random, PAPER_CONSTANTS)

    def add(self) -> None:
        """Draw one operation more; nothing if it finds no arguments, which happens while only tokens are there."""
        random = self.random
        names = [name for name in PAPER_OPERATIONS if name not in ("Aggregate", "SelectorWidth") or self.pick(True)]
        node: Expression | None = None
        kind: PaperKind = "numeric"
        match choose(random, names, [PAPER_OPERATIONS[name] for name in names]):
            case "Map":
                node, kind = self._map()
            case "SequenceMap":
                first, second = self.pick(kind="numeric"), self.pick(kind="numeric")
                if first and second:
                    node = SequenceMap(PAPER_JOINS[choose(random, PAPER_ARITHMETIC)], first[0], second[0])
            case "Select":
                first = self.pick()
                second = self.pick(kind=first[1]) if first else None
                if first and second:
                    node, kind = Select(first[0], second[0], choose(random, PAPER_PREDICATES)), "boolean"
            case "Aggregate":
                selector, sop = self.pick(True), self.pick(kind="numeric")
                if selector and sop:
                    node = Aggregate(selector[0], sop[0])
            case "SelectorWidth":
                selector = self.pick(True)
                node = SelectorWidth(selector[0]) if selector else None
        if node is not None:
            self.made.append(node)
            self.enter(node, kind)

    def _map(self) -> tuple[Map | None, PaperKind]:
        random = self.random
        if random.random() < 0.5:
            found = self.pick()
            if found is None:
                return None, "boolean"
            source = PAPER_LAMBDAS[choose(random, PAPER_BOOLEAN)].format(c=repr(self.constant(*found)))
            return Map(source, found[0]), "boolean"
        found = self.pick(kind="numeric")
        if found is None:
            return None, "numeric"
        constant: float = choose(random, PAPER_CONSTANTS)
        if random.random() < 1 / 3:
            constant = constant + int(random.random() * 101) / 100
        return Map(PAPER_LAMBDAS[choose(random, PAPER_ARITHMETIC)].format(c=repr(constant)), found[0]), "numeric"


def _longest(made: Sequence[Expression]) -> SOp | None:
    """The S-op at the end of the longest path from the tokens; of a path that ends in selectors, the last before."""
    distance: dict[int, int] = {id(tokens): 0}
    before: dict[int, Expression] = {}
    furthest: Expression = tokens
    for node in made:
        reached = [child for child in node.children if id(child) in distance]
        if reached:
            best = max(reached, key=lambda child: distance[id(child)])
            distance[id(node)], before[id(node)] = distance[id(best)] + 1, best
            if distance[id(node)] > distance[id(furthest)]:
                furthest = node
    while isinstance(furthest, Selector):
        furthest = before[id(furthest)]
    return furthest if isinstance(furthest, SOp) and furthest is not tokens else None
