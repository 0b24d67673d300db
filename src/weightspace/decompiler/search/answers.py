"""What a transformer answers, on every input or on a sample, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from weightspace import clock
from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.functions import Value, is_number

Array = np.ndarray

EVERY = 20_000
"""So many inputs are all tried; of more, as many drawn with a seed."""
FINE = 2e-3
"""Numbers nearer than this to a 60th are meant to be it."""
LOOSE = 0.3
"""No answer is right that is further away than this."""
GAPS = (0.15, 0.1, 0.07, 0.05, 0.035, 0.025, 0.015, 0.01)
"""Gaps between heaps of numbers that stand for one each."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What a transformer answers.

    Attributes:
        inputs: the inputs tried.
        answers: (inputs, longest + 1) as numbers; NaN for None, at BOS and beyond an input's end.
        numerical: whether it answers with numbers.
        exhaustive: whether `inputs` are all there are.
        given: (inputs, longest + 1) the same before numbers were rounded.
        sure: (inputs, longest + 1) where there is no doubt about what a number is to be rounded to.
        tolerant: whether so many are in doubt that an answer is right if it is the nearest of all that a program gives.
    """

    inputs: list[tuple[Value, ...]]
    answers: Array
    numerical: bool
    exhaustive: bool
    given: Array
    sure: Array
    tolerant: bool

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
        if bare.readout.values is not None:
            return Goal(inputs, answers, False, exhaustive, answers, ~np.isnan(answers), False)
        rounded = _plausible(answers)
        known = ~np.isnan(answers)
        away = np.abs(answers - rounded)
        if (away[known] > FINE).mean() <= 0.05:
            return Goal(inputs, rounded, True, exhaustive, answers, known, False)
        options = np.unique(rounded[known])
        first = np.searchsorted(options, np.nan_to_num(answers))
        below, above = options[np.maximum(first - 1, 0)], options[np.minimum(first, len(options) - 1)]
        apart = np.sort(np.abs(np.stack([below, above, rounded]) - answers), axis=0)
        second = np.where(apart[1] > apart[0] + 1e-9, apart[1], apart[2])
        sure = known & (away < 0.3 * np.maximum(second, 0.1 if len(options) == 1 else 0))
        return Goal(inputs, rounded, True, exhaustive, answers, sure, True)

    def agrees(self, answers: Array) -> Array:
        """(inputs, places) where answers (inputs, longest + 1) are the transformer's.

        Those of a transformer whose numbers are not exact are right where no other number of all those in `answers` is
        nearer to what it gives.
        """
        if not self.tolerant:
            return same(answers, self.answers)
        options = np.unique(answers[~np.isnan(answers)])
        near = np.searchsorted((options[1:] + options[:-1]) / 2, np.nan_to_num(self.given)) if len(options) else 0
        nearest = options[near] if len(options) else np.full(answers.shape, np.nan)
        right = (np.abs(nearest - answers) < 1e-9) & (np.abs(self.given - answers) < LOOSE)
        return right | (np.isnan(answers) & np.isnan(self.given))


def _plausible(numbers: Array) -> Array:
    """Numbers rounded to 60ths, which sums of halves, thirds, quarters and fifths are.

    If they do not lie near these, as those of a trained transformer, they are sorted into heaps with gaps between them,
    and what is in a heap is rounded to what the middle of the heap comes nearest to.
    """
    fine = np.round(numbers * 60) / 60
    given = ~np.isnan(numbers)
    if (np.abs(fine - numbers)[given] > FINE).mean() <= 0.05:
        return fine
    ordered = np.sort(numbers[given])
    for gap in GAPS:
        starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf) > gap)
        ends = np.append(starts[1:], len(ordered)) - 1
        if (ordered[ends] - ordered[starts]).max() < 2 * gap:
            middles = np.array([np.median(ordered[a : b + 1]) for a, b in zip(starts, ends, strict=True)])
            heaps = np.searchsorted(ordered[starts], numbers[given], side="right") - 1
            rounded = np.full(numbers.shape, np.nan)
            rounded[given] = _simple(middles, max(0.015, 0.3 * gap))[heaps]
            return rounded
    return _simple(numbers, 0.05)


def _simple(numbers: Array, near: float) -> Array:
    """The first whole, half, third, quarter or fifth that is near, or else the nearest 60th."""
    rounded = np.round(numbers * 60) / 60
    for n in (5, 4, 3, 2, 1):
        option = np.round(numbers * n) / n
        rounded = np.where(np.abs(option - numbers) < near, option, rounded)
    return rounded


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
        clock.look()
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
