"""What a transformer answers, on every input or on a sample, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from weightspace.rasp.bare import BareTransformer
from weightspace.rasp.functions import RaspError, Value, is_number
from weightspace.rasp.interpreter import Batch

Array = np.ndarray

EVERY = 20_000
"""So many inputs are all tried; of more, as many drawn with a seed."""
FINE = 2e-3
"""Numbers nearer than this to a 60th are meant to be it."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What a transformer answers.

    Attributes:
        inputs: the inputs tried.
        answers: (inputs, longest + 1) as numbers; NaN for None, at BOS and beyond an input's end.
        numerical: whether it answers with numbers.
        exhaustive: whether `inputs` are all there are.
        noise: how far numbers are from those that they were rounded to: the mean of the squares.
    """

    inputs: list[tuple[Value, ...]]
    answers: Array
    numerical: bool
    exhaustive: bool
    noise: float

    @staticmethod
    def of(bare: BareTransformer, seed: int = 0) -> Goal:
        """Ask a transformer.

        Raises:
            RaspError: if it is not known where it answers, or what it answers is no number.
        """
        if bare.readout is None or bare.readout.values == ():
            raise RaspError("it is not known where in the stream the answer stands, or what its directions mean")
        named = [value for value in (*bare.vocab, *(bare.readout.values or ())) if not is_number(value)]
        if named:
            raise RaspError(f"{named[0]!r} is not a number: synthesis knows programs over numbers only")
        inputs, exhaustive = _inputs(bare.vocab, bare.max_seq_len, EVERY, seed)
        answers = np.full((len(inputs), bare.max_seq_len + 1), np.nan)
        for members, codes in by_length(bare, inputs):
            decoded = bare.decode(bare.forward(codes)[:, 1:])
            answers[members, 1 : codes.shape[1]] = np.array(decoded, float)
        numerical = bare.readout.values is None
        noise = 0.0
        if numerical:
            rounded = _plausible(answers)
            noise = float(np.nanmean((answers - rounded) ** 2))
            answers = rounded
        return Goal(inputs, answers, numerical, exhaustive, noise)


def _plausible(numbers: Array) -> Array:
    """Numbers rounded to 60ths, which sums of halves, thirds, quarters and fifths are.

    If they do not lie near these, so that the transformer is no exact one, they are rounded to the nearest half, third,
    quarter or fifth.
    """
    fine = np.round(numbers * 60) / 60
    if not np.nanmean(np.abs(fine - numbers) > FINE) > 0.05:
        return fine
    options = np.stack([np.round(numbers * n) / n for n in (2, 3, 4, 5)])
    best = np.abs(options - numbers).argmin(0)
    return np.take_along_axis(options, best[None], 0)[0]


def _inputs(vocab: Sequence[Value], longest: int, most: int, seed: int) -> tuple[list[tuple[Value, ...]], bool]:
    """Every input if there are at most `most`, else as many drawn, long ones more often."""
    count = 0
    for length in range(1, longest + 1):
        count += len(vocab) ** length
        if count > most:
            generator = np.random.default_rng(seed)
            lengths = np.ceil(longest * np.sqrt(generator.random(most))).astype(int)
            return [tuple(vocab[i] for i in generator.integers(len(vocab), size=n)) for n in lengths.tolist()], False
    return Batch.every(vocab, longest).inputs(), True


def by_length(bare: BareTransformer, inputs: Sequence[tuple[Value, ...]]) -> Iterator[tuple[list[int], Array]]:
    """Which of the inputs have a length, and their codes."""
    lengths = [len(entry) for entry in inputs]
    for length in sorted(set(lengths)):
        members = [i for i, found in enumerate(lengths) if found == length]
        yield members, bare.encode([inputs[i] for i in members])


def some_of(goal: Goal, count: int, seed: int) -> list[int]:
    """Which inputs to tell S-ops apart by: of every length some, of long ones more, short ones first."""
    lengths = np.array([len(entry) for entry in goal.inputs])
    generator = np.random.default_rng(seed)
    shares = np.unique(lengths) / np.unique(lengths).sum()
    chosen: list[int] = []
    for length, share in zip(np.unique(lengths).tolist(), shares.tolist(), strict=True):
        members = np.flatnonzero(lengths == length)
        chosen += sorted(generator.permutation(members)[: max(1, round(share * count))].tolist())
    return chosen


def same(given: Array, wanted: Array) -> Array:
    """Where answers agree: numbers within a thousandth, None with None."""
    near = np.abs(given - wanted) <= 1e-3 * np.maximum(1.0, np.abs(wanted))
    return near | (np.isnan(given) & np.isnan(wanted))
