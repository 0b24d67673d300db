"""All that the paper's sampler chooses on its way to a program, as data, and the program that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from weightspace.rasp.lambdas import recognise
from weightspace.rasp.language import (
    Aggregate,
    Comparison,
    Expression,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import (
    PAPER_BOOLEAN,
    PAPER_CONSTANTS,
    PAPER_JOINS,
    PAPER_LAMBDAS,
    PAPER_SEQUENCES,
    PAPER_VOCAB_SIZES,
    PaperKind,
    PaperSampler,
    Variables,
    choose,
)

Kind = PaperKind | None
"""Of a variable; None of a selector, whose kind nothing asks for."""


@dataclass(frozen=True)
class DrawnOperation:
    """One operation that the sampler drew.

    Attributes:
        name: `Map`, `Select`, `SequenceMap`, `Aggregate` or `SelectorWidth`.
        reads: places in the scope of its arguments, each before its own.
        detail: its lambda or predicate.
        constant: of a Map.
    """

    name: str
    reads: tuple[int, ...]
    detail: str = ""
    constant: Any = None


@dataclass(frozen=True)
class SamplerRecord:
    """All that the sampler chose on its way to a program.

    Attributes:
        wanted: instructions.
        vocab: the tokens.
        places: longest input.
        kind: of the tokens.
        operations: place 0 of the scope is tokens, 1 the first operation, 2 indices, then the others.
    """

    wanted: int
    vocab: tuple[Any, ...]
    places: int
    kind: PaperKind
    operations: tuple[DrawnOperation, ...]

    def replaced(self, number: int, operation: DrawnOperation) -> SamplerRecord:
        operations = (*self.operations[:number], operation, *self.operations[number + 1 :])
        return SamplerRecord(self.wanted, self.vocab, self.places, self.kind, operations)


def place_of(number: int) -> int:
    """Where operation `number` stands in the scope: indices come after the first."""
    return 1 if number == 0 else number + 2


def weights_of(count: int) -> list[int]:
    """How likely each place of a scope is picked, not normalised: 1, 1, 1, 2, 4, 7, 11, ... (the sampler's)."""
    weights = [1, 1, 1]
    while len(weights) < count:
        weights.append(2 * weights[-1] - weights[-2] + 1)
    return weights[:count]


def kind_of(operation: DrawnOperation) -> Kind:
    if operation.name == "Select":
        return None
    return "boolean" if operation.name == "Map" and operation.detail in PAPER_BOOLEAN else "numeric"


def kinds_of(record: SamplerRecord) -> list[Kind]:
    """Of each place of the scope."""
    first, *others = map(kind_of, record.operations)
    return [record.kind, first, "numeric", *others]


def constants_of(record: SamplerRecord, read: int, kinds: Sequence[Kind]) -> Sequence[Any]:
    """With what the sampler compares what stands at a place of the scope, each as likely as the other."""
    if read == 0 or kinds[read] == "categorical":
        return record.vocab
    return (False, True) if kinds[read] == "boolean" else PAPER_CONSTANTS


def draw_record(
    random: Random, lengths: Sequence[int] | None = None, shape: tuple[int, int, bool] | None = None
) -> SamplerRecord | None:
    """Draw as `PaperSampler` does, with the same random numbers; None where it rejects.

    Args:
        lengths: that are wanted, the distribution's own unless given.
        shape: tokens, longest input, and whether tokens are numbers; drawn unless given.
    """
    sampler = PaperSampler(lengths)
    wanted = choose(random, sampler.lengths, sampler.weights)
    if shape is None:
        shape = choose(random, PAPER_VOCAB_SIZES), choose(random, PAPER_SEQUENCES), random.random() < 0.5
    size, places, numeric = shape
    vocab = list(range(size)) if numeric else [f"t{i}" for i in range(size)]
    kind: PaperKind = "numeric" if numeric else "categorical"
    scope = Variables(random, vocab, kind)
    while not scope.made:
        scope.add()
    scope.enter(indices, "numeric", weight=1)
    for _ in range(drawn_operations(wanted) - 1):
        scope.add()
    known = {id(node): place for place, (node, _, _) in enumerate(scope.entered)}
    operations = tuple(_operation(node, known) for node in scope.made)
    record = SamplerRecord(wanted, tuple(vocab), places, kind, operations)
    return record if program_of(record) is not None else None


def drawn_operations(wanted: int) -> int:
    """How many the sampler draws, to have so many after pruning."""
    return int(1.8 * min(wanted + 2, 15))


def _operation(node: Expression, known: dict[int, int]) -> DrawnOperation:
    reads, name = tuple(known[id(child)] for child in node.children), type(node).__name__
    match node:
        case Map() | SequenceMap():
            found = recognise(node.function)
            assert found is not None
            return DrawnOperation(name, reads, found.name, found.constant)
        case Select():
            return DrawnOperation(name, reads, str(node.predicate))
    return DrawnOperation(name, reads)


def live(record: SamplerRecord) -> tuple[int, ...] | None:
    """Places of the operations that are left after pruning, in order, the output last; None where the sampler rejects.

    The output is the end of the longest path from the tokens; of a path that ends in selectors, the last S-op before.
    """
    distance, before, furthest = {0: 0}, {}, 0
    reads = {place_of(number): operation.reads for number, operation in enumerate(record.operations)}
    for place, read in reads.items():
        reached = [one for one in read if one in distance]
        if reached:
            best = max(reached, key=distance.__getitem__)
            distance[place], before[place] = distance[best] + 1, best
            if distance[place] > distance[furthest]:
                furthest = place
    while furthest and record.operations[number_of(furthest)].name == "Select":
        furthest = before[furthest]
    if furthest == 0:
        return None
    kept, waiting = set(), [furthest]
    while waiting:
        place = waiting.pop()
        if place in reads and place not in kept:
            kept.add(place)
            waiting += reads[place]
    least, most = max(2, record.wanted - 2), min(record.wanted + 2, 15)
    return tuple(sorted(kept)) if least < len(kept) <= most else None


def number_of(place: int) -> int:
    """Which operation stands at a place of the scope, the other way round than `place_of`."""
    return 0 if place == 1 else place - 2


def program_of(record: SamplerRecord) -> Program | None:
    """The program that is left after pruning, or None where the sampler rejects it."""
    kept = live(record)
    return None if kept is None else built(record, kept)


def built(record: SamplerRecord, kept: tuple[int, ...]) -> Program:
    scope = nodes_of(record, kept)
    return Program.of(scope[kept[-1]], vocab=sorted(record.vocab), max_seq_len=record.places)


def nodes_of(record: SamplerRecord, kept: tuple[int, ...] | None = None) -> dict[int, Any]:
    """The expression at each place of the scope; of the operations at the places `kept` alone, if these are given."""
    scope: dict[int, Any] = {0: tokens, 2: indices}
    for place in kept if kept is not None else map(place_of, range(len(record.operations))):
        operation = record.operations[number_of(place)]
        scope[place] = _node(operation, [scope[read] for read in operation.reads])
    return scope


def _node(operation: DrawnOperation, reads: list[Any]) -> Expression:
    match operation.name:
        case "Map":
            return Map(PAPER_LAMBDAS[operation.detail].format(c=repr(operation.constant)), reads[0])
        case "SequenceMap":
            return SequenceMap(PAPER_JOINS[operation.detail], reads[0], reads[1])
        case "Select":
            predicate: Comparison = operation.detail  # type: ignore[assignment]
            return Select(reads[0], reads[1], predicate)
        case "Aggregate":
            return Aggregate(reads[0], reads[1])
    return SelectorWidth(reads[0])
