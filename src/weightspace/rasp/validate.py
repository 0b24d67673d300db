"""Whether a program can be compiled: the value sets of its S-ops, and every reason why it cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.choices import Choose, NextTokens, Pick
from weightspace.rasp.composites import Joined, without_composites
from weightspace.rasp.functions import LARGEST, Value, is_number
from weightspace.rasp.language import (
    BOS,
    PAD,
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorAnd,
    SelectorNot,
    SelectorOr,
    SelectorWidth,
    SequenceMap,
    SOp,
    Statements,
    indices,
    tokens,
    usual_default,
)
from weightspace.rasp.occurrence import Occurrence, tried_on_all
from weightspace.rasp.values import (
    Table,
    ValueSet,
    distinguishable,
    in_order,
    linear,
    means,
    predicate_table,
    quotients,
    tabulate,
    tabulate_pairs,
    tabulate_twice,
    token_set,
    value_set,
)

Mode = Literal["fixed", "tracr_compat"]
"""`tracr_compat` compiles as Tracr does, bug for bug; `fixed` so that the weights do what the program means."""

LONGEST_SEQUENCE = 1_000


@dataclass(frozen=True)
class Reason:
    """Why a program cannot be compiled.

    Attributes:
        variable: of the statement that is at fault, or "" where it is the whole program.
        text: what is wrong and what would be right.
    """

    variable: str
    text: str

    def __str__(self) -> str:
        return f"{self.variable}: {self.text}" if self.variable else self.text

    @property
    def kind(self) -> str:
        """The text without names, numbers and advice, so that equal reasons can be counted."""
        text = re.sub(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"", "'...'", self.text)
        return re.sub(r"-?\b\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?\b", "#", text).split(": ")[0]


class NotCompilable(RaspError):
    """A program that cannot be compiled, with every reason."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("; ".join(map(str, self.reasons)))


Selection = tuple[SOp, SOp, np.ndarray]
"""A selector's keys, its queries, and (keys, queries) booleans: which key each query selects."""


class Traits:
    """What the compiler knows of one S-op.

    Attributes:
        node: the S-op.
        values: what it can be.
        partial: whether it can be None.
        scale: of a numerical S-op, the largest number that float32 has to hold on the way to it.
        depth: S-ops on the longest way to it; 0 for the inputs.
        table: its function over its inputs' values; of a Map or SequenceMap.
        selection: what its selector does; of an Aggregate or SelectorWidth.
        possible: which values can occur where; `Occurrence` finds it when it is asked.
    """

    __slots__ = ("depth", "node", "partial", "possible", "scale", "selection", "table", "values")

    def __init__(self, node: SOp, values: ValueSet, partial: bool, depth: int) -> None:
        self.node, self.values, self.partial, self.depth = node, values, partial, depth
        self.scale = values.largest if node.encoding == "numerical" else 1.0
        self.table: Table | None = None
        self.selection: Selection | None = None
        self.possible: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Analysis:
    """A program with the value sets of its S-ops.

    Attributes:
        traits: of each S-op that could be analysed, by the `id` of its node, inputs first, each after what it reads.
        reasons: why the program cannot be compiled; empty if it can.
    """

    program: Statements
    vocab: tuple[Value, ...]
    max_seq_len: int
    mode: Mode
    traits: dict[int, Traits]
    reasons: list[Reason]


def settings(
    program: Statements, vocab: Sequence[Any] | None, max_seq_len: int | None
) -> tuple[tuple[Value, ...], int]:
    """The vocabulary and the length that a program is compiled for: the arguments, or else what it is meant for.

    Raises:
        RaspError: if one is not known, or is not as it must be.
    """
    chosen = program.vocab if vocab is None else vocab
    length = program.max_seq_len if max_seq_len is None else max_seq_len
    if chosen is None or length is None:
        missing = "a vocabulary" if chosen is None else "a maximal length"
        raise RaspError(f"the program does not say what it is meant for: give {missing} (vocab=..., max_seq_len=...)")
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= LONGEST_SEQUENCE:
        raise RaspError(f"max_seq_len is a whole number from 1 to {LONGEST_SEQUENCE:,}, not {length!r}")
    return check_vocab(chosen), length


def check_mode(mode: str) -> None:
    """Refuse a mode that is none, rather than to compile by another."""
    if mode not in get_args(Mode):
        raise RaspError(f"mode is {' or '.join(get_args(Mode))}, not {mode!r}")


