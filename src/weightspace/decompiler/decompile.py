"""Decompilation: methods that propose a program for given weights, one after the other, until one is proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import weightspace
from weightspace import clock
from weightspace.decompiler.lifting.align import Aligned, Kind, align
from weightspace.decompiler.lifting.lift import NotLiftable, lift
from weightspace.decompiler.proof.verify import (
    Behaviour,
    Certificate,
    behaviour,
    certify,
    certify_rewritten,
    distance,
    modes_of,
)
from weightspace.decompiler.result import Decompilation
from weightspace.decompiler.search.enumeration import enumerate_program
from weightspace.decompiler.search.guided import Guided, ProgramFit, fitted, ranked
from weightspace.decompiler.search.synthesis import match_activations, synthesise
from weightspace.decompiler.search.target import MatchTarget
from weightspace.errors import NetworkError, RaspError
from weightspace.rasp.compiler.agreement import EVERY, SAMPLED
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode

if TYPE_CHECKING:
    from weightspace.decompiler.network.proposer import Proposer

Method = Literal["lifter", "greedy", "sampled", "search", "enumeration", "activations", "behaviour"]
"""Who proposes. `lifter` reads clean weights off, `greedy` and `sampled` are the network alone, `search` is the network
with a check of each operation, `enumeration` the check without a network; `activations` and `behaviour` look at what
the weights do."""
METHODS: tuple[Method, ...] = get_args(Method)
ASKED: tuple[Method, ...] = ("lifter", "greedy", "search", "enumeration", "activations", "behaviour")
"""Who is asked by default, in this order: the quick first. `search` tries what `sampled` would draw."""
SAMPLES = 32
"""Programs drawn by `sampled`."""
OF_NETWORK: tuple[Method, ...] = ("greedy", "sampled", "search")
"""Who asks the network."""
LOADING = 6.0
"""Seconds that loading the network may take, with all that it needs; with less it is not begun, as nothing stops it."""
LEAST_SECONDS = 0.05
GRACE = 0.5
"""Seconds beyond the budget in which a program that was found at its end may still be proved."""
FEW_INPUTS = 500
"""Inputs on which answers are compared first, before as many as there is time for."""
QUICK_WORK = 20_000_000_000
"""So many such products are done at once, without a look at a few inputs first."""
CERTIFIED_WORK = 50_000_000_000
"""Products of inputs, places and parameters that are spent on the answers of weights that are proved."""
PRETRAINED = Path(weightspace.__file__).parent / "pretrained" / "decompiler.safetensors"


@dataclass(frozen=True, eq=False)
class Attempt:
    """What one method has proposed.

    Attributes:
        program: None if it has none.
        mode: by which compiler it takes the weights to be made.
        checked: operations or candidates that it looked at.
        trace: what it did, a line each.
        tables: functions printed as tables.
    """

    program: Program | None
    mode: Mode | None = None
    checked: int = 0
    trace: tuple[str, ...] = ()
    tables: int = 0


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights to be decompiled, and what every method wants to know of them.

    Attributes:
        bare: the weights as they were given.
        seed: of whatever is drawn.
        proposer: the trained network; None to load the one that comes with the package.
    """

    bare: BareTransformer
    seed: int = 0
    proposer: Proposer | None = None
    _kept: dict[str, Guided] = field(default_factory=dict)

    @cached_property
    def aligned(self) -> Aligned:
        """The weights over the directions that the compiler had, as far as these were found."""
        return align(self.bare)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return modes_of(self.bare)

    @property
    def lossy(self) -> bool:
        """Whether a compression was undone, which may have dropped directions of values that never occur."""
        return self.aligned.kind == "compressed"

    @cached_property
    def targets(self) -> dict[Mode, MatchTarget]:
        """The weights prepared for matching, by the compiler that they are taken to be of."""
        return {mode: MatchTarget.of(self.aligned.bare, mode, self.lossy) for mode in self.modes}

    def fit(self, program: Program, mode: Mode | None) -> ProgramFit | None:
        """How well a program explains the weights, where these have directions."""
        if self.aligned.kind == "neither":
            return None
        modes = self.modes if mode is None or mode not in self.modes else (mode,)
        fits = [fit for one in modes if (fit := fitted(self.targets[one], program, one)) is not None]
        return max(fits, key=lambda fit: fit.gain, default=None)

    def guided(self, mode: Mode) -> Guided:
        """The network's view of the weights, read once."""
        if mode not in self._kept:
            proposer = self.proposer or pretrained()
            self._kept[mode] = Guided(self.aligned.bare, mode, proposer, self.seed, self.lossy)
        return self._kept[mode]


