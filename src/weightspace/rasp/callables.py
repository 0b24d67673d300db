"""Functions of Python's as tables over the values that their inputs can have: what a program's text can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.expressions import shortest
from weightspace.rasp.functions import Function, Value
from weightspace.rasp.language import (
    PREDICATES,
    Expression,
    Map,
    Select,
    SequenceMap,
    SOp,
    Statements,
    rebuild,
)
from weightspace.rasp.validate import Traits, analyse, settings
from weightspace.rasp.values import predicate_table

P = TypeVar("P", bound=Statements)


def has_callables(program: Statements) -> bool:
    """Whether a function of the program is Python's."""
    return any(_function(node) is not None for _, node in program.statements)


def tabled(program: P, vocab: Sequence[Any] | None = None, max_seq_len: int | None = None) -> P:
    """The program with an expression or a table for each function of Python's.

    Args:
        vocab, max_seq_len: instead of what the program says it is meant for.
    Raises:
        RaspError: if vocabulary or length are not known, or a function has no value where it needs one; it names the
            variable.
    """
    if not has_callables(program):
        return program
    chosen, length = settings(program, vocab, max_seq_len)
    analysis = analyse(program, chosen, length, "fixed", whole=False)
    made: dict[int, Expression] = {}
    statements = []
    for name, node in program.statements:
        if _function(node) is not None and id(node) not in analysis.traits and not isinstance(node, Select):
            wrong = next((r for r in analysis.reasons if r.variable == name), *analysis.reasons[:1])
            raise RaspError(str(wrong))
        children = [made.get(id(child), child) for child in node.children]
        new = rebuild(_plain(name, node, analysis.traits), children, node.label) if children else node
        made[id(node)] = new
        statements.append((name, new))
    output = made.get(id(program.output), program.output)
    assert isinstance(output, SOp)
    return replace(program, output=output, statements=tuple(statements))


def _function(node: Expression) -> Function | None:
    """The function of Python's that an operation has."""
    function: Any = None
    if isinstance(node, Map | SequenceMap):
        function = node.function
    elif isinstance(node, Select):
        function = node.predicate
    return function if isinstance(function, Function) and function.native else None


def _plain(name: str, node: Expression, traits: dict[int, Traits]) -> Expression:
    """The same operation on the same inputs with a function that can be written."""
    function = _function(node)
    if function is None:
        return node
    if isinstance(node, Select):
        keys, queries = traits.get(id(node.keys)), traits.get(id(node.queries))
        if keys is None or queries is None:
            raise RaspError(f"{name}: what it reads cannot be compiled, so that {function.source} becomes no table")
        try:
            mask = predicate_table(function, keys.values, queries.values)
        except RaspError as error:
            raise RaspError(f"{name}: {error}") from None
        rows = [(keys.values.values[i], queries.values.values[j]) for i, j in np.argwhere(mask).tolist()]
        pairs = [(x, y) for x in keys.values.values for y in queries.values.values]
        every = dict.fromkeys(pairs, False) | dict.fromkeys(rows, True)
        kept = dict.fromkeys(rows, True) or {pairs[0]: False}
        found = shortest(every, 2, truth=True) or Function.from_table(kept, 2)
        named = next((name for name, other in PREDICATES.items() if other is found), None)
        return Select(node.keys, node.queries, found if named is None else named)
    t = traits[id(node)]
    assert t.table is not None
    values: list[Value] = [*t.values.values, None]
    if isinstance(node, Map):
        arguments: list[Any] = [*traits[id(node.inner)].values.values]
        table = dict(zip(arguments, (values[p] for p in t.table.places.tolist()), strict=True))
        return Map(_written(table, 1), node.inner, encoding=node.encoding)
    assert isinstance(node, SequenceMap)
    first, second = traits[id(node.first)].values.values, traits[id(node.second)].values.values
    twice = node.first is node.second
    arguments = [(x, x) for x in first] if twice else [(x, y) for x in first for y in second]
    table = dict(zip(arguments, (values[p] for p in t.table.places.ravel().tolist()), strict=True))
    return SequenceMap(_written(table, 2), node.first, node.second, encoding=node.encoding)


def _written(table: dict[Any, Value], arity: int) -> Function:
    if None not in table.values():
        found = shortest(table, arity)
        if found is not None:
            return found
    kept = {key: value for key, value in table.items() if value is not None}
    return Function.from_table(kept or table, arity)
