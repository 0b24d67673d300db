"""A RASP program: statements, with their text and their JSON record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from weightspace.notebook import card
from weightspace.rasp.callables import tabled
from weightspace.rasp.language import EXACTNESS, SOp, Statements
from weightspace.rasp.records import program_of, record_of
from weightspace.rasp.text import parse, to_text
from weightspace.rasp.tracr_objects import sop_of


@dataclass(frozen=True, eq=False)
class Program(Statements):
    """A RASP program; see `Statements` for what it holds."""

    def __repr__(self) -> str:
        meant = "" if self.vocab is None else f", for {len(self.vocab)} tokens and inputs of up to {self.max_seq_len}"
        return f"<Program: {len(self)} operations{meant}>"

    def _repr_html_(self) -> str:
        return card(f"RASP program of {len(self)} operations", {}, text=str(self))

    @classmethod
    def of(
        cls,
        output: SOp,
        *,
        vocab: Sequence[Any] | None = None,
        max_seq_len: int | None = None,
        causal: bool = False,
        mlp_exactness: float = EXACTNESS,
    ) -> Program:
        """The program that computes `output`; its variables are v1, v2, ... in the order in which they are needed.

        Functions of Python's become expressions or tables over the values that can come, where vocabulary and length
        say which these are; without them they stay as they are, so that the program can be run but not printed.

        Raises:
            RaspError: if such a function has no value where it needs one.
        """
        made = super().of(output, vocab=vocab, max_seq_len=max_seq_len, causal=causal, mlp_exactness=mlp_exactness)
        if vocab is None or max_seq_len is None:
            return made
        return tabled(made)

    @staticmethod
    def from_tracr(
        sop: object,
        *,
        vocab: Sequence[Any] | None = None,
        max_seq_len: int | None = None,
        causal: bool = False,
        mlp_exactness: float = EXACTNESS,
    ) -> Program:
        """The program of an S-op of Tracr's, `tracr.rasp.rasp`, which need not be installed.

        Its functions, Python's, become expressions or tables over the values that can come.

        Raises:
            RaspError: if it is none of Tracr's S-ops, or a function has no value where it needs one.
        """
        options: dict[str, Any] = {"causal": causal, "mlp_exactness": mlp_exactness}
        return Program.of(sop_of(sop), vocab=vocab, max_seq_len=max_seq_len, **options)

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
