"""Where a trained transformer holds the S-ops of a program: each looked for by interchanges."""

from __future__ import annotations

import numpy as np

from weightspace import clock
from weightspace.circuits.alignment import Alignment
from weightspace.circuits.locating import Located, locate_aligned
from weightspace.circuits.readouts import GreedyToken, Readout, TokenSet
from weightspace.decompiler.trained.answering import text_of, value_of
from weightspace.decompiler.trained.asked import Asked, Strings
from weightspace.decompiler.trained.result import Held
from weightspace.rasp.choices import NextTokens
from weightspace.rasp.functions import Value
from weightspace.rasp.language import Selector, SOp
from weightspace.rasp.program import Program
from weightspace.transformers.trained import TrainedTransformer

INPUTS, LONGEST = 160, 30
"""Inputs on which S-ops are looked for, the short ones."""
PAIRS = 96


def held_sops(asked: Asked, program: Program, strings: Strings, *, seconds: float, seed: int) -> tuple[Held, ...]:
    """Where each S-op of a program is held, apart from those that are the same everywhere.

    Args:
        strings: inputs, some hundreds; half of them fit directions, the others judge.
        seconds: after which no further S-op is looked for; the answers come last.
    """
    some = _some(strings, seed)
    values: list[Value] = [value_of(text) for text in asked.vocab]
    rows = [[values[number] for number in row] for row in some.rows()]
    places = [row[: len(given)].tolist() for row, given in zip(some.asked, rows, strict=True)]
    numbers = {value: number for number, value in enumerate(values)}
    alignment = Alignment(
        asked.transformer, program, rows, readout_of(asked, program), asked=places, numbers=numbers
    )  # fmt: skip
    found: list[Held] = []
    end = clock.now() + seconds
    for name, node in program.statements:
        if not isinstance(node, SOp) or isinstance(node, NextTokens | Selector) or name not in alignment.varying:
            continue
        if clock.now() > end:
            found.append(Held(name, "not looked for: the time was over", None, None, 0))
            continue
        located = locate_aligned(alignment, variables=[name], pairs=PAIRS, seed=seed)[0]
        found.append(held_in(located, asked.transformer))
    return tuple(found)


def readout_of(asked: Asked, program: Program) -> Readout:
    """How the answers of a program are read."""
    output = program.output
    if isinstance(output, NextTokens):
        names = {text_of(t): program.name(sop) for t, sop in zip(output.tokens, output.sops, strict=True)}
        return TokenSet(asked.vocab, names)
    return GreedyToken(asked.vocab, program.name(output))


def _some(strings: Strings, seed: int) -> Strings:
    """Short inputs, such that there are several of each length."""
    order = np.random.default_rng(seed).permutation(len(strings))
    lengths = strings.lengths
    chosen = [number for number in order if lengths[number] <= LONGEST] or order.tolist()
    return strings.take(np.array(chosen[:INPUTS], int))


def held_in(found: Located, transformer: TrainedTransformer) -> Held:
    """Where an S-op was found in a transformer, with what speaks for it."""
    where = "nowhere" if found.component is None else str(found.component)
    judged = found.interchange
    if judged is None:
        return Held(found.variable, where, None, None, 0)
    # the answer itself may be held by all logits, of which a random subspace of the same size is all too
    held = found.component
    everything = held is not None and held.place.kind == "logits" and held.rank == transformer.shape.outputs
    random = None if judged.control is None or everything else judged.control.share
    return Held(found.variable, where, judged.share, random, judged.changed.n)
