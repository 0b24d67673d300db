"""Power: of hypotheses that are wrong in one thing, what share is rejected, by how many inputs they differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, Literal

import numpy as np

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Hypothesis
from weightspace.circuits.interchanging import draw_pairs
from weightspace.circuits.judging import FAULTS, Fault, Judgement, judge
from weightspace.circuits.mutants import CHANGES, Change, Mutant, mutant
from weightspace.circuits.readouts import same_answers
from weightspace.errors import NetworkError
from weightspace.evaluation.metrics import Tally

Truth = Literal["other answers", "other when swapped", "place", "the same"]
"""How a mutant differs from the true hypothesis: the program answers otherwise on some input; it answers the same, and
otherwise where an S-op has the values of another input; an S-op that an answer depends on stands elsewhere; or in
nothing that was found, which is not counted as false."""
SWAPS = 256
"""Pairs of inputs for each S-op on which a mutant is compared where its program answers the same on every input."""
BINS = (1, 10, 100)
"""Bounds between which mutants are counted by the number of inputs on which their program answers otherwise."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A mutant and what became of it.

    Attributes:
        truth: how it differs from the true hypothesis, by the programs alone.
        differing: inputs on which its program answers otherwise, of `inputs`; pairs where only swaps tell; of a
            place the pairs whose answer changes where the S-op is swapped.
        inputs: on which the programs were compared; or pairs.
        fault: by what it was rejected; None if it was accepted.
    """

    mutant: Mutant
    truth: Truth
    differing: int
    inputs: int
    fault: Fault | None


def trials(
    alignment: Alignment,
    hypothesis: Hypothesis,
    *,
    count: int = 6,
    pairs: int = 64,
    seed: int = 0,
    least: float = 1.0,
    reference: Alignment | None = None,
) -> list[Trial]:
    """Judge mutants of a true hypothesis, as many of operations as of edges and of places.

    Args:
        alignment: of the true hypothesis's program with the transformer; mutants are judged on its inputs.
        count: of mutants; there are fewer where there is nothing to change.
        pairs, least: as for `judge`.
        reference: the same on more inputs, by which it is said how a mutant differs; unless given, `alignment`.
    """
    random = Random(seed)
    reference = alignment if reference is None else reference
    values = {name: each.values for name, each in alignment.values.items()}
    found = []
    for number in range(count):
        change: Change = CHANGES[number % len(CHANGES)]
        made = mutant(hypothesis, change, values, random)
        if made is None:
            continue
        try:
            truth, differing, inputs = _truth(reference, made, seed)
            against = alignment if change == "place" else alignment.with_program(made.hypothesis.program)
        except NetworkError:  # its program has no answer on any input, which nobody would believe
            continue
        judged = judge(against, made.hypothesis, pairs=pairs, seed=seed, least=least, control=False, whole=False)
        found.append(Trial(made, truth, differing, inputs, _fault(judged)))
    return found


def _fault(judged: Judgement) -> Fault | None:
    return judged.faults[0] if judged.faults else None


def _truth(reference: Alignment, made: Mutant, seed: int) -> tuple[Truth, int, int]:
    """How a mutant differs, on how many, and of how many."""
    if made.change == "place":
        drawn = [draw_pairs(reference, name, count=SWAPS, seed=seed + 1) for name in made.moved]
        change = sum(len(pairs.changed) for pairs in drawn)
        return "place" if change else "the same", change, sum(len(pairs.base) for pairs in drawn)
    other = reference.with_program(made.hypothesis.program)
    if len(other) < len(reference):  # it has no answer on some input
        return "other answers", len(reference) - len(other), len(reference)
    same = same_answers(reference.expected, other.expected) | ~reference.asked
    differing = int((~same.all(1)).sum())
    if differing:
        return "other answers", differing, len(reference)
    pairs = differ = 0
    for name in made.hypothesis.components:
        if name in reference.values and name in other.values:
            drawn = draw_pairs(reference, name, count=SWAPS, seed=seed + 1)
            answers, defined = other.swapped_meaning(name, drawn.base, drawn.source, drawn.where)
            agree = same_answers(drawn.expected, answers) | ~reference.asked[drawn.base]
            pairs += int(defined.sum())
            differ += int((defined & ~agree.all(1)).sum())
    return ("other when swapped", differ, pairs) if differ else ("the same", 0, pairs)


@dataclass(frozen=True)
class PowerRow:
    """How many mutants of a kind were rejected.

    Attributes:
        what: which mutants.
        rejected: of them.
        faults: by what, and how many.
    """

    what: str
    rejected: Tally
    faults: Mapping[Fault, int]

    def to_record(self) -> dict[str, Any]:
        found = self.rejected.interval
        bounds = {} if found is None else {"low": found.low, "high": found.high}
        share = {"rejected": self.rejected.right, "n": self.rejected.n, "share": self.rejected.share}
        return {"what": self.what, **share, **bounds, "by": dict(self.faults)}


def power(found: Sequence[Trial]) -> list[PowerRow]:
    """The share of mutants that is rejected: of false ones by how they differ and on how many; and of the others."""
    rows = [_row("false, all", (each for each in found if each.truth != "the same"))]
    for change in CHANGES:
        rows.append(_row(f"  {change}", (e for e in found if e.mutant.change == change and e.truth != "the same")))
    answers = [each for each in found if each.truth == "other answers"]
    for low, high in pairwise([*BINS, math.inf]):
        name = f"{low} inputs or more" if high == math.inf else f"{low} to {high - 1} inputs"
        rows.append(_row(f"other answers on {name}", (each for each in answers if low <= each.differing < high)))
    rows.append(_row("same answers, others when swapped", (e for e in found if e.truth == "other when swapped")))
    rows.append(_row("no difference found: not counted as false", (e for e in found if e.truth == "the same")))
    return rows


def _row(what: str, trials_: Iterable[Trial]) -> PowerRow:
    faults = [trial.fault for trial in trials_]
    by: dict[Fault, int] = {}
    for fault in FAULTS:
        if fault in faults:
            by[fault] = faults.count(fault)
    return PowerRow(what, Tally.of(np.array([fault is not None for fault in faults], bool)), by)


def format_power(rows: list[PowerRow] | list[dict[str, Any]]) -> str:
    """Power as a table in text."""
    records = [row.to_record() if isinstance(row, PowerRow) else row for row in rows]
    width = max(len(record["what"]) for record in records)
    lines = [f"{'mutants':<{width}}  rejected       n    95% interval   by behaviour, interchange, scrubbing"]
    for record in records:
        share = f"{record['share']:.3f}" if record["share"] is not None else "-"
        bounds = f"{record['low']:.3f} - {record['high']:.3f}" if "low" in record else "-"
        by = ", ".join(str(record["by"].get(fault, 0)) for fault in ("behaviour", "interchange", "scrubbing"))
        lines.append(f"{record['what']:<{width}}  {share:>8}  {record['n']:>6,}   {bounds:>13}   {by}")
    return "\n".join(lines)
