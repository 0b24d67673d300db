"""What a person gives: a program out of a file or a pipe, a vocabulary, an input."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightspace.errors import RaspError
from weightspace.rasp.functions import Value, shown
from weightspace.rasp.program import Program
from weightspace.rasp.validate import check_vocab

_WORD = re.compile(r""" "([^"]*)" | '([^']*)' | ([^\s,]+) """, re.VERBOSE)


def read_program(path: Path, identifier: str | None = None) -> Program:
    """The program in a file, told by its content: program text, a JSON record, or a list of records.

    Args:
        path: `-` is standard input.
        identifier: the `id` of the record, where there are several.
    Raises:
        RaspError: if there is no program in it, or several and none is chosen.
        OSError: if it cannot be read.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        if str(path) != "-":
            text = path.read_text("utf-8-sig")
        elif sys.stdin is None:
            raise RaspError("standard input is closed: give a file")
        else:
            text = sys.stdin.read()
    except UnicodeDecodeError:
        raise RaspError(f"{name} is not text in UTF-8: a program is a text or a JSON record") from None
    try:
        return program_in(text, identifier)
    except RaspError as error:
        raise RaspError(f"{name}: {error}") from None


def program_in(text: str, identifier: str | None = None) -> Program:
    """The program in a text or a JSON document.

    Raises:
        RaspError: if there is none, or several and none is chosen.
    """
    if not text.lstrip().startswith(("{", "[")):  # no statement of a program begins so
        if identifier is not None:
            raise RaspError("it holds one program and no records, so that there is no --id to choose")
        return Program.parse(text)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RaspError(f"it begins as JSON but cannot be read: {error}") from None
    records = content if isinstance(content, list) else [content]
    if not records:
        raise RaspError("it is an empty list: there is no record in it")
    if identifier is None and len(records) == 1:
        return Program.from_record(records[0])
    known = [str(record["id"]) for record in records if isinstance(record, Mapping) and "id" in record]
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") if known else "none has an id"
    if identifier is None:
        raise RaspError(f"it holds {len(records)} records: choose one with --id ({listed})")
    chosen = [record for record in records if isinstance(record, Mapping) and str(record.get("id")) == identifier]
    if not chosen:
        raise RaspError(f"no record has the id {shown(identifier)}: there are {listed}")
    return Program.from_record(chosen[0])


def read_vocabulary(text: str) -> tuple[Value, ...]:
    """A vocabulary: `a,b,c`, `0,1,2`, `"x","y"`, or a list as in a program text.

    Numbers where all are numbers, else strings; what stands in quotes is a string.

    Raises:
        RaspError: if it is no vocabulary.
    """
    if text.lstrip().startswith("["):
        try:
            listed = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise RaspError(f"{shown(text)} is not a list of tokens, such as [0, 1, 2] or ['a', 'b']") from None
        return check_vocab(listed)
    words, quoted = _words(text, "a vocabulary, such as a,b,c or 0,1,2")
    if quoted:
        return check_vocab(words)
    numbers = [_number(word) for word in words]
    return check_vocab([number for number in numbers if number is not None] if None not in numbers else words)


def read_input(text: str, vocab: Sequence[Value] | None) -> list[Value]:
    """An input: tokens separated by blanks or commas, or one word if every token is a single character.

    Args:
        text: `h e l l o`, `h,e,l,l,o` or `hello`; tokens with blanks or commas stand in quotes.
        vocab: the tokens that may occur; where it is None, numbers where all are numbers, else strings.
    Raises:
        RaspError: if it is empty, or a token unknown.
    """
    words, _ = _words(text, "an input, such as 'h e l l o'")
    if vocab is None:
        numbers = [_number(word) for word in words]
        return list(words) if None in numbers else list(numbers)
    known: dict[str, Value] = {str(token): token for token in vocab}
    if len(words) == 1 and all(len(token) == 1 for token in known):
        words = list(words[0])
    found: list[Value] = []
    for word in words:
        number = _number(word)
        if word in known:
            found.append(known[word])
        elif number is not None and any(number == token for token in vocab):
            found.append(next(token for token in vocab if number == token))
        else:
            listed = ", ".join(map(repr, vocab[:20])) + (", ..." if len(vocab) > 20 else "")
            raise RaspError(f"the token {shown(word)} is unknown: the vocabulary is {listed}")
    return found


def _words(text: str, wanted: str) -> tuple[list[str], bool]:
    """The words of a text, and whether any stood in quotes."""
    found: list[str] = []
    quoted, end = False, 0
    for match in _WORD.finditer(text):
        if text[end : match.start()].strip(" \t\r\n,"):
            break
        quoted |= match[3] is None
        found.append(next(part for part in match.groups() if part is not None))
        end = match.end()
    if not found:
        raise RaspError(f"{shown(text)} is empty: give {wanted}")
    return found, quoted


def _number(word: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return None


def token_text(values: Sequence[Any]) -> str:
    """A sequence of values as a person types and reads it."""
    return " ".join(_shown_value(value) for value in values)


def _shown_value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"
    if isinstance(value, tuple):
        return repr(value).replace(" ", "")
    text = str(value)
    return repr(text) if not text or any(c in " ,\t\n" for c in text) else text
