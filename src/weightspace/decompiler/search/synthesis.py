"""Programs found from what a transformer does: from its answers alone, or from its activations as well."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from weightspace import clock
from weightspace.decompiler.search.answers import Goal, by_length, same, some_of
from weightspace.decompiler.search.bottomup import Enumeration
from weightspace.decompiler.search.pool import InputPlaces, Pool
from weightspace.decompiler.search.recognition import STRICTNESS, Inside, Recognised, Strictness
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.functions import is_number
from weightspace.rasp.language import LinearSequenceMap, Map, SequenceMap, SOp, tokens, walk
from weightspace.rasp.program import Program

Array = np.ndarray
Semantics = Literal["fixed", "tracr_compat"]

BATCH = 160
"""S-ops are told apart by what they give on so many inputs."""
FEW = 44
"""The same where very many S-ops are told apart."""


@dataclass(frozen=True, eq=False)
class Synthesised:
    """What a search for a program has found.

    Attributes:
        program: the best one, or None if there is none at all.
        exact: whether its compiled form answers as the transformer does, at every place of every input tried.
        share: of the places at which they agree.
        inputs: how many inputs were tried.
        exhaustive: whether these are all there are.
        candidates: how many S-ops were looked at.
        seconds: how long it took.
    """

    program: Program | None
    exact: bool
    share: float
    inputs: int
    exhaustive: bool
    candidates: int
    seconds: float


def match_activations(bare: BareTransformer, budget: int | float = 10.0, seed: int = 0) -> Synthesised:
    """Find the program that a transformer computes from its answers and its activations.

    Args:
        bare: `readout` has to say where it answers.
        budget: seconds.
    Raises:
        RaspError: if it is not known where it answers, or its tokens or answers are no numbers.
    """
    started = clock.now()
    goal = Goal.of(bare, seed)
    search = Search(bare, goal, started + budget, seed)
    with suppress(clock.OutOfTime):
        _match(search, bare, goal, seed)
    return search.result(started)


def _match(search: Search, bare: BareTransformer, goal: Goal, seed: int) -> None:
    pools: list[Pool] = []
    for mended, strictness in itertools.product((False, True), STRICTNESS):
        if search.over or search.read(strictness, mended, pools):
            break
    if pools and not search.over:  # what was read may lack only the last step
        search.enumerate(min(pools, key=len), clock.now() + 0.3 * (search.until - clock.now()))
    if not search.over:
        answers_only = Search(bare, goal, search.until, seed, FEW)
        try:
            answers_only.enumerate(answers_only.pool(), search.until)
        finally:
            search.exact = answers_only.exact
            search.tried += answers_only.tried


def synthesise(bare: BareTransformer, budget: int | float = 10.0, seed: int = 0) -> Synthesised:
    """Find the program that a transformer computes from its answers alone.

    Args:
        bare: `readout` has to say where it answers.
        budget: seconds.
    Raises:
        RaspError: if it is not known where it answers, or its tokens or answers are no numbers.
    """
    started = clock.now()
    search = Search(bare, Goal.of(bare, seed), started + budget, seed, FEW)
    with suppress(clock.OutOfTime):
        search.enumerate(search.pool(), search.until)
    return search.result(started)


class Search:
    """What a search has found so far.

    Attributes:
        best: the share of places right and the S-op that has it; by its own semantics, on the batch.
    """

    def __init__(self, bare: BareTransformer, goal: Goal, until: float, seed: int, batch: int = BATCH) -> None:
        self.bare, self.goal, self.until = bare, goal, until
        self.mode: Semantics = "fixed" if bare.mode == "fixed" else "tracr_compat"
        chosen = some_of(goal, batch, seed)
        self.inputs = [goal.inputs[i] for i in chosen]
        self.wanted = np.where(goal.sure, goal.answers, np.nan)[chosen]
        self.place = InputPlaces.of(self.inputs, bare.max_seq_len)
        self.inside = Inside(bare, self.inputs, self.place)
        self.best: tuple[float, SOp | None] = (-np.inf, None)
        self.exact: Program | None = None
        self.tried = 0
        self.log: list[str] = []

    def pool(self) -> Pool:
        return Pool(self.place, self.mode == "tracr_compat", self.bare.max_seq_len, self.bare.causal)

    @property
    def over(self) -> bool:
        return self.exact is not None or clock.now() > self.until

    def read(self, strictness: Strictness, mended: bool, pools: list[Pool]) -> bool:
        """Read the activations once; whether that gave a program that is right everywhere.

        Args:
            pools: to which is added what was recognised.
        """
        clock.look()
        pool = self.pool()
        reader = Recognised(pool, self.inside, strictness, mended, self.until)
        reader.read()
        self.log = reader.log
        found = self.judge(pool, reader if mended else None)
        self.tried += pool.tried
        if len(pool) > 2:
            pools.append(pool)
        return found

    def enumerate(self, pool: Pool, until: float) -> bool:
        """Enumerate from a pool; whether that gave a program that is right everywhere."""
        pool.tried = 0
        enumeration = Enumeration(pool, self.wanted, self.goal.numerical, until, self.verify)
        enumeration.run()
        share, recipe = enumeration.best
        if recipe is not None and share > self.best[0]:
            self.best = share, pool.build(recipe)
        self.tried += pool.tried
        return self.exact is not None

    def judge(self, pool: Pool, reader: Recognised | None) -> bool:
        """Look for the answer among the S-ops of a pool.

        Args:
            reader: that has mended the stream, and so has an opinion on the answer too.
        """
        goal = self.goal
        asked = ~np.isnan(self.wanted[self.place.real])
        numbers = [i for i in range(len(pool)) if pool.numerical[i] == goal.numerical]
        if not numbers:
            return False
        values = np.stack([self.answered(pool, i) for i in numbers])
        shares = same(values, self.wanted[self.place.real])[:, asked].mean(1)
        for s in np.flatnonzero(shares == 1).tolist():
            if self.verify(pool.node(numbers[s])):
                return True
        opinion = shares
        if reader is not None:
            opinion = np.maximum(shares, self.opinion(values, reader))
        first = int(opinion.argmax())
        if opinion[first] > self.best[0]:
            self.best = float(opinion[first]), pool.node(numbers[first])
        return False

    def opinion(self, values: Array, reader: Recognised) -> Array:
        """How well the values (n, entries) of S-ops go with what a reader has read, below 1."""
        readout = self.bare.readout
        assert readout is not None
        read = reader.answer[self.place.real]
        if not read.any():  # nobody writes just the directions of the answer
            read = (reader.stream @ readout.directions)[self.place.real].astype(float)
        if self.goal.numerical:
            error = ((values - read[:, 0]) ** 2).mean(1)
            return np.minimum(0.99999, 1 - error / max(float(read.var()), 1e-3))
        assert readout.values is not None
        names = np.array([float(value) for value in readout.values if is_number(value)])
        return np.minimum(0.99999, same(values, names[read.argmax(1)]).mean(1))

    def answered(self, pool: Pool, number: int) -> Array:
        """(entries,) what is answered if an S-op is the output."""
        values = pool.values[number][self.place.real]
        if self.mode == "tracr_compat" and not pool.numerical[number]:
            return np.where(np.isnan(values), pool.value_set(number)[0], values)
        return values

    def program(self, node: SOp) -> Program:
        return Program.of(
            _reading_tokens(node),
            vocab=self.bare.vocab,
            max_seq_len=self.bare.max_seq_len,
            causal=self.bare.causal,
        )

    def verify(self, node: SOp) -> bool:
        """Whether an S-op answers everything as the transformer does when it is compiled; if so it is kept."""
        program = self.program(node)
        answers = self.compiled_answers(program)
        if answers is None:
            return False
        if self.goal.agrees(answers).all():
            self.exact = program
            return True
        return False

    def compiled_answers(self, program: Program) -> Array | None:
        try:
            compiled = BareTransformer.of(compile_program(program, mode=self.mode))
        except RaspError:
            return None
        answers = np.full(self.goal.answers.shape, np.nan)
        for members, codes in by_length(compiled, self.goal.inputs):
            answers[members, 1 : codes.shape[1]] = np.array(compiled.decode(compiled.forward(codes)[:, 1:]), float)
        return answers

    def result(self, started: float) -> Synthesised:
        program, share = self.exact, 1.0
        if program is None and self.best[1] is not None:
            program, share, answers = self.program(self.best[1]), 0.0, None
            with suppress(clock.OutOfTime):  # then it is not known
                answers = self.compiled_answers(program)
            if answers is not None:
                asked = np.array([len(entry) for entry in self.goal.inputs])[:, None] > np.arange(answers.shape[1] - 1)
                share = float(self.goal.agrees(answers)[:, 1:][asked].mean())
        return Synthesised(
            program,
            self.exact is not None,
            share if program is not None else 0.0,
            len(self.goal.inputs),
            self.goal.exhaustive,
            self.tried,
            clock.now() - started,
        )


def _reading_tokens(node: SOp) -> SOp:
    """The same S-op as one that is an operation and reads the tokens, as the compiler asks for."""
    if node is tokens:
        return SequenceMap("x or y", tokens, tokens)
    if any(part is tokens for part in walk(node)):
        return node
    nought = SequenceMap("x - y", tokens, tokens)
    if node.numerical:
        return LinearSequenceMap(node, Map("x", nought, encoding="numerical"), 1, 1)
    return SequenceMap("x - y", node, nought)
