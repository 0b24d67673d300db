"""Answers as classes: each logit of a trained network stands for one value of its program's output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from weightspace.circuits.readouts import UNKNOWN, Answers
from weightspace.rasp.batch import BatchValues
from weightspace.rasp.functions import Value, is_number

DIGITS = 6
"""Numbers that are the same to so many digits behind the point are one class: means of the same numbers round apart."""


@dataclass(frozen=True)
class AnswerClasses:
    """The likeliest class; a readout of `circuits`.

    Attributes:
        variable: the program's output.
        values: of each logit; None stands for no value.
    """

    variable: str
    values: tuple[Value, ...]

    @classmethod
    def of(cls, variable: str, found: Iterable[BatchValues]) -> AnswerClasses:
        """The classes of all values that an output has somewhere, in an order of their own."""
        seen: dict[Value, None] = {}
        for each in found:
            inside = each.codes[np.arange(each.codes.shape[1]) < each.lengths[:, None]]
            for code in np.unique(inside).tolist():
                seen.setdefault(None if code < 0 else rounded(each.values[code]), None)
        return cls(variable, tuple(sorted(seen, key=_order)))

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.variable,)

    def logits_of(self, variable: str) -> tuple[int, ...]:
        return tuple(range(len(self.values))) if variable == self.variable else ()

    def of_logits(self, logits: Float[Tensor, "inputs places outputs"]) -> Answers:
        return logits.argmax(-1).numpy().astype(np.float64)

    def of_values(self, values: Mapping[str, BatchValues]) -> Answers:
        given = values[self.variable]
        numbers = {value: float(number) for number, value in enumerate(self.values)}
        table = [numbers.get(rounded(value), UNKNOWN) for value in given.values]
        return np.array([*table, numbers.get(None, UNKNOWN)])[given.codes]


def rounded(value: Value) -> Value:
    """A value with numbers that differ only by how they were rounded made one."""
    return round(float(value), DIGITS) + 0.0 if is_number(value) else value


def _order(value: Value) -> tuple[str, float, str]:
    return (type(value).__name__, float(value) if is_number(value) else 0.0, str(value))
