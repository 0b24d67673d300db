"""The programs that networks are trained on: some written by hand, the others drawn of the `typed` distribution."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from weightspace.errors import NetworkError, RaspError
from weightspace.pairs.correspondence import layers_needed, operations
from weightspace.pairs.counterfactuals import Counterfactuals
from weightspace.rasp.canonical import canonical_program
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample

LENGTHS = tuple(range(3, 9))
"""S-ops, inputs counted, of programs that are drawn."""
FEWEST_HEADS, MOST_LAYERS = 2, 4
"""Programs fit this, so that every architecture takes any of them and its depth says nothing of the program."""
MOST_ANSWERS = 64
INFLUENCE = 0.05
"""Each S-op changes the answer on at least so many pairs of inputs where it is swapped: else nobody could find it."""

_HEAD = "vocab = [0, 1, 2, 3, 4]\nmax_seq_len = 5\n"
HAND_WRITTEN: dict[str, str] = {
    "hist": """same = Select(PRED_EQ, tokens, tokens)
hist = SelectorWidth(same)
return hist""",
    "reverse": """places = Map(4 - x, indices)
opposite = Select(PRED_EQ, indices, places)
reverse = Aggregate(opposite, tokens)
return reverse""",
    "frac_prevs": """flags: numerical = Map(x == 2, tokens)
prevs = Select(PRED_LEQ, indices, indices)
frac: numerical = Aggregate(prevs, flags)
return frac""",
    "same_as_before": """places = Map(x - 1, indices)
before = Select(PRED_EQ, indices, places)
previous = Aggregate(before, tokens, default=0)
same = SequenceMap(x == y, previous, tokens)
return same""",
    "most_frequent": """same = Select(PRED_EQ, tokens, tokens)
count = SelectorWidth(same)
often: numerical = Map(x >= 2, count)
everywhere = Select(PRED_TRUE, tokens, tokens)
share: numerical = Aggregate(everywhere, often)
return share""",
    "sort": """keys = SequenceMap(x + 1 * y / 5, tokens, indices)
smaller = Select(PRED_LT, keys, keys)
target = SelectorWidth(smaller)
chosen = Select(PRED_EQ, target, indices)
sort = Aggregate(chosen, tokens)
return sort""",
}
"""Programs by name, for inputs of five tokens 0 to 4."""


def hand_written(name: str) -> Program:
    """One of `HAND_WRITTEN`."""
    return Program.parse(_HEAD + HAND_WRITTEN[name])


def drawn_program(
    seed: str, size: int = 5, most_layers: int = MOST_LAYERS, refused: Counter[str] | None = None
) -> Program:
    """A program of the `typed` distribution that a network can be trained on, merged and named canonically.

    Args:
        size: tokens of its vocabulary, 0, 1, ..., and places of its inputs.
        most_layers: in which it fits, with two heads and an MLP in each.
        refused: counts why others were not taken.
    """
    counted = Counter[str]() if refused is None else refused
    for number, drawn in enumerate(sample("typed", _number(seed), LENGTHS)):
        program = canonical_program(replace(drawn, vocab=tuple(range(size)), max_seq_len=size))
        why = "fewer than 2 S-ops" if len(operations(program)) < 2 else unfit(program, number, most_layers)
        if why is None:
            return program
        counted[why] += 1
    raise AssertionError("the distribution never ends")


def unfit(program: Program, seed: int = 0, most_layers: int = MOST_LAYERS) -> str | None:
    """Why no network is trained on a program; None if one can be."""
    if not operations(program):
        return "the same answer on every input"
    if layers_needed(program, FEWEST_HEADS) > most_layers:
        return f"more than {most_layers} layers"
    random = np.random.default_rng(seed)
    try:
        counterfactuals = Counterfactuals.of(program)
        if min(counterfactuals.influence(random)) < INFLUENCE:
            return "an S-op that hardly matters"
        answers = len(counterfactuals.classes(random).values)
    except RaspError:
        return "no answer on some input or after a swap"
    return f"more than {MOST_ANSWERS} answers" if answers > MOST_ANSWERS else None


def check(program: Program) -> None:
    """Refuse what a network cannot be trained on.

    Raises:
        NetworkError: that says why.
    """
    why = unfit(program)
    if why is not None:
        raise NetworkError(f"no network is trained on this program: it has {why}")


def _number(seed: str) -> int:
    return int.from_bytes(seed.encode(), "big")
