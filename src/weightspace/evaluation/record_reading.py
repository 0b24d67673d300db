"""Values out of a record's JSON, each checked, and what is said when one is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weightspace.errors import WeightspaceError


class ResultsError(WeightspaceError):
    """A record of a comparison that contradicts itself, or a file that holds none."""


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ResultsError(f"{where} is {short(value)}, it must be an object")
    return dict(value)


def sequence(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ResultsError(f"{where} is {short(value)}, it must be a list")
    return list(value)


def number(value: Any, kind: type, where: str) -> Any:
    """The number as `kind`; JSON does not tell 1 from 1.0, so an integer is a float where one is wanted."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
        raise ResultsError(f"{where} is {short(value)}, it must be a finite number")
    if kind is int and value != int(value):
        raise ResultsError(f"{where} is {value}, it must be a whole number")
    return kind(value)


def only(values: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ResultsError(f"{where} has the unknown key {unknown[0]!r}; the keys are {list(names)}")


def short(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
