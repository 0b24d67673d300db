"""Whether a record of the sampler has the weights seen, asked a thousand times a second: it stops where one differs."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from weightspace.decompiler.paper.imprint import Imprint, Order, imprint_of, joined_hash, unmet_mark
from weightspace.decompiler.paper.lambdas import JOINED, SELECTED, applied
from weightspace.decompiler.paper.sampler_record import DrawnOperation, SamplerRecord, number_of, program_of
from weightspace.rasp.language import fused
from weightspace.rasp.sampler import PAPER_ARITHMETIC, PAPER_BOOLEAN, PAPER_CONSTANTS

MOST_KEPT = 20_000

Lambdas = dict[bytes, list[tuple[str, Any]]]
"""Names and constants, by a table."""


def matcher_of(record: SamplerRecord, order: Order) -> Matcher:
    """What compares records with the weights of one."""
    program = program_of(record)
    assert program is not None
    imprint = imprint_of(fused(program), order)
    assert imprint is not None
    return Matcher(imprint, record.vocab, record.places)


@dataclass(frozen=True, eq=False)
class _Seen:
    """An S-op on the way.

    Attributes:
        values: by their numbers.
        digest: as `imprint` has it; empty for a Map until something else than a Map reads it.
        depth: of the S-op in weights.
        source: what a Map, and the Maps before it, read; itself for any other.
        given: of a Map, what it gives for each value of its source; else `values`.
        table: of a Map, the digest of what it and those before it give for each value of their source.
    """

    values: tuple[Any, ...]
    digest: bytes
    depth: int
    source: _Seen | None
    given: tuple[Any, ...]
    table: bytes = b""


class Matcher:
    """Compares records with what weights show; the same answer as `imprint_key` of the record's program.

    Args:
        imprint: what they show.
        vocab: the tokens, sorted.
        places: longest input.
    """

    def __init__(self, imprint: Imprint, vocab: Sequence[Any], places: int) -> None:
        self.imprint, self.kept = imprint, imprint.order == "kept"
        self.counts: dict[bytes, int] = {}
        for mark in imprint.marks:
            self.counts[mark] = self.counts.get(mark, 0) + 1
        tables = [
            sight.table.size for sight in imprint.sights if sight.kind == "SequenceMap" and sight.table is not None
        ]
        self.most_pairs = max(tables, default=0)
        self.most_values = max(sight.size for sight in imprint.sights)
        tokens, indices = tuple(sorted(vocab)), tuple(range(places))
        self.tokens = _Seen(tokens, b"tokens", 0, None, tokens)
        self.indices = _Seen(indices, b"indices", 0, None, indices)
        self.widths = tuple(range(places + 1))
        self.memory: dict[Any, Any] = {}

    def __call__(self, record: SamplerRecord, kept: tuple[int, ...]) -> bool:
        """Whether a record, of which the operations at the places `kept` are live, has these weights."""
        scope: dict[int, Any] = {0: self.tokens, 2: self.indices}
        read_by_others = {
            read
            for place in kept
            if (operation := record.operations[number_of(place)]).name != "Map"
            for read in operation.reads
        } | {kept[-1]}
        marks: list[bytes] = []
        largest, reads_tokens = 0, False
        for place in kept:
            operation = record.operations[number_of(place)]
            reads = [scope[read] for read in operation.reads]
            reads_tokens |= 0 in operation.reads
            if operation.name == "Select":
                scope[place] = (operation.detail, *reads)
                continue
            seen = self._seen(operation, reads)
            if seen is None:
                return False
            scope[place] = seen
            if operation.name == "Map" and place not in read_by_others:
                continue
            mark = seen.digest + bytes([seen.depth])
            if mark not in self.counts:
                return False
            marks.append(mark)
            if operation.name in ("Aggregate", "SelectorWidth"):
                _, keys, queries = reads[0]
                largest = max(largest, len(queries.values) + 2, len(keys.values) + 1)
        return (
            reads_tokens
            and largest == self.imprint.key_size
            and scope[kept[-1]].digest == self.imprint.output
            and len(marks) == len(self.imprint.marks)
            and sorted(marks) == list(self.imprint.marks)
        )

    def _seen(self, operation: DrawnOperation, reads: list[Any]) -> _Seen | None:
        """An S-op, or None if a SequenceMap has more pairs than any in the weights."""
        match operation.name:
            case "Map":
                return self._map(operation, reads[0])
            case "SequenceMap":
                return self._join(operation.detail, *reads)
        keys, queries = reads[0][1:]
        depth = 1 + max(keys.depth, queries.depth)
        selects = self._selects(*reads[0])
        if operation.name == "SelectorWidth":
            return _Seen(self.widths, joined_hash(b"SelectorWidth", selects), depth, None, self.widths)
        moved = reads[1]
        digest = joined_hash(b"Aggregate", selects, moved.digest)
        return _Seen(moved.values, digest, max(depth, moved.depth + 1), None, moved.values)

    def _map(self, operation: DrawnOperation, read: _Seen) -> _Seen | None:
        source = read.source or read
        given = read.given
        key = (operation.detail, operation.constant, type(operation.constant), given)
        made = self.memory.get(key)
        if made is None:
            made = applied(operation.detail, operation.constant, given)
            made = self._keep(key, (made, *self._numbered(made)))
        outcome, table, values = made
        # where only Maps read it, how many values it has does not matter
        return _Seen(values, joined_hash(b"Map", source.digest, table), source.depth + 1, source, outcome, table)

    def _join(self, detail: str, first: _Seen, second: _Seen) -> _Seen | None:
        join, depth = JOINED[detail], 1 + max(first.depth, second.depth)
        if first is not second and len(first.values) * len(second.values) > self.most_pairs:
            return None
        if first is second:
            if len(first.values) > self.most_values:
                return None
            key = (detail, "twice", first.values)
            made = self.memory.get(key)
            if made is None:
                met = [join(x, x) for x in first.values]
                made = self._numbered(met, [join(a, b) for a in first.values for b in first.values])
                made = self._keep(key, (*made, unmet_mark(len(made[1]) - len(set(met)))))
            table, values, unmet = made
            return _Seen(values, joined_hash(b"Map", first.digest, table, *unmet), depth, None, values)
        found = []
        for swapped in (False, True):
            if (second.digest < first.digest) != swapped and first.digest != second.digest:
                continue
            key = (detail, swapped, first.values, second.values)
            made = self.memory.get(key)
            if made is None:
                rows, columns = first.values, second.values
                given = [join(a, b) for a in rows for b in columns]
                if swapped:
                    given = [join(a, b) for b in columns for a in rows]
                made = self._keep(key, self._numbered(given))
            table, values = made
            pair = (second.digest, first.digest) if swapped else (first.digest, second.digest)
            found.append((joined_hash(b"SequenceMap", *pair, table), values))
        digest, values = min(found, key=lambda one: one[0])
        return _Seen(values, digest, depth, None, values)

    def _numbered(self, given: Sequence[Any], more: Sequence[Any] = ()) -> tuple[bytes, tuple[Any, ...]]:
        """The digest of what a function gives, in numbers, and the values by their numbers.

        Args:
            more: what else it can give, of which there are numbers too.
        """
        if self.kept:
            values = tuple(sorted({*given, *more}))
            numbers = {value: number for number, value in enumerate(values)}
        else:
            numbers: dict[Any, int] = {}
            for value in (*given, *more):
                if value not in numbers:
                    numbers[value] = len(numbers)
            values = tuple(numbers)
        shown = array("H", [numbers[value] & 0xFFFF for value in given])
        return blake2b(shown.tobytes(), digest_size=8).digest(), values

    def _selects(self, detail: str, keys: _Seen, queries: _Seen) -> bytes:
        key = (detail, keys.values, queries.values)
        bits = self.memory.get(key)
        if bits is None:
            compare = SELECTED[detail]
            mask = np.array([[compare(a, b) for b in queries.values] for a in keys.values], bool)
            bits = self._keep(key, np.packbits(mask).tobytes() if mask.any() else b"nothing")
        return b"nothing" if bits == b"nothing" else joined_hash(keys.digest, queries.digest, bits)

    # -- what else a Map could be --------------------------------------------------------------------------------------

    def scope(self, record: SamplerRecord, kept: tuple[int, ...]) -> dict[int, Any]:
        """What stands at the live places of a record that has these weights."""
        scope: dict[int, Any] = {0: self.tokens, 2: self.indices}
        for place in kept:
            operation = record.operations[number_of(place)]
            reads = [scope[read] for read in operation.reads]
            seen = (operation.detail, *reads) if operation.name == "Select" else self._seen(operation, reads)
            assert seen is not None
            scope[place] = seen
        return scope

    def lambdas(self, given: tuple[Any, ...], boolean: bool, constants: Sequence[Any]) -> Lambdas:
        """By the table that comes of it, all lambdas with whole constants, of what a Map or an input gives.

        Args:
            boolean: whether they are comparisons, or arithmetic.
            constants: of a comparison.
        """
        key = ("lambdas", given, tuple(map(type, given)), boolean, tuple(constants) if boolean else ())
        key = (*key, type(constants[0]) if boolean else None)
        found: Lambdas | None = self.memory.get(key)
        if found is None:
            found = {}
            for detail in PAPER_BOOLEAN if boolean else PAPER_ARITHMETIC:
                for constant in constants if boolean else PAPER_CONSTANTS:
                    table, _ = self._numbered(applied(detail, constant, given))
                    found.setdefault(table, []).append((detail, constant))
            self._keep(key, found)
        return found

    def _keep(self, key: Any, made: Any) -> Any:
        if len(self.memory) > MOST_KEPT:
            self.memory.clear()
        self.memory[key] = made
        return made
