"""Power of a comparison: of programs that differ from one in a single thing, how many it tells from the network."""

from __future__ import annotations

from random import Random
from statistics import median
from typing import Any

import numpy as np

from weightspace.circuits.hypothesis import Hypothesis
from weightspace.circuits.mutants import CHANGES, mutant
from weightspace.decompiler.trained.answering import program_answers, value_of
from weightspace.decompiler.trained.asked import Asked, Strings, same
from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_swapped
from weightspace.rasp.language import SOp
from weightspace.rasp.program import Program

MUTANTS = 40
"""Programs with another operation, or another edge."""


def power(asked: Asked, program: Program, strings: Strings, seed: int) -> dict[str, Any]:
    """How many mutants of a program answer differently than the network on some of the strings, and on how many.

    Returns:
        `mutants`, `rejected`, and of the rejected the median of `inputs` on which they differ.
    """
    values = tuple(value_of(text) for text in asked.vocab)
    codes = strings.codes.astype(np.int32)
    batch = Batch(codes, strings.lengths.astype(np.int64), values)
    names = [name for name, node in program.statements if isinstance(node, SOp)]
    known = {name: found.values for name, found in evaluate_swapped(program, batch, {}, names).items()}
    known |= {"tokens": values, "indices": tuple(range(codes.shape[1]))}
    given = asked.given(strings)
    random = Random(seed)
    differing: list[int] = []
    for number in range(2 * MUTANTS):
        changed = mutant(Hypothesis(program, {}), CHANGES[number % 2], known, random)
        if changed is None or len(differing) >= MUTANTS:
            continue
        try:
            answers = program_answers(changed.hypothesis.program, asked.vocab, asked.kind, strings)
        except RaspError:  # it has no value on some input, so it is no other explanation
            continue
        differing.append(int((~same(asked.kind, strings, given, answers)).any(1).sum()))
    rejected = [count for count in differing if count]
    return {"mutants": len(differing), "rejected": len(rejected), "inputs": median(rejected) if rejected else 0}
