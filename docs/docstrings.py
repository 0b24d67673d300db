"""Docstrings as the reference reads them: a heading such as `Raises:` begins a section without an empty line above."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_HEADING = re.compile(r"(?<=\S)\n(?=(Args|Returns|Raises|Attributes):\n)")


class Sections(griffe.Extension):
    """Puts the empty line there that the parser looks for, and what an interpreter shows under a heading."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class and function that is read."""
        if obj.docstring is not None:
            obj.docstring.value = sectioned(obj.docstring.value)


def sectioned(text: str) -> str:
    """A docstring whose sections all begin with a heading after an empty line; examples stand last in ours."""
    said, shown, examples = _HEADING.sub("\n\n", text).partition("\n\n>>> ")
    return f"{said}\n\nExamples:\n" + textwrap.indent(f">>> {examples}", "    ") if shown else said
