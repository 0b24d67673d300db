"""The best exact match possible on the paper's lossy target: how probable the likeliest program is, given weights.

Many targets belong to the same weights: a comparison's constant is gone, so < and <= are the same table; a categorical
result keeps only its rank, so adding, multiplying and `and` can be one matrix; a Map of a Map is one MLP; a selector
that two operations share and two selectors that are alike compile to the same heads. Whoever sees nothing but weights
does best to answer the target that is likeliest given them, and is right with its probability. The ceiling is the mean
of that probability over programs.

**How it is estimated.** Most weights occur once among millions of draws, so the posterior cannot be counted. But a
program that was drawn is itself a draw from the posterior given its own weights. From it a Markov chain walks over the
whole record of the sampler's choices, dead operations included: it redraws one choice or several of one operation from
the sampler's distribution, and keeps the step if the weights stay what they are, with the Metropolis-Hastings
probability that makes up for choices which the step makes likelier or less likely. Its stationary distribution is the
posterior exactly, and it starts in it; no burn-in is needed for that, only to forget where it started. What is fixed
is what the steps do not change: the wanted length, and whether the vocabulary is of numbers or of strings.

**Its error.** A chain that has not been everywhere knows too few alternatives, so estimates come from above and fall
with the number of steps. Three are given. `largest` is the share of the commonest target on the whole chain, and counts
chance as skill. `held_out` takes the commonest target of the first part and counts it in the last: no chance, but it is
low where the first part chose wrongly. `guessed` asks whether the commonest target of the last part is the one that was
drawn: the accuracy of a decoder that knows the weights and the sampler, and noisy, being 0 or 1. They agree for a chain
that mixes. Short programs of one vocabulary and length, whose weights come often enough to count, agree with the walk
(`tests/decompiler/test_ceiling.py`).

**What comes out** depends on the lengths: of programs with fewer than 50,000 parameters (3 to 15 lines, mean 8) about
22%, of those of 3 to 5 lines 45%, of 12 to 15 lines at most 3%; 12 to 14% were estimated elsewhere for another make-up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.lambdas import recognise
from weightspace.rasp.language import (
    Aggregate,
    Comparison,
    Expression,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    fused,
    indices,
    tokens,
)
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import (
    PAPER_ARITHMETIC,
    PAPER_BOOLEAN,
    PAPER_CONSTANTS,
    PAPER_JOINS,
    PAPER_LAMBDAS,
    PAPER_OPERATIONS,
    PAPER_PREDICATES,
    PAPER_SEQUENCES,
    PAPER_VOCAB_SIZES,
    PaperKind,
    PaperSampler,
    Variables,
    choose,
)
from weightspace.rasp.tokens import PAPER
from weightspace.rasp.validate import analyse, settings

Sums = dict[str, list[int]]
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
    return None if kept is None else _built(record, kept)


def _built(record: SamplerRecord, kept: tuple[int, ...]) -> Program:
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


# -- what weights know ------------------------------------------------------------------------------------------------


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


EXCHANGES, REWIRED, RESIZED, LENGTHENED = 0.18, 0.2, 0.03, 0.25
"""Shares of a walk's steps that exchange two operations or change how many are drawn (together, and the latter alone),
that change reads and lambda together, and of the steps at a Map those that make a chain of Maps longer or shorter."""

# -- the walk ---------------------------------------------------------------------------------------------------------


class Walk:
    """A Markov chain over the records of the sampler whose programs have the weights of the first.

    Args:
        record: where it starts; a draw of the sampler.
        random: decides everything.
        alike: whether a record, of which the operations at some places are live, has the weights of the first; by
            `weights_key` unless given.
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
        self.program = _built(record, kept)
        key = weights_key(self.program, fuse=fuse) if alike is None else b""
        assert key is not None
        self.alike = alike or (lambda other, kept: weights_key(_built(other, kept), fuse=fuse) == key)
        self.moves = moves
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
            self.known[form] = target_of(_built(record, kept)) if self.alike(record, kept) else None
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
        follow = self._map(place, kinds_of(record), old.detail in PAPER_BOOLEAN)
        record = record.replaced(number, follow)
        return self._decide(record, number, self._log_longer(self.record, record, number, len(some)))

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
        record = record.replaced(number, self._map(inner.reads[0], kinds_of(record), old.detail in PAPER_BOOLEAN))
        kept = live(record)
        if kept is None or place in kept:
            return self.target
        some = len(self._between(inner.reads[0], number, kept))
        return self._decide(record, number, -self._log_longer(record, self.record, number, some))

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


# -- the estimate -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What a chain says of one program's weights.

    Attributes:
        length: instructions of the program.
        largest: share of the commonest target on the chain.
        held_out: share in the second half of the target that is commonest in the first.
        guessed: 1.0 if the target that was drawn is the commonest of the second half.
        targets: different targets met.
    """

    length: int
    largest: float
    held_out: float
    guessed: float
    targets: int


def posterior(record: SamplerRecord, steps: int, seed: int, fuse: bool = True) -> Posterior:
    """Walk from a record, and say what targets were met."""
    walk = Walk(record, Random(f"walk {seed}"), fuse)
    start, length = walk.target, len(walk.program)
    return summary([walk.step() for _ in range(steps)], start, length)


def summary(path: Sequence[bytes], start: bytes, length: int) -> Posterior:
    """What a chain of targets says that began at `start`; a tenth on either side of the middle is in neither half.

    Args:
        length: instructions of the program.
    """
    first, second = Counter(path[: max(1, 4 * len(path) // 10)]), Counter(path[6 * len(path) // 10 :])
    best, commonest = first.most_common(1)[0][0], second.most_common(1)[0][0]
    every = Counter(path)
    return Posterior(
        length,
        every.most_common(1)[0][1] / len(path),
        second[best] / second.total(),
        float(commonest == start),
        len(every),
    )


def different_records(
    seed: int, *, most_parameters: int | None = 49_999, lengths: Sequence[int] | None = None, fuse: bool = True
) -> Iterator[SamplerRecord]:
    """Draws of the sampler of different weights, as a zoo holds them, without end."""
    random, seen = Random(f"ceiling {seed}"), set()
    while True:
        record = draw_record(random, lengths)
        program = None if record is None else program_of(record)
        if record is None or program is None:
            continue
        key = weights_key(program, most_parameters, fuse)
        if key is not None and key not in seen:
            seen.add(key)
            yield record


def listing_ceiling(
    programs: int,
    steps: int,
    seed: int,
    *,
    most_parameters: int | None = 49_999,
    lengths: Sequence[int] | None = None,
    fuse: bool = True,
) -> list[Posterior]:
    """The posteriors of so many programs' weights; the mean of `held_out` is the estimate of the ceiling.

    Args:
        steps: of each chain; take several numbers and see whether the estimate still falls.
        most_parameters, lengths: which programs, see `decompiler.paper.listing.draw_listings`.
        fuse: see `weights_key`.
    Raises:
        RaspError: if there are too few programs or steps.
    """
    if programs < 1 or steps < 10:
        raise RaspError(f"{programs} programs and {steps} steps will not do: give at least 1 and 10")
    drawn = different_records(seed, most_parameters=most_parameters, lengths=lengths, fuse=fuse)
    return [posterior(next(drawn), steps, seed * 1_000_003 + number, fuse) for number in range(programs)]
