"""From the words of a command line to the values of a verb's arguments, or to one sentence about a wrong word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightspace.cli.arguments import EVERYWHERE, SHORT, Argument
from weightspace.errors import printable

Values = dict[Argument, Any]
"""What is given; an argument that is not given is left out."""
SPOKEN = {int: "a whole number", float: "a number", Path: "a path", str: "a text"}


def read(words: Sequence[str], known: Sequence[Argument], name: str) -> Values:
    """What the words say.

    An option that takes any number of values takes every word up to the next option, so operands stand before it;
    `--` ends the options.

    Args:
        words: those behind the verb.
        known: the arguments of the verb.
        name: of the command, for sentences.
    Raises:
        ValueError: on the first word that is not understood.
    """
    options = {argument.name: argument for argument in (*EVERYWHERE, *known) if not argument.operand}
    values: Values = {}
    free: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            free += rest
            break
        if not _is_option(word):
            free.append(word)
            continue
        word, equals, attached = SHORT.get(word, word).partition("=")
        argument, negated = _option(word, options, name)
        if argument.kind is bool:
            if equals:
                raise ValueError(f"{word} takes no value: see {name} --help")
            values[argument] = not negated
            continue
        given = [attached] if equals else _taken(rest, argument)
        value = converted(given, argument, name, word)
        values[argument] = (*values.get(argument, ()), *value) if argument.repeated else value
    return {**values, **_operands(free, [a for a in known if a.operand], name)}


def required(values: Values, known: Iterable[Argument], name: str) -> None:
    """That nothing is missing.

    Raises:
        ValueError: naming what is.
    """
    for argument in known:
        if argument.required and argument not in values:
            what = argument.name if argument.operand else f"--{argument.name} {argument.value}"
            text = re.split(r"(?<=[.;:])\s", argument.help)[0].rstrip(".;:")
            raise ValueError(f"{_short(name)} needs {what}{f' ({text})' if text else ''}: see {name} --help")


def filled(values: Values, known: Iterable[Argument], defaults: dict[str, Any]) -> dict[str, Any]:
    """Values by the name of the parameter; given fields change the dataclass of `defaults` that they belong to."""
    found: dict[str, Any] = dict(defaults)
    changes: dict[str, Any] = {}
    for argument in known:
        parameter, *below = argument.path
        if not below:
            found[parameter] = values.get(argument, argument.default)
        elif argument in values:
            place = changes
            for name in argument.path[:-1]:
                place = place.setdefault(name, {})
            place[below[-1]] = values[argument]
    return {name: _changed(value, changes.get(name, {})) for name, value in found.items()}


def _short(name: str) -> str:
    """A command in a sentence that begins with `weightspace:` already."""
    return name.removeprefix("weightspace ")


def nearest(word: str, known: Iterable[str]) -> str:
    """` did you mean 'x'?`, or nothing if nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f": did you mean {close[0]!r}?" if close else ""


def converted(given: Sequence[str], argument: Argument, name: str, word: str) -> Any:
    """Texts as the value of an argument.

    Raises:
        ValueError: if they are too few or of another kind.
    """
    least = 1 if argument.repeated else argument.count or 0
    if len(given) < least:
        needed = SPOKEN[argument.kind] if least == 1 else f"{argument.count} values"
        needed = f"one of {', '.join(argument.choices)}" if argument.choices else needed
        raise ValueError(f"{word} needs {needed} behind it: see {name} --help")
    if argument.nothing and [text.lower() for text in given] == ["none"]:
        return None
    values = tuple(_one(text, argument, name, word) for text in given)
    return values[0] if argument.count == 1 else values


def _one(text: str, argument: Argument, name: str, word: str) -> Any:
    if argument.choices and text not in argument.choices:
        meant = nearest(text, argument.choices)
        raise ValueError(
            f"{word} takes one of {', '.join(argument.choices)}, not {text!r}{meant or f': see {name} --help'}"
        )
    try:
        return argument.kind(text)
    except ValueError:
        raise ValueError(f"{word} takes {SPOKEN[argument.kind]}, not {text!r}: see {name} --help") from None


def _is_option(word: str) -> bool:
    """A number below zero and a lone dash are none."""
    return re.match(r"--?[A-Za-z]", word) is not None


def _option(word: str, options: dict[str, Argument], name: str) -> tuple[Argument, bool]:
    """The option that a word names, and whether the word turns it off."""
    key = word.removeprefix("--").replace("_", "-")
    if word.startswith("--") and key in options:
        return options[key], False
    flag = options.get(key.removeprefix("no-"))
    if word.startswith("--no-") and flag is not None and flag.kind is bool:
        return flag, True
    meant = nearest(word, (f"--{known}" for known in options))
    raise ValueError(f"{_short(name)} has no option {printable(word)}{meant or f': see {name} --help'}")


def _taken(rest: list[str], argument: Argument) -> list[str]:
    """The values behind an option, taken off the words that are left."""
    most = len(rest) if argument.count is None and not argument.repeated else argument.count or 1
    taken: list[str] = []
    while rest and len(taken) < most and not _is_option(rest[0]) and rest[0] != "--":
        taken.append(rest.pop(0))
    return taken


def _operands(free: list[str], operands: Sequence[Argument], name: str) -> Values:
    values: Values = {}
    for position, argument in enumerate(operands):
        later = sum(other.required for other in operands[position + 1 :])
        most = len(free) - later if argument.count is None else min(1, len(free))
        if most > 0:
            values[argument] = converted(free[:most], argument, name, argument.name)
        free = free[max(0, most) :]
    if free:
        takes = " ".join(argument.value for argument in operands)
        raise ValueError(f"{_short(name)} takes {takes or 'no operand'}, and {printable(free[0])!r} is one too many")
    return values


def _changed(value: Any, changes: dict[str, Any]) -> Any:
    """A dataclass with some fields changed, all at once: one change alone may not be allowed."""
    if not changes:
        return value
    given = {k: _changed(getattr(value, k), v) if isinstance(v, dict) else v for k, v in changes.items()}
    return replace(value, **given)
