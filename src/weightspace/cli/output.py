"""What a verb prints: text, JSON, or the one sentence of what went wrong."""

from __future__ import annotations

import json
import sys
from typing import Any

from weightspace.errors import printable


def say(text: str) -> int:
    if sys.stdout is not None:  # it is None where it was closed
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 0


def say_json(value: Any) -> int:
    return say(json.dumps(value, indent=1, allow_nan=False))


def fail(sentence: str, code: int = 2) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"weightspace: {printable(sentence)}\n")
    return code
