"""Programs as a decompiler writes them: a token at a time, with the value set of every S-op so far, nothing ill-typed.

A program is its operations slot by slot (attention of layer 0, MLP of layer 0, attention of layer 1, ...), each `kind,
what it reads, rule`, with END_OF_SLOT after every slot. Compared with `rasp.tokens.TYPED` there are no words that
follow from the others, and the slots are those of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.canonical import COMPARISON_NAMES
from weightspace.rasp.compiler.layers import half_layers, slots
from weightspace.rasp.functions import Function, Value, is_number
from weightspace.rasp.language import (
    PREDICATES,
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorWidth,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
    usual_default,
)
from weightspace.rasp.program import Program
from weightspace.rasp.tokens import TYPED_COMPARISONS, TYPED_FACTORS, TYPED_MAPS, TYPED_SEQUENCE_MAPS
from weightspace.rasp.validate import Analysis, Mode, Traits, selection_of, traits_of
from weightspace.rasp.values import (
    Table,
    ValueSet,
    predicate_table,
    tabulate,
    tabulate_pairs,
    tabulate_twice,
    token_set,
    value_set,
)

PADDING, BEGIN, END, END_OF_SLOT = range(4)
KINDS = (
    "Map categorical", "Map numerical", "SequenceMap categorical", "LinearSequenceMap numerical",
    "Aggregate categorical", "Aggregate numerical", "SelectorWidth categorical", "SelectorWidth numerical",
)  # fmt: skip
MAP_C, MAP_N, SEQUENCE, LINEAR, AGGREGATE_C, AGGREGATE_N, WIDTH_C, WIDTH_N = range(4, 12)
NAMES = 24
"""Names of S-ops; a program begins at a random one and counts on from there, so that all are learnt equally."""
_FIRST_NAME = 12
INPUTS = (_FIRST_NAME, _FIRST_NAME + 1)
_NAME = _FIRST_NAME + 2
_RULES = _NAME + NAMES
RULES: tuple[tuple[str, str], ...] = (
    *(("map", source) for source in TYPED_MAPS),
    *(("sequence map", source) for source in TYPED_SEQUENCE_MAPS),
    *(("comparison", name) for name in TYPED_COMPARISONS),
    *(("factor", name) for name in TYPED_FACTORS),
)
SIZE = _RULES + len(RULES)
"""Of the vocabulary."""
RULE_IDS: dict[tuple[str, str], int] = {rule: _RULES + place for place, rule in enumerate(RULES)}
_OF_KIND = {
    kind: np.array([i for (what, _), i in RULE_IDS.items() if what == kind])
    for kind in ("map", "sequence map", "comparison", "factor")
}
_CATEGORICAL, _NUMERICAL, _ANY = "categorical", "numerical", "any"
READS: dict[int, tuple[str, ...]] = {
    MAP_C: (_ANY,),
    MAP_N: (_ANY,),
    SEQUENCE: (_CATEGORICAL, _CATEGORICAL),
    LINEAR: (_NUMERICAL, _NUMERICAL),
    AGGREGATE_C: (_CATEGORICAL, _CATEGORICAL, _CATEGORICAL),
    AGGREGATE_N: (_CATEGORICAL, _CATEGORICAL, _NUMERICAL),
    WIDTH_C: (_CATEGORICAL, _CATEGORICAL),
    WIDTH_N: (_CATEGORICAL, _CATEGORICAL),
}
"""What each kind reads: keys and queries first, where there are any."""
RULE_OF: dict[int, tuple[str, ...]] = {
    MAP_C: ("map",),
    MAP_N: ("map",),
    SEQUENCE: ("sequence map",),
    LINEAR: ("factor", "factor"),
    AGGREGATE_C: ("comparison",),
    AGGREGATE_N: ("comparison",),
    WIDTH_C: ("comparison",),
    WIDTH_N: ("comparison",),
}
ATTENTION = (AGGREGATE_C, AGGREGATE_N, WIDTH_C, WIDTH_N)
MLP = (MAP_C, MAP_N, SEQUENCE, LINEAR)
FIELDS = 8
"""Kinds of place in an operation: 0 begin, 1 kind or end, 2 to 4 what is read, 5 and 6 rules, 7 an input."""
MOST_SLOTS = 40
BINS = 40
VALUE_FEATURES = BINS + 8


class Unwritable(RaspError):
    """A program that these tokens cannot write."""


@dataclass(frozen=True)
class Written:
    """A program as tokens, with what the decoder is told beside them.

    Attributes:
        ids: (n,) int64, BEGIN first and END last.
        fields: (n,) what kind of place each is.
        slots: (n,) the slot each stands in.
        names: (n,) the name that is defined at this place, 0 where none is.
        values: (n, VALUE_FEATURES) float32 of the S-op that is defined at this place, 0 where none is.
    """

    ids: np.ndarray
    fields: np.ndarray
    slots: np.ndarray
    names: np.ndarray
    values: np.ndarray


def value_features(t: Traits) -> np.ndarray:
    """(VALUE_FEATURES,) float32: which of the whole numbers -12 to 27 an S-op can be, and what its values are like."""
    features = np.zeros(VALUE_FEATURES, np.float32)
    numbers = np.array([float(value) for value in t.values.values if is_number(value)])
    features[BINS] = len(t.values) / 10
    features[BINS + 1] = t.node.numerical
    features[BINS + 2] = t.partial
    if len(numbers):
        whole = numbers[(numbers == np.floor(numbers)) & (numbers >= -12) & (numbers < BINS - 12)].astype(int)
        features[whole + 12] = 1
        features[BINS + 3] = 1 - len(whole) / len(numbers)
        features[BINS + 4 : BINS + 6] = np.clip([numbers.min() / 10, numbers.max() / 10], -4, 4)
        features[BINS + 6] = np.clip(np.diff(numbers).min(), 0, 2) if len(numbers) > 1 else 0
    features[BINS + 7] = len(numbers) == len(t.values)
    return features


def by_slot(program: Statements, traits: dict[int, Traits]) -> list[list[SOp]]:
    """The S-ops of a program by the slot in which the compiler puts them; an even number of lists."""
    operations = [t.node for t in traits.values() if t.depth]
    halves = half_layers(program.output, operations, [traits[id(node)].depth for node in operations])
    found: list[list[SOp]] = []
    for half, slot in slots(halves).items():
        found += [[] for _ in range(slot // 2 * 2 + 2 - len(found))]
        members = [operations[i] for i in halves[half]]
        found[slot] = [node for node in members if slot % 2 == 0 or not isinstance(node, SelectorWidth)]
    return found


def write(analysis: Analysis, offset: int = 0) -> Written:
    """The tokens of an analysed program.

    Args:
        offset: the number of the first name, 0 to NAMES - 1.
    Raises:
        Unwritable: if it has an operation, a function or more S-ops than there are tokens for.
    """
    draft = Draft(analysis.vocab, analysis.max_seq_len, analysis.mode, offset)
    traits = analysis.traits
    order = {id(tokens): 0, id(indices): 1}
    for slot in by_slot(analysis.program, traits):
        lines = sorted((_line(node, order, traits), place) for place, node in enumerate(slot))
        for (kind, reads, rules), place in lines:
            if len(order) >= NAMES:
                raise Unwritable(f"{len(order)} S-ops are too many: there are names for {NAMES}")
            node = slot[place]
            order[id(node)] = len(order)
            draft.define(node, traits[id(node)], kind, reads, rules)
        draft.push(END_OF_SLOT)
    draft.push(END)
    return draft.written()


def _line(node: SOp, order: dict[int, int], traits: dict[int, Traits]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Kind, numbers of what is read, and rules of an operation, in one way of writing them.

    The weights do not say which of two functions with the same values it was, or what was read first, so what stands
    earlier is read first where that can be written, and of several functions the first is written.
    """
    numerical = node.numerical
    match node:
        case Map():
            rule = _map_rule(node.function, traits[id(node.inner)].values)
            return MAP_N if numerical else MAP_C, (order[id(node.inner)],), (rule,)
        case SequenceMap():
            values = traits[id(node.first)].values, traits[id(node.second)].values
            swapped, rule = _sequence_rule(
                node.function, *values, node.first is node.second, order[id(node.first)] > order[id(node.second)]
            )
            reads = (order[id(node.first)], order[id(node.second)])
            return SEQUENCE, reads[::-1] if swapped else reads, (rule,)
        case LinearSequenceMap():
            rules = [_rule("factor", f"{int(f)}" if float(f).is_integer() else str(f)) for f in
                     (node.first_factor, node.second_factor)]  # fmt: skip
            terms = sorted(zip((order[id(node.first)], order[id(node.second)]), rules, strict=True))
            return LINEAR, tuple(place for place, _ in terms), tuple(rule for _, rule in terms)
        case Aggregate() | SelectorWidth():
            select = node.selector
            if not isinstance(select, Select) or select.function.source not in COMPARISON_NAMES:
                raise Unwritable("there are tokens for comparisons by name alone")
            rule = _comparison_rule(select.function, traits[id(select.keys)].values, traits[id(select.queries)].values)
            reads = (order[id(select.keys)], order[id(select.queries)])
            if isinstance(node, SelectorWidth):
                return WIDTH_N if numerical else WIDTH_C, reads, (rule,)
            return AGGREGATE_N if numerical else AGGREGATE_C, (*reads, order[id(node.sop)]), (rule,)
    raise Unwritable(f"there is no token for {type(node).__name__}")


