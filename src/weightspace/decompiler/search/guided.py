"""Search guided by the network: it proposes operations, each is checked alone against the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from weightspace import clock
from weightspace.decompiler.network.grammar import (
    ATTENTION,
    END_OF_SLOT,
    LINEAR,
    MLP,
    READS,
    RULE_IDS,
    RULE_OF,
    Draft,
    by_slot,
)
from weightspace.decompiler.network.graph import Graph, graph_of
from weightspace.decompiler.search.enumeration import enumerate_program
from weightspace.decompiler.search.matching import Match, Placed, match_all
from weightspace.decompiler.search.target import MatchTarget, profile
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import assemble, direction_labels
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode, Traits, analyse

if TYPE_CHECKING:
    from weightspace.decompiler.network.proposer import Proposer

FITS, EXPLAINED = 1.8, 3.0
"""An operation is taken for right while what is left of its own entries is below the first, in units of the noise; a
half-layer for explained while what is left of it is below the second."""
WIDTH = 24
"""Operations that the network proposes at once."""
BRANCHES = 3
"""Of those that fit, so many are followed at most."""
OWN_SHARE = 0.6
"""Of the time; the rest is enumeration's, where the search finds nothing."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What a guided search has found.

    Attributes:
        program: that explains everything, or else the likeliest that was seen.
        score: log-likelihood over noise alone, in nats.
        complete: whether every head and unit is explained.
        checked: operations that were compared with the weights.
    """

    program: Program | None
    score: float
    complete: bool
    checked: int
    trace: tuple[str, ...]


@dataclass(eq=False)
class _GuidedSearch:
    until: float
    checked: int = 0
    best: tuple[float, Draft] | None = None
    complete: Draft | None = None
    trace: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return clock.now() > self.until


class Guided:
    """One transformer as network and matching see it.

    Args:
        bare: weights in a basis of directions, clean or noisy.
        mode: by which compiler they are taken to be made.
        lossy: whether they were compressed, so that values which never occur may be lost.
    """

    def __init__(
        self, bare: BareTransformer, mode: Mode, proposer: Proposer, seed: int = 0, lossy: bool = False
    ) -> None:
        self.bare, self.proposer, self.seed = bare, proposer, seed
        self.mode: Mode = mode
        self.target = MatchTarget.of(bare, mode, lossy)
        self.graph: Graph = graph_of(bare)
        self.memory = proposer.read([self.graph])

    def draft(self, offset: int = 0) -> Draft:
        """An empty draft for these weights."""
        return Draft(self.bare.vocab, self.bare.max_seq_len, self.mode, offset % 24, 2 * self.bare.num_layers)

    def written(self, count: int, temperature: float) -> list[Program]:
        """Programs that the network writes to their end, likeliest first, without repetition."""
        drafts = [self.draft(7 * number) for number in range(count)]
        found = self.proposer.propose(self.memory, drafts, temperature=temperature, seed=self.seed)
        programs: dict[str, Program] = {}
        for proposal in sorted(found, key=lambda proposal: -proposal.log_probability):
            if proposal.draft.ended and len(proposal.draft.scope) > 2:
                program = proposal.draft.program()
                programs.setdefault(str(program), program)
        return list(programs.values())

    # -- operation by operation -------------------------------------------------------------------------------------

    def search(self, budget: float) -> Searched:
        """Write the program operation by operation, each checked against its own part of the weights.

        The network proposes; where nothing that it proposes fits, every operation is tried; where nothing at all fits,
        as under strong noise, the likeliest is taken. What then does not explain everything has to be likelier than
        what the network writes in one piece and what plain enumeration finds in the time left.
        """
        started = clock.now()
        state = _GuidedSearch(started + OWN_SHARE * budget)
        for lenient in (False, True):
            with suppress(clock.OutOfTime):
                self._extend(state, self.draft(), Placed(self.target), lenient)
            if state.complete is not None or state.over:
                break
            state.trace.append(
                "search: nothing found that fits everywhere, now the likeliest is taken where nothing does"
            )
        complete = state.complete is not None
        draft = state.complete if state.complete is not None else (state.best[1] if state.best else None)
        program, score = None, -np.inf
        if draft is not None and len(draft.scope) > 2:
            program, score = draft.program(), state.best[0] if state.best else 0.0
        if (
            not complete
        ):  # a whole program of the network, or of enumeration, may be likelier than what was put together
            programs = [] if program is None else [program]
            with suppress(clock.OutOfTime):
                programs = self.written(32, 1.0) + programs
                programs += self._enumerated(state, started + budget - clock.now())
            for fit in ranked(self.target, programs, self.mode)[:1]:
                program, score, complete = fit.program, fit.gain, fit.complete
        how = "everything explained" if complete else "not everything explained"
        state.trace.append(f"search ({self.mode}): {how}, {state.checked:,} operations checked")
        return Searched(program, score, complete, state.checked, tuple(state.trace))

    def _enumerated(self, state: _GuidedSearch, left: float) -> list[Program]:
        """What enumeration finds in the `left` seconds, the last resort; at most one program."""
        if left <= 0:
            return []
        try:
            found = enumerate_program(replace(self.bare, mode=self.mode), left)
        except RaspError:
            return []
        state.checked += found.checked
        state.trace.append(f"search: enumeration as the last resort, {found.checked:,} operations")
        return [] if found.program is None else [found.program]

    def _extend(self, state: _GuidedSearch, draft: Draft, placed: Placed, lenient: bool) -> bool:
        """Go on from here; True once everything is explained."""
        if len(draft.scope) > 2 and (state.best is None or placed.gain > state.best[0]):
            state.best = (placed.gain, draft)
        if self._explained(placed, 2 * self.bare.num_layers):
            if not answers(self.bare, draft.traits[id(draft.scope[-1])]):
                return False  # these weights, but other values are answered
            state.complete = draft
            state.best = (placed.gain, draft)
            return True
        if state.over or len(draft.scope) > 22:
            return False
        slots = range(2 * self.bare.num_layers)
        slot = next((slot for slot in slots if self._left(placed, slot) > EXPLAINED), None)
        if slot is None:  # all is taken, but not all of it fits
            return False
        draft = draft.copy()
        while draft.slot < slot:
            draft.push(END_OF_SLOT)
        if draft.slot > slot and not lenient:
            return False  # an earlier slot was left unexplained
        for followed, (following, match) in enumerate(self._candidates(state, draft, placed, lenient), 1):
            node = following.scope[-1]
            after = placed.copy()
            after.place(node, match)
            if self._extend(state, following, after, lenient):
                return True
            if state.over or followed >= (1 if lenient else BRANCHES):
                return False
        return False

    def _candidates(
        self, state: _GuidedSearch, draft: Draft, placed: Placed, lenient: bool
    ) -> Iterator[tuple[Draft, Match]]:
        """Operations that fit next, best first: the network's, then all there are."""
        tried: set[tuple[int, ...]] = set()
        loose: list[tuple[float, Draft, Match]] = []
        for source in (self._proposed(draft), self._every(draft)):
            fitting: list[tuple[float, int, Draft, Match]] = []
            for following in source:
                key = tuple(row[0] for row in following.rows(draft.length))
                if key in tried:
                    continue
                tried.add(key)
                match = self._check(state, following, placed)
                if match is None:
                    continue
                if match.misfit < FITS:
                    fitting.append((-match.gain, len(fitting), following, match))
                elif lenient:
                    loose.append((-match.gain, following, match))
                if state.over:
                    break
            for _, _, following, match in sorted(fitting, key=lambda entry: entry[:2]):
                yield following, match
            if state.over or (lenient and fitting):
                return
            if lenient and loose and not fitting:
                break
        for _, following, match in sorted(loose, key=lambda entry: entry[0])[:1]:
            yield following, match

    def _check(self, state: _GuidedSearch, draft: Draft, placed: Placed) -> Match | None:
        state.checked += 1
        node = draft.scope[-1]
        try:
            return placed.match(draft.traits[id(node)], draft.traits, draft.slot // 2)
        except RaspError:
            return None

    def _proposed(self, draft: Draft) -> Iterable[Draft]:
        """Distinct next operations in this slot, by the network, the likeliest first."""
        found = self.proposer.propose(
            self.memory, [draft] * WIDTH, temperature=1.2, seed=self.seed + draft.length, operations=1
        )
        greedy = self.proposer.propose(self.memory, [draft], operations=1)
        for proposal in [*greedy, *sorted(found, key=lambda proposal: -proposal.log_probability)]:
            if len(proposal.draft.scope) == len(draft.scope) + 1 and proposal.draft.slot == draft.slot:
                yield proposal.draft

    def _every(self, draft: Draft) -> Iterable[Draft]:
        """Every operation that could stand in this slot."""
        scope = range(len(draft.scope))
        for kind in ATTENTION if draft.slot % 2 == 0 else MLP:
            of_rule = [[i for (what, _), i in RULE_IDS.items() if what == wanted] for wanted in RULE_OF[kind]]
            suited = [
                [place for place in scope if wanted in ("any", draft.scope[place].encoding)] for wanted in READS[kind]
            ]
            for reads in product(*suited):
                if kind == LINEAR and reads[0] > reads[1]:  # every pair of factors comes for the other order too
                    continue
                for rules in product(*of_rule):
                    following = draft.copy()
                    try:
                        following.take(kind, reads, rules)
                    except RaspError:
                        continue
                    yield following

    def _left(self, placed: Placed, slot: int) -> float:
        return placed.left(slot // 2, slot % 2 == 0)

    def _explained(self, placed: Placed, slots: int) -> bool:
        if not placed.matches or max(match.misfit for match in placed.matches) >= FITS:
            return False
        return all(self._left(placed, slot) <= EXPLAINED for slot in range(slots))


@dataclass(frozen=True, eq=False)
class ProgramFit:
    """How well a whole program explains weights.

    Attributes:
        gain: log-likelihood over noise alone, in nats.
        answers: whether it answers with such values as are known to be answered; the weights may hold no trace of them.
        complete: whether it does, and nothing but noise is left, in what its operations own and in what none does.
    """

    program: Program
    gain: float
    answers: bool
    complete: bool


def answers(bare: BareTransformer, output: Traits) -> bool:
    """Whether an S-op can be the answer, by its encoding and its values, as far as these are known."""
    readout = bare.readout
    if readout is None or readout.values == ():
        return True
    if readout.values is None or output.node.numerical:
        return readout.values is None and output.node.numerical
    return set(output.values.values) == set(readout.values)


def fitted(target: MatchTarget, program: Program, mode: Mode) -> ProgramFit | None:
    """How well a program explains weights, its directions matched by who reads them; None if it cannot be compiled."""
    bare = target.bare
    analysis = analyse(program.meant_for(bare.vocab, bare.max_seq_len), bare.vocab, bare.max_seq_len, mode)
    if analysis.reasons:
        return None
    try:
        transformer = assemble(analysis)
    except RaspError:
        return None
    labels = direction_labels(analysis.program, [t for t in analysis.traits.values() if t.depth], mode == "fixed")
    groups = {group.label: group for group in transformer.directions}
    reads = profile(BareTransformer.of(transformer))
    expected = {
        node: reads[groups[label].start : groups[label].start + groups[label].size]
        for node, label in labels.items()
        if node in analysis.traits
    }
    slots = by_slot(analysis.program, analysis.traits)
    lines = [(node, slot // 2) for slot, nodes in enumerate(slots) for node in nodes]
    placed = match_all(target, lines, analysis.traits, expected)
    if placed is None:
        return None
    left = [placed.left(slot // 2, slot % 2 == 0) for slot in range(2 * bare.num_layers)]
    right = answers(bare, analysis.traits[id(analysis.program.output)])
    complete = right and max(match.misfit for match in placed.matches) < FITS and max(left) <= EXPLAINED
    return ProgramFit(program, placed.gain, right, complete)


def ranked(target: MatchTarget, programs: Sequence[Program], mode: Mode) -> list[ProgramFit]:
    """Programs by the likelihood of the weights under them, best first; those that cannot be compiled are left out.

    Those that cannot give the answer come last; if time runs out, those that were not looked at are left out, too.
    """
    found: list[ProgramFit] = []
    with suppress(clock.OutOfTime):
        found += (fit for program in programs if (fit := fitted(target, program, mode)) is not None)
    return sorted(found, key=lambda fit: (not fit.answers, -fit.gain))
