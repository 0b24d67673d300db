"""Selectors of selectors that compare different S-ops, as one selector that compares pairs of their values.

A head compares one S-op with one other. `SelectorAnd(Select(EQ, tokens, tokens), Select(LT, indices, indices))` needs
two of each: an MLP joins them, place by place, and the head compares (token, place) with (token, place).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from weightspace.errors import RaspError
from weightspace.rasp.functions import Function, Value
from weightspace.rasp.language import (
    Aggregate,
    Expression,
    Select,
    Selector,
    SelectorNot,
    SelectorOr,
    SelectorWidth,
    SequenceMap,
    SOp,
    Statements,
    rebuild,
    walk,
)

P = TypeVar("P", bound=Statements)

MOST_PARTS = 8
"""A selector of more different Selects is refused: what it does where some are None is looked at case by case."""


@dataclass(frozen=True, eq=False)
class Joined:
    """A selector that took the place of a composite one.

    Attributes:
        parts: the Selects that it is made of, each once.
        formula: what it selects, by what its parts select; None where a key or query is None.
    """

    parts: tuple[Select, ...]
    formula: Callable[[Sequence[bool | None]], bool | None]

    def check(self, partial: Mapping[int, bool]) -> None:
        """Refuse it where it selects a pair of which a part is None: an S-op of pairs is None there.

        Args:
            partial: whether an S-op can be None, by its `id`.
        Raises:
            RaspError: that says so.
        """
        can_be = [partial.get(id(p.keys), False) or partial.get(id(p.queries), False) for p in self.parts]
        options = [(False, True, None) if none else (False, True) for none in can_be]
        for case in itertools.product(*options):
            if None in case and self.formula(case) is True:
                raise RaspError(
                    "it joins selectors of different S-ops and selects even where one of them is None, which no S-op "
                    "that joins them can say: use SelectorAnd, or an S-op that is never None"
                )


def without_composites(program: P) -> tuple[P, dict[int, Joined]]:
    """The program with a Select of pairs for each composite selector that compares different S-ops.

    Returns:
        the program, which is the one given if there is no such selector, and by the `id` of each new Select what it
        was made of.
    """
    compared: dict[int, tuple[int, int] | None] = {}  # the keys and queries of a selector, None where it has several
    for node in program.nodes:
        if isinstance(node, Select):
            compared[id(node)] = id(node.keys), id(node.queries)
        elif isinstance(node, Selector):
            parts = {compared[id(child)] for child in node.children}
            compared[id(node)] = parts.pop() if len(parts) == 1 else None
    read = [node.selector for node in program.nodes if isinstance(node, Aggregate | SelectorWidth)]
    wide = {id(node): node for node in read if compared[id(node)] is None}
    if not wide:
        return program, {}
    made: dict[int, Expression] = {}
    pairs: dict[tuple[int, int], SequenceMap] = {}
    joined: dict[int, Joined] = {}
    names: list[tuple[str, Expression]] = []
    order = {id(node): number for number, node in enumerate(program.nodes)}
    for node in program.nodes:
        if not node.children:
            made[id(node)] = node
            continue
        if id(node) in wide:
            before = len(pairs)
            new = _joined(wide[id(node)], made, pairs, order, joined)
            fresh = [*pairs.values()][before:]
            names += [(f"{program.name(node)}_pair{before + k + 1}", pair) for k, pair in enumerate(fresh)]
        else:
            children = [made[id(child)] for child in node.children]
            same = all(a is b for a, b in zip(children, node.children, strict=True))
            new = node if same else rebuild(node, children, node.label)
        made[id(node)] = new
        names.append((program.name(node), new))
    output = made[id(program.output)]
    assert isinstance(output, SOp)
    return replace(program, output=output, statements=tuple(names)), joined


def _formula(nodes: Sequence[Selector]) -> Callable[[Sequence[bool | None]], bool | None]:
    """What a selector makes of what its Selects select, in their order, in three-valued logic.

    Args:
        nodes: all selectors that it is made of, each after what it reads, itself last.
    """
    place = {id(node): number for number, node in enumerate(nodes)}
    steps = [(node, [place[id(child)] for child in node.children if id(child) in place]) for node in nodes]

    def run(case: Sequence[bool | None]) -> bool | None:
        given, found = iter(case), list[bool | None]()
        for node, reads in steps:
            if isinstance(node, Select):
                found.append(next(given))
                continue
            some = [found[k] for k in reads]
            if isinstance(node, SelectorNot):
                found.append(None if some[0] is None else not some[0])
            else:
                decisive = isinstance(node, SelectorOr)
                found.append(decisive if decisive in some else None if None in some else not decisive)
        return found[-1]

    return run


def _joined(
    selector: Selector,
    made: Mapping[int, Expression],
    pairs: dict[tuple[int, int], SequenceMap],
    order: Mapping[int, int],
    joined: dict[int, Joined],
) -> Select:
    nodes = [node for node in walk(selector) if isinstance(node, Selector)]
    parts = [node for node in nodes if isinstance(node, Select)]
    if len(parts) > MOST_PARTS:
        raise RaspError(f"a selector joins {len(parts)} different Selects: at most {MOST_PARTS} of different S-ops")
    formula = _formula(nodes)
    keys = _in_order([part.keys for part in parts], order)
    queries = _in_order([part.queries for part in parts], order)
    where = [(keys.index(part.keys), queries.index(part.queries), part.function) for part in parts]
    of_key, of_query = _unpacker(len(keys)), _unpacker(len(queries))

    def selects(key: Value, query: Value) -> bool:
        a, b = of_key(key), of_query(query)
        return bool(formula([bool(function(a[k], b[q])) for k, q, function in where]))

    new = Select(
        _packed([made[id(key)] for key in keys], pairs),
        _packed([made[id(query)] for query in queries], pairs),
        Function("<selectors joined>", 2, selects, native=True),
        label=selector.label,
    )
    joined[id(new)] = Joined(tuple(parts), formula)
    return new


def _in_order(sops: Sequence[SOp], order: Mapping[int, int]) -> list[SOp]:
    return sorted({id(sop): sop for sop in sops}.values(), key=lambda sop: order[id(sop)])


def _packed(sops: Sequence[Expression], pairs: dict[tuple[int, int], SequenceMap]) -> SOp:
    """One S-op of the values of several, as ((a, b), c)."""
    first, *rest = sops
    for second in rest:
        key = (id(first), id(second))
        if key not in pairs:
            assert isinstance(first, SOp) and isinstance(second, SOp)
            pairs[key] = SequenceMap("(x, y)", first, second)
        first = pairs[key]
    assert isinstance(first, SOp)
    return first


def _unpacker(count: int) -> Callable[[Any], list[Any]]:
    def unpacked(value: Any) -> list[Any]:
        last = []
        for _ in range(count - 1):
            value, entry = value
            last.append(entry)
        return [value, *reversed(last)]

    return unpacked
