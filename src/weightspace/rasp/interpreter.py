"""What a program means on one input, read off the definitions: the judge of everything faster.

The meaning is that of Tracr's evaluator wherever that one gives an answer, and total elsewhere:

- Map and SequenceMap: None in, None out; a function that gives None gives None. Where a function has no value, as 1 / x
  at 0, or cannot take what it is given, evaluation stops, but only if that value occurs in the inputs.
- LinearSequenceMap: a weighted sum of numbers; None in, None out.
- Sums and means are those of fractions: what rounding alone has added is taken away, so that 0.1 + 0.2 is 0.3, in
  whatever order numbers are added (`rounding`).
- Select: the predicate of key and query. A None key or query neither selects nor is selected (Tracr stops there).
- SelectorAnd, SelectorOr and SelectorNot: a pair is selected, refused, or, where its key or query is None, neither.
  And selects what both select and refuses what either refuses; Or selects what either selects and refuses what both
  refuse; Not swaps the two, and so never selects a pair whose key or query is None.
- `causal`: after all that, a query at place q sees the keys at places up to q only.
- Aggregate: nothing selected gives the default; one value gives that value itself. Of several, numbers give
  their sum from left to right divided by their number; strings and tuples must all be equal and give that one; among
  several a None counts as 0 in a numerical Aggregate, and makes a categorical one None.
- SelectorWidth: how many keys are selected.
- Pick: of the values selected the first or last by place, the least or most of numbers, or the commonest, the first of
  those that are equally common; the default where nothing is selected.
- Choose: where the condition is something true the one value, else, None among it, the other.
- NextTokens, `return {TOKEN: SOP, ...}`: the tuple of the tokens whose S-op is something true.

Numbers compare as in Python: 1, 1.0 and True are one value, and `batch_interpreter` may give any of them for another.
Only a function that passes through numbers beyond 2^53 on its way could tell them apart.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from weightspace.errors import RaspError
from weightspace.rasp.choices import Choose, NextTokens, Pick
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
    Statements,
    Tokens,
    indices,
    tokens,
)
from weightspace.rasp.picking import next_tokens, picked
from weightspace.rasp.rounding import settled


def evaluate(program: Statements, inputs: Sequence[Any], *, causal: bool | None = None) -> list[Value]:
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


def trace(program: Statements, inputs: Sequence[Any], *, causal: bool | None = None) -> dict[str, list[Any]]:
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
    program: Statements, nodes: Iterable[Expression], inputs: Sequence[Any], causal: bool | None
) -> dict[int, Any]:
    """The value of each node by its id; a selector's rows hold True, False, and None where key or query is None."""
    check_length(program, len(inputs))
    given = [checked_token(token, program.vocab) for token in inputs]
    seen = _sight(program, causal)
    values: dict[int, Any] = {}
    for node in nodes:
        reads = [values[id(child)] for child in node.children]
        name = name_of(program, node)
        match node:
            case Tokens():
                result = given
            case Indices():
                result = list(range(len(given)))
            case Map() | SequenceMap():
                places = zip(*reads, strict=True)
                result = [None if None in arguments else apply(name, node.function, *arguments) for arguments in places]
            case LinearSequenceMap():
                result = [weighted(name, node, x, y) for x, y in zip(*reads, strict=True)]
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
                check_default(name, node)
                result = [mean(name, node, list(itertools.compress(sop, row))) for row in _chosen(selector, seen)]
            case SelectorWidth():
                result = [sum(row) for row in _chosen(reads[0], seen)]
            case Pick():
                rows = _chosen(reads[0], seen)
                result = [picked(name, node, list(itertools.compress(reads[1], row))) for row in rows]
            case Choose():
                result = [yes if holds else no for holds, yes, no in zip(*reads, strict=True)]
            case NextTokens():
                result = [next_tokens(node, holds) for holds in zip(*reads, strict=True)]
            case _:
                raise RaspError(f"{name}: {type(node).__name__} is no operation that the interpreter knows")
        values[id(node)] = result
    return values


def _sight(program: Statements, causal: bool | None) -> Callable[[int, int], bool]:
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
    return None if key is None or query is None else bool(apply(name, function, key, query))


# -- what both ways of evaluating share, and the errors of both -----------------------------------------------------


def apply(name: str, function: Function, *arguments: Value) -> Value:
    """A function's value; where it has none, an error that begins with the name of the variable."""
    try:
        return function(*arguments)
    except Undefined as error:
        raise RaspError(f"{name}: {error}; give it a value there, as in 'a if x != 0 else b'") from None
    except RaspError as error:
        raise RaspError(f"{name}: {error}") from None


def weighted(name: str, node: LinearSequenceMap, x: Value, y: Value) -> Value:
    """What a LinearSequenceMap makes of two values."""
    if x is None or y is None:
        return None
    if not (is_number(x) and is_number(y)):
        raise RaspError(f"{name}: a LinearSequenceMap adds numbers, not {x!r} and {y!r}: map them to numbers first")
    result = node.first_factor * x + node.second_factor * y
    if not abs(result) <= LARGEST:
        raise RaspError(f"{name}: {node.first_factor!r} * {x!r} + {node.second_factor!r} * {y!r} grows beyond 2^53")
    return settled(result)


def check_default(name: str, node: Aggregate) -> None:
    """Refuse a default that is too large to be told from its neighbours."""
    if is_number(node.default) and not abs(node.default) <= LARGEST:
        raise RaspError(f"{name}: the default {node.default!r} is not a number within +-2^53")


def mean(name: str, node: Aggregate, selected: Sequence[Value]) -> Value:
    """What an Aggregate makes of the values that one query selects, from left to right."""
    if not selected:
        return node.default
    if None in selected and not node.numerical:
        return None
    numbers = [0 if value is None else value for value in selected]
    if len(numbers) == 1:
        return numbers[0]
    if not is_number(numbers[0]) and all(value == numbers[0] for value in numbers):
        return numbers[0]
    total: float = 0  # `sum` compensates for rounding from Python 3.12 on, and so would depend on the version
    for value in numbers:
        if not is_number(value):
            listed = ", ".join(map(repr, selected))
            raise RaspError(f"{name}: the mean of {listed} is none: select one of them, or map them to numbers first")
        total = total + value
    return settled(total / len(numbers))


def name_of(program: Statements, node: Expression) -> str:
    """What errors call a node: its variable, or else its operation."""
    return program.names.get(id(node), type(node).__name__)


def check_length(program: Statements, length: int) -> None:
    """Refuse an input that is longer than the program is meant for."""
    if program.max_seq_len is not None and length > program.max_seq_len:
        raise RaspError(
            f"an input of {length} tokens is too long for a program meant for at most {program.max_seq_len}: "
            "shorten it, or give the program another `max_seq_len`"
        )


def checked_token(token: object, vocab: Sequence[Value] | None) -> Value:
    """The token, if it is one and in the vocabulary; None as vocabulary allows every token."""
    if not (token is None or isinstance(token, bool | int | float | str)):
        raise RaspError(f"a token is a number, a string, True, False or None, not {token!r}")
    if is_number(token) and not abs(token) <= LARGEST:
        raise RaspError(f"the token {token!r} is not a number within +-2^53")
    if vocab is not None and token not in vocab:
        listed = ", ".join(map(repr, vocab[:20])) + (", ..." if len(vocab) > 20 else "")
        raise RaspError(f"the token {token!r} is not in the vocabulary: choose from {listed}")
    return token
