"""What the lambdas and predicates of the paper's sampler say, as functions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from weightspace.rasp.sampler import PAPER_BOOLEAN

JOINED: dict[str, Callable[[Any, Any], Any]] = {
    "LAM_ADD": lambda a, b: a + b,
    "LAM_MUL": lambda a, b: a * b,
    "LAM_SUB": lambda a, b: a - b,
    "LAM_AND": lambda a, b: a and b,
    "LAM_OR": lambda a, b: a or b,
}
SELECTED: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": lambda a, b: a == b,
    "FALSE": lambda a, b: False,  # noqa: ARG005
    "TRUE": lambda a, b: True,  # noqa: ARG005
    "GEQ": lambda a, b: a >= b,
    "GT": lambda a, b: a > b,
    "LEQ": lambda a, b: a <= b,
    "LT": lambda a, b: a < b,
    "NEQ": lambda a, b: a != b,
}
"""Of a key and a query."""
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "LAM_LT": operator.lt,
    "LAM_LE": operator.le,
    "LAM_GT": operator.gt,
    "LAM_GE": operator.ge,
    "LAM_NE": operator.ne,
    "LAM_EQ": operator.eq,
    "LAM_IV": lambda constant, _: not constant,
}
"""What a boolean lambda says of its constant and a value."""


def applied(detail: str, constant: Any, given: Sequence[Any]) -> tuple[Any, ...]:
    """What a Map's lambda gives for each value."""
    function = COMPARED[detail] if detail in PAPER_BOOLEAN else JOINED[detail]
    return tuple(function(constant, x) for x in given)
