"""What a program answers on strings, in the form in which a network does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weightspace.decompiler.trained.asked import Kind, Strings
from weightspace.errors import RaspError
from weightspace.rasp.batch import Batch
from weightspace.rasp.batch_interpreter import evaluate_batch
from weightspace.rasp.functions import Value
from weightspace.rasp.program import Program

PAIRS = 40_000_000
"""Pairs of keys and queries that are held at once."""


def value_of(text: str) -> Value:
    """A token as a program has it: a whole number where it is written as one."""
    return int(text) if text.isdigit() and str(int(text)) == text else text


def text_of(value: Value) -> str:
    """A program's token as a text."""
    return value if isinstance(value, str) else str(value)


def program_answers(program: Program, vocab: Sequence[str], kind: Kind, strings: Strings) -> np.ndarray:
    """What a program answers: (n, place, vocabulary) booleans of sets, or (n, place) numbers of tokens, -1 for none.

    Raises:
        RaspError: if it has no value somewhere, or answers something else than tokens.
    """
    values = tuple(value_of(text) for text in vocab)
    shape = (*strings.codes.shape, len(vocab)) if kind == "sets" else strings.codes.shape
    found = np.zeros(shape, bool if kind == "sets" else np.int16)
    size = max(1, PAIRS // max(strings.codes.shape[1], 1) ** 2)
    for start in range(0, len(strings), size):
        rows = slice(start, start + size)
        codes = strings.codes[rows].astype(np.int32)
        batch = Batch(codes, (codes >= 0).sum(1).astype(np.int64), values)
        given = evaluate_batch(program, batch)
        table = _table(given.values, {value: i for i, value in enumerate(values)}, len(vocab), kind)
        found[rows, : given.codes.shape[1]] = table[given.codes]
    return found


def _table(given: Sequence[Value], numbers: dict[Value, int], size: int, kind: Kind) -> np.ndarray:
    """What each of a program's values is as an answer; the last row is for None."""
    if kind == "answers":
        return np.array([*(numbers.get(value, -1) for value in given), -1], np.int16)
    table = np.zeros((len(given) + 1, size), bool)
    for row, value in enumerate(given):
        if not isinstance(value, tuple):
            raise RaspError(
                f"the program gives {value!r} where a set of next tokens is wanted: return {{TOKEN: SOP, ...}}"
            )
        table[row, [numbers[token] for token in value if token in numbers]] = True
    return table


def listed(program: Program, rows: Sequence[Sequence[str]]) -> list[list[Any]]:
    """What a program answers at each place of inputs of texts: lists of tokens for sets, or else a token or None."""
    from weightspace.rasp.batch_interpreter import evaluate_all

    answers = evaluate_all(program, [[value_of(token) for token in row] for row in rows])
    return [
        [
            [text_of(v) for v in value] if isinstance(value, tuple) else None if value is None else text_of(value)
            for value in row
        ]
        for row in answers
    ]