def check_vocab(vocab: Sequence[Any]) -> tuple[Value, ...]:
    """A vocabulary as a sorted tuple; of a string each character is a token.

    Raises:
        RaspError: if it is empty, holds a token twice, or what no token can be.
    """
    key = (tuple(vocab), tuple(map(type, vocab))) if isinstance(vocab, tuple) else None
    if key is not None:
        try:
            if key in _vocabularies:
                return _vocabularies[key]
        except TypeError:  # something that cannot be a token is looked at below
            key = None
    chosen = list(vocab)
    if not chosen:
        raise RaspError("the vocabulary is empty: give at least one token")
    for token in chosen:
        if not (is_number(token) or isinstance(token, str)):
            raise RaspError(f"tokens are numbers or strings, not {token!r}")
        if is_number(token) and not abs(token) <= LARGEST:
            raise RaspError(f"tokens are finite numbers within 2^53 or strings, not {token!r}")
        if token in (BOS, PAD):
            raise RaspError(f"{token!r} is the compiler's own token: rename it in the vocabulary")
    if len(set(chosen)) < len(chosen):
        twice = max(chosen, key=chosen.count)  # type: ignore[arg-type]
        first, second, *_ = [token for token in chosen if token == twice]
        what = f"{first!r} twice" if repr(first) == repr(second) else f"{first!r} and {second!r}, which are equal"
        raise RaspError(f"the vocabulary holds {what}")
    ordered = in_order(chosen)
    if key is not None and len(_vocabularies) < 1_000:
        _vocabularies[key] = ordered
    return ordered


_vocabularies: dict[object, tuple[Value, ...]] = {}


def validate(
    program: Statements | SOp,
    *,
    vocab: Sequence[Any] | None = None,
    max_seq_len: int | None = None,
    mode: Mode = "fixed",
) -> list[Reason]:
    """Every reason why a program cannot be compiled; empty if it can.

    Where a statement is at fault, those that read it are not judged.

    Args:
        program: or the S-op that one computes.
        vocab, max_seq_len: instead of what the program says it is meant for.
    """
    check_mode(mode)
    program = program if isinstance(program, Statements) else Statements.of(program)
    try:
        chosen, length = settings(program, vocab, max_seq_len)
    except RaspError as error:
        return [Reason("", str(error))]
    return analyse(program, chosen, length, mode).reasons


def analyse(
    program: Statements, vocab: tuple[Value, ...], max_seq_len: int, mode: Mode, *, whole: bool = True
) -> Analysis:
    """The value sets of a program's S-ops, in one pass, and every reason why it cannot be compiled.

    Args:
        whole: whether selectors of selectors that no head can do get an operation of their own first (`composites`);
            the analysis is of the program with these.
    """
    joined: dict[int, Joined] = {}
    if whole and mode == "fixed":
        try:
            program, joined = without_composites(program)
        except RaspError as error:
            return Analysis(program, vocab, max_seq_len, mode, {}, [Reason("", str(error))])
    traits: dict[int, Traits] = {}
    selections: dict[int, Selection] = {}
    reasons: list[Reason] = []
    traits[id(tokens)] = Traits(tokens, token_set(vocab), False, 0)
    traits[id(indices)] = Traits(indices, value_set(range(max_seq_len)), False, 0)
    reads_tokens, operations = False, 0
    for node in program.nodes:
        try:
            if isinstance(node, Selector):
                selection = selection_of(node, traits, selections)
                if id(node) in joined:
                    joined[id(node)].check({key: t.partial for key, t in traits.items()})
                if selection is not None:
                    selections[id(node)] = selection
            elif node is tokens:
                reads_tokens = True
            elif node is not indices:
                operations += 1
                found = traits_of(node, traits, selections, max_seq_len, mode == "fixed")  # type: ignore[arg-type]
                if found is not None:
                    traits[id(node)] = found
        except _Several as error:
            reasons += [Reason(program.name(node), text) for text in error.texts]
        except RaspError as error:
            reasons.append(Reason(program.name(node), str(error)))
    if not operations:
        reasons.append(Reason("", "the program has no operation: its output is one of its inputs"))
    elif mode == "tracr_compat" and not reads_tokens:
        reasons.append(Reason("", "the program does not read tokens, which Tracr's compiler asks for"))
    return Analysis(program, vocab, max_seq_len, mode, traits, reasons)


