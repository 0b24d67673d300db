"""A Markov chain over the records of the sampler whose programs have given weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np

from weightspace.decompiler.paper.lambdas import applied
from weightspace.decompiler.paper.matching import Matcher
from weightspace.decompiler.paper.sampler_record import (
    DrawnOperation,
    Kind,
    SamplerRecord,
    built,
    constants_of,
    drawn_operations,
    kind_of,
    kinds_of,
    live,
    number_of,
    place_of,
    weights_of,
)
from weightspace.errors import RaspError
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.language import fused
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import (
    PAPER_ARITHMETIC,
    PAPER_BOOLEAN,
    PAPER_CONSTANTS,
    PAPER_OPERATIONS,
    PAPER_PREDICATES,
    PaperSampler,
    choose,
)
from weightspace.rasp.tokens import PAPER
from weightspace.rasp.validate import analyse, settings

Sums = dict[str, list[int]]

EXCHANGES, REWIRED, RESIZED, LENGTHENED, INFORMED = 0.18, 0.2, 0.03, 0.25, 0.15
"""Shares of a walk's steps that exchange two operations or change how many are drawn (together, and the latter alone),
that change reads and lambda together, of the steps at a Map those that make a chain of Maps longer or shorter, and
those that take another lambda of the same table."""


def weights_key(program: Program, most_parameters: int | None = None, fuse: bool = True) -> bytes | None:
    """Bytes that are equal for programs of the same weights up to permutation; None if Tracr cannot compile it.

    `canonical_key` counts what is computed twice once; weights hold it twice. So the kinds, sizes and depths of all
    S-ops are counted beside it. Two programs that differ only in *which* of two like S-ops is read are still taken
    for the same.

    Args:
        most_parameters: None for larger transformers too.
        fuse: whether a Map of a Map is one MLP, as Tracr makes them and our zoos have them.
    """
    meant = fused(program) if fuse else program
    analysis = analyse(meant, *settings(meant, None, None), "tracr_compat")
    if analysis.reasons:
        return None
    if most_parameters is not None:
        try:
            if len(assemble(analysis)) > most_parameters:
                return None
        except RaspError:
            return None
    shapes = sorted((type(t.node).__name__, len(t.values), t.depth) for t in analysis.traits.values())
    return canonical_key(analysis) + repr(shapes).encode()


class Walk:
    """A Markov chain over the records of the sampler whose programs have the weights of the first.

    Args:
        record: where it starts; a draw of the sampler.
        random: decides everything.
        alike: whether a record, of which the operations at some places are live, has the weights of the first; by
            `weights_key` unless given. A `Matcher` also says which lambdas give a table, among which is then chosen.
        moves: share of the steps that exchange two neighbouring operations, where neither reads the other, or that
            change a live operation; for a chain that starts at a record which was not drawn.
    """

    def __init__(
        self,
        record: SamplerRecord,
        random: Random,
        fuse: bool = True,
        *,
        alike: Callable[[SamplerRecord, tuple[int, ...]], bool] | None = None,
        moves: bool = False,
    ) -> None:
        kept = live(record)
        assert kept is not None
        self.program = built(record, kept)
        key = weights_key(self.program, fuse=fuse) if alike is None else b""
        assert key is not None
        self.alike = alike or (lambda other, kept: weights_key(built(other, kept), fuse=fuse) == key)
        self.moves = moves
        self.matcher = alike if isinstance(alike, Matcher) else None
        self.record, self.random, self.key, self.kept = record, random, key, kept
        self.weights = weights_of(max(len(record.operations), drawn_operations(15)) + 2)
        self.target = target_of(self.program)
        self.known: dict[Any, bytes | None] = {self._form(record, kept): self.target}
        self.accepted = 0

    @staticmethod
    def _form(record: SamplerRecord, kept: tuple[int, ...]) -> Any:
        return kept, tuple(record.operations[number_of(place)] for place in kept)

    def _target_if_alike(self, record: SamplerRecord, kept: tuple[int, ...]) -> bytes | None:
        """The target of a record's program, or None if it has other weights."""
        form = self._form(record, kept)
        if form not in self.known:
            self.known[form] = target_of(built(record, kept)) if self.alike(record, kept) else None
        return self.known[form]

    def step(self) -> bytes:
        """Try to change one operation; gives the target where the chain now stands."""
        if self.moves and (what := self.random.random()) < EXCHANGES:
            if what < RESIZED:
                self._resize()
            else:
                self._exchange()
            return self.target
        number = self._chosen()
        if self.moves and self.random.random() < LENGTHENED:
            if self.record.operations[number].name != "Map":  # as often as for a Map, or Maps would be left less often
                return self.target
            return self._lengthen(number) if self.random.random() < 0.5 else self._shorten(number)
        if self.matcher is not None and self.random.random() < INFORMED:
            return self._another_lambda(number)
        kinds = kinds_of(self.record)
        proposal = self._proposal(number, kinds)
        if proposal is None or proposal[0] == self.record.operations[number]:
            return self.target
        operation, log_ratio = proposal
        if log_ratio == -math.inf:
            return self.target
        record = self.record.replaced(number, operation)
        if kind_of(operation) != kinds[place_of(number)]:
            log_ratio += self._log_ratio(record, number + 1)
        return self._decide(record, number, log_ratio)

    def _decide(self, record: SamplerRecord, number: int, log_ratio: float) -> bytes:
        """Go to a record in which operation `number`, which was chosen, is another; or stay. Gives the target."""
        kept = None if log_ratio == -math.inf else live(record)
        if kept is None:
            return self.target
        if self.moves:
            log_ratio += math.log(self._chance(number, kept) / self._chance(number, self.kept))
        if log_ratio < 0 and self.random.random() >= math.exp(log_ratio):
            return self.target
        target = self._target_if_alike(record, kept)
        if target is None:
            return self.target
        self.record, self.target, self.kept = record, target, kept
        self.accepted += 1
        return self.target

    def _lengthen(self, number: int) -> bytes:
        """Try to make a dead operation a Map of what a Map reads, and to have that Map read it instead."""
        old = self.record.operations[number]
        some = self._between(old.reads[0], number, self.kept)
        if not some:
            return self.target
        place, kinds = choose(self.random, some), kinds_of(self.record)
        boolean = self._boolean(old, kinds)
        new = self._map(old.reads[0], kinds, self.random.random() < 0.5 if boolean is None else boolean)
        record = self.record.replaced(number_of(place), new)
        drawn = self._follow(number, record, place, (self.record, old.reads[0]), new)
        if drawn is None:
            return self.target
        follow, log_ratio = drawn
        record = record.replaced(number, follow)
        return self._decide(record, number, log_ratio + self._log_longer(self.record, record, number, len(some)))

    def _shorten(self, number: int) -> bytes:
        """Try the other way: a Map reads what the Map before it reads, which becomes any operation that is dead."""
        old = self.record.operations[number]
        place = old.reads[0]
        if place < 3 or place not in self.kept:
            return self.target
        inner = self.record.operations[number_of(place)]
        readers = [n for n, one in enumerate(self.record.operations) if place in one.reads and place_of(n) in self.kept]
        if inner.name != "Map" or readers != [number] or place == self.kept[-1]:
            return self.target
        drawn = self._drawn(number_of(place), kinds_of(self.record))
        if drawn is None:
            return self.target
        record = self.record.replaced(number_of(place), drawn)
        follow = self._follow(number, record, inner.reads[0], (self.record, place), None)
        if follow is None:
            return self.target
        record = record.replaced(number, follow[0])
        kept = live(record)
        if kept is None or place in kept:
            return self.target
        some = len(self._between(inner.reads[0], number, kept))
        return self._decide(record, number, follow[1] - self._log_longer(record, self.record, number, some))

    def _follow(
        self,
        number: int,
        record: SamplerRecord,
        read: int,
        before: tuple[SamplerRecord, int],
        inner: DrawnOperation | None,
    ) -> tuple[DrawnOperation, float] | None:
        """A lambda for a Map that reads another place of a chain, and the log of what its probability is more than how
        often it is proposed, less that of the old one.

        Without a matcher it is drawn as the sampler draws it. With one it is one of those that leave the table of the
        chain as it is.

        Args:
            record, read: in which it stands, and what it reads there.
            before: the record and place that it read.
            inner: a Map that now stands at `read`, if the chain becomes longer.
        """
        old = self.record.operations[number]
        boolean = old.detail in PAPER_BOOLEAN
        if self.matcher is None:
            return self._map(read, kinds_of(record), boolean), 0.0
        if place_of(number) not in self.kept:
            return None
        scope = self.matcher.scope(self.record, self.kept)
        table = scope[place_of(number)].table
        given = scope[before[1]].given if inner is None else scope[inner.reads[0]].given
        new_given = scope[read].given if inner is None else applied(inner.detail, inner.constant, given)
        constants = [constants_of(one, place, kinds_of(one)) for one, place in (before, (record, read))]
        there, some = (
            self.matcher.lambdas(values, boolean, own).get(table, [])
            for values, own in zip((given, new_given), constants, strict=True)
        )
        if not some or (old.detail, old.constant) not in there:
            return None
        detail, constant = choose(self.random, some)
        log_ratio = math.log(len(some) / len(there))
        if boolean:
            log_ratio += math.log(len(constants[0]) / len(constants[1]))
        return DrawnOperation("Map", (read,), detail, constant), log_ratio

    def _another_lambda(self, number: int) -> bytes:
        """Try to give a Map another lambda with which the table of its chain is the same."""
        old, place = self.record.operations[number], place_of(number)
        if old.name != "Map" or place not in self.kept:
            return self.target
        (read,) = old.reads
        drawn = self._follow(number, self.record, read, (self.record, read), None)
        if drawn is None or drawn[0] == old:
            return self.target
        return self._decide(self.record.replaced(number, drawn[0]), number, drawn[1])

    def _between(self, read: int, number: int, kept: tuple[int, ...]) -> list[int]:
        """Places of dead operations between an operation and what it reads."""
        return [place for place in range(max(read + 1, 3), place_of(number)) if place not in kept]

    def _boolean(self, follow: DrawnOperation, kinds: list[Kind]) -> bool | None:
        """What a Map before `follow` has to be, or None if it may be boolean or not."""
        if follow.detail not in PAPER_BOOLEAN:
            return False
        return None if kinds[follow.reads[0]] == "numeric" else True

    def _log_longer(self, short: SamplerRecord, longer: SamplerRecord, number: int, some: int) -> float:
        """How much more probable the longer record is, less how much more often it is proposed.

        Lambdas, constants, and what is drawn anew where a Map becomes dead, are drawn as the sampler draws them.
        """
        follow, place = longer.operations[number], longer.operations[number].reads[0]
        read = longer.operations[number_of(place)].reads[0]
        before, after = kinds_of(short), kinds_of(longer)
        asked = self._asked(follow, 0, after)
        names = sum(PAPER_OPERATIONS[name] for name in self._names(place, before))
        total = math.log(PAPER_OPERATIONS["Map"] / names) + math.log(some)
        if self._boolean(short.operations[number], before) is not None:
            total += math.log(0.5)
        own = longer.operations[number_of(place)]
        total += self._log_pick(place, read, before, self._asked(own, 0, before))
        total += self._log_pick(place_of(number), place, after, asked)
        total -= self._log_pick(place_of(number), read, before, asked)
        if after[place] != before[place]:
            sums = self._sums(before), self._sums(after)
            for other in range(number_of(place) + 1, len(short.operations)):
                if other != number:
                    total += self.log_probability(longer, other, after, sums[1])
                    total -= self.log_probability(short, other, before, sums[0])
        return total

    def _log_ratio(self, record: SamplerRecord, first: int) -> float:
        """How much more probable a record's operations are than those of the chain's own, from number `first` on."""
        total = 0.0
        for one, sign in ((record, 1), (self.record, -1)):
            kinds = kinds_of(one)
            sums = self._sums(kinds)
            total += sign * sum(self.log_probability(one, n, kinds, sums) for n in range(first, len(one.operations)))
        return total

    def _chosen(self) -> int:
        """An operation to be changed, live ones more often where `moves` says so."""
        if self.moves and self.random.random() < 0.5:
            return number_of(choose(self.random, self.kept))
        return int(self.random.random() * len(self.record.operations))

    def _chance(self, number: int, kept: tuple[int, ...]) -> float:
        """Of `_chosen` to choose an operation."""
        own = 1 / len(kept) if place_of(number) in kept else 0.0
        return 0.5 / len(self.record.operations) + 0.5 * own

    def _resize(self) -> None:
        """Try to have another wanted length; operations are drawn at the end, or dead ones there taken away."""
        record, lengths = self.record, PaperSampler(None)
        wanted = record.wanted + (1 if self.random.random() < 0.5 else -1)
        if wanted not in lengths.lengths:
            return
        own, other = (lengths.weights[lengths.lengths.index(one)] for one in (record.wanted, wanted))
        if self.random.random() >= other / own:
            return
        more = drawn_operations(wanted) - drawn_operations(record.wanted)
        operations = record.operations[: len(record.operations) + min(more, 0)]
        for _ in range(max(more, 0)):
            longer = replace(record, wanted=wanted, operations=operations)
            drawn = self._drawn(len(operations), kinds_of(longer))
            if drawn is None:
                return
            operations = (*operations, drawn)
        changed = replace(record, wanted=wanted, operations=operations)
        if self.kept[-1] < len(operations) + 2 and live(changed) == self.kept:
            self.record = changed

    def _exchange(self) -> None:
        """Try to exchange two operations that stand one behind the other; the target stays as it is."""
        operations = self.record.operations
        if len(operations) < 3:
            return
        number = 1 + int(self.random.random() * (len(operations) - 2))
        place = place_of(number)
        if place in operations[number + 1].reads:
            return
        moved = {place: place + 1, place + 1: place}
        later = [
            replace(one, reads=tuple(moved.get(read, read) for read in one.reads)) for one in operations[number + 2 :]
        ]
        record = replace(
            self.record, operations=(*operations[:number], operations[number + 1], operations[number], *later)
        )
        kept = tuple(sorted(moved.get(one, one) for one in self.kept))
        if live(record) != kept:
            return
        log_ratio = self._log_ratio(record, number)
        if log_ratio >= 0 or self.random.random() < math.exp(log_ratio):
            self.record, self.kept = record, kept

    def _proposal(self, number: int, kinds: list[Kind]) -> tuple[DrawnOperation, float] | None:
        """Another operation, and the log of its prior over the old one's, less those with which each is proposed.

        What is redrawn is redrawn from the sampler's own distribution, which cancels; only the picks of arguments that
        a change of kind makes likelier or less likely remain.
        """
        random, old, place = self.random, self.record.operations[number], place_of(number)
        if self.moves and random.random() < REWIRED:
            return self._rewired(number, kinds)
        what = random.random()
        if what < 0.15:
            drawn = self._drawn(number, kinds)
            return None if drawn is None else (drawn, 0.0)
        if what < 0.35 and place > 1:  # one argument
            which = int(random.random() * len(old.reads))
            reads = list(old.reads)
            reads[which] = self._pick(place, kinds, self._asked(old, which, kinds))
            new = DrawnOperation(old.name, tuple(reads), old.detail, old.constant)
            ratio = self._log_constant(new, kinds) - self._log_constant(old, kinds)
            if old.name == "Select" and which == 0:  # the second is one of the first one's kind
                before, after = (self._log_pick(place, o.reads[1], kinds, self._asked(o, 1, kinds)) for o in (old, new))
                ratio += after - before
            return new, ratio
        if old.name == "Select":
            reads = old.reads[::-1] if random.random() < 0.5 else old.reads
            return DrawnOperation("Select", reads, choose(random, PAPER_PREDICATES)), 0.0
        if old.name == "SequenceMap":
            return DrawnOperation(old.name, old.reads, choose(random, PAPER_ARITHMETIC)), 0.0
        if old.name != "Map":
            return None
        (read,) = old.reads
        if kinds[read] == "numeric" and random.random() < 0.5:
            new = self._map(read, kinds, boolean=random.random() < 0.5)
            before, after = (self._log_pick(place, read, kinds, self._asked(o, 0, kinds)) for o in (old, new))
            return new, after - before
        return self._map(read, kinds, boolean=old.detail in PAPER_BOOLEAN), 0.0

    def _rewired(self, number: int, kinds: list[Kind]) -> tuple[DrawnOperation, float] | None:
        """What single choices seldom come to, as two have to suit each other.

        A Map becomes a SequenceMap of what it reads with itself, which is the same block of weights, or the other way
        round; or a Map reads what the Map before it reads, or a Map of what it reads, of which the compiler makes one.
        """
        random, old, place = self.random, self.record.operations[number], place_of(number)
        if old.name == "SequenceMap" or (old.name == "Map" and random.random() < 0.5):
            read = old.reads[0]
            if kinds[read] != "numeric" or old.reads.count(read) != len(old.reads):
                return None
            new = (
                DrawnOperation("SequenceMap", (read, read), choose(random, PAPER_ARITHMETIC))
                if old.name == "Map"
                else self._map(read, kinds, boolean=random.random() < 0.5)
            )
            # a SequenceMap always comes here, a Map half the time
            ratio = math.log(2.0) if old.name == "Map" else math.log(0.5)
            for one, sign in ((new, 1), (old, -1)):
                ratio += sign * math.log(PAPER_OPERATIONS[one.name])
                ratio += sign * sum(self._log_pick(place, r, kinds, self._asked(one, 0, kinds)) for r in one.reads)
            return new, ratio
        if old.name != "Map":
            return None
        root = self._root(old.reads[0])
        boolean = old.detail in PAPER_BOOLEAN
        asked = self._asked(old, 0, kinds)
        some = [p for p in range(place) if self._suits(kinds[p], asked) and self._root(p) == root]
        read = choose(random, some)
        before, after = (self._log_pick(place, r, kinds, asked) for r in (old.reads[0], read))
        return self._map(read, kinds, boolean), after - before

    def _root(self, place: int) -> int:
        """What stands at the beginning of a chain of Maps."""
        while place not in (0, 2):
            operation = self.record.operations[number_of(place)]
            if operation.name != "Map":
                break
            place = operation.reads[0]
        return place

    # -- the sampler's choices, and how probable they are --------------------------------------------------------------

    def _drawn(self, number: int, kinds: list[Kind]) -> DrawnOperation | None:
        """An operation from the sampler's distribution; None if it finds no arguments."""
        random, place = self.random, place_of(number)
        numeric = [p for p in range(place) if kinds[p] == "numeric"]
        names = self._names(place, kinds)
        name = choose(random, names, [PAPER_OPERATIONS[name] for name in names])
        if name == "Map":
            boolean = random.random() < 0.5
            if not boolean and not numeric:
                return None
            return self._map(self._pick(place, kinds, "any" if boolean else "numeric"), kinds, boolean)
        if name == "SequenceMap" and not numeric:
            return None
        if name == "Aggregate" and not numeric:
            return None
        reads: list[int] = []
        for which in range(1 if name == "SelectorWidth" else 2):
            reads.append(self._pick(place, kinds, self._asked(DrawnOperation(name, tuple(reads)), which, kinds)))
        detail = {"Select": PAPER_PREDICATES, "SequenceMap": PAPER_ARITHMETIC}.get(name)
        return DrawnOperation(name, tuple(reads), choose(random, detail) if detail else "")

    @staticmethod
    def _names(place: int, kinds: list[Kind]) -> list[str]:
        selectors = None in kinds[:place]
        return [name for name in PAPER_OPERATIONS if selectors or name not in ("Aggregate", "SelectorWidth")]

    @staticmethod
    def _asked(operation: DrawnOperation, which: int, kinds: list[Kind]) -> str:
        """What an argument has to be: `selector`, `any` S-op, or an S-op of a kind."""
        match operation.name, which:
            case ("Aggregate" | "SelectorWidth", 0):
                return "selector"
            case ("Select", 0):
                return "any"
            case ("Select", _):
                return str(kinds[operation.reads[0]])
            case ("Map", _) if operation.detail in PAPER_BOOLEAN:
                return "any"
        return "numeric"

    @staticmethod
    def _suits(kind: Kind, asked: str) -> bool:
        return kind is None if asked == "selector" else kind is not None and asked in ("any", kind)

    def _pick(self, place: int, kinds: list[Kind], asked: str) -> int:
        some = [p for p in range(place) if self._suits(kinds[p], asked)]
        return choose(self.random, some, [self.weights[p] for p in some])

    def _log_pick(self, place: int, read: int, kinds: list[Kind], asked: str, sums: Sums | None = None) -> float:
        if not self._suits(kinds[read], asked):
            return -math.inf
        if sums is not None:
            total = sums[asked][place]
        else:
            total = sum(self.weights[p] for p in range(place) if self._suits(kinds[p], asked))
        return math.log(self.weights[read] / total)

    def _sums(self, kinds: list[Kind]) -> Sums:
        """For what may be asked of an argument, how likely all places before one are together."""
        return {
            asked: [0, *accumulate(w * self._suits(k, asked) for w, k in zip(self.weights, kinds, strict=False))]
            for asked in ("selector", "any", "numeric", "boolean", "categorical")
        }

    def _map(self, read: int, kinds: list[Kind], boolean: bool) -> DrawnOperation:
        random = self.random
        if boolean:
            detail = choose(random, PAPER_BOOLEAN)
            return DrawnOperation("Map", (read,), detail, choose(random, self._constants(read, kinds)))
        constant: float = choose(random, PAPER_CONSTANTS)
        if random.random() < 1 / 3:
            constant = constant + int(random.random() * 101) / 100
        return DrawnOperation("Map", (read,), choose(random, PAPER_ARITHMETIC), constant)

    def _constants(self, read: int, kinds: list[Kind]) -> Sequence[Any]:
        return constants_of(self.record, read, kinds)

    def _log_constant(self, operation: DrawnOperation, kinds: list[Kind]) -> float:
        """Of a comparison's constant, which depends on what it is compared with; an arithmetic one does not."""
        if operation.name != "Map" or operation.detail not in PAPER_BOOLEAN:
            return 0.0
        some = self._constants(operation.reads[0], kinds)
        inside = any(type(operation.constant) is type(one) and operation.constant == one for one in some)
        return -math.log(len(some)) if inside else -math.inf

    def log_probability(self, record: SamplerRecord, number: int, kinds: list[Kind], sums: Sums | None = None) -> float:
        """Of an operation's name, arguments and comparison constant given those before it, as far as kinds matter."""
        operation, place = record.operations[number], place_of(number)
        names = self._names(place, kinds)
        if operation.name not in names:
            return -math.inf
        total = self._log_constant(operation, kinds) - math.log(sum(PAPER_OPERATIONS[name] for name in names))
        for which, read in enumerate(operation.reads):
            total += self._log_pick(place, read, kinds, self._asked(operation, which, kinds), sums)
            if total == -math.inf:
                break
        return total


def target_of(program: Program) -> bytes:
    return PAPER.encode(program).astype(np.uint8).tobytes()
