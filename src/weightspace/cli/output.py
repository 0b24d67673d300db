"""What a verb prints: text, JSON, or the one sentence of what went wrong."""

from __future__ import annotations

import json as notation
import sys
from collections.abc import Mapping
from typing import Any

from weightspace.errors import printable


def say(text: str) -> int:
    if sys.stdout is not None:  # it is None where it was closed
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 0


def say_json(value: Any) -> int:
    return say(notation.dumps(value, indent=1, allow_nan=False))


def say_facts(facts: Mapping[str, Any], json: bool, indent: str = "") -> int:
    """Names and values, a line each, those of an object below its name; or all as JSON."""
    if json:
        return say_json(facts)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            say(f"{indent}{name}")
            say_facts(value, False, indent + "  ")
        else:
            say(f"{indent}{name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")
    return 0


def say_tables(tables: Mapping[str, str], json: bool) -> int:
    """Markdown tables by their titles; as JSON the rows of each, their cells as they are printed."""
    if not json:
        return say("\n\n".join(f"{title}\n\n{table}" for title, table in tables.items()))
    from weightspace.evaluation.tables import records

    return say_json({title: records(table) for title, table in tables.items()})


def note(sentence: str) -> None:
    """A line on stderr that is no error."""
    if sys.stderr is not None:
        sys.stderr.write(f"weightspace: {sentence}\n")


def fail(sentence: str, code: int = 2) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"weightspace: {printable(sentence)}\n")
    return code
