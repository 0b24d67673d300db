"""Inputs with the answers that are wanted, as `inputs.jsonl` has them: `follow` or `next` beside each `input`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.decompiler.trained.asked import BOS, EOS, PAD, SEP, SPECIAL, Kind, Strings
from weightspace.errors import NetworkError, UnreadableError
from weightspace.files.json_text import json_object

MOST = 100_000
"""Inputs of a file that are read."""
LARGEST = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Given:
    """Inputs as texts.

    Attributes:
        rows: the tokens of each input.
        kind: what is asked.
        wanted: by place the right set of tokens, or the right token; None where nothing is asked.
    """

    rows: tuple[tuple[str, ...], ...]
    kind: Kind
    wanted: tuple[tuple[Any, ...], ...]

    def strings(self, vocab: Sequence[str]) -> Strings:
        """The inputs as numbers.

        Raises:
            NetworkError: if a token is not in the vocabulary.
        """
        numbers = {text: number for number, text in enumerate(vocab)}
        for row in self.rows:
            for token in row:
                if token not in numbers:
                    raise NetworkError(f"the inputs have a token {token[:40]!r} that is not in the vocabulary")
        asked = [[place for place, want in enumerate(row) if want is not None] for row in self.wanted]
        return Strings.of([[numbers[token] for token in row] for row in self.rows], asked)

    def wanted_of(self, vocab: Sequence[str]) -> np.ndarray:
        """The right answers in the form of `Asked.given`."""
        numbers = {text: number for number, text in enumerate(vocab)}
        longest = max(map(len, self.rows))
        shape = (len(self.rows), longest, len(vocab)) if self.kind == "sets" else (len(self.rows), longest)
        found = np.zeros(shape, bool if self.kind == "sets" else np.int16)
        for row, wants in enumerate(self.wanted):
            for place, want in enumerate(wants):
                if want is None:
                    continue
                if self.kind == "sets":
                    found[row, place, [numbers[token] for token in want if token in numbers]] = True
                else:
                    found[row, place] = numbers.get(want, -1)
        return found


def read_inputs(path: Path) -> Given:
    """The inputs of a file, an object of JSON a line: `input`, and `follow` (sets) or `next` (answers).

    Raises:
        UnreadableError: if it cannot be read.
        NetworkError: if a line holds something else; the message says which.
    """
    found, kinds = [], set()
    for where, said in _lines(path):
        kind, row, wants = _entry(said, where)
        kinds.add(kind)
        found.append((row, wants))
    if len(kinds) != 1:
        raise NetworkError(
            f"{path} holds no inputs" if not kinds else f"{path} asks for sets and for answers: split it"
        )
    return Given(tuple(row for row, _ in found), kinds.pop(), tuple(wants for _, wants in found))


def read_rows(path: Path) -> list[tuple[str, ...]]:
    """Only the inputs of a file, whatever stands beside them.

    Raises:
        UnreadableError: if it cannot be read.
        NetworkError: if a line holds no input, or there is none.
    """
    rows = [_row(said, where) for where, said in _lines(path)]
    if not rows:
        raise NetworkError(f"{path} holds no inputs")
    return rows


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file, and where they stand."""
    try:
        if path.stat().st_size > LARGEST:
            raise UnreadableError(f"{path} is larger than {LARGEST // 2**20} MiB: give fewer inputs")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append((f"{path}, line {number}", json_object(line)))
        except ValueError as error:
            raise NetworkError(
                f"{path}, line {number}: {error}; expected an object with input and follow or next"
            ) from None
        if len(found) > MOST:
            raise NetworkError(f"{path} holds more than {MOST:,} inputs: give fewer")
    return found


def _row(said: Mapping[str, Any], where: str) -> tuple[str, ...]:
    row = said.get("input")
    if not isinstance(row, list) or not row or not all(isinstance(token, str) for token in row):
        raise NetworkError(f"{where}: input is a list of tokens, texts, of which there is at least one")
    return tuple(row)


def _entry(said: Mapping[str, Any], where: str) -> tuple[Kind, tuple[str, ...], tuple[Any, ...]]:
    row = _row(said, where)
    asked: Kind = "answers" if "next" in said else "sets"
    wants = said.get("next" if asked == "answers" else "follow")
    if not isinstance(wants, list) or len(wants) != len(row):
        raise NetworkError(
            f"{where}: expected follow, or next, with an entry for each of the {len(row)} tokens of input"
        )
    for want in wants:
        sound = want is None or (
            isinstance(want, str)
            if asked == "answers"
            else isinstance(want, list) and all(isinstance(token, str) for token in want)
        )
        if not sound:
            raise NetworkError(
                f"{where}: {json.dumps(want)[:40]} is no entry of {'next' if asked == 'answers' else 'follow'}"
            )
    return asked, row, tuple(wants)


def guessed_vocab(given: Given, size: int, bos: int | None) -> tuple[str, ...] | None:
    """The vocabulary of a network whose files do not say it, if the inputs leave one only.

    Numbers in their order, or letters in theirs, and then the special tokens, as many tokens as the network embeds.

    Args:
        bos: the number of `<bos>`, where it is known.
    """
    texts = {token for row in given.rows for token in row}
    for wants in given.wanted:
        for want in wants:
            texts.update(() if want is None else (want,) if isinstance(want, str) else want)
    letters = texts - set(SPECIAL)
    special = [token for token in (BOS, SEP, EOS, PAD) if token in texts or size >= len(letters) + len(SPECIAL)]
    count = size - len(special)
    numbers = sorted(int(text) for text in letters if text.isdigit())
    others = sorted(text for text in letters if not text.isdigit())
    if not others and numbers and numbers[-1] < count and count > len(letters):
        ordered = [str(number) for number in range(count)]
    else:
        ordered = [*map(str, numbers), *others]
    if len(ordered) != count or (bos is not None and bos != count):
        return None
    return (*ordered, *special)
