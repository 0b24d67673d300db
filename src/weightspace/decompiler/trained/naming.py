"""Names for the variables of a program that was found, and the same S-op written once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from weightspace.decompiler.trained.fusing import fused
from weightspace.rasp.choices import Choose, NextTokens, Pick
from weightspace.rasp.language import (
    Aggregate,
    Expression,
    Indices,
    LinearSequenceMap,
    Map,
    Select,
    Selector,
    SelectorWidth,
    SequenceMap,
    SOp,
    rebuild,
    walk,
)
from weightspace.rasp.program import Program
from weightspace.rasp.readable import readable_text


def named(output: SOp) -> Program:
    """The causal program that computes an S-op, every S-op of it written once and named for what it is.

    Its variables are those that its readable text has when it is parsed.
    """
    merged = _merged(fused(_merged(output)))
    counts: Counter[str] = Counter()
    statements = []
    for node in walk(merged):
        if not node.children:
            continue
        word = _word(node)
        counts[word] += 1
        statements.append((word if counts[word] == 1 else f"{word}{counts[word]}", node))
    return Program.parse(readable_text(Program(merged, tuple(statements), causal=True)))


def _merged(output: SOp) -> SOp:
    made: dict[int, Expression] = {}
    known: dict[tuple[Any, ...], Expression] = {}
    for node in walk(output):
        if not node.children:
            made[id(node)] = node
            continue
        children = [made[id(child)] for child in node.children]
        key = (type(node).__name__, _details(node), tuple(map(id, children)))
        if key not in known:
            known[key] = rebuild(node, children, None)
        made[id(node)] = known[key]
    found = made[id(output)]
    assert isinstance(found, SOp)
    return found


def _details(node: Expression) -> tuple[Any, ...]:
    """What tells two operations apart that read the same."""
    encoding = node.encoding if isinstance(node, SOp) else None
    match node:
        case Map() | SequenceMap():
            return (encoding, node.function.source)
        case LinearSequenceMap():
            return (encoding, node.first_factor, node.second_factor)
        case Select():
            return (node.function.source,)
        case Aggregate():
            return (encoding, repr(node.default))
        case Pick():
            return (encoding, node.which, repr(node.default))
        case NextTokens():
            return node.tokens
    return (encoding,)


def _word(node: Expression) -> str:
    """What a variable is called."""
    match node:
        case Selector():
            return "chosen"
        case Map() if "else" in node.function.source:
            return "number" if node.function.source.startswith("-1 if x in") else "step" if node.numerical else "choice"
        case Map():
            return "test"
        case SequenceMap() if node.numerical:
            return "step"
        case SequenceMap() if node.function.source.startswith("round("):
            return "balance"
        case SequenceMap() if node.function.source == "y - x":
            return "since"
        case SequenceMap() if node.function.source == "x - y":
            return "difference"
        case SequenceMap():
            return (
                "choice" if " if " in node.function.source else "both" if " and " in node.function.source else "either"
            )
        case LinearSequenceMap():
            return "total"
        case Aggregate() if node.numerical:
            return "mean"
        case Aggregate():
            return "before"
        case SelectorWidth():
            return "count"
        case Pick(sop=Indices()):
            return "place"
        case Pick():
            return "found" if node.which in ("first", "last") else node.which
        case Choose():
            return "choice"
    return "answer"
