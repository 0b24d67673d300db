"""A program out of clean weights, read off directly: tables, wiring, and the shortest expressions that fit."""

from __future__ import annotations

from dataclasses import dataclass

from weightspace.decompiler.lifting.blocks import NotLiftable, snapped
from weightspace.decompiler.lifting.dissection import dissect
from weightspace.decompiler.lifting.naming import name_operations
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import EXACTNESS
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode

__all__ = ["Lifted", "NotLiftable", "lift"]


@dataclass(frozen=True)
class Lifted:
    """A program read off weights.

    Attributes:
        program: meant for the weights' vocabulary and length.
        mode: by which compiler its weights are those given.
        tables: how many functions and predicates are bare tables, for want of a short expression.
        guesses: how many operands are not in the weights and were chosen so that sizes and layers come out.
    """

    program: Program
    mode: Mode
    tables: int
    guesses: int


def lift(bare: BareTransformer, *, snap: float = 0.0) -> Lifted:
    """Read a program off clean weights; the order of directions, units and heads does not matter.

    Args:
        bare: weights of a compiler, in either mode.
        snap: a share of each matrix's largest entry; below it an entry counts as 0, and entries within it as equal.
    Raises:
        NotLiftable: with the first thing that could not be read.
    """
    if snap:
        bare = snapped(bare, snap)
    found = dissect(bare)
    named = name_operations(found, bare)
    output = named[found.output].node
    program = Program.of(
        output,
        vocab=bare.vocab,
        max_seq_len=bare.max_seq_len,
        causal=bare.causal,
        mlp_exactness=EXACTNESS if found.exactness is None else found.exactness,
    )
    return Lifted(program, found.mode, sum(entry.table for entry in named), found.guesses)
