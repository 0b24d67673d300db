"""The lambdas of the paper's programs, recognised in functions: an operator with a constant, or of two S-ops."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from weightspace.rasp.functions import Function, FunctionError, Value, parse_expression

ONE_ARGUMENT = ("LAM_LT", "LAM_LE", "LAM_GT", "LAM_GE", "LAM_NE", "LAM_EQ", "LAM_IV")
"""The paper's categoric lambdas (Table 1), in the order of its code; LAM_IV is `not`."""
SEQUENCE = ("LAM_ADD", "LAM_MUL", "LAM_SUB", "LAM_AND", "LAM_OR")
"""Its numeric lambdas, for which a Map needs a constant and a SequenceMap a second S-op."""
OPERATORS = {
    "LAM_LT": "<",
    "LAM_LE": "<=",
    "LAM_GT": ">",
    "LAM_GE": ">=",
    "LAM_NE": "!=",
    "LAM_EQ": "==",
    "LAM_ADD": "+",
    "LAM_MUL": "*",
    "LAM_SUB": "-",
    "LAM_AND": "and",
    "LAM_OR": "or",
}
"""How they are written between their operands; LAM_IV stands before its only one."""
MIRRORED = {"LAM_LT": "LAM_GT", "LAM_LE": "LAM_GE", "LAM_GT": "LAM_LT", "LAM_GE": "LAM_LE"}

Operands = Literal["cx", "xc", "c", "x", "xy", "yx"]
"""What an operator stands between, c being a constant."""

_NAMES: dict[type[ast.AST], str] = {
    ast.Lt: "LAM_LT",
    ast.LtE: "LAM_LE",
    ast.Gt: "LAM_GT",
    ast.GtE: "LAM_GE",
    ast.NotEq: "LAM_NE",
    ast.Eq: "LAM_EQ",
    ast.Not: "LAM_IV",
    ast.Add: "LAM_ADD",
    ast.Mult: "LAM_MUL",
    ast.Sub: "LAM_SUB",
    ast.And: "LAM_AND",
    ast.Or: "LAM_OR",
}
_OPERANDS: dict[str, Operands] = {operands: operands for operands in ("cx", "xc", "c", "x", "xy", "yx")}


class Lambda(NamedTuple):
    """A function as the paper sees it.

    Attributes:
        name: of its operator.
        operands: between what it stands; the published sampler writes a Map's constant first, and `not` of a constant.
        constant: where there is one; of a Map.
    """

    name: str
    operands: Operands
    constant: Value = None

    @property
    def published(self) -> str:
        """Its name with the constant first, as in the published code: `x < 3` is `3 > x`, LAM_GT."""
        return MIRRORED.get(self.name, self.name) if self.operands == "xc" else self.name

    @property
    def function(self) -> Function:
        """The function that it stands for."""
        parts = [repr(self.constant) if operand == "c" else operand for operand in self.operands]
        source = f"not {parts[0]}" if len(parts) == 1 else f" {OPERATORS[self.name]} ".join(parts)
        return Function.parse(source, 2 if "y" in self.operands else 1)


@lru_cache(maxsize=20_000)
def recognise(function: Function) -> Lambda | None:
    """The lambda that a function is, or None if it is none of the paper's.

    A Map's has an operator, `x` and a constant in either order, or `not`; a SequenceMap's an operator, `x` and `y`.
    """
    if function.table is not None:
        return None
    try:
        tree = parse_expression(function.source)
    except FunctionError:  # a function that was made from no source
        return None
    match tree:
        case ast.Compare(left=left, ops=[kind], comparators=[right]):
            parts = [left, right]
        case ast.BinOp(left=left, op=kind, right=right):
            parts = [left, right]
        case ast.BoolOp(op=kind, values=[left, right]):
            parts = [left, right]
        case ast.UnaryOp(op=ast.Not() as kind, operand=operand):
            parts = [operand]
        case _:
            return None
    read = [_operand(part) for part in parts]
    operands = _OPERANDS.get("".join(letter for letter, _ in read))
    name = _NAMES.get(type(kind))
    if name is None or operands is None or (function.arity == 2) != ("y" in operands):
        return None
    return Lambda(name, operands, next((constant for letter, constant in read if letter == "c"), None))


def _operand(tree: ast.expr) -> tuple[str, Any]:
    """`x`, `y`, `c` with a constant, or `?`."""
    match tree:
        case ast.Name(id="x" | "y" as name):
            return name, None
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return "c", value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
            value, bool
        ):
            return "c", -value
    return "?", None
