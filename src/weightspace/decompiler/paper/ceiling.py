"""The best exact match possible on the paper's lossy target: how probable the likeliest program is, given weights.

Many targets belong to the same weights: a comparison's constant is gone, so < and <= are the same table; a categorical
result keeps only its rank, so adding, multiplying and `and` can be one matrix; a Map of a Map is one MLP; a selector
that two operations share and two selectors that are alike compile to the same heads. Whoever sees nothing but weights
does best to answer the target that is likeliest given them, and is right with its probability. The ceiling is the mean
of that probability over programs.

**How it is estimated.** Most weights occur once among millions of draws, so the posterior cannot be counted. But a
program that was drawn is itself a draw from the posterior given its own weights. From it a Markov chain walks over the
whole record of the sampler's choices, dead operations included: it redraws one choice or several of one operation from
the sampler's distribution, and keeps the step if the weights stay what they are, with the Metropolis-Hastings
probability that makes up for choices which the step makes likelier or less likely. Its stationary distribution is the
posterior exactly, and it starts in it; no burn-in is needed for that, only to forget where it started. What is fixed
is what the steps do not change: the wanted length, and whether the vocabulary is of numbers or of strings.

**Its error.** A chain that has not been everywhere knows too few alternatives, so estimates come from above and fall
with the number of steps. Three are given. `largest` is the share of the commonest target on the whole chain, and counts
chance as skill. `held_out` takes the commonest target of the first part and counts it in the last: no chance, but it is
low where the first part chose wrongly. `guessed` asks whether the commonest target of the last part is the one that was
drawn: the accuracy of a decoder that knows the weights and the sampler, and noisy, being 0 or 1. They agree for a chain
that mixes. Short programs of one vocabulary and length, whose weights come often enough to count, agree with the walk
(`tests/decompiler/test_ceiling.py`).

**What comes out** depends on the lengths: of programs with fewer than 50,000 parameters (3 to 15 lines, mean 8) about
22%, of those of 3 to 5 lines 45%, of 12 to 15 lines at most 3%; 12 to 14% were estimated elsewhere for another make-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from weightspace.decompiler.paper.sampler_record import SamplerRecord, draw_record, program_of
from weightspace.decompiler.paper.walk import Walk, weights_key
from weightspace.errors import RaspError


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


def posterior(record: SamplerRecord, steps: int, seed: int, fuse: bool = True) -> Posterior:
    """Walk from a record, and say what targets were met."""
    walk = Walk(record, Random(f"walk {seed}"), fuse)
    start, length = walk.target, len(walk.program)
    return summary([walk.step() for _ in range(steps)], start, length)


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


def listing_ceiling(
    programs: int,
    steps: int,
    seed: int,
    *,
    most_parameters: int | None = 49_999,
    lengths: Sequence[int] | None = None,
    fuse: bool = True,
) -> list[Posterior]:
    """The posteriors of so many programs' weights; the mean of `held_out` is the estimate of the ceiling.

    Args:
        steps: of each chain; take several numbers and see whether the estimate still falls.
        most_parameters, lengths: which programs, see `decompiler.paper.listing.draw_listings`.
        fuse: see `weights_key`.
    Raises:
        RaspError: if there are too few programs or steps.
    """
    if programs < 1 or steps < 10:
        raise RaspError(f"{programs} programs and {steps} steps will not do: give at least 1 and 10")
    drawn = different_records(seed, most_parameters=most_parameters, lengths=lengths, fuse=fuse)
    return [posterior(next(drawn), steps, seed * 1_000_003 + number, fuse) for number in range(programs)]
