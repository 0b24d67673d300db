"""What a decompiler answers: a program, and how far it is proved to be the one in the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from weightspace.decompiler.proof.verify import Behaviour, Certificate, Distance
from weightspace.notebook import card
from weightspace.rasp.program import Program
from weightspace.rasp.reading import token_text
from weightspace.rasp.text import folded_text

Status = Literal["certified", "behaviour_equal", "best_guess", "none"]
"""Certified: the weights are equal up to a permutation. Behaviour equal: the answers are, on every input or on a
sample. Best guess: they differ somewhere. None: no program at all."""


@dataclass(frozen=True, eq=False)
class Decompilation:
    """What was found in a transformer's weights.

    Attributes:
        status: how far it is proved.
        program: the program; None only if the status is `none`.
        method: who found it.
        certificate: the permutation under which its weights are the given ones, if there is one.
        behaviour: how its answers compare with those of the weights, if that was asked.
        distance: how far its weights are from the given ones, if that was asked.
        seconds: that it took.
        checked: operations that were compiled and compared on the way.
        trace: lines of the search, in order.
        tables: functions of the program that are printed as tables, as no expression was found for them.
        notes: what else a reader must know, a sentence each.
    """

    status: Status
    program: Program | None
    method: str
    certificate: Certificate | None = None
    behaviour: Behaviour | None = None
    distance: Distance | None = None
    seconds: float = 0.0
    checked: int = 0
    trace: tuple[str, ...] = ()
    tables: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = "nothing" if self.program is None else f"{len(self.program)} operations"
        return f"<Decompilation: {self.status.replace('_', ' ')}, {found}, by {self.method or 'nobody'}>"

    def _repr_html_(self) -> str:
        facts = {"proof": MEANING[self.status], "found by": f"{self.method}, {self.seconds:.2f} s"}
        if self.behaviour is not None:
            facts["answers"] = self.behaviour.explain()
        text = "" if self.program is None else str(self.program)
        return card(f"Decompilation: {self.status.replace('_', ' ')}", facts, text=text)

    @property
    def found(self) -> bool:
        """Whether the program is proved to be right, in its weights or in what it does."""
        return self.status in ("certified", "behaviour_equal")

    @property
    def mode(self) -> str | None:
        """How the program has to be compiled to give the weights, where that is known."""
        for known in (self.certificate, self.behaviour, self.distance):
            if known is not None:
                return known.mode
        return None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; the program is its text."""
        behaviour = None if self.behaviour is None else self.behaviour.to_json()
        return {
            "status": self.status,
            "program": None if self.program is None else str(self.program),
            "method": self.method,
            "mode": self.mode,
            "inputs_checked": 0 if behaviour is None else behaviour["inputs_checked"],
            "exhaustive": behaviour is not None and behaviour["exhaustive"],
            "seconds": self.seconds,
            "checked_operations": self.checked,
            "counterexample": None if behaviour is None else behaviour["counterexample"],
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "behaviour": behaviour,
            "distance": None if self.distance is None else self.distance.to_json(),
            "tables": self.tables,
            "notes": list(self.notes),
        }


MEANING: dict[Status, str] = {
    "certified": "certified: compiled, it gives these very weights, up to the order of directions, units and heads",
    "behaviour_equal": "behaviour equal: it answers as these weights do, though its own weights are others",
    "best_guess": "best guess: no program was proved to be the one in these weights",
    "none": "no program was found",
}
"""Each status in words."""


def summary(found: Decompilation) -> str:
    """A decompilation as a person reads it: the program, how far it is proved, and what differs."""
    shown = "" if found.program is None else folded_text(found.program)
    lines = [shown, ""] if shown else []
    lines.append(MEANING[found.status])
    if found.certificate is not None:
        lines.append(found.certificate.explain())
    if found.behaviour is not None:
        lines.append(found.behaviour.explain())
        wrong = found.behaviour.counterexample
        if wrong is not None:
            rows = (("input", wrong.input), ("the weights", wrong.expected), ("the program", wrong.given))
            lines += [f"  {name:<12} {token_text(values)}" for name, values in rows]
    if found.distance is not None and found.status != "certified":
        lines.append(found.distance.explain())
    if found.tables:
        some = "One function is" if found.tables == 1 else f"{found.tables} functions are"
        lines.append(f"{some} printed as a table: no short expression was found for it.")
    if found.program is not None and shown != str(found.program):
        lines.append("Long tables are shown folded: --out FILE and --json write them whole.")
    lines += found.notes
    checked = f", {found.checked:,} operations checked" if found.checked else ""
    by = f"found by {found.method}" if found.method else "nothing found"
    return "\n".join([*lines, f"{by} in {found.seconds:.2f} s{checked}"])
