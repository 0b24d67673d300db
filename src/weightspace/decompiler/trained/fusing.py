"""Functions of functions at one place are one function, where they read no more than two S-ops: what one MLP can do."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

from weightspace.rasp.language import Expression, Map, SequenceMap, SOp, rebuild, walk

LONGEST = 90
"""Characters of a function that is made."""


@dataclass(frozen=True)
class _Function:
    """An expression in x, and y where there are two inputs."""

    tree: ast.expr
    inputs: tuple[SOp, ...]


def fused(output: SOp) -> SOp:
    """The S-op with Maps and SequenceMaps joined that are read once, are tests, or are a mean made a number again."""
    uses = Counter(id(child) for node in walk(output) for child in node.children)
    made: dict[int, Expression] = {}
    known: dict[int, _Function] = {}
    for node in walk(output):
        children = [made[id(child)] for child in node.children]
        new = rebuild(node, children, None) if children else node
        if isinstance(new, Map | SequenceMap) and new.function.has_expression:
            joined = _joined(new, [(made[id(c)], uses[id(c)]) for c in node.children], known)
            if joined is not None:
                new = _node(joined, new)
            known[id(new)] = _Function(ast.parse(new.function.source, mode="eval").body, _inputs(new))
        made[id(node)] = new
    found = made[id(output)]
    assert isinstance(found, SOp)
    return found


def _inputs(node: Map | SequenceMap) -> tuple[SOp, ...]:
    return (node.inner,) if isinstance(node, Map) else (node.first, node.second)


def _joined(
    node: Map | SequenceMap, reads: list[tuple[Expression, int]], known: dict[int, _Function]
) -> _Function | None:
    """The function of what its inputs read; None if there is none that is short and reads at most two S-ops."""
    inside = [
        known[id(child)] if id(child) in known and not child.numerical and _may(child, uses) else None  # type: ignore[attr-defined]
        for child, uses in reads
    ]
    if not any(inside):
        return None
    inputs: list[SOp] = []
    by_name: dict[str, ast.expr] = {}
    for name, (child, _), function in zip("xy", reads, inside, strict=False):
        own = (child,) if function is None else function.inputs
        for one in own:
            assert isinstance(one, SOp)
            if not any(one is other for other in inputs):
                inputs.append(one)
        names = ["xy"[min(next(i for i, other in enumerate(inputs) if other is one), 1)] for one in own]
        if len(inputs) > 2:
            return None
        inner: ast.expr = ast.Name("x") if function is None else function.tree
        by_name[name] = _Renamed({old: ast.Name(new) for old, new in zip("xy", names, strict=False)}).put(inner)
    tree = _Renamed(by_name).put(ast.parse(node.function.source, mode="eval").body)
    return _Function(tree, tuple(inputs)) if len(ast.unparse(tree)) <= LONGEST else None


def _may(child: Expression, uses: int) -> bool:
    if not isinstance(child, Map | SequenceMap):
        return False
    source = child.function.source
    return (
        uses == 1
        or source.startswith("round(")
        or (isinstance(child, Map) and len(source) <= 12 and " if " not in source)
    )


def _node(function: _Function, like: Map | SequenceMap) -> Map | SequenceMap:
    source = ast.unparse(function.tree)
    if len(function.inputs) == 1:
        return Map(source, function.inputs[0], encoding=like.encoding)
    return SequenceMap(source, *function.inputs, encoding=like.encoding)


class _Renamed(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, by_name: dict[str, ast.expr]) -> None:
        self.by_name = by_name

    def put(self, tree: ast.expr) -> ast.expr:
        copied = ast.parse(ast.unparse(tree), mode="eval").body
        found = self.visit(copied)
        assert isinstance(found, ast.expr)
        return ast.fix_missing_locations(found)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.by_name.get(node.id, node)