class _Several(RaspError):
    """What is wrong with one statement, where that may be more than one thing."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        super().__init__("; ".join(texts))


def traits_of(
    node: SOp, known: dict[int, Traits], selections: dict[int, Selection], length: int, fixed: bool
) -> Traits | None:
    """What is to be known of one S-op, or None if something that it reads is at fault.

    Raises:
        RaspError: if it cannot be compiled.
    """
    if isinstance(node, Map):
        inner = known.get(id(node.inner))
        if inner is None:
            return None
        table = tabulate(node.function, inner.values)
        found = _of_table(node, table, inner.partial, inner.depth, fixed, known, length)
        if fixed and node.inner.numerical:
            distinguishable(table, inner.values, inner.scale)
        return found
    if isinstance(node, SequenceMap):
        return _of_sequence_map(node, known, length, fixed)
    if isinstance(node, LinearSequenceMap):
        return _of_linear(node, known, fixed)
    if isinstance(node, Aggregate):
        return _of_aggregate(node, known, selections.get(id(node.selector)), length, fixed)
    if isinstance(node, SelectorWidth):
        selection = selections.get(id(node.selector))
        if selection is None:
            return None
        depth = 1 + max(known[id(selection[0])].depth, known[id(selection[1])].depth)
        found = Traits(node, value_set(range(length + 1)), False, depth)
        found.selection = selection
        return found
    if isinstance(node, Pick | Choose | NextTokens):
        said = "return {...}" if isinstance(node, NextTokens) else type(node).__name__
        raise RaspError(f"{said} is not compiled: it is for programs of trained transformers")
    raise RaspError(f"{type(node).__name__} is not an operation of the language")


def _of_table(
    node: Map | SequenceMap,
    table: Table,
    partial: bool,
    depth: int,
    fixed: bool,
    known: dict[int, Traits],
    length: int,
) -> Traits:
    gaps = table.partial
    if fixed and gaps:  # only where something is missing does it matter what can occur
        gaps = bool(((table.places < 0) & _occurring(node, known, length)).any())
        if gaps and table.undefined is not None:
            gaps = _tried(node, table.undefined, known, length)
    if not table.values:
        raise RaspError(f"{node.function.source!r} has no value anywhere")
    if node.encoding == "numerical" and not table.values.numeric:
        raise RaspError("a numerical encoding is for numbers, and the function gives strings")
    found = Traits(node, table.values, partial or gaps, depth + 1)
    found.table = table
    return found


def _occurring(node: Map | SequenceMap, known: dict[int, Traits], length: int) -> np.ndarray:
    """Which arguments of a function can occur, in the shape of its table."""
    occurrence = Occurrence(known, length)
    if isinstance(node, Map):
        return occurrence.values(node.inner)
    return occurrence.values(node.first) if node.first is node.second else occurrence.pairs(node.first, node.second)


def _tried(node: SOp, undefined: str, known: dict[int, Traits], length: int) -> bool:
    """Whether an S-op can be None, of whose function all that is known is that it has no value somewhere.

    Raises:
        RaspError: if it meets that on an input, or there are too many to try all.
    """
    try:
        if tried_on_all(node, known, length) is not None:
            return False
    except RaspError:
        pass
    raise RaspError(undefined)


def _of_sequence_map(node: SequenceMap, known: dict[int, Traits], length: int, fixed: bool) -> Traits | None:
    wrong = [
        f"{what} is numerical, but a SequenceMap is categorical and takes categoricals: map it first, or use a "
        "LinearSequenceMap"
        for what, sop in (("its first input", node.first), ("its second input", node.second), ("it", node))
        if sop.encoding == "numerical"
    ]
    if wrong:
        raise _Several(wrong)
    first, second = known.get(id(node.first)), known.get(id(node.second))
    if first is None or second is None:
        return None
    if node.first is node.second:
        table = tabulate_twice(node.function, first.values, every=not fixed)
    else:
        table = tabulate_pairs(node.function, first.values, second.values)
    partial, depth = first.partial or second.partial, max(first.depth, second.depth)
    return _of_table(node, table, partial, depth, fixed, known, length)


def _of_linear(node: LinearSequenceMap, known: dict[int, Traits], fixed: bool) -> Traits | None:
    wrong = [
        f"{what} is categorical, but a LinearSequenceMap is numerical and takes numericals"
        for what, sop in (("its first input", node.first), ("its second input", node.second), ("it", node))
        if sop.encoding != "numerical"
    ]
    for factor in (node.first_factor, node.second_factor):
        if not (is_number(factor) and math.isfinite(factor)):
            wrong.append(f"the factor {factor!r} is not a finite number")
    if wrong:
        raise _Several(wrong)
    first, second = known.get(id(node.first)), known.get(id(node.second))
    if first is None or second is None:
        return None
    values = linear(first.values, second.values, node.first_factor, node.second_factor, fixed)
    found = Traits(node, values, first.partial or second.partial, 1 + max(first.depth, second.depth))
    # a small difference of large numbers keeps their rounding
    parts = (abs(node.first_factor) * first.scale, abs(node.second_factor) * second.scale)
    found.scale = max(found.scale, first.scale, second.scale, *parts)
    return found


def _of_aggregate(
    node: Aggregate, known: dict[int, Traits], selection: Selection | None, length: int, fixed: bool
) -> Traits | None:
    wrong = []
    sop, inner = node.sop, known.get(id(node.sop))
    if sop.encoding != node.encoding:
        wrong.append(f"it is {node.encoding} and aggregates a {sop.encoding} S-op: an Aggregate keeps the encoding")
    usual = usual_default(node.encoding)
    if node.default != usual or (node.default is None) != (usual is None):
        wrong.append(f"the default of a {node.encoding} Aggregate must be {usual}, not {node.default!r}")
    numerical = node.encoding == sop.encoding == "numerical"
    if inner is not None and numerical and not fixed and not {int(value) for value in inner.values.numbers} <= {0, 1}:
        wrong.append(f"Tracr averages only zeros and ones, and {_some(inner.values)} may come")
    if wrong:
        raise _Several(wrong)
    if inner is None or selection is None:
        return None
    keys, queries = known[id(selection[0])], known[id(selection[1])]
    depth = 1 + max(inner.depth, keys.depth, queries.depth)
    if node.numerical:
        # a None counts as 0 among several
        read = value_set([*inner.values.values, 0]) if fixed and inner.partial else inner.values
        values = _means(node, read, known, selection, length) if fixed else quotients(read, length)
        found = Traits(node, values, False, depth)
        found.scale = max(found.scale, inner.scale)
    else:
        # where every query selects everything, or at least itself, something is always selected
        mask = selection[2]
        never_empty = bool(mask.all()) or (keys is queries and bool(mask.diagonal().all()))
        partial = inner.partial or keys.partial or queries.partial or not never_empty
        values = value_set(inner.values.values) if sop is tokens else inner.values
        found = Traits(node, values, partial, depth)
    found.selection = selection
    return found


def _means(node: Aggregate, read: ValueSet, known: dict[int, Traits], selection: Selection, length: int) -> ValueSet:
    """The means that an Aggregate can find: of any of the values, and if these are too many, of those that meet."""
    try:
        return means(read, length)
    except RaspError:
        try:
            found: set[Value] = set()
            for some in Occurrence(known, length).means(node.sop, selection):
                found |= some
            return value_set(found)
        except RaspError:
            tried = tried_on_all(node, known, length)
            if tried is None:
                raise
    return value_set([*tried, 0.0])


def _some(values: ValueSet) -> str:
    shown = ", ".join(f"{value!r}" for value in values.values[:4])
    return shown + (", ..." if len(values) > 4 else "")


def selection_of(selector: Selector, known: dict[int, Traits], selections: dict[int, Selection]) -> Selection | None:
    """What a selector does, or None if something that it reads is at fault; of composites too, as far as they simplify.

    Raises:
        RaspError: if no attention head can do it.
    """
    if isinstance(selector, Select):
        wrong = [
            f"its {what} are numerical: an attention head compares categoricals"
            for what, sop in (("keys", selector.keys), ("queries", selector.queries))
            if sop.encoding == "numerical"
        ]
        if wrong:
            raise _Several(wrong)
        keys, queries = known.get(id(selector.keys)), known.get(id(selector.queries))
        if keys is None or queries is None:
            return None
        return keys.node, queries.node, predicate_table(selector.function, keys.values, queries.values)
    if isinstance(selector, SelectorNot):
        inner = selections.get(id(selector.inner))
        return None if inner is None else (inner[0], inner[1], ~inner[2])
    if isinstance(selector, SelectorAnd):
        first, second = selections.get(id(selector.first)), selections.get(id(selector.second))
        if first is None or second is None:
            return None
        if first[0] is not second[0] or first[1] is not second[1]:
            raise RaspError(
                "it joins two selectors that compare different S-ops, which Tracr cannot compile: mode='fixed' does"
            )
        joined = first[2] | second[2] if isinstance(selector, SelectorOr) else first[2] & second[2]
        return first[0], first[1], joined
    raise RaspError(f"{type(selector).__name__} is not a selector of the language")


def breadth_first(output: Expression) -> list[Expression]:
    """Every node from the output backwards, as Tracr meets them; it decides the order of heads."""
    found, seen = [output], {id(output)}
    for node in found:
        for child in node.children:
            if id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found
