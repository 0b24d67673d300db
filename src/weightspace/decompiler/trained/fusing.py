"""Functions of functions at one place are one function, where they read no more than two S-ops: what one MLP can do."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

from weightspace.rasp.language import Expression, Map, Select, SequenceMap, SOp, rebuild, walk

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
        new = _plain(rebuild(node, children, None)) if children else node
        if isinstance(new, Map | SequenceMap) and new.function.has_expression:
            joined = _joined(new, [(made[id(c)], uses[id(c)]) for c in node.children], known)
            if joined is not None:
                new = _node(joined, new)
            known[id(new)] = _Function(ast.parse(new.function.source, mode="eval").body, _inputs(new))
        made[id(node)] = new
    found = made[id(output)]
    assert isinstance(found, SOp)
    return found


def _plain(node: Expression) -> Expression:
    """The operation with its function simplified."""
    if isinstance(node, Map | SequenceMap) and node.function.has_expression:
        return _node(_Function(simplified(ast.parse(node.function.source, mode="eval").body), _inputs(node)), node)
    if isinstance(node, Select) and not isinstance(node.predicate, str) and node.function.has_expression:
        source = ast.unparse(simplified(ast.parse(node.function.source, mode="eval").body))
        return Select(node.keys, node.queries, source)
    return node


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
    tree = simplified(_Renamed(by_name).put(ast.parse(node.function.source, mode="eval").body))
    return _Function(tree, tuple(inputs)) if len(ast.unparse(tree)) <= LONGEST else None


def _may(child: Expression, uses: int) -> bool:
    if not isinstance(child, Map | SequenceMap):
        return False
    source = child.function.source
    return (
        uses == 1
        or source.startswith("round(")
        or source == "y - x"
        or (isinstance(child, Map) and len(source) <= 12 and " if " not in source)
    )


def _node(function: _Function, like: Map | SequenceMap) -> Map | SequenceMap:
    source = ast.unparse(function.tree)
    if len(function.inputs) == 1:
        return Map(source, function.inputs[0], encoding=like.encoding)
    return SequenceMap(source, *function.inputs, encoding=like.encoding)


_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


def simplified(tree: ast.expr) -> ast.expr:
    """A condition without `not` of comparisons and of `and` or `or`; what is compared with several values is `in`."""
    return ast.fix_missing_locations(_Simplified().visit(tree))


class _Simplified(ast.NodeTransformer):
    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if not isinstance(node.op, ast.Not):
            return node
        match node.operand:
            case ast.UnaryOp(op=ast.Not(), operand=inner) if _is_condition(inner):
                return self.visit(inner)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPPOSITE:
                return ast.Compare(left, [_OPPOSITE[type(op)]()], [right])
            case ast.BoolOp(op=op, values=values):
                other = ast.Or() if isinstance(op, ast.And) else ast.And()
                return self.visit(ast.BoolOp(other, [ast.UnaryOp(ast.Not(), value) for value in values]))
        return ast.UnaryOp(ast.Not(), self.visit(node.operand))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """`x == 1 or x == 2` is `x in (1, 2)`, and `x != 1 and x != 2` `x not in (1, 2)`."""
        values: list[ast.expr] = []
        for value in map(self.visit, node.values):
            nested = isinstance(value, ast.BoolOp) and type(value.op) is type(node.op)
            values += value.values if nested else [value]
        one, several = (ast.Eq, ast.In) if isinstance(node.op, ast.Or) else (ast.NotEq, ast.NotIn)
        by_left: dict[str, list[ast.expr]] = {}
        for value in values:
            match value:
                case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[ast.Constant() as constant]) if (
                    type(op) is one
                ):
                    by_left.setdefault(name, []).append(constant)
        joined: list[ast.expr] = []
        done: set[str] = set()
        for value in values:
            match value:
                case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[ast.Constant()]) if (
                    type(op) is one and len(by_left[name]) > 1
                ):
                    if name not in done:
                        done.add(name)
                        options = ast.Tuple(by_left[name], ast.Load())
                        joined.append(ast.Compare(ast.Name(name), [several()], [options]))
                case _:
                    joined.append(value)
        return joined[0] if len(joined) == 1 else ast.BoolOp(node.op, joined)


def _is_condition(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Compare | ast.BoolOp) or (
        isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)
    )


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
