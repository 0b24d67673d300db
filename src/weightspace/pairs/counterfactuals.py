"""What a program answers when S-ops are swapped at places of a pair of inputs: the examples of interchange training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Int

from weightspace.pairs.answers import AnswerClasses
from weightspace.pairs.correspondence import operations
from weightspace.rasp.batch import Batch, BatchValues
from weightspace.rasp.batch_interpreter import evaluate_swapped
from weightspace.rasp.functions import Value
from weightspace.rasp.program import Program

Places = Bool[np.ndarray, "examples variables places"]


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """A program on all inputs of one length.

    Attributes:
        program: with a vocabulary and a longest input, which is the length.
        names: its S-ops.
        codes: (inputs, places) positions of tokens in the vocabulary.
        values: each S-op on all inputs.
    """

    program: Program
    names: tuple[str, ...]
    codes: Int[np.ndarray, "inputs places"]
    values: Mapping[str, BatchValues]

    @classmethod
    def of(cls, program: Program) -> Counterfactuals:
        """Raises RaspError if the program has no answer on some input."""
        assert program.vocab is not None and program.max_seq_len is not None
        rows = product(range(len(program.vocab)), repeat=program.max_seq_len)
        codes = np.array(list(rows), np.int32)
        names = tuple(operations(program))
        return cls(program, names, codes, evaluate_swapped(program, _batch(program, codes), {}, names))

    @property
    def output(self) -> str:
        """The variable of the answer."""
        return self.program.name(self.program.output)

    @property
    def inputs(self) -> list[tuple[Value, ...]]:
        """The inputs as tokens."""
        vocab = self.program.vocab or ()
        return [tuple(vocab[code] for code in row) for row in self.codes.tolist()]

    def swapped(
        self, base: Int[np.ndarray, " examples"], source: Int[np.ndarray, " examples"], where: Places
    ) -> BatchValues:
        """The answers on base inputs where some S-ops have at some places their values on source inputs.

        Args:
            where: by variable, in the order of `names`.
        Raises:
            RaspError: if the program has no answer on one of them.
        """
        clean = {name: rows_of(self.values[name], source) for name in self.names}
        return self.followed(base, clean, where)[self.output]

    def followed(
        self, base: Int[np.ndarray, " examples"], source: Mapping[str, BatchValues], where: Places
    ) -> dict[str, BatchValues]:
        """Every S-op on base inputs where some have at some places the values given; what depends on them follows.

        Args:
            source: of each S-op, in as many examples.
        Raises:
            RaspError: if the program has no answer on one of them.
        """
        batch, put = _batch(self.program, self.codes[base]), dict[str, BatchValues]()
        for number, name in enumerate(self.names):
            own = evaluate_swapped(self.program, batch, put, [name])[name]
            put[name] = _mixed(own, source[name], where[:, number])
        return put

    def classes(
        self, random: np.random.Generator, count: int = 20_000, rows: Int[np.ndarray, " some"] | None = None
    ) -> AnswerClasses:
        """All answers that there are, with and without swaps."""
        base, source, where = self.draw(random, count, rows)
        return AnswerClasses.of(self.output, (self.values[self.output], self.swapped(base, source, where)))

    def draw(
        self, random: np.random.Generator, count: int, rows: Int[np.ndarray, " some"] | None = None
    ) -> tuple[Int[np.ndarray, " examples"], Int[np.ndarray, " examples"], Places]:
        """Pairs of inputs and what is swapped: one S-op or a random subset, at all places or at about half of them.

        Args:
            rows: numbers of the inputs that are paired; all unless given.
        """
        rows = np.arange(len(self.codes)) if rows is None else rows
        base, source = rows[random.integers(0, len(rows), (2, count))]
        variables = len(self.names)
        chosen = random.random((count, variables)) < 0.5
        single = np.eye(variables, dtype=bool)[random.integers(0, variables, count)]
        chosen = np.where((random.random(count) < 0.5)[:, None], single, chosen)
        part = random.random((count, variables, self.codes.shape[1])) < 0.5
        everywhere = random.random((count, variables, 1)) < 0.5
        return base, source, chosen[:, :, None] & (everywhere | part)

    def influence(self, random: np.random.Generator, count: int = 1_000) -> list[float]:
        """Of each S-op the share of pairs of inputs on which swapping it everywhere changes an answer."""
        found = []
        base, source = random.integers(0, len(self.codes), (2, count))
        for number in range(len(self.names)):
            where = np.zeros((count, len(self.names), self.codes.shape[1]), bool)
            where[:, number] = True
            answer = AnswerClasses.of(self.output, (self.values[self.output], self.swapped(base, source, where)))
            before = answer.of_values({self.output: rows_of(self.values[self.output], base)})
            after = answer.of_values({self.output: self.swapped(base, source, where)})
            found.append(float((before != after).any(1).mean()))
        return found

    def labels(self, answer: AnswerClasses, values: BatchValues) -> Int[np.ndarray, "examples places"]:
        """Answers as classes; -100, which no loss counts, for those that were not seen before."""
        classes = answer.of_values({answer.variable: values}).astype(np.int64)
        return np.where(classes < 0, -100, classes)


def _batch(program: Program, codes: Int[np.ndarray, "inputs places"]) -> Batch:
    return Batch(codes, np.full(len(codes), codes.shape[1]), tuple(program.vocab or ()))


def rows_of(values: BatchValues, rows: Int[np.ndarray, " examples"]) -> BatchValues:
    """An S-op's values on some inputs."""
    return BatchValues(values.codes[rows], values.values, values.lengths[rows])


def _mixed(own: BatchValues, source: BatchValues, where: Bool[np.ndarray, "examples places"]) -> BatchValues:
    """An S-op's values, at some places those of the sources."""
    numbers = {value: number for number, value in enumerate(own.values)}
    table = np.array([*(numbers.setdefault(value, len(numbers)) for value in source.values), -1])
    return BatchValues(np.where(where, table[source.codes], own.codes), tuple(numbers), own.lengths)
