"""What a trained transformer is asked: sets of next tokens at every place, or the next token after `<sep>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int

from weightspace.errors import NetworkError
from weightspace.transformers.trained import TrainedTransformer

Kind = Literal["sets", "answers"]
"""`sets`: at each place the tokens whose logit is above 0; `answers`: the likeliest token, at some places."""
KINDS: tuple[Kind, ...] = get_args(Kind)
BOS, SEP, EOS, PAD = "<bos>", "<sep>", "<eos>", "<pad>"
SPECIAL = (BOS, SEP, EOS, PAD)
"""Tokens that are no letters: what begins, what parts question and answer, what ends, what fills up."""
CELLS = 200_000
"""Places that are run at once."""


@dataclass(frozen=True, eq=False)
class Strings:
    """Inputs as numbers of tokens.

    Attributes:
        codes: (n, place), -1 beyond an input's end.
        asked: at which places an answer counts; all real ones where sets are asked.
    """

    codes: Int[np.ndarray, "n place"]
    asked: Bool[np.ndarray, "n place"]

    @staticmethod
    def of(rows: Sequence[Sequence[int]], asked: Sequence[Sequence[int]] | None = None) -> Strings:
        """The strings given, and the places at which they are asked: all of them unless given."""
        longest = max(map(len, rows), default=0)
        codes = np.full((len(rows), longest), -1, np.int16)
        for row, numbers in enumerate(rows):
            codes[row, : len(numbers)] = numbers
        if asked is None:
            return Strings(codes, codes >= 0)
        chosen = np.zeros(codes.shape, bool)
        for row, places in enumerate(asked):
            chosen[row, list(places)] = True
        return Strings(codes, chosen)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        return (self.codes >= 0).sum(1)

    def rows(self) -> list[list[int]]:
        """The inputs as lists."""
        return [row[:length].tolist() for row, length in zip(self.codes, self.lengths, strict=True)]

    def take(self, chosen: np.ndarray | slice) -> Strings:
        """Some of them, without places that none of these has."""
        codes, asked = self.codes[chosen], self.asked[chosen]
        longest = int((codes >= 0).sum(1).max(initial=0))
        return Strings(codes[:, :longest], asked[:, :longest])

    @staticmethod
    def joined(*parts: Strings) -> Strings:
        """All of some strings, one after the other."""
        longest = max(part.codes.shape[1] for part in parts)
        codes = [np.pad(p.codes, ((0, 0), (0, longest - p.codes.shape[1])), constant_values=-1) for p in parts]
        asked = [np.pad(part.asked, ((0, 0), (0, longest - part.asked.shape[1]))) for part in parts]
        return Strings(np.concatenate(codes), np.concatenate(asked))


@dataclass(frozen=True, eq=False)
class Asked:
    """A transformer that is asked for sets or for answers.

    Attributes:
        transformer: the network.
        vocab: the text of each token.
        kind: what it is asked.
        offset: position of the first place.
    """

    transformer: TrainedTransformer
    vocab: tuple[str, ...]
    kind: Kind
    offset: int = 0

    def __post_init__(self) -> None:
        outputs = self.transformer.shape.outputs
        if len(self.vocab) != self.transformer.shape.vocabulary:
            raise NetworkError(
                f"a vocabulary of another size: {len(self.vocab):,} tokens were given, and {self.transformer.where} "
                f"embeds {self.transformer.shape.vocabulary:,}"
            )
        if not self.transformer.shape.causal or outputs != len(self.vocab):
            raise NetworkError(
                f"{self.transformer.where} does not say which token comes next: it has to be causal, with a logit for "
                f"each of its {len(self.vocab):,} tokens"
            )
        if BOS not in self.vocab:
            raise NetworkError(f"the vocabulary has no {BOS!r}, with which every input begins")

    @cached_property
    def letters(self) -> tuple[int, ...]:
        """The tokens that are no special ones."""
        return tuple(number for number, text in enumerate(self.vocab) if text not in SPECIAL)

    def number(self, text: str) -> int:
        """The number of a token; -1 where there is none."""
        return self.vocab.index(text) if text in self.vocab else -1

    @property
    def positions(self) -> int:
        """How many places an input may have."""
        return self.transformer.shape.positions - self.offset

    def given(self, strings: Strings) -> np.ndarray:
        """What the network answers: (n, place, vocabulary) booleans of sets, or (n, place) numbers of tokens.

        Raises:
            NetworkError: if an input is longer than the positions.
        """
        codes, lengths = strings.codes, strings.lengths
        shape = (*codes.shape, len(self.vocab)) if self.kind == "sets" else codes.shape
        found = np.zeros(shape, bool if self.kind == "sets" else np.int16)
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            count = 1
            while start + count < len(order) and (count + 1) * lengths[order[start + count]] <= CELLS:
                count += 1
            rows = order[start : start + count]
            longest = int(lengths[rows[-1]])
            part = torch.from_numpy(np.maximum(codes[rows, :longest], 0).astype(np.int64))
            logits = self.transformer.run(part, offset=self.offset).logits
            if self.kind == "sets":
                found[rows, :longest] = (logits > 0).numpy() & (codes[rows, :longest] >= 0)[:, :, None]
            else:
                found[rows, :longest] = logits.argmax(-1).numpy()
            start += count
        return found


def same(kind: Kind, strings: Strings, first: np.ndarray, second: np.ndarray) -> Bool[np.ndarray, "n place"]:
    """Where two kinds of answers agree; True too where nothing is asked."""
    equal = (first == second).all(-1) if kind == "sets" else first == second
    return equal | ~strings.asked
