"""A transformer's inputs with what it answers there, as classes: what another is trained on and judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.batch import all_inputs
from weightspace.rasp.compiler.bare import BareTransformer, Readout
from weightspace.rasp.language import BOS, PAD

MOST_INPUTS = 4_000
"""So many inputs are all used, to find directions, to train and to judge; of more, a seeded sample."""
NEAR = 0.01
"""Numbers that an answer can be count as one where they are nearer than this share of the larger of 1 and the number:
what rounding and leaking attention make of one value."""


def input_codes(bare: BareTransformer, seed: int = 0, most: int = MOST_INPUTS) -> list[np.ndarray]:
    """Every input of a transformer, or a sample of them, by length: arrays (inputs, length + 1) with BOS first.

    Args:
        seed: of the sample, in which all lengths are equally likely.
        most: so many inputs are all given; of more, so many are drawn.
    """
    vocab, longest = len(bare.vocab), bare.max_seq_len
    rows = np.array([row for row, value in enumerate(bare.space) if value not in (BOS, PAD)])
    bos = bare.space.index(BOS)
    if sum(vocab**length for length in range(1, longest + 1)) <= most:
        by_length: dict[int, list[Any]] = {}
        for entry in all_inputs(range(vocab), longest):
            by_length.setdefault(len(entry), []).append(entry)
        groups = [rows[np.array(group)] for group in by_length.values()]
    else:
        random = np.random.default_rng([seed, 1])
        lengths = random.integers(1, longest + 1, most)
        drawn = rows[random.integers(0, vocab, (most, longest))]
        groups = [drawn[lengths == length, :length] for length in range(1, longest + 1)]
    return [np.insert(group, 0, bos, axis=1) for group in groups if len(group)]


@dataclass(frozen=True)
class Answers:
    """What a transformer answers, place by place, as classes that can be compared and learnt.

    Attributes:
        codes: of the inputs, by length, as `input_codes` gives them.
        classes: (inputs, length) of each: the place of a categorical answer among the readout's values, of a numerical
            one among `numbers`; -1 for None.
        targets: (inputs, length) of each, the numbers of a numerical answer; 0 where None. Empty for a categorical one.
        numbers: (n,) the different numbers that are answered, in order; None for a categorical answer.
    """

    codes: list[np.ndarray]
    classes: list[np.ndarray]
    targets: list[np.ndarray]
    numbers: np.ndarray | None


def answers_of(bare: BareTransformer, codes: Sequence[np.ndarray]) -> Answers:
    """What a transformer answers at each place but BOS.

    Args:
        codes: as `input_codes` gives them.
    Raises:
        RaspError: if it is not known where its answer stands.
    """
    readout = readout_of(bare)
    streams = [bare.forward(group)[:, 1:] for group in codes]
    if readout.values is not None:
        return Answers([*codes], [_chosen(readout, stream) for stream in streams], [], None)
    missing = [_is_none(readout, stream) for stream in streams]
    given = [(stream @ readout.directions)[..., 0] for stream in streams]
    some = np.concatenate([numbers[~none] for numbers, none in zip(given, missing, strict=True)])
    numbers = distinct(some)
    classes = [np.where(none, -1, nearest(numbers, found)) for found, none in zip(given, missing, strict=True)]
    targets = [np.where(none, 0, found) for found, none in zip(given, missing, strict=True)]
    return Answers([*codes], classes, targets, numbers)


def share_right(bare: BareTransformer, wanted: Answers) -> float:
    """The share of inputs on which a transformer answers as wanted at every place.

    A number is right if no other of the wanted numbers is nearer to it.
    """
    readout = readout_of(bare)
    right = total = 0
    for group, classes in zip(wanted.codes, wanted.classes, strict=True):
        stream = bare.forward(group)[:, 1:]
        if wanted.numbers is None:
            found = _chosen(readout, stream)
        else:
            found = nearest(wanted.numbers, (stream @ readout.directions)[..., 0])
            found = np.where(_is_none(readout, stream), -1, found)
        right += int((found == classes).all(1).sum())
        total += len(group)
    return right / total


def readout_of(bare: BareTransformer) -> Readout:
    """Where the answer stands.

    Raises:
        RaspError: if that is not known.
    """
    if bare.readout is None:
        raise RaspError("it is not known where the answer of this transformer stands: give it a readout")
    return bare.readout


def _chosen(readout: Readout, stream: np.ndarray) -> np.ndarray:
    read = stream @ readout.directions
    best = read.argmax(-1)
    return np.where(read.max(-1) > 0.5, best, -1) if readout.strict else best


def _is_none(readout: Readout, stream: np.ndarray) -> np.ndarray:
    if readout.none is None:
        return np.zeros(stream.shape[:-1], bool)
    return stream @ readout.none > 0.5


def distinct(numbers: np.ndarray) -> np.ndarray:
    """The different ones among numbers, in order; of those nearer than `NEAR` the mean."""
    ordered = np.sort(numbers.astype(float).ravel())
    if not len(ordered):
        return np.zeros(1)
    apart = np.diff(ordered) > NEAR * np.maximum(1, np.abs(ordered[1:]))
    return np.array([group.mean() for group in np.split(ordered, np.flatnonzero(apart) + 1)])


def nearest(numbers: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Which of `numbers` (n,), in order, each of some given ones is nearest to."""
    return np.searchsorted((numbers[1:] + numbers[:-1]) / 2, given)
