"""How well a network keeps to its correspondence: answers, swaps of each S-op, and swaps of what should not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.circuits.alignment import Alignment
from weightspace.circuits.hypothesis import Component
from weightspace.circuits.interchanging import draw_pairs, interchange_accuracy
from weightspace.circuits.readouts import same_answers
from weightspace.errors import NetworkError
from weightspace.evaluation.metrics import Tally
from weightspace.pairs.answers import AnswerClasses
from weightspace.pairs.correspondence import Correspondence, Slot
from weightspace.rasp.functions import Value
from weightspace.transformers.trained import TrainedTransformer

SOUND = 0.95
"""The least interchange accuracy on changed answers, and the least strictness, of a sound network."""


@dataclass(frozen=True)
class Soundness:
    """How well a network keeps to a correspondence on some inputs.

    Attributes:
        behaviour: inputs on which it answers as the program does, at all places.
        changed: by S-op, pairs of inputs whose answer changes where it is swapped, on which it becomes what the program
            says: the interchange accuracy.
        every: by S-op, the same of all pairs.
        strict: by free component, pairs on which the answer stays what the program says where it is swapped.
    """

    behaviour: Tally
    changed: Mapping[str, Tally]
    every: Mapping[str, Tally]
    strict: Mapping[Slot, Tally]

    @property
    def worst_interchange(self) -> float:
        """Over S-ops, on changed answers; 1 where no answer changes."""
        return min(_shares(self.changed), default=1.0)

    @property
    def worst_strictness(self) -> float:
        """Over free components; 1 where there is none."""
        return min(_shares(self.strict), default=1.0)

    @property
    def sound(self) -> bool:
        """Whether both are at least `SOUND`."""
        return min(self.worst_interchange, self.worst_strictness) >= SOUND

    def to_record(self) -> dict[str, Any]:
        """All figures, JSON-serialisable."""
        changed, strict = _shares(self.changed), _shares(self.strict)
        return {
            "behaviour": self.behaviour.share,
            "inputs": self.behaviour.n,
            "interchange": {"mean": _mean(changed), "worst": self.worst_interchange},
            "strictness": {"mean": _mean(strict), "worst": self.worst_strictness},
            "interchange by S-op": {
                name: {"right": each.right, "n": each.n, "every": self.every[name].share}
                for name, each in self.changed.items()
            },
            "strictness by component": {str(slot): each.share for slot, each in self.strict.items()},
        }


def _shares(tallies: Mapping[Any, Tally]) -> list[float]:
    return [each.share for each in tallies.values() if each.share is not None]


def _mean(shares: Sequence[float]) -> float:
    return float(np.mean(shares)) if shares else 1.0


def alignment(
    transformer: TrainedTransformer,
    correspondence: Correspondence,
    answer: AnswerClasses,
    inputs: Sequence[Sequence[Value]],
) -> Alignment:
    """A network and its program, or another's, on the same inputs.

    The network's tokens are the program's in their order, and one more that begins an input.

    Raises:
        NetworkError: if the network has other tokens, or not as many answers.
    """
    vocab = correspondence.program.vocab or ()
    shape = transformer.shape
    if shape.vocabulary != len(vocab) + 1 or shape.outputs != len(answer.values):
        raise NetworkError(
            f"the network reads {shape.vocabulary} tokens and has {shape.outputs} answers, and the program has "
            f"{len(vocab)} tokens, to which one that begins an input is added, and {len(answer.values)} answers"
        )
    numbers = {value: number for number, value in enumerate(vocab)}
    return Alignment(transformer, correspondence.program, inputs, answer, numbers=numbers, begin=len(vocab))


def soundness(
    aligned: Alignment, correspondence: Correspondence, slots: Sequence[Slot], *, pairs: int = 128, seed: int = 0
) -> Soundness:
    """How well a network keeps to a correspondence.

    Args:
        aligned: the network and the program on the inputs of which pairs are drawn.
        slots: all components of the network.
        pairs: for each S-op, of any and of such whose answer changes, and for each free component.
    Raises:
        NetworkError: if the network has not a component.
    """
    correspondence.check(aligned.transformer.shape)
    right = same_answers(aligned.expected, aligned.answers())
    changed, every = {}, {}
    for name, slot in correspondence.slots.items():
        drawn = draw_pairs(aligned, name, count=pairs, seed=seed)
        found = interchange_accuracy(aligned, Component(slot.place), drawn)
        changed[name], every[name] = found.changed, found.every
    strict = {}
    random = np.random.default_rng(seed)
    for slot in slots:
        if slot in correspondence.used:
            continue
        base, source = random.integers(0, len(aligned), (2, pairs))
        where = aligned.common(base, source)
        given = aligned.swapped_answers(Component(slot.place), base, source, where)
        strict[slot] = Tally.of(np.asarray(same_answers(aligned.expected[base], given).all(1)))
    return Soundness(Tally.of(np.asarray(right.all(1))), changed, every, strict)