@lru_cache(1)
def pretrained() -> Proposer:
    """The decompiler that comes with the package.

    Raises:
        NetworkError: if it is missing or damaged.
    """
    from weightspace.decompiler.network.proposer import Proposer

    return Proposer.load(PRETRAINED)


def attempt(problem: Problem, method: Method, budget: float) -> Attempt:
    """Let one method propose a program.

    Args:
        budget: seconds. What was found by then is given; a method that has nothing by then gives nothing.
    """
    if method in OF_NETWORK and problem.proposer is None:
        pretrained()  # once in a process, and not to the method's account
    try:
        with clock.limited(budget):
            return _ATTEMPTS[method](problem, budget)
    except clock.OutOfTime:
        return Attempt(None, trace=(f"{method}: its time was over",))


def _lifter(problem: Problem, budget: float) -> Attempt:  # noqa: ARG001 - every method takes one
    trace = []
    for snap in (0.0, 0.02, 0.1):
        try:
            found = lift(problem.aligned.bare, snap=snap)
        except RaspError as error:
            trace.append(f"lifter, entries within {snap:.0%} taken for equal: {error}")
            if not isinstance(error, NotLiftable):
                break
            continue
        return Attempt(found.program, found.mode, 0, (*trace, "lifter: read"), found.tables)
    return Attempt(None, trace=tuple(trace))


def _greedy(problem: Problem, budget: float) -> Attempt:  # noqa: ARG001
    return _best(problem, lambda guided: guided.written(1, temperature=0.0), "greedy")


def _sampled(problem: Problem, budget: float) -> Attempt:  # noqa: ARG001
    return _best(problem, lambda guided: guided.written(SAMPLES, temperature=1.0), "sampled")


def _best(problem: Problem, write: Callable[[Guided], Sequence[Program]], name: str) -> Attempt:
    """Of the programs written, that under which the weights are likeliest."""
    best: tuple[float, Program, Mode] | None = None
    count = 0
    for mode in problem.modes:
        guided = problem.guided(mode)
        programs = write(guided)
        count += len(programs)
        for fit in ranked(guided.target, programs, mode)[:1]:
            if best is None or fit.gain > best[0]:
                best = (fit.gain, fit.program, mode)
    if best is None:
        return Attempt(None, checked=count, trace=(f"{name}: nothing that can be compiled",))
    return Attempt(best[1], best[2], count, (f"{name}: the likeliest of {count}",))


def _search(problem: Problem, budget: float) -> Attempt:
    best, trace, checked = None, [], 0
    modes = problem.modes
    for number, mode in enumerate(modes):
        guided = problem.guided(mode)
        started = clock.now()
        found = guided.search(budget / (len(modes) - number))
        budget -= clock.now() - started
        checked += found.checked
        trace += found.trace
        if found.program is not None and (best is None or found.score > best[0]):
            best = (found.score, found.program, mode)
        if found.complete:
            break
    if best is None:
        return Attempt(None, checked=checked, trace=tuple(trace))
    return Attempt(best[1], best[2], checked, tuple(trace))


def _enumeration(problem: Problem, budget: float) -> Attempt:
    try:
        found = enumerate_program(problem.aligned.bare, budget)
    except RaspError as error:
        return Attempt(None, trace=(f"enumeration: {error}",))
    how = "everything explained" if found.complete else "not everything explained"
    return Attempt(found.program, found.mode, found.checked, (f"enumeration: {how}, misfit {found.misfit:.3g}",))


def _activations(problem: Problem, budget: float) -> Attempt:
    try:
        found = match_activations(problem.bare, budget, problem.seed)
    except RaspError as error:
        return Attempt(None, trace=(f"activations: {error}",))
    return Attempt(found.program, None, found.candidates, (f"activations: {found.share:.1%} of places right",))


