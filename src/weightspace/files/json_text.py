"""JSON out of a file: an object in which no name stands twice, as a name that did would be read in two ways."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MOST_COMMAS = 3 * 2**18
"""A file with more is not read: each may stand for some 300 bytes of memory. 150,000 arrays have as many."""


def json_object(raw: bytes, most: int = MOST_COMMAS) -> dict[str, Any]:
    """An object of JSON in UTF-8.

    Args:
        most: commas in it.
    Raises:
        ValueError: if it is none, nested too deep, or of too many values; the message says why.
    """
    if raw.count(b",") > most:
        raise ValueError(f"it has more than {most:,} values")
    try:
        found = _DECODER.decode(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object of JSON")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _never(said: str) -> NoReturn:
    raise ValueError(f"{said} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_never)
