"""The best answer possible on the paper's lossy target: what the likeliest program promises, given weights.

Many targets belong to the same weights: a comparison's constant is gone, so < and <= are the same table; a categorical
result keeps only its rank, so adding, multiplying and `and` can be one matrix; a Map of a Map is one MLP; a selector
that two operations share and two selectors that are alike compile to the same heads. Whoever sees nothing but weights
does best to answer the target that is likeliest given them. The ceiling is the mean of what that gets over programs.

**How it is estimated.** Most weights occur once among millions of draws, so the posterior cannot be counted. But a
program that was drawn is itself a draw from the posterior given its own weights. From it a Markov chain walks over the
whole record of the sampler's choices, dead operations included: it redraws one choice or several of one operation from
the sampler's distribution, and keeps the step if the weights stay what they are, with the Metropolis-Hastings
probability that makes up for choices which the step makes likelier or less likely. Its stationary distribution is the
posterior exactly, and a chain from the truth starts in it.

**Its error.** A chain that starts at the truth and has not been everywhere knows too few alternatives and lingers where
the answer is: what it promises, and what it gets right, is too much. A chain that starts at a record made for the
weights without a look at the truth (`reconstruction`) promises too much, and gets too little. So the second, scored
against what was drawn, is a floor of the ceiling, the first is a roof, and where both agree the chains mix. Short
programs of one vocabulary and length, whose weights come often enough to count, agree with the walk
(`tests/decompiler/test_ceiling.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from weightspace.decompiler.paper.graph_examples import held_out_records
from weightspace.decompiler.paper.imprint import Order, imprint_of
from weightspace.decompiler.paper.likeliest import UNHEARD, chosen
from weightspace.decompiler.paper.listing import score_listings, target_lines
from weightspace.decompiler.paper.matching import matcher_of
from weightspace.decompiler.paper.reconstruction import reconstructed
from weightspace.decompiler.paper.sampler_record import SamplerRecord, draw_record, program_of
from weightspace.decompiler.paper.walk import Walk, weights_key
from weightspace.errors import RaspError
from weightspace.rasp.language import fused


@dataclass(frozen=True)
class Answered:
    """The best answer to a program's weights that a chain from one start knows.

    Attributes:
        tokens, exact: what the chain promises: the share of right tokens, the probability of being exact.
        right, whole: what the answer gets: the share of tokens that were drawn, 1.0 if all are.
        targets: different targets met.
    """

    tokens: float
    exact: float
    right: float
    whole: float
    targets: int


@dataclass(frozen=True)
class TwoStarts:
    """One program's weights, answered from both starts.

    Attributes:
        length: instructions of the program.
        truth: from the record that was drawn.
        made: from one that was made for the weights; None where none was found.
    """

    length: int
    truth: Answered
    made: Answered | None


def two_starts(record: SamplerRecord, order: Order, steps: int, seed: int) -> TwoStarts:
    """Walk from a record, and from another with its weights."""
    program = program_of(record)
    assert program is not None
    meant = fused(program)
    imprint = imprint_of(meant, order)
    assert imprint is not None
    truth = target_lines(program)
    made = reconstructed(meant, imprint, Random(f"made {seed}"))
    return TwoStarts(
        len(program),
        _answered(record, order, steps, Random(f"truth {seed}"), truth),
        None if made is None else _answered(made, order, steps, Random(f"walk {seed}"), truth),
    )


def _answered(record: SamplerRecord, order: Order, steps: int, random: Random, truth: np.ndarray) -> Answered:
    walk = Walk(record, random, alike=matcher_of(record, order), moves=True)
    path = [walk.step() for _ in range(steps)]
    met = Counter(path[int(UNHEARD * steps) :])
    lines, tokens, exact = chosen(list(met), np.array(list(met.values()), float))
    scores = score_listings(lines[None], truth[None])
    return Answered(tokens, exact, float(scores.tokens[0]), float(scores.exact[0]), len(met))


def listing_ceiling(programs: int, steps: int, seed: int, order: Order) -> list[TwoStarts]:
    """The best answers to so many held-out programs' weights, from both starts.

    Args:
        steps: of each chain; take several numbers and see whether the estimates still move.
        order: whether directions stand as they were compiled, or in any order.
    Raises:
        RaspError: if there are too few programs or steps.
    """
    if programs < 1 or steps < 10:
        raise RaspError(f"{programs} programs and {steps} steps will not do: give at least 1 and 10")
    return [
        two_starts(record, order, steps, seed * 1_000_003 + number)
        for number, record in enumerate(held_out_records(programs, seed))
    ]


# -- what a chain says of its own --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What a chain says of one program's weights.

    Attributes:
        length: instructions of the program.
        largest: share of the commonest target on the chain.
        held_out: share in the second half of the target that is commonest in the first.
        guessed: 1.0 if the target that was drawn is the commonest of the second half.
        targets: different targets met.
    """

    length: int
    largest: float
    held_out: float
    guessed: float
    targets: int


def summary(path: Sequence[bytes], start: bytes, length: int) -> Posterior:
    """What a chain of targets says that began at `start`; a tenth on either side of the middle is in neither half.

    Args:
        length: instructions of the program.
    """
    first, second = Counter(path[: max(1, 4 * len(path) // 10)]), Counter(path[6 * len(path) // 10 :])
    best, commonest = first.most_common(1)[0][0], second.most_common(1)[0][0]
    every = Counter(path)
    return Posterior(
        length,
        every.most_common(1)[0][1] / len(path),
        second[best] / second.total(),
        float(commonest == start),
        len(every),
    )


def different_records(
    seed: int, *, most_parameters: int | None = 49_999, lengths: Sequence[int] | None = None, fuse: bool = True
) -> Iterator[SamplerRecord]:
    """Draws of the sampler of different weights, as a zoo holds them, without end."""
    random, seen = Random(f"ceiling {seed}"), set()
    while True:
        record = draw_record(random, lengths)
        program = None if record is None else program_of(record)
        if record is None or program is None:
            continue
        key = weights_key(program, most_parameters, fuse)
        if key is not None and key not in seen:
            seen.add(key)
            yield record
