"""What the compiler makes room for: after a swap a program may leave it, and says nothing about its weights then."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from jaxtyping import Bool

from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch, BatchValues
from weightspace.rasp.functions import Function, Value
from weightspace.rasp.language import Aggregate, Expression, Map
from weightspace.rasp.program import Program
from weightspace.rasp.validate import analyse, settings


@dataclass(frozen=True, eq=False)
class Room:
    """The values for which a compiled transformer has directions, and the means that it can hold.

    A categorical Aggregate holds the value that is selected, and no mean of different ones, even where that mean is
    one of its values: a second Aggregate beside it, of numbers drawn for the values, tells the two apart.

    Attributes:
        program: with these Aggregates.
        known: of each S-op for which the compiler makes room its values, and whether it can be None.
        beside: of each categorical Aggregate the one beside it, and the number of each value.
    """

    program: Program
    known: Mapping[str, tuple[Container[Value], bool]]
    beside: Mapping[str, tuple[str, Mapping[Value, float]]]

    @classmethod
    def of(cls, program: Program) -> Room:
        """The room of a program; none is asked for of a program that cannot be compiled."""
        try:
            vocab, length = settings(program, None, None)
            traits = analyse(program, vocab, length, "fixed").traits
        except RaspError:
            return cls(program, {}, {})
        needed = {id(node) for node in program.nodes}
        known: dict[str, tuple[Container[Value], bool]] = {}
        beside: dict[str, tuple[str, Mapping[Value, float]]] = {}
        statements: list[tuple[str, Expression]] = list(program.statements)
        random = Random(0)
        for name, node in program.statements:
            if id(node) not in needed or id(node) not in traits:
                continue
            known[name] = traits[id(node)].values.index, traits[id(node)].partial
            if isinstance(node, Aggregate) and not node.numerical and id(node.sop) in traits:
                numbers = {value: float(random.randrange(1, 2**30)) for value in traits[id(node.sop)].values.values}
                coded = Map(Function.from_table(numbers, 1), node.sop, encoding="numerical")
                mean = Aggregate(node.selector, coded, encoding="numerical")
                statements += [(f"{name} coded", coded), (f"{name} beside", mean)]
                beside[name] = f"{name} beside", numbers
        return cls(replace(program, statements=tuple(statements), notes={}), known, beside)

    @property
    def variables(self) -> tuple[str, ...]:
        """Which have to be evaluated."""
        return (*self.known, *(other for other, _ in self.beside.values()))

    def holds(
        self, values: Mapping[str, BatchValues], batch: Batch, put: Container[str] = ()
    ) -> Bool[np.ndarray, " n"]:
        """On which inputs every S-op has a value for which there is room, and no mean of several.

        Args:
            put: variables that were held at values, and are no means.
        """
        inside = np.ones(len(batch), bool)
        present = batch.present.T
        for name, (known, partial) in self.known.items():
            table = np.array([*(value in known for value in values[name].values), partial], bool)
            inside &= np.asarray((table[values[name].codes] | ~present).all(1))
        for name, (other, numbers) in self.beside.items():
            if name in put:
                continue
            expected = np.array([*(numbers.get(value, np.nan) for value in values[name].values), 0.0])
            mean = np.array([*values[other].values, 0.0], np.float64)[values[other].codes]
            inside &= np.asarray(((np.abs(expected[values[name].codes] - mean) < 0.25) | ~present).all(1))
        return inside