def _rule(kind: str, name: str) -> int:
    found = RULE_IDS.get((kind, name))
    if found is None:
        raise Unwritable(f"there is no token for the {kind} {name!r}")
    return found


@lru_cache(maxsize=20_000)
def _map_rule(function: Function, inputs: ValueSet) -> int:
    """The first rule of the same values."""
    wanted = tabulate(function, inputs)
    for source in TYPED_MAPS:
        if _same(wanted, _tabulated(source, inputs)):
            return _rule("map", source)
    return _rule("map", function.source)


@lru_cache(maxsize=20_000)
def _sequence_rule(function: Function, first: ValueSet, second: ValueSet, twice: bool, late: bool) -> tuple[bool, int]:
    """Whether the inputs change places, and the first rule of the same values.

    Args:
        twice: whether both inputs are one S-op.
        late: whether the first input stands after the second.
    """
    wanted = tabulate_twice(function, first) if twice else tabulate_pairs(function, first, second)
    for swapped in (False,) if twice else (late, not late):
        for source in TYPED_SEQUENCE_MAPS:
            inputs = (second, first) if swapped else (first, second)
            if _same(wanted, _tabulated(source, *inputs, twice=twice), turned=swapped):
                return swapped, _rule("sequence map", source)
    return False, _rule("sequence map", function.source)


