"""The judgement of a hypothesis: behaviour, interchange of every located S-op, and causal scrubbing, per input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Hypothesis
from weightspace.circuits.interchanging import PAIRS, Interchange, draw_pairs, interchange_accuracy
from weightspace.circuits.readouts import same_answers
from weightspace.circuits.scrubbing import Scrubbing, causal_scrubbing
from weightspace.evaluation.metrics import Tally

Fault = Literal["behaviour", "interchange", "scrubbing"]
FAULTS: tuple[Fault, ...] = ("behaviour", "interchange", "scrubbing")


@dataclass(frozen=True)
class Judgement:
    """What was found out about a hypothesis.

    Attributes:
        least: the share of inputs, of pairs and of scrubbed inputs from which it is accepted.
        behaviour: inputs on which program and transformer give the same answer.
        interchanges: of each located S-op that the answer needs.
        scrubbing: None if something before it failed and the rest was not asked for.
        undefined: inputs that were left out because the program has no answer on them.
    """

    least: float
    behaviour: Tally
    interchanges: Mapping[str, Interchange]
    scrubbing: Scrubbing | None
    undefined: int = 0

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What speaks against it."""
        found: list[Fault] = []
        if _below(self.behaviour, self.least):
            found.append("behaviour")
        if any(
            _below(each.every, self.least) or _below(each.changed, self.least) for each in self.interchanges.values()
        ):
            found.append("interchange")
        if self.scrubbing is not None and _below(self.scrubbing.agreement, self.least):
            found.append("scrubbing")
        return tuple(found)

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.faults

    def to_record(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        scrubbing = self.scrubbing
        return {
            "accepted": self.accepted,
            "faults": list(self.faults),
            "least": self.least,
            "behaviour": _record(self.behaviour),
            "undefined": self.undefined,
            "interchanges": {
                name: {
                    "changed": _record(each.changed),
                    "every": _record(each.every),
                    "random": None if each.control is None else _record(each.control),
                    "undefined": each.undefined,
                }
                for name, each in self.interchanges.items()
            },
            "scrubbing": None if scrubbing is None else _record(scrubbing.agreement),
        }


def _below(tally: Tally, least: float) -> bool:
    return tally.share is not None and tally.share < least


def _record(tally: Tally) -> dict[str, Any]:
    found = tally.interval
    bounds = {} if found is None else {"low": found.low, "high": found.high}
    return {"share": tally.share, "right": tally.right, "n": tally.n, **bounds}


def judge(
    alignment: Alignment,
    hypothesis: Hypothesis,
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    least: float = 1.0,
    control: bool = True,
    whole: bool = True,
) -> Judgement:
    """Judge a hypothesis about the transformer of an alignment.

    Args:
        alignment: of the hypothesis's program with the transformer, on the inputs that it is judged on.
        pairs: of inputs for each located S-op, of any and of such whose answer changes.
        seed: of pairs, random subspaces and resampled inputs.
        least: share from which nothing speaks against it.
        control: whether random subspaces are tried too.
        whole: whether everything is found out; else it ends with the first fault.
    Raises:
        NetworkError: if the transformer has not a component.
    """
    hypothesis.check(alignment.transformer.shape)
    right = same_answers(alignment.expected, alignment.answers()) | ~alignment.asked
    behaviour = Tally.of(np.asarray(right.all(1)))
    found: dict[str, Interchange] = {}

    def so_far(scrubbing: Scrubbing | None = None) -> Judgement:
        return Judgement(least, behaviour, found, scrubbing, alignment.undefined)

    if not whole and not so_far().accepted:
        return so_far()
    for name, component in hypothesis.components.items():
        if name not in alignment.values:
            continue
        drawn = draw_pairs(alignment, name, count=pairs, seed=seed)
        found[name] = interchange_accuracy(alignment, component, drawn, control=seed if control else None)
        if not whole and not so_far().accepted:
            return so_far()
    return so_far(causal_scrubbing(alignment, hypothesis, seed=seed))
