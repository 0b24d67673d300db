"""What is found of a trained transformer: a program, on how many inputs it was held against the network, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from weightspace.decompiler.trained.exhaustive import Compared
from weightspace.evaluation.metrics import Tally
from weightspace.notebook import card
from weightspace.rasp.program import Program
from weightspace.rasp.readable import count_lines, readable_text

Status = Literal["equal_on_all", "matches", "best_guess", "none"]
"""Equal on all: network and program agree on every input of the language or the task up to a length. Matches: on at
least `MATCH` of inputs drawn. Best guess: on fewer. None: there is no program."""
MATCH = 0.9
ENOUGH, LONG = 500, 50
"""On so many inputs, all up to some length, they have to agree, or up to such a length where a language has few
strings; or on all that there are."""
LOCATED, CONTROL = 0.95, 0.6
"""Interchange accuracy from which an S-op is located, and below which that of a random direction has to be."""
IN_LANGUAGE = 0.75
"""Share of inputs given on which the network has to be right for `equal_on_all`."""
MECHANISM = 0.95
"""Agreement off the distribution from which a program is taken for what the network computes, if it is located too."""


@dataclass(frozen=True)
class Held:
    """Where an S-op is held.

    Attributes:
        variable: of the program.
        component: the place and how many directions of it.
        interchange: the share of pairs of inputs whose answer becomes the program's when the component is swapped.
        random: the same of random directions; None for a whole component.
        n: pairs.
    """

    variable: str
    component: str
    interchange: float | None
    random: float | None
    n: int

    @property
    def located(self) -> bool:
        """Whether interchange says that it is there."""
        return (self.interchange or 0.0) >= LOCATED and (self.random is None or self.random < CONTROL)


@dataclass(frozen=True, eq=False)
class TrainedDecompilation:
    """A program for a trained transformer, and how far it is shown to be what that computes.

    Attributes:
        program: None if none was found.
        kind: sets or answers.
        match: of inputs that were not searched on, those on which network and program agree at every place.
        longer: the same of longer inputs.
        off: of places off the distribution, those at which they agree.
        every: on every input of the language, or every question, up to a length.
        alphabet: on every string of letters, where sets are asked.
        held: where each S-op of the program is held, as far as that was looked for.
        tried, kept: S-ops that were made in the search, and that differ.
        seconds: that it took.
        in_language: of the short inputs given, the share on which the network is right, or where that is not known the
            share whose tokens it allows, or answers so. Where it is small the network does not do what the inputs ask,
            and there is no language of which all inputs could be tried.
        notes: what else a reader must know, a sentence each.
    """

    program: Program | None
    kind: Literal["sets", "answers"]
    match: Tally
    longer: Tally
    off: Tally
    every: Compared | None
    alphabet: Compared | None = None
    held: tuple[Held, ...] = ()
    tried: int = 0
    kept: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    in_language: float = 1.0

    @property
    def status(self) -> Status:
        if self.program is None:
            return "none"
        does = self.in_language >= IN_LANGUAGE
        if does and self._equal and (self.match.share or 0.0) >= MATCH:
            return "equal_on_all"
        return "matches" if (self.match.share or 0.0) >= MATCH else "best_guess"

    @property
    def _equal(self) -> bool:
        """Whether they agree on every input up to some length, and these are all that there is time for, or many."""
        every = self.every
        if every is None:
            return False
        if every.equal and every.whole:
            return True
        return every.agreed >= ENOUGH or (every.what == "language" and every.agreed_length >= LONG)

    @property
    def text(self) -> str | None:
        """The program as a person reads it; it can be parsed."""
        return None if self.program is None else readable_text(self.program)

    @property
    def lines(self) -> int:
        """Of the program, without the header."""
        return 0 if self.text is None else count_lines(self.text)

    @property
    def located(self) -> bool:
        """Whether every S-op of the program is located."""
        return bool(self.held) and all(each.located for each in self.held)

    @property
    def mechanism(self) -> bool:
        """Whether it may be said that the network computes the program: it holds off the distribution, and inside."""
        matches = self.status in ("equal_on_all", "matches")
        return matches and (self.off.share or 0.0) >= MECHANISM and self.located

    def __repr__(self) -> str:
        return f"<TrainedDecompilation: {self.status.replace('_', ' ')}, {self.lines} lines, match {self.match}>"

    def _repr_html_(self) -> str:
        return card(f"Decompilation: {self.status.replace('_', ' ')}", {"match": str(self.match)}, text=self.text or "")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; the program is its text."""
        interval = self.match.interval
        checked = self.match.n + self.longer.n + sum(each.inputs for each in (self.every, self.alphabet) if each)
        return {
            "status": self.status,
            "program": self.text,
            "match": self.match.share,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "inputs_checked": checked,
            "exhaustive_length": self.every.agreed_length
            if self.every is not None and self.status == "equal_on_all"
            else None,
            "located": [
                {"variable": each.variable, "component": each.component, "interchange": each.interchange}
                for each in self.held
            ],
            "lines": self.lines,
            "seconds": self.seconds,
        }


MEANING: dict[Status, str] = {
    "equal_on_all": "equal on all: network and program agree on every input up to a length",
    "matches": f"matches: network and program agree on at least {MATCH:.0%} of inputs",
    "best_guess": f"best guess: network and program agree on fewer than {MATCH:.0%} of inputs",
    "none": "no program was found",
}


def summary(found: TrainedDecompilation) -> str:
    """A decompilation as a person reads it."""
    lines = [] if found.text is None else [found.text, ""]
    lines.append(MEANING[found.status])
    for each in (found.every, found.alphabet):
        if each is not None and each.inputs:
            lines.append(_compared(each))
    lines.append(f"  inputs not searched on: the same at every place of {found.match}")
    if found.longer.n:
        lines.append(f"  longer ones: {found.longer}")
    if found.off.n:
        lines.append(f"  off the distribution: the same at {found.off} places")
    for each in found.held:
        random = "" if each.random is None else f", of random directions {each.random:.2f}"
        share = "no answer changes" if each.interchange is None else f"{each.interchange:.3f}{random}, n = {each.n}"
        lines.append(f"  {each.variable} at {each.component}: interchange accuracy {share}")
    lines.append(_verdict(found))
    lines += found.notes
    return "\n".join([*lines, f"{found.kept:,} S-ops tried, {found.lines} lines, {found.seconds:.1f} s"])


WHAT = {
    "alphabet": "all strings of letters",
    "language": "all strings that the program allows",
    "questions": "all questions like those given",
}


def _compared(each: Compared) -> str:
    until = f"up to length {each.length}" if each.length else "of one length, as many as there was time for"
    over = f"  {WHAT[each.what]} {until}, {each.inputs:,} inputs: "
    if each.equal:
        return over + "the same at every place"
    shown = " ".join(each.counterexample or ())
    until = f"; all {each.agreed:,} up to length {each.agreed_length} the same" if each.agreed else ""
    return over + f"{each.wrong:,} are answered differently, the shortest of them {shown}{until}"


def _verdict(found: TrainedDecompilation) -> str:
    """What may be said, and what stays unexplained."""
    if found.mechanism:
        return "The network computes this: it agrees off the distribution too, and every S-op is found inside."
    open_ = []
    if (found.off.share or 0.0) < MECHANISM:
        open_.append("what the network does off the distribution")
    lost = [each.variable for each in found.held if not each.located]
    if lost:
        open_.append(f"where it holds {', '.join(lost)}")
    if not found.held and found.program is not None:
        open_.append("where it holds the program's S-ops")
    return f"Unexplained: {'; '.join(open_)}." if open_ else "Unexplained: some answers."
