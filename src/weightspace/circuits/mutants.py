"""Hypotheses that are wrong in one thing: an operation, an edge of the program's graph, or a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as replaced
from itertools import product
from random import Random
from typing import Literal

from weightspace.circuits.hypothesis import Component, Hypothesis
from weightspace.errors import RaspError
from weightspace.rasp.functions import Function, Undefined, Value, is_number
from weightspace.rasp.language import (
    COMPARISONS,
    Aggregate,
    Expression,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorAnd,
    SelectorOr,
    SequenceMap,
    SOp,
    indices,
    rebuild,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import MAPS, SEQUENCE_MAPS
from weightspace.transformers.places import Place

Change = Literal["operation", "edge", "place"]
CHANGES: tuple[Change, ...] = ("operation", "edge", "place")
Values = Mapping[str, tuple[Value, ...]]
"""The values that each S-op has on the inputs, by variable."""
TRIES = 20
_ONE = tuple(dict.fromkeys(function for functions in MAPS.values() for function in functions))


@dataclass(frozen=True, eq=False)
class Mutant:
    """A hypothesis that differs from another in one thing.

    Attributes:
        change: what kind of thing.
        variable: whose.
        what: in words.
        moved: S-ops that stand elsewhere.
    """

    hypothesis: Hypothesis
    change: Change
    variable: str
    what: str
    moved: tuple[str, ...] = ()


def mutant(hypothesis: Hypothesis, change: Change, values: Values, random: Random) -> Mutant | None:
    """A hypothesis that differs in one thing, drawn at random; None if there is nothing to change.

    - operation: another function of those of the `typed` distribution, or one entry of its table changed; another
      comparison; another factor; And for Or; another default.
    - edge: one argument of an operation is another S-op of the same encoding, or another selector, from before it.
    - place: two S-ops at each other's components; or one at its directions before the first layer.

    Args:
        values: what S-ops can be; those of the answer are changed and no others.
    """
    for _ in range(TRIES):
        found = _placed(hypothesis, values, random) if change == "place" else None
        if change != "place":
            found = _programmed(hypothesis, change, values, random)
        if found is not None:
            return found
    return None


# -- places -----------------------------------------------------------------------------------------------------------


def _placed(hypothesis: Hypothesis, values: Values, random: Random) -> Mutant | None:
    names = [name for name in hypothesis.components if name in values]
    components = dict(hypothesis.components)
    if not names:
        return None
    name = random.choice(names)
    moved = (name,)
    others = [other for other in names if other != name]
    if others and random.random() < 0.5:
        other = random.choice(others)
        components[name], components[other] = components[other], components[name]
        moved = (name, other)
        what = f"{name} and {other} at each other's components"
    else:
        held = components[name]
        early = Place("resid_pre", 0)
        if held.place == early or held.directions is None or not held.place.kind.startswith("resid"):
            return None
        components[name] = Component(early, held.directions)
        what = f"{name} before the first layer"
    try:
        return Mutant(Hypothesis(hypothesis.program, components), "place", name, what, moved)
    except ValueError:  # it meets another component there
        return None


# -- programs ---------------------------------------------------------------------------------------------------------


def _programmed(hypothesis: Hypothesis, change: Change, values: Values, random: Random) -> Mutant | None:
    program = hypothesis.program
    needed = {id(node) for node in program.nodes}
    own = [(name, node) for name, node in program.statements if id(node) in needed]
    name, node = random.choice(own)
    try:
        found = _operation(program, node, values, random) if change == "operation" else _edge(program, node, random)
        if found is None:
            return None
        new, what = found
        mutated = _with(program, node, new)
    except RaspError:  # a function that does not fit
        return None
    return Mutant(Hypothesis(mutated, hypothesis.components), change, name, f"{name}: {what}")


def _with(program: Program, old: Expression, new: Expression) -> Program:
    """The program in which one expression is another; who reads it reads the other."""
    made: dict[int, Expression] = {id(tokens): tokens, id(indices): indices}
    statements: list[tuple[str, Expression]] = []
    for name, node in program.statements:
        base = new if node is old else node
        children = [made[id(child)] for child in base.children]
        made[id(node)] = rebuild(base, children, base.label)
        statements.append((name, made[id(node)]))
    output = made[id(program.output)]
    assert isinstance(output, SOp)
    return replaced(program, output=output, statements=tuple(statements), notes={})


def _operation(program: Program, node: Expression, values: Values, random: Random) -> tuple[Expression, str] | None:
    """The node with another operation."""
    match node:
        case Map() | SequenceMap():
            arguments = [values[program.name(child)] for child in node.children]
            function = _function(node, arguments, random)
            if function is None:
                return None
            children, encoding = node.children, node.encoding
            new = type(node)(function, *children, encoding=encoding, label=node.label)  # type: ignore[arg-type]
            return new, f"{_short(function)} instead of {_short(node.function)}"
        case LinearSequenceMap():
            factors = [node.first_factor, node.second_factor]
            number = random.randrange(2)
            factors[number] = random.choice([factor for factor in (-3, -2, -1, 1, 2, 3) if factor != factors[number]])
            new = LinearSequenceMap(node.first, node.second, *factors, encoding=node.encoding, label=node.label)
            return new, f"factors {factors[0]}, {factors[1]}"
        case Select():
            other = random.choice([each for each in COMPARISONS if each not in (node.predicate, "FALSE")])
            return Select(node.keys, node.queries, other, label=node.label), f"{other} instead of {node.predicate}"
        case SelectorOr():
            return SelectorAnd(node.first, node.second, label=node.label), "And instead of Or"
        case SelectorAnd():
            return SelectorOr(node.first, node.second, label=node.label), "Or instead of And"
        case Aggregate():
            of = [each for each in values[program.name(node.sop)] if each != node.default]
            if not of:
                return None
            default = random.choice(of)
            new = Aggregate(node.selector, node.sop, encoding=node.encoding, default=default, label=node.label)
            return new, f"default {default!r} instead of {node.default!r}"
    return None


def _function(node: Map | SequenceMap, arguments: list[tuple[Value, ...]], random: Random) -> Function | None:
    """Another function: of the language's, or the same but for one entry."""
    numbers = all(is_number(value) for each in arguments for value in each)
    pool = SEQUENCE_MAPS if len(arguments) == 2 else _ONE
    others = [text for text in pool if text != node.function.source]
    if numbers and random.random() < 0.5:
        return Function.parse(random.choice(others), len(arguments))
    table: dict[object, Value] = {}
    for given in product(*arguments):
        try:
            table[given if len(given) == 2 else given[0]] = node.function(*given)
        except (Undefined, RaspError):
            continue  # it has no value there
    if not table:
        return None
    key = random.choice(list(table))
    known = [value for value in dict.fromkeys(table.values()) if value is not None and value != table[key]]
    if not known:
        return None
    table[key] = random.choice(known)
    return Function.from_table(table, len(arguments))


def _edge(program: Program, node: Expression, random: Random) -> tuple[Expression, str] | None:
    """The node with one argument that is another S-op of the same encoding, or another selector."""
    if not node.children:
        return None
    number = random.randrange(len(node.children))
    child = node.children[number]
    before: list[tuple[str, Expression]] = [("tokens", tokens), ("indices", indices)]
    for name, other in program.statements:
        if other is node:
            break
        before.append((name, other))
    fitting = [(name, other) for name, other in before if other is not child and _alike(other, child)]
    if not fitting:
        return None
    name, other = random.choice(fitting)
    children = list(node.children)
    children[number] = other
    return rebuild(node, children, node.label), f"reads {name} instead of {program.name(child)}"


def _alike(one: Expression, other: Expression) -> bool:
    if isinstance(one, SOp) and isinstance(other, SOp):
        return one.encoding == other.encoding
    return isinstance(one, Selector) and isinstance(other, Selector)


def _short(function: Function) -> str:
    text = function.source
    return text if len(text) <= 60 else f"{text[:57]}..."