@lru_cache(maxsize=20_000)
def _comparison_rule(function: Function, keys: ValueSet, queries: ValueSet) -> int:
    """The first comparison that selects the same."""
    wanted = predicate_table(function, keys, queries)
    for name in TYPED_COMPARISONS:
        try:
            if np.array_equal(predicate_table(PREDICATES[name], keys, queries), wanted):
                return _rule("comparison", name)
        except RaspError:  # values that cannot be compared
            continue
    return _rule("comparison", COMPARISON_NAMES[function.source])


def _tabulated(source: str, *inputs: ValueSet, twice: bool = False) -> Table | None:
    """The table of a rule, or None if these values do not suit it."""
    rule = Function.parse(source, len(inputs))
    try:
        if twice:
            return tabulate_twice(rule, inputs[0])
        return tabulate(rule, *inputs) if len(inputs) == 1 else tabulate_pairs(rule, *inputs)
    except RaspError:
        return None


def _same(wanted: Table, made: Table | None, turned: bool = False) -> bool:
    """Whether another table says the same, its inputs turned round if so wished."""
    return (
        made is not None
        and made.values.values == wanted.values.values
        and (made.undefined is None) == (wanted.undefined is None)
        and np.array_equal(made.places.T if turned else made.places, wanted.places)
    )


