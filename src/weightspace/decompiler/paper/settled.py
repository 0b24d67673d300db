"""One way of writing what weights leave open, so that the targets of a network's training do not differ by chance.

`3 < x` and `4 <= x` can be one table, and so can adding, multiplying and `and`. Of the lambdas and predicates that
leave a program's weights as they are, that is taken under which the sampler draws them oftenest, all other lines given,
and of equals the first in a fixed order. Wiring is left as it was drawn: a Map of a Map, and which selector is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from weightspace.decompiler.paper.lambdas import COMPARED
from weightspace.decompiler.paper.sampler_record import (
    DrawnOperation,
    SamplerRecord,
    constants_of,
    kinds_of,
    live,
    nodes_of,
    number_of,
    program_of,
)
from weightspace.decompiler.paper.walk import weights_key
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import PAPER_BOOLEAN
from weightspace.rasp.validate import analyse, settings

PREDICATES = ("TRUE", "FALSE", "EQ", "NEQ", "LT", "LEQ", "GT", "GEQ")
"""First those that hold whatever the values are."""
ARITHMETIC = ("LAM_AND", "LAM_OR", "LAM_ADD", "LAM_MUL", "LAM_SUB")
"""First those that give values which were there before."""


def settled(record: SamplerRecord) -> SamplerRecord:
    """A record of the same weights, its live lambdas and predicates the likeliest, each with the others as they are."""
    kept, program = live(record), program_of(record)
    assert kept is not None and program is not None
    wanted = weights_key(program)

    def alike(other: SamplerRecord) -> bool:
        found = program_of(other)
        return found is not None and weights_key(found) == wanted

    for place in kept:
        record = _one(record, number_of(place), alike)
    return record


def _one(record: SamplerRecord, number: int, alike: Callable[[SamplerRecord], bool]) -> SamplerRecord:
    own = record.operations[number]
    for other, proved in _better(record, own):
        changed = record.replaced(number, other)
        if proved or alike(changed):
            return changed
    return record


def _better(record: SamplerRecord, own: DrawnOperation) -> Iterator[tuple[DrawnOperation, bool]]:
    """What may be written instead, the likeliest first, up to what is written; and whether it is one table for sure."""
    if own.name == "Map" and own.detail in PAPER_BOOLEAN:
        yield from _comparisons(record, own)
        return
    details = {"Select": PREDICATES, "SequenceMap": ARITHMETIC, "Map": ARITHMETIC}.get(own.name, ())
    for detail in details:
        if detail == own.detail:
            return
        yield replace(own, detail=detail), False


def _comparisons(record: SamplerRecord, own: DrawnOperation) -> Iterator[tuple[DrawnOperation, bool]]:
    """Boolean lambdas by how many constants give their table; where all is True or all False, of both."""
    (read,) = own.reads
    values = values_at(record, read)
    if values is None:
        return
    kinds, table = kinds_of(record), [COMPARED[own.detail](own.constant, value) for value in values]
    constants = constants_of(record, read, kinds)
    found = []
    for flipped in (False, True) if len(set(table)) == 1 else (False,):
        wanted = [one != flipped for one in table]
        for detail in PAPER_BOOLEAN:
            some = [c for c in constants if [COMPARED[detail](c, value) for value in values] == wanted]
            if some:
                constant = own.constant if own.constant in some and detail == own.detail else some[0]
                found.append((-len(some), PAPER_BOOLEAN.index(detail), constant, detail, flipped))
    for _, _, constant, detail, flipped in sorted(found, key=lambda one: (one[0], one[4], one[1])):
        if detail == own.detail and not flipped:
            return
        yield replace(own, detail=detail, constant=constant), not flipped


def values_at(record: SamplerRecord, place: int) -> tuple[Any, ...] | None:
    """The values that stand at a place of the scope; None where that is not defined."""
    nodes = nodes_of(record)
    program = Program.of(nodes[place], vocab=sorted(record.vocab), max_seq_len=record.places)
    traits = analyse(program, *settings(program, None, None), "tracr_compat").traits.get(id(nodes[place]))
    return None if traits is None else traits.values.values
