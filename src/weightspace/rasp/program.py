"""A RASP program: statements, with their text and their JSON record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from weightspace.notebook import card
from weightspace.rasp.language import Statements
from weightspace.rasp.records import program_of, record_of
from weightspace.rasp.text import parse, to_text


@dataclass(frozen=True, eq=False)
class Program(Statements):
    """A RASP program; see `Statements` for what it holds."""

    def __repr__(self) -> str:
        meant = "" if self.vocab is None else f", for {len(self.vocab)} tokens and inputs of up to {self.max_seq_len}"
        return f"<Program: {len(self)} operations{meant}>"

    def _repr_html_(self) -> str:
        return card(f"RASP program of {len(self)} operations", {}, text=str(self))

    @staticmethod
    def from_record(record: object) -> Program:
        """The program of a JSON record, as in the golden files: `ops`, `output`, and what it is meant for.

        Raises:
            RaspError: if something is missing, unknown or of a wrong kind; the message names the operation.
        """
        return Program(**_parts(program_of(record)))

    def to_record(self) -> dict[str, Any]:
        """A JSON record from which `from_record` makes the same program; one that came from a record gives it back."""
        return record_of(self)

    @staticmethod
    def parse(text: str) -> Program:
        """The program that a text in the paper's listing style describes.

        Raises:
            RaspError: with line, column and what was expected.
        """
        return Program(**_parts(parse(text)))

    def __str__(self) -> str:
        return to_text(self)


def _parts(statements: Statements) -> dict[str, Any]:
    return {each.name: getattr(statements, each.name) for each in fields(statements)}