def _behaviour(problem: Problem, budget: float) -> Attempt:
    try:
        found = synthesise(problem.bare, budget, problem.seed)
    except RaspError as error:
        return Attempt(None, trace=(f"behaviour: {error}",))
    return Attempt(found.program, None, found.candidates, (f"behaviour: {found.share:.1%} of places right",))


_ATTEMPTS: dict[Method, Callable[[Problem, float], Attempt]] = {
    "lifter": _lifter,
    "greedy": _greedy,
    "sampled": _sampled,
    "search": _search,
    "enumeration": _enumeration,
    "activations": _activations,
    "behaviour": _behaviour,
}
SHARES: dict[Method, float] = {"search": 0.4, "enumeration": 0.5, "activations": 0.6, "behaviour": 1.0}
"""Of the time that is left, how much each method gets."""


def decompile(
    bare: BareTransformer,
    budget: float | int = 30.0,
    *,
    methods: Sequence[Method] = ASKED,
    proposer: Proposer | None = None,
    seed: int = 0,
) -> Decompilation:
    """Find the program in a transformer's weights.

    Methods are asked in turn until a program's own weights are those given, up to a permutation: that is the proof.
    Where there is none, as with weights that were compressed or trained, a program that answers as the weights do on
    every input is the next best, and then the one that comes nearest.

    Args:
        budget: seconds, above 0. What was found last is proved within a second more.
        methods: who is asked, in this order.
        proposer: a trained network instead of the one that comes with the package.
        seed: of whatever is drawn.
    Raises:
        RaspError: if the budget is not above 0.
    """
    if not budget > 0:
        raise RaspError(f"a budget is a number of seconds above 0, not {budget!r}")
    started = clock.now()
    problem = Problem(bare, seed, proposer)
    trace: list[str] = []
    try:
        with clock.limited(budget):
            trace.append(f"stream: {_ALIGNED[problem.aligned.kind]}")
    except clock.OutOfTime:
        methods, trace = (), ["stream: the time was over before it was understood"]
    checked, best = 0, None
    for method, found in _attempts(problem, methods, started + budget, trace):
        checked += found.checked
        if found.program is None:
            continue
        with clock.limited(max(started + budget - clock.now(), 0.0) + GRACE):
            judged = judge(problem, found, method)
        trace.append(f"{method}: {judged.found.status.replace('_', ' ')}{', nothing but noise is left' * judged.fits}")
        if best is None or judged.rank > best.rank:
            best = judged
        if best.settled:
            break
    seconds = clock.now() - started
    if best is None:
        return Decompilation("none", None, "", seconds=seconds, checked=checked, trace=tuple(trace))
    notes = list(bare.notes)
    if best.hurried:
        notes.append("The time was over before all was compared: a longer budget may prove more.")
    if problem.aligned.kind != "directions":
        notes.append(f"The stream's directions: {_ALIGNED[problem.aligned.kind]}.")
    if bare.readout is None and not bare.causal:
        notes.append("Whether a place sees those after it is not in these weights: it was taken that it does.")
    if best.fits and best.found.status != "certified":
        notes.append("Aligned, its weights are those given, but for what looks like noise.")
    return replace(best.found, seconds=seconds, checked=checked, trace=tuple(trace), notes=tuple(notes))


def _attempts(
    problem: Problem, methods: Sequence[Method], until: float, trace: list[str]
) -> Iterator[tuple[Method, Attempt]]:
    for method in methods:
        left = until - clock.now()
        if method in OF_NETWORK and problem.proposer is None and not pretrained.cache_info().currsize:
            if left < LOADING:
                trace.append(f"{method}: no time to load the network")
                continue
            with suppress(NetworkError):  # which the attempt tells
                pretrained()
            left = until - clock.now()
        if left < LEAST_SECONDS and method != methods[0]:
            trace.append(f"{method}: no time left")
            continue
        try:
            found = attempt(problem, method, left * SHARES.get(method, 1.0))
        except NetworkError as error:
            trace.append(f"{method}: {error}")
            continue
        trace.extend(found.trace)
        yield method, found


