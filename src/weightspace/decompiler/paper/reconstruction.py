"""A record of the sampler's choices whose program has the weights of a program that was found.

A decompiler prints any expression that gives the right table. Here every line becomes one that the paper's sampler can
draw: for each S-op a lambda with a constant, or a chain of Maps which the compiler fuses, is drawn such that its table
is the one in the weights, and for each head a predicate that selects what it selects. Values have to suit what follows,
so the search goes forward and comes back where nothing fits. The truth has no part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any

from weightspace.decompiler.paper.imprint import Imprint, Sight, imprint_key
from weightspace.decompiler.paper.lambdas import COMPARED, JOINED, SELECTED
from weightspace.decompiler.paper.sampler_record import (
    DrawnOperation,
    SamplerRecord,
    drawn_operations,
    place_of,
    program_of,
)
from weightspace.decompiler.proof.verify import certify
from weightspace.errors import RaspError
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.language import fused
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import PAPER_ARITHMETIC, PAPER_BOOLEAN, PAPER_CONSTANTS, PAPER_PREDICATES, PaperKind
from weightspace.rasp.values import value_set

MOST_TRIED = 4_000
"""Ways to write a line that are tried before the search begins anew."""
RESTARTS = 12
FEWEST_LINES = 3
"""Of a program that the sampler draws."""
LONG_CHAINS = 200
"""Chains of Maps that are tried where a program would be too short."""

Values = tuple[Any, ...]
"""Of an S-op, in the order of the numbers that its sight gives them; `UNKNOWN` of numbers that none could be given."""


class _Unknown:
    """Stands for the value of a direction that is never active."""


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Way:
    """One way to write an S-op: lambdas applied one after the other, the last its own.

    Attributes:
        lambdas: names and constants; one of a SequenceMap, empty of a head.
        values: what comes out.
        others: values of the directions that are `UNKNOWN`, in no order.
        kind: of the result.
        swapped: whether a SequenceMap reads its operands the other way round.
        twice: whether it is a SequenceMap of one S-op with itself, which weights have as a Map.
    """

    lambdas: tuple[tuple[str, Any], ...]
    values: Values
    kind: PaperKind
    swapped: bool = False
    twice: bool = False
    others: Values = ()

    @property
    def is_map(self) -> bool:
        return bool(self.lambdas) and not self.twice and self.lambdas[-1][1] is not None


def reconstructed(found: Program, imprint: Imprint, random: Random, wanted: int | None = None) -> SamplerRecord | None:
    """A record whose program has the weights that an imprint shows; None if none was found.

    Args:
        found: the program that was found, whose vocabulary and length are taken.
        random: draws among what fits; other numbers give other records.
        wanted: instructions that the sampler wanted; drawn near the program's own number unless given.
    """
    assert found.vocab is not None and found.max_seq_len is not None
    kind: PaperKind = "numeric" if all(isinstance(one, int) for one in found.vocab) else "categorical"
    longer = 0
    for attempt in range(RESTARTS):
        search = _Search(imprint, found.vocab, kind, random, chains=1 + (attempt >= 4), noise=attempt >= 6)
        search.lengthen(longer)
        ways = search.ways()
        if ways is None:
            continue
        if longer == 0 and (short := FEWEST_LINES - len(_lines(imprint.sights, ways, random))) > 0:
            longer = short  # the compiler has fused Maps
            continue
        record = _record(imprint.sights, ways, found.vocab, found.max_seq_len, kind, random, wanted)
        if record is None:
            continue
        program = program_of(record)
        if program is not None and _is_right(program, found, imprint, ways):
            return record
    return None


def _is_right(program: Program, found: Program, imprint: Imprint, ways: Sequence[Way]) -> bool:
    """Whether a program has the weights: by its imprint, or by a certificate where that does not show all."""
    if not any(way.others for way in ways):
        return imprint_key(program, imprint.order) == imprint.key
    weights = without_values(BareTransformer.of(compile_program(found, mode="tracr_compat")))
    try:
        return certify(fused(program), weights, mode="tracr_compat") is not None
    except RaspError:
        return False


def without_values(weights: BareTransformer) -> BareTransformer:
    """Weights of which is known where the answer stands, but not what it is."""
    readout = weights.readout
    return weights if readout is None else replace(weights, readout=readout._replace(values=()))


class _Search:
    """Values for one S-op after the other, so that every table and every selection comes out."""

    def __init__(
        self, imprint: Imprint, vocab: Sequence[Value], kind: PaperKind, random: Random, chains: int, noise: bool
    ) -> None:
        self.sights, self.kept, self.random = imprint.sights, imprint.order == "kept", random
        self.vocab, self.chains, self.noise = vocab, chains, noise
        self.tried, self.longer, self.lengthened = 0, 0, -1
        self.done: list[Way] = [
            Way((), tuple(value_set(vocab).values), kind),
            Way((), tuple(range(self.sights[1].size)), "numeric"),
        ]
        self.selections: dict[int, list[Sight]] = {}
        for sight in self.sights:
            if sight.mask is not None and sight.mask.any():
                self.selections.setdefault(max(sight.reads[:2]), []).append(sight)

    def lengthen(self, longer: int) -> None:
        """Write the last Map as a chain of so many more Maps, which the compiler fuses."""
        maps = [n for n, sight in enumerate(self.sights) if sight.kind in ("Map", "SequenceMap") and sight.mask is None]
        some = [n for n in maps if self.sights[n].kind == "Map" or len({*self.sights[n].reads}) == 1]
        self.longer, self.lengthened = longer, some[-1] if some and longer else -1

    def ways(self) -> list[Way] | None:
        if not all(self._selectable(sight) for place in (0, 1) for sight in self.selections.get(place, [])):
            return None
        return self.done if self._from(2) else None

    def _from(self, place: int) -> bool:
        if place == len(self.sights):
            return True
        for way in self._ways(self.sights[place]):
            self.tried += 1
            if self.tried > MOST_TRIED:
                return False
            self.done.append(way)
            if all(self._selectable(sight) for sight in self.selections.get(place, [])) and self._from(place + 1):
                return True
            self.done.pop()
        return False

    def _selectable(self, sight: Sight) -> bool:
        return bool(predicates(sight, self.done))

    def _ways(self, sight: Sight) -> Iterator[Way]:
        match sight.kind:
            case "SelectorWidth":
                yield Way((), tuple(range(sight.size)), "numeric")
            case "Aggregate":
                moved = self.done[sight.reads[2]]
                if moved.kind == "numeric":
                    yield Way((), moved.values, "numeric", others=moved.others)
            case "SequenceMap" if sight.reads[0] != sight.reads[1]:
                yield from self._joins(sight)
            case _:
                yield from self._maps(sight)

    def _joins(self, sight: Sight) -> Iterator[Way]:
        first, second = (self.done[place] for place in sight.reads)
        assert sight.table is not None
        if first.kind != "numeric" or second.kind != "numeric":
            return
        for detail in self.random.sample(PAPER_ARITHMETIC, len(PAPER_ARITHMETIC)):
            for swapped in (False, True):
                join = (lambda a, b, name=detail: JOINED[name](b, a)) if swapped else JOINED[detail]
                given = [
                    UNKNOWN if a is UNKNOWN or b is UNKNOWN else join(a, b) for a in first.values for b in second.values
                ]
                others = [join(a, b) for a in first.others for b in (*_known(second), *second.others)]
                others += [join(a, b) for a in _known(first) for b in second.others]
                values = fitting(given, sight, self.kept, others)
                if values is not None:
                    yield Way(((detail, None),), values[0], "numeric", swapped, others=values[1])
                    break

    def _maps(self, sight: Sight) -> Iterator[Way]:
        """A Map; or, since weights do not tell, a SequenceMap of an S-op with itself, which is not fused with a Map."""
        read = sight.reads[0]
        inner = self.done[read]
        if len(self.done) == self.lengthened and not inner.is_map:
            yield from self._chains(sight, inner, read == 0)
            return
        twice = list(self._twice(sight, inner))
        if inner.is_map:
            yield from twice
            return
        first = self.random.random() < 0.25
        if first:
            yield from twice
        single = self._fitting(sight, inner, read == 0, ())
        yield from single
        if not first:
            yield from twice
        if (len(single) < 3 and self.chains > 1) or not (single or twice):
            for lambdas, values, others, kind in self._single(inner, read == 0):
                yield from self._fitting(sight, Way(lambdas, values, kind, others=others), False, lambdas)

    def _chains(self, sight: Sight, inner: Way, is_tokens: bool) -> Iterator[Way]:
        """Chains of Maps with a table, all but the last of which are drawn."""
        for _ in range(LONG_CHAINS):
            way = Way((), inner.values, inner.kind, others=inner.others)
            for number in range(self.longer):
                lambdas, values, others, kind = self.random.choice([*self._single(way, is_tokens and number == 0)])
                way = Way((*way.lambdas, *lambdas), values, kind, others=others)
            yield from self._fitting(sight, way, False, way.lambdas)

    def _twice(self, sight: Sight, inner: Way) -> Iterator[Way]:
        if inner.kind != "numeric":
            return
        every = (*_known(inner), *inner.others)
        for detail in self.random.sample(PAPER_ARITHMETIC, len(PAPER_ARITHMETIC)):
            join = JOINED[detail]
            given = [x if x is UNKNOWN else join(x, x) for x in inner.values]
            pairs = {join(a, b) for a in every for b in every}
            if self.kept:  # all directions stand in order, those too that are never active
                values = tuple(sorted(pairs))
                assert sight.table is not None
                if len(values) == sight.size and all(
                    values[number] == value for number, value in zip(sight.table.tolist(), given, strict=True)
                ):
                    yield Way(((detail, None),), values, "numeric", twice=True)
                continue
            found = fitting(given, sight, False, [*pairs], pairs=True)
            if found is not None:
                yield Way(((detail, None),), found[0], "numeric", twice=True, others=found[1])

    def _fitting(self, sight: Sight, inner: Way, is_tokens: bool, before: tuple[tuple[str, Any], ...]) -> list[Way]:
        """The last lambdas that give a table, in an order drawn by how many constants give the same values."""
        found: dict[Any, list[Way]] = {}
        for lambdas, given, others, kind in self._single(inner, is_tokens):
            values = fitting(given, sight, self.kept, others)
            if values is not None:
                way = Way((*before, *lambdas), values[0], kind, others=values[1])
                found.setdefault((*values, kind), []).append(way)
        groups = [(self.random.random() ** (1 / len(some)), self.random.choice(some)) for some in found.values()]
        return [way for _, way in sorted(groups, key=lambda pair: -pair[0])]

    def _single(
        self, inner: Way, is_tokens: bool
    ) -> Iterator[tuple[tuple[tuple[str, Any]], Values, Values, PaperKind]]:
        constants: Sequence[Any] = PAPER_CONSTANTS
        if is_tokens or inner.kind == "categorical":
            constants = self.vocab
        elif inner.kind == "boolean":
            constants = (False, True)
        for detail in PAPER_BOOLEAN:
            for constant in constants:
                yield ((detail, constant),), *_applied(COMPARED[detail], constant, inner), "boolean"
        if inner.kind != "numeric":
            return
        numbers: list[float] = [*PAPER_CONSTANTS]
        if self.noise:
            numbers += [self.random.choice(PAPER_CONSTANTS) + self.random.randrange(101) / 100 for _ in range(12)]
        for detail in PAPER_ARITHMETIC:
            for number in numbers:
                yield ((detail, number),), *_applied(JOINED[detail], number, inner), "numeric"


def _known(way: Way) -> list[Any]:
    return [value for value in way.values if value is not UNKNOWN]


def _applied(function: Callable[[Any, Any], Any], constant: Any, inner: Way) -> tuple[Values, Values]:
    """What a lambda gives for each value by number, and for the others."""
    return (
        tuple(x if x is UNKNOWN else function(constant, x) for x in inner.values),
        tuple(function(constant, x) for x in inner.others),
    )


def fitting(
    given: Sequence[Any], sight: Sight, kept: bool, others: Sequence[Any] = (), *, pairs: bool = False
) -> tuple[Values, Values] | None:
    """The values of an S-op by their numbers, if what a function gives has the table in the weights; None if not.

    Args:
        given: for each entry of the table, `UNKNOWN` where what comes in is.
        kept: whether values have to stand in order.
        others: what the function gives for the entries that are unknown, in no order.
        pairs: whether `others` are more than these entries: all that a SequenceMap of an S-op with itself has
            directions for.
    Returns:
        the values, and those of the numbers that are unknown.
    """
    assert sight.table is not None
    values: list[Any] = [UNKNOWN] * sight.size
    met: dict[Any, int] = {}
    entries = sight.table.ravel().tolist()
    for number, value in zip(entries, given, strict=True):
        if number < 0:
            return None
        if value is UNKNOWN:
            continue
        if values[number] is UNKNOWN:
            if value in met:
                return None
            met[value] = number
            values[number] = value
        elif values[number] != value:
            return None
    if not others and len(met) == sight.size:
        return None if kept and any(a >= b for a, b in pairwise(values)) else (tuple(values), ())
    rest = dict.fromkeys(value for value in others if value not in met)
    if kept or len(rest) != sight.size - len(met):
        return None
    if not pairs:  # as many as come to each number have to come to its value
        wanted = Counter(number for number, value in zip(entries, given, strict=True) if value is UNKNOWN)
        found = Counter(met.get(value, value) if value in met else ("other", value) for value in others)
        if any(wanted[number] != found[number] for number in met.values()):
            return None
        if sorted(wanted[n] for n in range(sight.size) if values[n] is UNKNOWN) != sorted(
            found["other", value] for value in rest
        ):
            return None
    return tuple(values), tuple(rest)


def predicates(sight: Sight, ways: Sequence[Way]) -> list[str]:
    """The comparisons that select what a head selects."""
    assert sight.mask is not None
    keys, queries = (ways[place] for place in sight.reads[:2])
    if keys.kind != queries.kind:
        return []
    rows = sight.mask.tolist()
    return [
        name
        for name in PAPER_PREDICATES
        if all(
            SELECTED[name](key, query) == wanted
            for key, row in zip(keys.values, rows, strict=True)
            if key is not UNKNOWN
            for query, wanted in zip(queries.values, row, strict=True)
            if query is not UNKNOWN
        )
    ]


# -- lines in the scope of a record -----------------------------------------------------------------------------------


def _record(
    sights: Sequence[Sight],
    ways: Sequence[Way],
    vocab: Sequence[Value],
    places: int,
    kind: PaperKind,
    random: Random,
    wanted: int | None,
) -> SamplerRecord | None:
    lines = _lines(sights, ways, random)
    if not FEWEST_LINES <= len(lines) <= 15:
        return None
    options = [w for w in range(3, 16) if max(2, w - 2) < len(lines) <= min(w + 2, 15)]
    chosen = random.choice(options[:3]) if wanted is None else wanted
    spare = drawn_operations(chosen) - len(lines)
    # the first operation has nothing but the tokens to read
    first = next((number for number, line in enumerate(lines) if all(read == 0 for read in line.reads)), None)
    order = [*range(len(lines))]
    operations: list[DrawnOperation | int] = []
    if first is None:
        operations.append(_dead(random, vocab))
        spare -= 1
    else:
        operations.append(first)
        order.remove(first)
    if spare < 0:
        return None
    operations += _mixed(order, [_dead(random, vocab) for _ in range(spare)], random)
    at: dict[int, int] = {-2: 0, -1: 2}
    for number, one in enumerate(operations):
        if isinstance(one, int):
            at[one] = place_of(number)
    made = [
        one
        if isinstance(one, DrawnOperation)
        else DrawnOperation(
            lines[one].name, tuple(at[read - 2] for read in lines[one].reads), lines[one].detail, lines[one].constant
        )
        for one in operations
    ]
    return SamplerRecord(chosen, tuple(vocab), places, kind, tuple(made))


def _mixed(order: list[int], dead: list[DrawnOperation], random: Random) -> list[DrawnOperation | int]:
    """Lines in their order, with dead operations anywhere between and behind them."""
    places = set(random.sample(range(len(order) + len(dead)), len(dead)))
    lines, others = iter(order), iter(dead)
    return [next(others) if place in places else next(lines) for place in range(len(order) + len(dead))]


def _dead(random: Random, vocab: Sequence[Value]) -> DrawnOperation:
    """An operation that nothing reads and that lengthens no path."""
    return DrawnOperation("Map", (0,), random.choice(PAPER_BOOLEAN), random.choice(vocab))


def _lines(sights: Sequence[Sight], ways: Sequence[Way], random: Random) -> list[DrawnOperation]:
    """Every line of the program; what it reads is 0 for tokens, 1 for indices, and 2 more than the number of a line.

    Heads that select the same by the same share a selector.
    """
    lines: list[DrawnOperation] = []
    at: list[int] = [0, 1]
    selectors: dict[tuple[Any, ...], int] = {}

    def add(line: DrawnOperation) -> int:
        lines.append(line)
        return len(lines) + 1

    for sight, way in zip(sights[2:], ways[2:], strict=True):
        if sight.mask is None:
            reads = [at[place] for place in sight.reads]
            if way.twice:
                at.append(add(DrawnOperation("SequenceMap", (reads[0], reads[0]), way.lambdas[0][0])))
                continue
            for name, constant in way.lambdas[:-1]:
                reads = [add(DrawnOperation("Map", (reads[0],), name, constant))]
            name, constant = way.lambdas[-1]
            kind = "Map" if way.is_map else "SequenceMap"
            reads = reads[:1] if way.is_map else reads[::-1] if way.swapped else reads
            at.append(add(DrawnOperation(kind, tuple(reads), name, constant)))
            continue
        key = (*sight.reads[:2], sight.mask.tobytes())
        if key not in selectors:
            keys, queries = (at[place] for place in sight.reads[:2])
            some = predicates(sight, ways)
            if not some:  # nothing is selected, and any operands of one kind will do
                queries = keys
                some = ["FALSE"]
            selectors[key] = add(DrawnOperation("Select", (keys, queries), random.choice(some)))
        moved = (at[sight.reads[2]],) if sight.kind == "Aggregate" else ()
        at.append(add(DrawnOperation(sight.kind, (selectors[key], *moved))))
    return lines
