"""A program and a transformer on the same inputs, place by place: what each answers, and when values are swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weightspace import clock
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.readouts import Answers, Readout, token_text
from weightspace.circuits.room import Room
from weightspace.errors import NetworkError, RaspError
from weightspace.rasp.batch import Batch, BatchValues
from weightspace.rasp.batch_interpreter import evaluate_swapped
from weightspace.rasp.functions import Value
from weightspace.rasp.language import SOp, indices, tokens, walk
from weightspace.rasp.program import Program
from weightspace.transformers.places import Place, Replacement
from weightspace.transformers.trained import Run, TrainedTransformer

TOKENS_AT_ONCE = 16_384
"""Places of the text in one forward pass."""
PAIRS_AT_ONCE = 4_000_000
"""Pairs of places, of all inputs together, on which a program is run at once."""
KEPT_BYTES = 2**28
Rows = Int[np.ndarray, " _"]
"""Numbers of inputs."""
Replacing = Callable[[np.ndarray, int], Mapping[Place, Replacement]]
"""What is put where in a forward pass, of the positions of its inputs among the rows and its number of places."""


def nothing_replaced(part: np.ndarray, length: int) -> Mapping[Place, Replacement]:  # noqa: ARG001
    """A forward pass as it is."""
    return {}


class Alignment:
    """A program and a transformer on the same inputs.

    Attributes:
        readout: how answers are read off both.
        batch: the inputs as the program reads them.
        asked: (inputs, places) where an answer counts.
        values: every S-op that the answer needs, by variable, with `tokens` and `indices`.
        expected: the program's answers.
        undefined: inputs that were left out because the program has no answer on them.
    """

    def __init__(
        self,
        transformer: TrainedTransformer,
        program: Program,
        inputs: Sequence[Sequence[Value]],
        readout: Readout,
        *,
        asked: Sequence[Sequence[bool]] | None = None,
        numbers: Mapping[Value, int] | None = None,
        begin: int | None = None,
        closed: bool = False,
    ) -> None:
        """
        Args:
            inputs: of the program, of any lengths.
            asked: for each place of each input whether an answer counts; unless given, at each place.
            numbers: of each token of the program in the transformer; unless given, those of their texts in the
                transformer's vocabulary.
            begin: the number of a token that stands before each input and that the program does not see; or None.
            closed: whether the transformer was compiled, so that only values count for which the compiler makes room:
                swaps after which an S-op of the program has another are left out as undefined.
        Raises:
            NetworkError: if a token is unknown, an input too long, or the program has an answer on no input.
        """
        self.transformer, self.program, self.readout = transformer, program, readout
        self.offset, self.closed = (0 if begin is None else 1), closed
        self._room = Room.of(program) if closed else None
        given = [tuple(each) for each in inputs]
        if not given or not all(given):
            raise NetworkError("an alignment needs at least one input, and each has at least one token")
        if asked is not None and [len(row) for row in asked] != [len(row) for row in given]:
            raise NetworkError("`asked` has a truth value for each place of each input")
        names = _needed(program, readout.variables)
        batch = Batch.of(given, program.vocab)
        values, defined = _evaluated(program, batch, {}, names)
        if not defined.any():
            raise NetworkError(f"the program has no answer on any of the inputs: {_obstacle(program, batch, names)}")
        rows = np.flatnonzero(defined)
        self.batch = Batch(batch.codes[rows], batch.lengths[rows], batch.vocab)
        self.values = {name: _rows_of(values[name], rows) for name in names}
        self.undefined = len(given) - len(rows)
        self.asked = self.batch.present.T.copy()
        if asked is not None:
            for row, number in enumerate(rows.tolist()):
                self.asked[row, : len(asked[number])] &= np.array(asked[number], bool)
        if not self.asked.any(1).all():
            raise NetworkError("nothing is asked on one of the inputs: leave it out, or ask at one place at least")
        self.tokens = self._encoded([given[row] for row in rows.tolist()], numbers, begin)
        self.expected = readout.of_values(self.values)
        self._kept: dict[Place, Tensor] = {}

    def with_program(self, program: Program) -> Alignment:
        """The same transformer and inputs with a program of the same variables.

        Raises:
            NetworkError: if it has an answer on none of the inputs.
        """
        other = copy(self)
        names = _needed(program, self.readout.variables)
        values, defined = _evaluated(program, self.batch, {}, names)
        if not defined.any():
            raise NetworkError(f"the program has no answer on any input: {_obstacle(program, self.batch, names)}")
        rows = np.flatnonzero(defined)
        other.program, other.undefined = program, len(self) - len(rows)
        other._room = Room.of(program) if self.closed else None
        other.values = {name: _rows_of(values[name], rows) for name in names}
        other.expected = self.readout.of_values(other.values)
        if len(rows) < len(self):
            other.batch = Batch(self.batch.codes[rows], self.batch.lengths[rows], self.batch.vocab)
            other.asked, other.tokens = self.asked[rows], self.tokens[torch.from_numpy(rows)]
            other._kept = {}
        return other

    @property
    def varying(self) -> tuple[str, ...]:
        """The variables of S-ops that are not the same everywhere, so that a swap of them can change something."""
        return tuple(name for name, held in self.values.items() if len(held.values) > 1)

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.batch)

    def _encoded(
        self, inputs: Sequence[Sequence[Value]], numbers: Mapping[Value, int] | None, begin: int | None
    ) -> Int[Tensor, "inputs places"]:
        vocab = self.transformer.vocab
        if numbers is None and vocab is None:
            raise NetworkError("the transformer's vocabulary is not known: give it when it is loaded, or `numbers`")
        known: dict[Any, int] = {text: number for number, text in reversed(list(enumerate(vocab or ())))}
        by_value = {value: known.get(token_text(value)) for value in self.batch.vocab} if numbers is None else numbers
        for value in {value for row in inputs for value in row}:
            if by_value.get(value) is None:
                raise NetworkError(f"the token {value!r} of the program is not in the transformer's vocabulary")
        tokens = torch.zeros(len(inputs), self.batch.codes.shape[1] + self.offset, dtype=torch.long)
        if begin is not None:
            tokens[:, 0] = begin
        for row, each in enumerate(inputs):
            tokens[row, self.offset : self.offset + len(each)] = torch.tensor([by_value[value] for value in each])
        if tokens.shape[1] > self.transformer.shape.positions:
            raise NetworkError(
                f"an input of {tokens.shape[1]:,} tokens is longer than the {self.transformer.shape.positions:,} "
                f"positions of {self.transformer.where}"
            )
        return tokens

    # -- the transformer ----------------------------------------------------------------------------------------------

    def present(self, rows: Rows) -> Bool[Tensor, "rows places"]:
        """Which places of the transformer's inputs are real."""
        places = torch.arange(self.tokens.shape[1])
        return places[None] < torch.from_numpy(self.batch.lengths[rows].astype(np.int64))[:, None] + self.offset

    def run(
        self,
        rows: Rows,
        replace: Replacing = nothing_replaced,
        read: Component | None = None,
    ) -> Iterator[tuple[np.ndarray, Run]]:
        """Forward passes over some inputs, the short ones first.

        Args:
            rows: numbers of inputs.
            replace: what is put where, of a part's positions in `rows` and its number of places.
            read: whose place is read; then there are no logits.
        Yields:
            positions in `rows`, and their run, whose places end with the longest of them.
        """
        order = np.argsort(self.batch.lengths[rows], kind="stable")
        start = 0
        while start < len(order):
            clock.look()
            longest = int(self.batch.lengths[rows[order[start:]]].max()) + self.offset
            part = order[start : start + max(1, TOKENS_AT_ONCE // longest)]
            start += len(part)
            length = int(self.batch.lengths[rows[part]].max()) + self.offset
            yield (
                part,
                self.transformer.run(
                    self.tokens[rows[part], :length],
                    replace=replace(part, length),
                    read=[] if read is None else [read.place],
                    mask=None if self.transformer.shape.causal else self.present(rows[part])[:, :length],
                    logits=read is None,
                ),
            )

    def answers(self, rows: Rows | None = None, replace: Replacing = nothing_replaced) -> Answers:
        """What the transformer answers on some inputs, unless given on all; `replace` as in `run`."""
        rows = np.arange(len(self)) if rows is None else rows
        answers = np.full((len(rows), self.batch.codes.shape[1]), np.nan)
        for part, run in self.run(rows, replace):
            found = self.readout.of_logits(run.logits[:, self.offset :])
            answers[part, : found.shape[1]] = found
        return answers

    def held(
        self, component: Component, rows: Rows, replace: Replacing = nothing_replaced
    ) -> Float[Tensor, "rows places size"]:
        """What a component holds on some inputs: all that stands at its place, or coordinates along its basis."""
        basis = component.basis
        whole: Tensor | None = None
        for part, run in self.run(rows, replace, component):
            value = run[component.place] if basis is None else run[component.place] @ basis
            if whole is None:
                whole = torch.zeros(len(rows), self.tokens.shape[1], value.shape[-1])
            whole[torch.from_numpy(part), : value.shape[1]] = value
        assert whole is not None  # there is at least one row
        return whole

    def activations(self, place: Place) -> Tensor:
        """What stands at a place on all inputs, (inputs, places, width); kept for the next time."""
        if place not in self._kept:
            held = self.held(Component(place), np.arange(len(self)))
            while self._kept and sum(each.nbytes for each in self._kept.values()) + held.nbytes > KEPT_BYTES:
                del self._kept[next(iter(self._kept))]
            self._kept[place] = held
        return self._kept[place]

    def common(self, base: Rows, source: Rows) -> Bool[np.ndarray, "pairs places"]:
        """The program's places that both inputs of each pair have."""
        shared = np.minimum(self.batch.lengths[base], self.batch.lengths[source])
        return np.arange(self.batch.codes.shape[1]) < shared[:, None]

    def swapped_answers(
        self, component: Component, base: Rows, source: Rows, where: Bool[np.ndarray, "pairs places"]
    ) -> Answers:
        """What the transformer answers on base inputs where a component holds what it holds on source inputs.

        Args:
            where: the program's places at which it does, which both inputs have.
        """
        basis, held = component.basis, self.activations(component.place)
        chosen = torch.zeros(len(base), self.tokens.shape[1], dtype=torch.bool)
        chosen[:, self.offset :] = torch.from_numpy(where)

        def replace(part: np.ndarray, length: int) -> Mapping[Place, Replacement]:
            other = held[torch.from_numpy(source[part]), :length]
            return {component.place: put_where(other, chosen[torch.from_numpy(part), :length], basis)}

        return self.answers(base, replace)

    # -- the program --------------------------------------------------------------------------------------------------

    def swapped_meaning(
        self, variable: str, base: Rows, source: Rows, where: Bool[np.ndarray, "pairs places"]
    ) -> tuple[Answers, Bool[np.ndarray, " pairs"]]:
        """What the program answers on base inputs where a variable has its values on source inputs, and where it can.

        Args:
            variable: an S-op, `tokens` or `indices`.
            where: the places at which it has them, which both inputs have.
        Returns:
            answers (pairs, places), and for which pairs the program has an answer.
        """
        own = self.values[variable]
        put = np.where(where, own.codes[source], own.codes[base])
        return self.meaning(base, {variable: BatchValues(put, own.values, self.batch.lengths[base])})

    def meaning(self, rows: Rows, put: Mapping[str, BatchValues]) -> tuple[Answers, Bool[np.ndarray, " pairs"]]:
        """What the program answers on some inputs where variables are held at values, and where it can."""
        size = self.batch.codes.shape[1]
        answers, defined = np.full((len(rows), size), np.nan), np.zeros(len(rows), bool)
        at_once = max(1, PAIRS_AT_ONCE // size**2)
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            batch = Batch(self.batch.codes[rows[part]], self.batch.lengths[rows[part]], self.batch.vocab)
            held = {name: _rows_of(values, np.arange(len(rows))[part]) for name, values in put.items()}
            room = self._room
            program = self.program if room is None else room.program
            wanted = [*self.readout.variables, *(room.variables if room is not None else ())]
            values, ok = _evaluated(program, batch, held, wanted)
            answers[part] = self.readout.of_values({name: values[name] for name in self.readout.variables})
            if room is not None:
                ok &= room.holds(values, batch, put)
            defined[part] = ok
        return answers, defined


def put_where(other: Tensor, chosen: Bool[Tensor, "inputs places"], basis: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A replacement: other values, or their part in a subspace, at chosen places.

    Args:
        other: (inputs, places, width).
        basis: orthonormal columns (width, rank); None for the whole space.
    """

    def put(value: Tensor) -> Tensor:
        change = other - value
        change = change if basis is None else change @ basis @ basis.T
        return value + change * chosen.unsqueeze(-1)

    return put


def _needed(program: Program, outputs: Sequence[str]) -> list[str]:
    """The S-ops that some variables need, themselves and the inputs among them, in the program's order."""
    nodes = {"tokens": tokens, "indices": indices, **dict(program.statements)}
    for name in outputs:
        if not isinstance(nodes.get(name), SOp):
            raise NetworkError(f"the program has no S-op {name!r} to answer with")
    needed = {id(node) for name in outputs for node in walk(nodes[name])} | {id(tokens), id(indices)}
    return [name for name, node in nodes.items() if id(node) in needed and isinstance(node, SOp)]


def _rows_of(values: BatchValues, rows: np.ndarray) -> BatchValues:
    return BatchValues(values.codes[rows], values.values, values.lengths[rows])


def _evaluated(
    program: Program, batch: Batch, put: Mapping[str, BatchValues], wanted: Sequence[str]
) -> tuple[dict[str, BatchValues], np.ndarray]:
    """What variables are on a batch, and on which inputs they can be evaluated; elsewhere they are None."""
    rows = _defined(program, batch, put, wanted, np.arange(len(batch)))
    defined = np.zeros(len(batch), bool)
    defined[rows] = True
    if not len(rows):
        nothing = BatchValues(np.full_like(batch.codes, -1), (), batch.lengths)
        return dict.fromkeys(wanted, nothing), defined
    whole = {}
    for name, values in _on_rows(program, batch, put, wanted, rows).items():
        codes = np.full(batch.codes.shape, -1, values.codes.dtype)
        codes[rows] = values.codes
        whole[name] = BatchValues(codes, values.values, batch.lengths)
    return whole, defined


def _defined(program: Program, batch: Batch, put: Mapping[str, BatchValues], wanted: Sequence[str], rows: Rows) -> Rows:
    """Those rows on which the program has an answer: where it stops, smaller parts are looked at, each by itself."""
    try:
        _on_rows(program, batch, put, wanted, rows)
    except RaspError:
        if len(rows) == 1:
            return rows[:0]
        size = 8 if len(rows) > 8 else 1
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return np.concatenate([_defined(program, batch, put, wanted, part) for part in parts])
    return rows


def _on_rows(
    program: Program, batch: Batch, put: Mapping[str, BatchValues], wanted: Sequence[str], rows: Rows
) -> dict[str, BatchValues]:
    some = Batch(batch.codes[rows], batch.lengths[rows], batch.vocab)
    return evaluate_swapped(program, some, {name: _rows_of(values, rows) for name, values in put.items()}, wanted)


def _obstacle(program: Program, batch: Batch, wanted: Sequence[str]) -> str:
    """Why a program has no answer on the first input of a batch."""
    try:
        evaluate_swapped(program, Batch(batch.codes[:1], batch.lengths[:1], batch.vocab), {}, wanted)
    except RaspError as error:
        return str(error)
    return "one of its variables cannot be evaluated"
