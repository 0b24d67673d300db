"""A synthetic language in which it pays to look back: at the last tokens, at repetitions, at what came before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

KINDS = ("repeats", "pairs", "triples", "recent", "seen before", "letters")
"""Kinds of sequences:

- repeats: random tokens again and again with a period that is drawn for each sequence
- pairs, triples: the next token is one of three that the last one, or the last two, allow
- recent: most tokens are one of the last six
- seen before: each random token is followed by a mark that says whether it came before
- letters: English of Python's own documentation, letter by letter
"""
BRANCHES = 3
MARKS = 2


@dataclass(frozen=True)
class Language:
    """A language of its own tables.

    Attributes:
        seed: of its tables.
        vocabulary: tokens, numbered from 0.
        shares: how often each of `KINDS` is drawn; they need not sum to 1.
    """

    seed: int
    vocabulary: int
    shares: tuple[float, ...]

    def draw(self, count: int, length: int, generator: torch.Generator) -> Int[Tensor, "count length"]:
        """Sequences, each of a kind that is drawn."""
        kinds = torch.multinomial(torch.tensor(self.shares), count, replacement=True, generator=generator)
        found = torch.zeros(count, length, dtype=torch.long)
        for kind in range(len(KINDS)):
            rows = (kinds == kind).nonzero().flatten()
            if len(rows):
                found[rows] = self.of_kind(KINDS[kind], len(rows), length, generator)
        return found

    def of_kind(self, kind: str, count: int, length: int, generator: torch.Generator) -> Int[Tensor, "count length"]:
        """Sequences of one of `KINDS`."""
        random = torch.randint(MARKS, self.vocabulary, (count, length), generator=generator)
        if kind == "repeats":
            period = torch.randint(4, max(8, length // 3), (count, 1), generator=generator)
            return random.gather(1, torch.arange(length)[None] % period)
        if kind == "seen before":
            return _marked(random)
        if kind == "letters":
            return self._letters(count, length, generator)
        choice = torch.randint(0, BRANCHES, (count, length), generator=generator)
        for place in range(2, length):
            last, other = random[:, place - 1], random[:, place - 2]
            if kind == "pairs":
                random[:, place] = self._tables[0][last, choice[:, place]]
            elif kind == "triples":
                random[:, place] = self._tables[1][(last * 7 + other * 13) % len(self._tables[1]), choice[:, place]]
            else:
                back = torch.randint(1, min(6, place) + 1, (count, 1), generator=generator)
                again = random.gather(1, place - back).flatten()
                fresh = torch.rand(count, generator=generator) < 0.3
                random[:, place] = torch.where(fresh, random[:, place], again)
        return random

    @property
    def _tables(self) -> tuple[Tensor, Tensor]:
        return _tables(self.seed, self.vocabulary)

    def _letters(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        text = _english(self.vocabulary)
        starts = torch.randint(0, len(text) - length, (count, 1), generator=generator)
        return text[starts + torch.arange(length)[None]]


def _marked(random: Tensor) -> Tensor:
    """Each second token replaced by 1 if the one before it came before, by 0 if not; few tokens, so that many do."""
    some = MARKS + (random - MARKS) % 24
    tokens = some[:, ::2]
    came = (tokens[:, :, None] == tokens[:, None, :]).tril(-1).any(-1)
    found = some.clone()
    marks = came[:, : found[:, 1::2].shape[1]].long()
    found[:, 1::2] = marks
    return found


@cache
def _tables(seed: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(MARKS, vocabulary, (vocabulary, BRANCHES), generator=generator)
    return pairs, torch.randint(MARKS, vocabulary, (8 * vocabulary, BRANCHES), generator=generator)


@cache
def _english(vocabulary: int) -> Tensor:
    """Python's documentation of its language as numbers of letters; rare ones share the last number."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(str(topics[name]).split()) for name in sorted(topics)).encode("ascii", "ignore")
    raw = np.frombuffer(text, np.uint8)
    order = np.argsort(-np.bincount(raw, minlength=256), kind="stable")
    number = np.empty(256, np.int64)
    number[order] = np.arange(256)
    return torch.from_numpy(np.minimum(number[raw], vocabulary - MARKS - 1) + MARKS)


def mixture(generator: np.random.Generator) -> tuple[float, ...]:
    """Shares of the kinds for one language: repetitions are always frequent."""
    shares: Sequence[float] = generator.dirichlet(np.full(len(KINDS), 1.0)).tolist()
    return tuple(0.5 * (kind == "repeats") + 0.5 * share for kind, share in zip(KINDS, shares, strict=True))
