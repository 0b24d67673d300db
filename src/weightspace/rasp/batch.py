"""Inputs of any lengths as one array of numbers, and the values that an S-op has on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from weightspace.errors import RaspError
from weightspace.rasp.columns import Column, renumbered
from weightspace.rasp.functions import Value, is_number
from weightspace.rasp.interpreter import checked_token

MOST_INPUTS = 10_000_000
"""More inputs than these are not listed at once: draw a sample."""


def all_inputs(vocab: Sequence[Value], max_seq_len: int) -> list[tuple[Value, ...]]:
    """Every input of length 1 to `max_seq_len`, the short ones first: 3,905 of vocabulary 5 and length 5.

    Raises:
        RaspError: if there are more than `MOST_INPUTS`.
    """
    _count_inputs(len(vocab), max_seq_len)
    lengths = range(1, max_seq_len + 1)
    return [entry for length in lengths for entry in itertools.product(vocab, repeat=length)]


def _count_inputs(vocab: int, max_seq_len: int) -> int:
    count = 0
    for length in range(1, max_seq_len + 1):
        count += vocab**length
        if count > MOST_INPUTS:
            raise RaspError(
                f"a vocabulary of {vocab} and lengths up to {max_seq_len} make more than {MOST_INPUTS:,} inputs: "
                "draw a sample of them"
            )
    return count


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of any lengths, as numbers.

    Attributes:
        codes: (n, length) positions in `vocab`, -1 beyond an input's end.
        lengths: (n,) of each input.
        vocab: what the positions mean.
    """

    codes: Int[np.ndarray, "n length"]
    lengths: Int[np.ndarray, " n"]
    vocab: tuple[Value, ...]

    @staticmethod
    def of(inputs: Sequence[Sequence[Any]], vocab: Sequence[Value] | None = None) -> Batch:
        """The batch of the inputs given.

        Args:
            inputs: sequences of tokens, of any lengths.
            vocab: the tokens that may occur; unless given, those that do.
        Raises:
            RaspError: if something is no token, or not in the vocabulary.
        """
        every = list(itertools.chain.from_iterable(inputs))
        try:
            distinct = list(dict.fromkeys(every))
        except TypeError:
            distinct = every  # the check says which of them is no token
        for token in distinct:
            checked_token(token, vocab)
        entries = distinct if vocab is None else [checked_token(token, None) for token in vocab]
        position = {token: i for i, token in reversed(list(enumerate(entries)))}
        lengths = np.fromiter(map(len, inputs), np.int64, len(inputs))
        codes = np.full((len(inputs), int(lengths.max(initial=0))), -1, np.int32)
        codes[np.arange(codes.shape[1]) < lengths[:, None]] = [position[token] for token in every]
        return Batch(codes, lengths, tuple(entries))

    @staticmethod
    def every(vocab: Sequence[Value], max_seq_len: int) -> Batch:
        """Every input of length 1 to `max_seq_len`, in the order of `all_inputs`.

        Raises:
            RaspError: if there are more than `MOST_INPUTS`, or something is no token.
        """
        for token in vocab:
            checked_token(token, None)
        size = len(vocab)
        codes = np.full((_count_inputs(size, max_seq_len), max(max_seq_len, 0)), -1, np.int32)
        lengths = np.empty(len(codes), np.int64)
        start = 0
        for length in range(1, max_seq_len + 1):
            number = np.arange(size**length)
            for place in range(length):
                codes[start : start + len(number), place] = number // size ** (length - 1 - place) % size
            lengths[start : start + len(number)] = length
            start += len(number)
        return Batch(codes, lengths, tuple(vocab))

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.lengths)

    def inputs(self) -> list[tuple[Value, ...]]:
        """The inputs as tuples of tokens."""
        return [tuple(entry) for entry in _listed(self.codes, self.vocab, self.lengths)]

    @cached_property
    def present(self) -> np.ndarray:
        """(length, n): False beyond an input's end."""
        return np.ascontiguousarray((np.arange(self.codes.shape[1]) < self.lengths[:, None]).T)

    @cached_property
    def tokens(self) -> Column:
        """What `tokens` is on the batch."""
        vocab = self.vocab
        return renumbered(self.codes.T + 1, len(vocab) + 1, lambda i: vocab[i - 1] if i else None)

    @cached_property
    def indices(self) -> Column:
        """What `indices` is on the batch."""
        size = self.codes.shape[1]
        places = np.arange(1, size + 1)[:, None] * self.present
        return renumbered(places, size + 1, lambda i: i - 1 if i else None)


@dataclass(frozen=True, eq=False)
class BatchValues:
    """What an S-op gives for every input of a batch.

    Attributes:
        codes: (n, length) positions in `values`; -1 for None and beyond an input's end.
        values: the different values that occur, None left out.
        lengths: (n,) of each input.
    """

    codes: Int[np.ndarray, "n length"]
    values: tuple[Value, ...]
    lengths: Int[np.ndarray, " n"]

    def numbers(self) -> Float[np.ndarray, "n length"]:
        """The values themselves, nan for None and beyond an input's end.

        Raises:
            RaspError: if there are strings among them.
        """
        for value in self.values:
            if not is_number(value):
                raise RaspError(f"{value!r} is not a number: read these values with `lists`")
        return np.array([*self.values, math.nan], np.float64)[self.codes]

    def lists(self) -> list[list[Value]]:
        """The values as `evaluate` gives them, one list for each input."""
        return _listed(self.codes, self.values, self.lengths)


def _listed(codes: np.ndarray, values: Sequence[Value], lengths: np.ndarray) -> list[list[Value]]:
    by_code = [*values, None]  # so that -1 is None
    pairs = zip(codes.tolist(), lengths.tolist(), strict=True)
    return [[by_code[code] for code in row[:length]] for row, length in pairs]