class Draft:
    """A program while it is written, and what may come next.

    Args:
        vocab: the tokens.
        max_seq_len: the longest input.
        mode: by which compiler values are reckoned.
        offset: the number of the first name, 0 to NAMES - 1.
        slots: how many slots the weights have; None if that is not known.
    """

    def __init__(
        self, vocab: tuple[Value, ...], max_seq_len: int, mode: Mode, offset: int = 0, slots: int | None = None
    ) -> None:
        self.vocab, self.max_seq_len, self.mode, self.offset, self.slots = vocab, max_seq_len, mode, offset, slots
        self.traits = {
            id(tokens): Traits(tokens, token_set(vocab), False, 0),
            id(indices): Traits(indices, value_set(range(max_seq_len)), False, 0),
        }
        self.scope: list[SOp] = [tokens, indices]
        self.selects: dict[tuple[int, int, int], Select] = {}
        self.slot = 0
        self.pending: list[int] = []
        self.ended = False
        self._rows: list[tuple[int, int, int, int, np.ndarray]] = []
        self._row(BEGIN, 0)
        for place, name in enumerate(INPUTS):
            self._row(name, 7, name, value_features(self.traits[id(self.scope[place])]))

    def copy(self) -> Draft:
        """Another draft that is as far."""
        other = object.__new__(Draft)
        other.__dict__.update(self.__dict__)
        other.traits, other.scope = dict(self.traits), list(self.scope)
        other.selects, other.pending, other._rows = dict(self.selects), list(self.pending), list(self._rows)
        return other

    def _row(self, token: int, field: int, name: int = 0, values: np.ndarray | None = None) -> None:
        self._rows.append((token, field, min(self.slot, MOST_SLOTS - 1), name, _NOTHING if values is None else values))

    def name(self, place: int) -> int:
        """The token that stands for an S-op in scope."""
        return INPUTS[place] if place < 2 else _NAME + (self.offset + place - 2) % NAMES

    @property
    def length(self) -> int:
        """Tokens written, padding included."""
        return len(self._rows)

    def pad(self) -> None:
        """Write a token that says nothing, so that drafts side by side stay equally long."""
        self._row(PADDING, 0)

    def trimmed(self) -> Draft:
        """The same draft without padding."""
        while self._rows[-1][0] == PADDING:
            self._rows.pop()
        return self

    def rows(self, start: int = 0) -> list[tuple[int, int, int, int, np.ndarray]]:
        """(token, field, slot, name defined, values) of each place from `start` on."""
        return self._rows[start:]

    def written(self) -> Written:
        ids, fields, slots, names, values = zip(*self._rows, strict=True)
        whole = [np.array(part, np.int64) for part in (ids, fields, slots, names)]
        return Written(whole[0], whole[1], whole[2], whole[3], np.array(values, np.float32))

    def allowed(self) -> np.ndarray:
        """(SIZE,) booleans: which tokens may come next; whether a rule suits the values only `push` can tell."""
        may = np.zeros(SIZE, bool)
        if self.ended:
            may[PADDING] = True
            return may
        if not self.pending:
            done = self.slots is not None and self.slot >= self.slots
            if done or (self.slots is None and self.slot % 2 == 0 and self.slot > 0):
                may[END] = len(self.scope) > 2
            if done or self.slot >= MOST_SLOTS:
                return may
            may[END_OF_SLOT] = True
            if len(self.scope) - 2 < NAMES - 2:
                some_number = any(node.numerical for node in self.scope)
                for kind in ATTENTION if self.slot % 2 == 0 else MLP:
                    may[kind] = some_number or _NUMERICAL not in READS[kind]
            return may
        kind, *rest = self.pending
        if len(rest) < len(READS[kind]):
            wanted = READS[kind][len(rest)]
            for place, node in enumerate(self.scope):
                may[self.name(place)] = wanted in (_ANY, node.encoding)
            return may
        may[_OF_KIND[RULE_OF[kind][len(rest) - len(READS[kind])]]] = True
        return may

    def push(self, token: int) -> SOp | None:
        """Take the next token; gives the S-op that it completes.

        Raises:
            RaspError: if it is not allowed here, or the operation cannot be compiled; the draft is as before then.
        """
        if not self.allowed()[token]:
            raise RaspError(f"token {token} is not allowed here")
        if token == END:
            self.ended = True
            self._row(token, 1)
            return None
        if token == END_OF_SLOT:
            self._row(token, 1)
            self.slot += 1
            return None
        if not self.pending:
            self._row(token, 1)
            self.pending = [token]
            return None
        kind, taken = self.pending[0], [*self.pending[1:], token]
        count = len(READS[kind])
        if len(taken) < count + len(RULE_OF[kind]):
            self._row(token, 1 + len(taken) if len(taken) <= count else 5)
            self.pending = [kind, *taken]
            return None
        reads = tuple(self._place(name) for name in taken[:count])
        node = self._make(kind, reads, tuple(taken[count:]))
        self._enter(node, self._analyse(node), token, 5 + (len(RULE_OF[kind]) > 1))
        return node

    def define(self, node: SOp, t: Traits, kind: int, reads: tuple[int, ...], rules: tuple[int, ...]) -> None:
        """Take a whole operation that has been analysed already."""
        self._row(kind, 1)
        for number, place in enumerate(reads):
            self._row(self.name(place), 2 + number)
        for rule in rules[:-1]:
            self._row(rule, 5)
        self._enter(node, t, rules[-1], 5 + (len(rules) > 1))

    def take(self, kind: int, reads: tuple[int, ...], rules: tuple[int, ...]) -> SOp:
        """Take a whole operation; gives its S-op.

        Raises:
            RaspError: if it cannot be compiled; the draft is as before then.
        """
        node = self._make(kind, reads, rules)
        self.define(node, self._analyse(node), kind, reads, rules)
        return node

    def _enter(self, node: SOp, t: Traits, token: int, field: int) -> None:
        self.traits[id(node)] = t
        self.scope.append(node)
        self._row(token, field, self.name(len(self.scope) - 1), value_features(t))
        self.pending = []

    def _place(self, name: int) -> int:
        return name - INPUTS[0] if name in INPUTS else (name - _NAME - self.offset) % NAMES + 2

    def _make(self, kind: int, reads: tuple[int, ...], rules: tuple[int, ...]) -> SOp:
        nodes = [self.scope[place] for place in reads]
        names = [RULES[rule - _RULES][1] for rule in rules]
        if kind in (MAP_C, MAP_N):
            encoding: Any = _CATEGORICAL if kind == MAP_C else _NUMERICAL
            return Map(Function.parse(names[0], 1), nodes[0], encoding=encoding)
        if kind == SEQUENCE:
            return SequenceMap(Function.parse(names[0], 2), nodes[0], nodes[1])
        if kind == LINEAR:
            return LinearSequenceMap(nodes[0], nodes[1], float(names[0]), float(names[1]))
        key = (reads[0], reads[1], rules[0])
        select = self.selects.get(key)
        if select is None:
            comparison: Any = names[0]
            select = self.selects[key] = Select(nodes[0], nodes[1], comparison)
        encoding = _CATEGORICAL if kind in (AGGREGATE_C, WIDTH_C) else _NUMERICAL
        if kind in (WIDTH_C, WIDTH_N):
            return SelectorWidth(select, encoding=encoding)
        return Aggregate(select, nodes[2], encoding=encoding, default=usual_default(encoding))

    def _analyse(self, node: SOp) -> Traits:
        selections: dict[int, Any] = {}
        if isinstance(node, Aggregate | SelectorWidth):
            found = selection_of(node.selector, self.traits, selections)
            assert found is not None
            selections[id(node.selector)] = found
        t = traits_of(node, self.traits, selections, self.max_seq_len, self.mode == "fixed")
        assert t is not None
        return t

    def program(self, output: SOp | None = None) -> Program:
        """The program so far.

        Args:
            output: its output; unless given the S-op that no other reads, of several the last.
        Raises:
            RaspError: if nothing is written yet.
        """
        if len(self.scope) < 3:
            raise RaspError("nothing is written yet: a program has at least one operation")
        if output is None:
            output = self.scope[-1]
        return Program.of(output, vocab=self.vocab, max_seq_len=self.max_seq_len)

    def unread(self) -> list[SOp]:
        """The S-ops that no other reads: one of them is the output."""
        read = {id(child) for node in self.scope for child in _sops(node)}
        return [node for node in self.scope[2:] if id(node) not in read]


_NOTHING = np.zeros(VALUE_FEATURES, np.float32)


def _sops(node: Expression) -> Sequence[Expression]:
    """The S-ops that a node reads, through its selectors."""
    found: list[Expression] = []
    for child in node.children:
        found += _sops(child) if isinstance(child, Selector) else [child]
    return found