_ALIGNED: dict[Kind, str] = {
    "directions": "the weights stand in directions, as a compiler writes them",
    "rotated": "a rotation was undone by linear algebra",
    "compressed": "a compression was undone as far as it goes; the weights are approximate",
    "neither": "no directions were found in it",
}


@dataclass(frozen=True, eq=False)
class Judged:
    """A proposed program, how far it is proved, and how it compares with others for the same weights.

    Attributes:
        fits: whether it leaves nothing but noise of the weights.
        rank: to be compared; higher is better.
        hurried: whether time was over before all was compared.
    """

    found: Decompilation
    fits: bool
    rank: tuple[int, float]
    hurried: bool = False

    @property
    def settled(self) -> bool:
        """Whether no other method needs to be asked."""
        return self.found.status == "certified" or self.fits


def judge(problem: Problem, found: Attempt, method: str, *, measure: bool = True) -> Judged:
    """How far a proposed program is proved.

    Weights that are equal come first; then weights that are equal up to noise, since noise changes what weights do;
    then equal answers. Of the others, where there are directions, those under which the weights are likelier; else
    those that answer more places as the weights do.

    Args:
        measure: the distance of its weights too, where they are not the same.
    """
    assert found.program is not None
    target, program = problem.aligned.bare, found.program
    hurry = _Hurry()
    certificate = hurry.unless_over(lambda: _certified(problem, found))
    seen = _seen(problem, found, certificate, hurry)
    places = 0.0 if seen is None or not seen.places else 1 - seen.differing_places / seen.places
    if certificate is not None:
        whole = Decompilation("certified", program, method, certificate, seen, tables=found.tables)
        return Judged(whole, True, (3, places), hurry.over)
    fit = hurry.unless_over(lambda: problem.fit(program, found.mode))
    fits, equal = fit is not None and fit.complete, seen is not None and seen.equal
    apart = hurry.unless_over(lambda: distance(program, target, mode=found.mode)) if measure else None
    judged = Decompilation(
        "behaviour_equal" if equal else "best_guess", program, method, None, seen, apart, tables=found.tables
    )
    likely = problem.aligned.kind == "directions" and fit is not None and fit.answers
    rank = (2 if fits else int(equal), fit.gain if likely and fit is not None else places)
    return Judged(judged, fits, rank, hurry.over)


T = TypeVar("T")


def _certified(problem: Problem, found: Attempt) -> Certificate | None:
    aligned = problem.aligned
    assert found.program is not None
    if aligned.rewrite is None:
        return certify(found.program, problem.bare, mode=found.mode)
    return certify_rewritten(found.program, problem.bare, aligned.bare, aligned.rewrite, mode=found.mode)


class _Hurry:
    """Steps of a proof of which those are left out for which there is no time."""

    over = False

    def unless_over(self, step: Callable[[], T]) -> T | None:
        try:
            clock.look()
            return step()
        except clock.OutOfTime:
            self.over = True
            return None


def _seen(problem: Problem, found: Attempt, certificate: Certificate | None, hurry: _Hurry) -> Behaviour | None:
    """How the program's answers compare with those of the weights: on a few inputs, then on as many as there is time.

    Of weights that are proved to be the program's, large ones are asked about fewer inputs: that they answer alike is
    known, and what is measured is only what rounding does.
    """
    program, bare, target = found.program, problem.bare, problem.aligned.bare
    assert program is not None
    most = EVERY
    if certificate is not None:
        places = bare.max_seq_len * bare.size
        most = max(FEW_INPUTS, min(EVERY, CERTIFIED_WORK // places))
    seen: Behaviour | None = None
    long = most > FEW_INPUTS and SAMPLED * bare.max_seq_len * bare.size > QUICK_WORK
    for count in (FEW_INPUTS, most) if long else (most,):
        again = hurry.unless_over(lambda count=count: behaviour(program, bare, mode=found.mode, most=count))
        seen = again or seen
    if certificate is not None and (seen is None or not seen.equal):
        seen = (
            hurry.unless_over(lambda: behaviour(program, target, mode=found.mode, certificate=certificate, most=most))
            or seen
        )
    return seen
