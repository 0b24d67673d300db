"""How an answer is read off a transformer's logits and off a program's values, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weightspace.errors import NetworkError
from weightspace.rasp.batch import BatchValues
from weightspace.rasp.compiler.agreement import TOLERANCE
from weightspace.rasp.functions import Value

Answers = Float[np.ndarray, "inputs places"]
"""What is answered at each place as a number; nan where it is None."""
UNKNOWN = -1.0
"""A program's answer that is no token of the vocabulary, which no transformer gives."""


@runtime_checkable
class Readout(Protocol):
    """A way to read answers."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The S-ops that make the program's answer."""
        ...

    def logits_of(self, variable: str) -> tuple[int, ...]:
        """The logits that are what a variable says, as any answer is held by logits; none where it shares them."""
        ...

    def of_logits(self, logits: Float[Tensor, "inputs places outputs"]) -> Answers:
        """The transformer's answers."""
        ...

    def of_values(self, values: Mapping[str, BatchValues]) -> Answers:
        """The program's answers."""
        ...


def same_answers(first: Answers, second: Answers) -> Bool[np.ndarray, "inputs places"]:
    """Where two answers are the same: both None, or numbers within the tolerance of the compiler's own check."""
    close = np.abs(first - second) <= TOLERANCE * np.maximum(1.0, np.abs(first))
    return close | (np.isnan(first) & np.isnan(second))


@dataclass(frozen=True)
class GreedyToken:
    """The likeliest next token; the program's is the value of one S-op, or the largest of one numerical S-op a token.

    Attributes:
        vocab: the token of each logit.
        outputs: the variable that gives the token, or a variable for each token.
    """

    vocab: tuple[str, ...]
    outputs: str | Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.outputs, str):
            _check_tokens(self.outputs, self.vocab)

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.outputs,) if isinstance(self.outputs, str) else tuple(self.outputs.values())

    def logits_of(self, variable: str) -> tuple[int, ...]:
        if isinstance(self.outputs, str):
            return tuple(range(len(self.vocab))) if variable == self.outputs else ()
        return _logits_of(variable, self.outputs, self.vocab)

    def of_logits(self, logits: Float[Tensor, "inputs places outputs"]) -> Answers:
        return logits.argmax(-1).numpy().astype(np.float64)

    def of_values(self, values: Mapping[str, BatchValues]) -> Answers:
        numbers = {token: float(number) for number, token in reversed(list(enumerate(self.vocab)))}
        if isinstance(self.outputs, str):
            given = values[self.outputs]
            table = [numbers.get(token_text(value), UNKNOWN) for value in given.values]
            return np.array([*table, np.nan])[given.codes]
        tokens = np.array([numbers[token] for token in self.outputs])
        strengths = np.stack([values[name].numbers() for name in self.outputs.values()], -1)
        best = tokens[np.where(np.isnan(strengths), -np.inf, strengths).argmax(-1)]
        return np.where(np.isnan(strengths).all(-1), np.nan, best)


@dataclass(frozen=True)
class TokenSet:
    """All tokens whose logit is above 0; the program's are those whose variable holds something true.

    Attributes:
        vocab: the token of each logit, at most 52.
        outputs: a variable for each token that can be allowed; the others never are.
    """

    vocab: tuple[str, ...]
    outputs: Mapping[str, str]

    def __post_init__(self) -> None:
        _check_tokens(self.outputs, self.vocab)
        if len(self.vocab) > 52:
            raise NetworkError(f"sets of next tokens are read of at most 52 tokens, not {len(self.vocab):,}")

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(self.outputs.values())

    def logits_of(self, variable: str) -> tuple[int, ...]:
        return _logits_of(variable, self.outputs, self.vocab)

    def of_logits(self, logits: Float[Tensor, "inputs places outputs"]) -> Answers:
        bits = 2.0 ** torch.arange(len(self.vocab), dtype=torch.float64)
        return ((logits[..., : len(self.vocab)] > 0).double() @ bits).numpy()

    def of_values(self, values: Mapping[str, BatchValues]) -> Answers:
        total = np.zeros(next(iter(values.values())).codes.shape)
        for token, name in self.outputs.items():
            true = np.array([*map(bool, values[name].values), False])
            total += 2.0 ** self.vocab.index(token) * true[values[name].codes]
        return total


@runtime_checkable
class Encoded(Protocol):
    """How an answer stands in a stream: what is known of a compiled transformer's output, or of a bare one's."""

    @property
    def values(self) -> tuple[Value, ...] | None:
        """Of its directions; None if it is numerical."""
        ...

    @property
    def none(self) -> object | None:
        """None if nothing says that a numerical answer is None."""
        ...

    @property
    def strict(self) -> bool:
        """Whether a categorical answer is None where no direction reaches 1/2."""
        ...


@dataclass(frozen=True)
class CompiledAnswer:
    """What a compiled transformer's stream holds along the directions of its output, which are its logits.

    Attributes:
        variable: the program's output.
        output: how the answer stands there.
        numbers: that a numerical answer can be, in order: the nearest is what a trained transformer says. Unless given,
            it says what it says.
    """

    variable: str
    output: Encoded
    numbers: tuple[float, ...] | None = None

    @property
    def variables(self) -> tuple[str, ...]:
        return (self.variable,)

    def logits_of(self, variable: str) -> tuple[int, ...]:
        size = len(self.output.values or (None,)) + (self.output.none is not None)
        return tuple(range(size)) if variable == self.variable else ()

    def of_logits(self, logits: Float[Tensor, "inputs places outputs"]) -> Answers:
        held, output = logits.numpy().astype(np.float64), self.output
        if output.values is None:
            number = held[..., 0]
            if self.numbers is not None:
                known = np.array(self.numbers)
                number = known[np.searchsorted((known[1:] + known[:-1]) / 2, number)]
            return number if output.none is None else np.where(held[..., 1] > 0.5, np.nan, number)
        best = held[..., : len(output.values)].argmax(-1).astype(np.float64)
        return np.where(held.max(-1) > 0.5, best, np.nan) if output.strict else best

    def of_values(self, values: Mapping[str, BatchValues]) -> Answers:
        given = values[self.variable]
        if self.output.values is None:
            return given.numbers()
        places = {value: float(place) for place, value in enumerate(self.output.values)}
        return np.array([*(places.get(value, UNKNOWN) for value in given.values), np.nan])[given.codes]


def token_text(value: Value) -> str:
    """The text of a program's value among the tokens of a vocabulary: the number 3 is the token "3"."""
    return value if isinstance(value, str) else str(value)


def _logits_of(variable: str, outputs: Mapping[str, str], vocab: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(vocab.index(token) for token, name in outputs.items() if name == variable)


def _check_tokens(outputs: Mapping[str, str], vocab: tuple[str, ...]) -> None:
    if not outputs:
        raise NetworkError("no token has a variable: name one for each token that the program can answer")
    for token in outputs:
        if token not in vocab:
            raise NetworkError(f"there is no token {token!r} to answer: the vocabulary is {', '.join(vocab[:20])}")
