"""What a program means on a whole batch of inputs: as the interpreter gives it, and many times faster.

Every S-op is a column of codes, and every selector an array of booleans. What it all means, `interpreter` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch, BatchValues
from weightspace.rasp.choices import Choose, NextTokens, Pick
from weightspace.rasp.columns import Column, codes_of, renumbered, whole_type
from weightspace.rasp.functions import Value
from weightspace.rasp.interpreter import apply, check_length, checked_token, name_of, weighted
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
from weightspace.rasp.means import aggregate
from weightspace.rasp.picking import choose, next_tokens_of, pick
from weightspace.rasp.selection import Pairs, select, widths_of


def evaluate_all(
    program: Statements, inputs: Sequence[Sequence[Any]], *, causal: bool | None = None
) -> list[list[Value]]:
    """What the program gives for each of many inputs, of any lengths: `evaluate` of each, many times faster.

    Raises:
        RaspError: as `evaluate` does, if any input makes it.
    """
    return evaluate_batch(program, Batch.of(inputs, program.vocab), causal).lists()


def evaluate_batch(program: Statements, batch: Batch, causal: bool | None = None) -> BatchValues:
    """What the program gives for a whole batch.

    Every S-op is held as small whole numbers, positions in the tuple of its different values, so that a function is
    called once for each different argument that occurs, and not once for each place of each input.

    Raises:
        RaspError: as `evaluate` does, if any input makes it.
    """
    return _values(_columns(program, batch, causal)[id(program.output)], batch)


def evaluate_nodes(program: Statements, batch: Batch, causal: bool | None = None) -> dict[int, BatchValues]:
    """What every S-op that the output needs gives for a whole batch, inputs and output included, by its `id`.

    Raises:
        RaspError: as `evaluate` does, if any input makes it.
    """
    return {node: _values(column, batch) for node, column in _columns(program, batch, causal).items()}


def evaluate_swapped(
    program: Statements,
    batch: Batch,
    put: Mapping[str, BatchValues],
    wanted: Sequence[str],
    *,
    causal: bool | None = None,
) -> dict[str, BatchValues]:
    """What S-ops give on a batch where some variables are held at values given: an intervention on the program.

    Args:
        put: of a variable, `tokens` or `indices` the values that it has instead of its own; what depends on it follows.
        wanted: variables, among them `tokens` and `indices`; also such as the output does not need.
    Raises:
        RaspError: if there is no such S-op, values do not fit the batch, or as `evaluate` does.
    """
    nodes = {"tokens": tokens, "indices": indices, **dict(program.statements)}
    for name in (*put, *wanted):
        if name not in nodes or isinstance(nodes[name], Selector):
            known = ", ".join(name for name, node in nodes.items() if not isinstance(node, Selector))
            raise RaspError(f"the program has no S-op {name!r}: it has {known}")
    held = {id(nodes[name]): _held(name, values, batch) for name, values in put.items()}
    needed = {id(nodes[name]) for name in wanted}
    for node in reversed(nodes.values()):
        if id(node) in needed and id(node) not in held:
            needed |= {id(child) for child in node.children}
    columns = _columns(program, batch, causal, [node for node in nodes.values() if id(node) in needed], held)
    return {name: _values(columns[id(nodes[name])], batch) for name in wanted}


def _held(name: str, values: BatchValues, batch: Batch) -> Column:
    if values.codes.shape != batch.codes.shape:
        raise RaspError(f"{name}: values {values.codes.shape} do not fit a batch {batch.codes.shape}")
    index = (values.codes.T + 1) * batch.present
    return renumbered(index, len(values.values) + 1, lambda i: values.values[i - 1] if i else None)


def _values(column: Column, batch: Batch) -> BatchValues:
    return BatchValues((column.codes.astype(np.int32) - 1).T, column.values, batch.lengths)


def _columns(
    program: Statements,
    batch: Batch,
    causal: bool | None,
    nodes: Sequence[Expression] | None = None,
    held: Mapping[int, Column] | None = None,
) -> dict[int, Column]:
    """Every S-op's column by its `id`.

    Args:
        nodes: which are evaluated, each after what it reads; unless given, what the output needs.
        held: columns of S-ops that are not evaluated, by their `id`.
    """
    _check_batch(program, batch)
    causal = program.causal if causal is None else causal
    nodes = program.nodes if nodes is None else nodes
    both = any(isinstance(node, SelectorNot) for node in nodes)
    columns: dict[int, Column] = {}
    selectors: dict[int, Pairs] = {}
    for node in nodes:
        name = name_of(program, node)
        if held and id(node) in held:
            columns[id(node)] = held[id(node)]
        elif isinstance(node, Selector):
            selectors[id(node)] = _selector(name, node, columns, selectors, causal, both)
        else:
            columns[id(node)] = _column(name, node, columns, selectors, batch)
    return columns


def _column(
    name: str, node: Expression, columns: dict[int, Column], selectors: dict[int, Pairs], batch: Batch
) -> Column:
    match node:
        case Tokens():
            return batch.tokens
        case Indices():
            return batch.indices
        case Map():
            return _map(name, node, columns[id(node.inner)])
        case SequenceMap() | LinearSequenceMap():
            return _sequence_map(name, node, columns[id(node.first)], columns[id(node.second)])
        case Aggregate():
            return aggregate(name, node, selectors[id(node.selector)].selected, columns[id(node.sop)], batch.present)
        case SelectorWidth():
            index = (widths_of(selectors[id(node.selector)].selected) + 1) * batch.present
            return renumbered(index, len(index) + 2, lambda i: i - 1 if i else None)
        case Pick():
            return pick(name, node, selectors[id(node.selector)].selected, columns[id(node.sop)], batch.present)
        case Choose():
            return choose(columns[id(node.condition)], columns[id(node.yes)], columns[id(node.no)])
        case NextTokens():
            return next_tokens_of(node, [columns[id(sop)] for sop in node.sops], batch.present)
    raise RaspError(f"{name}: {type(node).__name__} is no operation that the interpreter knows")


def _selector(
    name: str,
    node: Selector,
    columns: dict[int, Column],
    selectors: dict[int, Pairs],
    causal: bool,
    both: bool,
) -> Pairs:
    if isinstance(node, Select):
        return select(name, node, columns[id(node.keys)], columns[id(node.queries)], causal, both)
    parts = [selectors[id(child)] for child in node.children]
    match node:
        case SelectorNot():
            return Pairs(parts[0].refused, parts[0].selected)
        case SelectorOr():
            return Pairs(parts[0].selected | parts[1].selected, parts[0].refused & parts[1].refused)
        case SelectorAnd():
            return Pairs(parts[0].selected & parts[1].selected, parts[0].refused | parts[1].refused)
    raise RaspError(f"{name}: {type(node).__name__} is no operation that the interpreter knows")


def _check_batch(program: Statements, batch: Batch) -> None:
    check_length(program, int(batch.lengths.max(initial=0)))
    if program.vocab is not None and batch.vocab != program.vocab:
        for token in batch.tokens.values:
            checked_token(token, program.vocab)
        if None not in program.vocab and bool((batch.present & (batch.tokens.codes == 0)).any()):
            checked_token(None, program.vocab)


def _map(name: str, node: Map, inner: Column) -> Column:
    results = [None, *(apply(name, node.function, value) for value in inner.values)]  # every value occurs
    codes, values = codes_of(results, len(results))
    return Column(codes.take(inner.codes), values)


def _sequence_map(name: str, node: SequenceMap | LinearSequenceMap, first: Column, second: Column) -> Column:
    xs, ys = (None, *first.values), (None, *second.values)
    size, width = len(xs) * len(ys), len(ys)
    index = first.codes * whole_type(size)(width) + second.codes

    def value_at(i: int) -> Value:
        x, y = xs[i // width], ys[i % width]
        if isinstance(node, LinearSequenceMap):
            return weighted(name, node, x, y)
        return None if x is None or y is None else apply(name, node.function, x, y)

    return renumbered(index, size, value_at)
