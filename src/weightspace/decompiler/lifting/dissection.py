"""The operations of clean weights: which S-op each direction belongs to, what computes it, and out of what."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, combinations, islice, permutations, product
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from weightspace import clock
from weightspace.decompiler.lifting.blocks import (
    Anchors,
    AttentionHead,
    NotLiftable,
    Units,
    find_anchors,
    read_heads,
    read_units,
)
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.compiler.layers import half_layers, slots
from weightspace.rasp.language import (
    Aggregate,
    Expression,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    indices,
    tokens,
)
from weightspace.rasp.validate import Mode

Kind = Literal["tokens", "indices", "map", "number", "pairs", "steps", "linear", "aggregate", "width"]
TOKENS = 0
"""The S-op `tokens`: it and the indices, which come next, are there before any operation."""
MOST_WIRINGS, MOST_ORDERS, MOST_COVERS, MOST_DOUBTS = 500, 30, 200, 60
"""So many ways to choose what the weights do not show are tried."""


class Steps(NamedTuple):
    """What an MLP makes of a number.

    Attributes:
        thresholds: (n,) between which the number is told apart, ascending.
        levels: (n + 1,) what is written below the first, between each two, and above the last: a direction (None where
            nothing is) of a categorical, a number of a numerical S-op.
    """

    thresholds: tuple[float, ...]
    levels: tuple[Any, ...]


class Operation(NamedTuple):
    """One S-op as the weights show it.

    Attributes:
        kind: `map` and `pairs` are Maps and SequenceMaps of categoricals, `number` is a Map of a categorical to a
            number, `steps` a Map of a number.
        layer: where it stands.
        reads: S-ops: of an Aggregate keys, queries and what it moves, of a SelectorWidth keys and queries; None where
            the weights do not show it.
        directions: its own.
        numerical: its encoding.
        data: of a `map` direction by direction (its other directions are of values that nothing gives), of `pairs`
            direction by (first, second), of a `number` number by direction, of `steps` a `Steps`, of a `linear` its
            factors, of an `aggregate` (chosen, moved), of a `width` (chosen, direction by width).
    """

    kind: Kind
    layer: int
    reads: tuple[int | None, ...]
    directions: tuple[int, ...]
    numerical: bool
    data: Any = None

    @property
    def slot(self) -> int:
        """The half-layer of its head, or else of its MLP."""
        return 2 * self.layer + (self.kind not in ("aggregate", "width"))


@dataclass(frozen=True)
class Dissection:
    """All S-ops of a transformer.

    Attributes:
        operations: tokens, indices, and the others, each after what it reads; `reads` counts in this.
        output: which of them is the answer.
        mode: by which compiler the weights were made.
        exactness: how steep the steps of Tracr's MLPs are; None if there are none.
        guesses: how many operands the weights do not show, and were chosen so that sizes and layers come out.
    """

    operations: tuple[Operation, ...]
    output: int
    mode: Mode
    exactness: float | None
    guesses: int


class Choice(NamedTuple):
    """What is taken where the weights leave it open.

    Attributes:
        order: in which directions that nothing writes to come about; as they are read unless given.
        covers: which way to share the directions of one layer among S-ops, by how often that was asked before; the
            first that fits unless given.
        numbers: directions that hold a number, of which nothing says so.
    """

    order: Sequence[int] = ()
    covers: Mapping[int, int] = MappingProxyType({})
    numbers: frozenset[int] = frozenset()


def dissect(bare: BareTransformer) -> Dissection:
    """Find the operations of clean weights.

    Raises:
        NotLiftable: with the first thing that is not as a compiler leaves it.
    """
    first: Dissection | None = None
    failure: NotLiftable | None = None
    for choice in chain([Choice()], _choices(bare)):
        try:
            found, fits = _dissected(bare, choice)
        except NotLiftable as error:
            failure = failure or error
            continue
        if fits:
            return found
        first = first or found
    if first is None:
        raise failure or NotLiftable("it holds no program")
    return first


def _dissected(bare: BareTransformer, choice: Choice) -> tuple[Dissection, bool]:
    """One way to read the weights, and whether a compiler would make them so where they leave a choice."""
    knife = _Knife(bare, choice)
    knife.cut()
    if knife.unwritten:
        raise NotLiftable(f"nothing writes to direction {knife.unwritten[0]}, and nothing could without a trace")
    operations, output = knife.operations, knife.output()
    unknown = sum(read is None for operation in operations for read in operation.reads)
    fits = True
    if unknown:
        operations, fits = _wired(operations, output, bare, knife.single)
    elif knife.silent_numbers or knife.asked:
        fits = _sizes(operations, output, bare) is not None
    return Dissection(tuple(operations), output, knife.mode, knife.exactness, unknown), fits


def _choices(bare: BareTransformer) -> Iterator[Choice]:
    """Other ways to read weights, where the first fails or does not fit.

    Directions of values that nobody reads may be shared in several ways: of `x * y` and `x + y` on numbers up to 4, the
    values 8 and 9 of the one are switched on where 6 of the other is, and the sizes of the heads tell. What is always 1
    may be the only value of a categorical S-op, or a number. And directions to which nothing writes come in some order.
    """
    knife = _Knife(bare, Choice())
    unwritten = list(knife.unwritten)
    with suppress(NotLiftable):
        knife.cut()
    few = (some for count in (1, 2) for some in combinations(sorted(knife.doubtful), count))
    yield from (Choice(numbers=frozenset(some)) for some in islice(few, MOST_DOUBTS))
    for place, (masks, full) in enumerate(knife.asked):
        for number, _ in enumerate(islice(_covers(masks, full, knife.evidence), 1, MOST_COVERS), 1):
            yield Choice(covers={place: number})
    if len(unwritten) > 1:
        yield from (Choice(order=order) for order in islice(permutations(unwritten), 1, MOST_ORDERS + 1))


class Links:
    """Which things belong together."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}

    def find(self, item: int) -> int:
        while (above := self.parent.setdefault(item, item)) != item:
            self.parent[item] = self.parent[above]
            item = above
        return item

    def join(self, items: Iterable[int]) -> None:
        roots = [self.find(item) for item in items]
        for root in roots[1:]:
            self.parent[root] = roots[0]

    def groups(self, items: Iterable[int]) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for item in items:
            found.setdefault(self.find(item), []).append(item)
        return list(found.values())


@dataclass
class _Evidence:
    """What those who read directions say of them.

    Attributes:
        numerical: of directions that are known to hold a number (True) or a value of a categorical (False).
        links: directions of one categorical S-op.
        apart: pairs of directions of different S-ops.
        readers: of each direction those readers that read every direction of an S-op alike; they are the same for
            all directions of one.
    """

    numerical: dict[int, bool] = field(default_factory=dict)
    links: Links = field(default_factory=Links)
    apart: set[tuple[int, int]] = field(default_factory=set)
    readers: dict[int, Counter[Any]] = field(default_factory=lambda: defaultdict(Counter))

    def differ(self, one: int, other: int) -> bool:
        """Whether two directions cannot be of the same S-op."""
        return (one, other) in self.apart or self.readers.get(one) != self.readers.get(other)

    def categorical(self, directions: Iterable[int]) -> None:
        directions = list(directions)
        self.numerical.update(dict.fromkeys(directions, False))
        if directions:
            self.links.join(directions)


class _Knife:
    """The state of a dissection, which goes through the transformer once, front to back."""

    def __init__(self, bare: BareTransformer, choice: Choice) -> None:
        self.bare, self.anchors, self.choice = bare, find_anchors(bare), choice
        self.asked: list[tuple[dict[int, int], int]] = []  # what was to be shared among S-ops
        self.doubtful: set[int] = set()  # what is always 1 or 0, and may be a number or a value
        self.heads, self.units = read_heads(bare, self.anchors), read_units(bare)
        self.special = {self.anchors.bos, self.anchors.one} - {None}
        self.nones, self.silent = _nones(self.units, self.anchors)
        if self.nones:
            self.units = [_without(units, self.nones) for units in self.units]
        self.evidence = self._evidence()
        self.evidence.numerical.update(dict.fromkeys(choice.numbers, True))
        self.operations = [
            Operation("tokens", -1, (), self.anchors.tokens, False),
            Operation("indices", -1, (), self.anchors.indices, False),
        ]
        self.group = {d: number for number in (0, 1) for d in self.operations[number].directions}
        self.scratch: dict[int, AttentionHead] = {}
        written = {d for heads in self.heads for head in heads for d in head.moved.values()}
        written |= {d for units in self.units for row in units.writes for d in row}
        free = set(range(bare.width)) - written - set(self.anchors.all) - self.nones
        self.unwritten = (
            [d for d in choice.order if d in free] if choice.order else sorted(free, key=self._first_reader)
        )
        self.silent_numbers = len(self.unwritten)
        self.exactness: float | None = None
        self.single: set[int] = set()  # numerical S-ops that are a constant
        self.mode: Mode = self._mode()

    def cut(self) -> None:
        """Go through all layers."""
        for layer in range(self.bare.num_layers):
            clock.look()
            for head in self.heads[layer]:
                self.attend(head)
            self.compute(layer)

    def _first_reader(self, d: int) -> int:
        for layer in range(self.bare.num_layers):
            if any(d in head.moved for head in self.heads[layer]) or any(d in row for row in self.units[layer].reads):
                return layer
        return self.bare.num_layers

    def _mode(self) -> Mode:
        given = self.bare.mode
        if given == "fixed" or given == "tracr_compat":
            return given
        for head in (head for heads in self.heads for head in heads):
            size = np.sqrt(self.bare.key_size)
            ratio = head.strength / 100.0 if head.strength else head.to_bos / (100.0 if self._is_width(head) else 50.0)
            if size > 1:
                return "fixed" if abs(ratio - size) < abs(ratio - 1) else "tracr_compat"
        one, bos = self.anchors.one, self.anchors.bos
        for row in (row for units in self.units for row in units.reads):
            if one is not None and row.get(one, 0.0) > 0 and set(row) <= {one, bos}:
                return "fixed" if bos in row else "tracr_compat"
        for units in self.units:  # a negative number of a Map: `fixed` has a second unit for it
            writers = Counter(d for row in units.writes for d in row)
            for reads, writes in zip(units.reads, units.writes, strict=True):
                if min(reads.values(), default=0) < 0 and any(writers[d] == 1 for d in writes) and one not in reads:
                    return "tracr_compat"
        silent = any(not row and w for units in self.units for row, w in zip(*units, strict=True))
        return "tracr_compat" if silent else "fixed"  # Tracr alone has values that nothing gives

    def _is_width(self, head: AttentionHead) -> bool:
        return set(head.moved) == {self.anchors.bos}

    # -- what readers say

    def _evidence(self) -> _Evidence:
        found = _Evidence()
        if self.bare.readout is not None:
            readout = self.bare.readout
            directions = np.abs(readout.directions).argmax(0).tolist()
            if readout.values is None:
                found.numerical[directions[0]] = True
            else:
                found.categorical(directions)
        for layer in reversed(range(self.bare.num_layers)):
            clock.look()
            writers = Counter(d for row in self.units[layer].writes for d in row)
            for unit, (reads, writes) in enumerate(zip(*self.units[layer], strict=True)):
                if (layer, unit) not in self.silent or self.silent[layer, unit] is not None:
                    self._judge(found, layer, reads, writes, writers)
            for row in self.units[layer].reads:  # a number would be read by steps, or by both units of a sum
                if len(row) == 1:
                    found.numerical.setdefault(next(iter(row)), False)
            self._operands(found, layer)
            for head in self.heads[layer]:
                found.categorical(head.keys)
                for what, some in (("keys", head.keys), ("moved", head.moved)):
                    for d in some:
                        found.readers[d][what, layer, head.number] += 1
                found.categorical({query for _, query in head.chosen})
                if len(head.moved) > 1:
                    found.categorical(head.moved)
                    found.categorical(head.moved.values())
                for source, target in head.moved.items():
                    if target in found.numerical:
                        found.numerical[source] = found.numerical[target]
        return found

    def _judge(
        self,
        found: _Evidence,
        layer: int,
        reads: dict[int, float],
        writes: dict[int, float],
        writers: Mapping[int, int],
    ) -> None:
        body = [d for d in reads if d not in self.special]
        one = reads.get(self.anchors.one, 0.0) if self.anchors.one is not None else 0.0
        if len(body) == 2 and one < 0:
            found.numerical.update(dict.fromkeys(body, False))
            found.apart |= {(body[0], body[1]), (body[1], body[0])}
            found.readers[body[0]]["pairs", layer, body[1]] += 1
            found.readers[body[1]]["pairs", layer, body[0]] += 1
        elif len(body) > 1:
            found.categorical(body)
        elif len(body) == 1:
            weight, d = reads[body[0]], body[0]
            if one:
                found.numerical[d] = weight > 0
            elif weight < 0 and len(writes) == 1 and writers[next(iter(writes))] > 2:
                found.numerical[d] = True  # the negative part of a sum

    def _operands(self, found: _Evidence, layer: int) -> None:
        """Whatever writes to directions of one S-op reads directions of one S-op, or one on either side of a pair."""
        flat: dict[int, list[int]] = defaultdict(list)
        pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for reads, writes in zip(*self.units[layer], strict=True):
            body = [d for d in reads if d not in self.special]
            if len(writes) != 1 or not body:
                continue
            target = found.links.find(next(iter(writes)))
            if len(body) == 2 and self.anchors.one in reads:
                pairs[target].append((body[0], body[1]))
            elif self.anchors.one not in reads and found.numerical.get(target) is False:
                flat[target] += body
        for members in flat.values():
            found.links.join(members)
        for edges in pairs.values():
            sides: dict[int, list[int]] = defaultdict(list)
            for a, b in edges:
                sides[a].append(b)
                sides[b].append(a)
            for partners in sides.values():
                found.links.join(partners)

    # -- attention

    def attend(self, head: AttentionHead) -> None:
        keys = self._sop(head.keys, f"the keys of {_name(head)}", whole=True)
        queries = None
        if head.chosen:
            queries = self._sop({query for _, query in head.chosen}, f"the queries of {_name(head)}")
        if self._is_width(head):
            self.scratch[head.moved[self.anchors.bos]] = head
            return
        moved = self._sop(head.moved, f"what {_name(head)} moves", whole=True)
        inner = self.operations[moved]
        directions = tuple(head.moved[d] for d in inner.directions)
        number = self._add(
            Operation(
                "aggregate", head.layer, (keys, queries, moved), directions, inner.numerical, (head.chosen, head.moved)
            )
        )
        if moved in self.single and inner.data is not None and _is_zero(inner):
            self.single.add(number)

    def _sop(self, directions: Iterable[int], what: str, whole: bool = False) -> int:
        directions = set(directions)
        groups = {self.group.get(d, -1) for d in directions}
        if len(groups) != 1 or -1 in groups:
            raise NotLiftable(f"{what} are not directions of one S-op that is known there")
        number = groups.pop()
        if whole and directions != set(self.operations[number].directions):
            raise NotLiftable(f"{what} are not all the directions of an S-op")
        return number

    def _add(self, operation: Operation) -> int:
        taken = [d for d in operation.directions if d in self.group]
        if taken:
            raise NotLiftable(f"two operations write to direction {taken[0]}")
        number = len(self.operations)
        self.operations.append(operation)
        self.group.update(dict.fromkeys(operation.directions, number))
        return number

    # -- MLPs

    def compute(self, layer: int) -> None:
        reads, writes = self.units[layer]
        starts, zeros, flat, pairs = [], [], [], []
        numbers: dict[int, list[int]] = defaultdict(list)
        for unit, row in enumerate(reads):
            if (layer, unit) in self.silent:
                continue
            body = [d for d in row if d not in self.special]
            one = row.get(self.anchors.one, 0.0) if self.anchors.one is not None else 0.0
            if not body:
                if one:
                    starts.append(unit)
                elif not row and writes[unit]:
                    zeros.append(unit)
            elif len(body) == 1 and self._numerical(body[0]):
                numbers[body[0]].append(unit)
            elif len(body) == 2 and one < 0:
                pairs.append(unit)
            else:
                flat.append(unit)
        terms: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for d in numbers:
            numbers[d] = self._linear(layer, d, numbers[d], terms)
        self._sums(layer, terms)
        self._flat(layer, flat, zeros)
        self._pairs(layer, pairs)
        self._steps(layer, numbers, starts)

    def _numerical(self, d: int) -> bool:
        if d in self.scratch:
            return True
        if d not in self.group:
            raise NotLiftable(f"direction {d} is read before anything has written to it")
        return self.operations[self.group[d]].numerical

    # sums

    def _linear(self, layer: int, d: int, units: list[int], terms: dict[int, list[tuple[int, float]]]) -> list[int]:
        """Take from the units that read a number those of LinearSequenceMaps; the others are left.

        Args:
            terms: numbers and their factors, by the direction of the sum; what is found is added.
        """
        reads, writes = self.units[layer]
        wanted: list[dict[int, float]] = []
        for unit in units:
            if reads[unit][d] < 0:
                if len(writes[unit]) != 1:
                    raise NotLiftable(f"a unit of layer {layer} that reads a number backwards is not that of a sum")
                target, factor = next(iter(writes[unit].items()))
                terms[target].append((d, -factor))
                wanted.append({target: -factor})
        rest = []
        for unit in units:
            if reads[unit][d] > 0:
                if len(reads[unit]) == 1 and writes[unit] in wanted:
                    wanted.remove(writes[unit])
                else:
                    rest.append(unit)
        if wanted:
            raise NotLiftable(f"a sum in layer {layer} reads only the negative part of a number")
        return rest

    def _sums(self, layer: int, terms: Mapping[int, list[tuple[int, float]]]) -> None:
        for target, parts in terms.items():
            if len(parts) != 2:
                raise NotLiftable(f"the sum in direction {target} has {len(parts)} terms, where two are expected")
            operands = tuple(self.group[d] for d, _ in parts)
            factors = tuple(_number(factor) for _, factor in parts)
            number = self._add(Operation("linear", layer, operands, (target,), True, factors))
            if all(operand in self.single for operand in operands):
                self.single.add(number)

    # Maps of categoricals

    def _flat(self, layer: int, flat: list[int], zeros: list[int]) -> None:
        reads, writes = self.units[layer]
        weights: dict[int, dict[int, float]] = defaultdict(dict)
        plain: dict[int, bool] = {}
        unmet = self._unmet(writes, flat, zeros)
        for unit in [*flat, *(unit for unit in zeros if unit not in unmet)]:
            if len(writes[unit]) != 1:
                raise NotLiftable(f"unit {unit} of layer {layer} is not that of a Map: it writes to several directions")
            target, sign = next(iter(writes[unit].items()))
            one_hot = sign == 1 and bool(reads[unit]) and all(weight == 1 for weight in reads[unit].values())
            plain[target] = one_hot and target not in plain
            for d, weight in reads[unit].items():
                weights[target][d] = weights[target].get(d, 0.0) + sign * weight
            weights.setdefault(target, {})
        families: dict[int, list[int]] = defaultdict(list)
        numbers: list[tuple[int, int | None]] = []
        for target, row in weights.items():
            inner = self._sop(row, f"what direction {target} is made of") if row else None
            if inner is None or self.evidence.numerical.get(target) or not plain[target]:
                numbers.append((target, inner))
            else:
                families[inner].append(target)
        first = len(self.operations)
        for inner, targets in families.items():
            numbers += self._maps(layer, inner, {target: frozenset(weights[target]) for target in targets})
        self._attach(layer, first, list(unmet.values()))
        left = self._partial(layer, numbers)
        for target, inner in numbers:
            if inner is None and left:
                inner = left.pop()
            number = self._add(Operation("number", layer, (inner,), (target,), True, weights[target]))
            read = () if inner is None else self.operations[inner].directions
            values = [weights[target].get(d, 0.0) for d in read] or [0.0]
            if len(set(values)) == 1:
                self.single.add(number)

    def _unmet(self, writes: Sequence[dict[int, float]], flat: list[int], zeros: list[int]) -> dict[int, int]:
        """Directions of values that nothing gives, by their units, which read nothing.

        Tracr's `SequenceMap(f, v, v)` has a value for each pair, of which those of different ones never come.
        """
        if self.mode != "tracr_compat" or not flat:
            return {}
        found = {}
        for unit in zeros:
            if len(writes[unit]) == 1:
                target, weight = next(iter(writes[unit].items()))
                if weight == 1 and not self.evidence.numerical.get(target):
                    found[unit] = target
                    self._doubt(target)
        return found

    def _doubt(self, d: int) -> None:
        """Keep in mind a direction of which nothing says whether it holds a number."""
        if d not in self.evidence.numerical:
            self.doubtful.add(d)

    def _attach(self, layer: int, first: int, unmet: list[int]) -> None:
        """Give directions of values that nothing gives to the Maps of this layer, from operation `first` on."""
        links = self.evidence.links
        for d in unmet:
            maps = range(first, len(self.operations))
            alike = [n for n in maps if any(links.find(d) == links.find(o) for o in self.operations[n].directions)]
            apart = [n for n in maps if any(self.evidence.differ(d, o) for o in self.operations[n].directions)]
            chosen = alike or [n for n in maps if n not in apart] or list(maps)
            if not chosen:
                raise NotLiftable(f"direction {d} of layer {layer} is of a value that nothing gives, and of no Map")
            operation = self.operations[chosen[0]]
            self.operations[chosen[0]] = operation._replace(directions=(*operation.directions, d))
            self.group[d] = chosen[0]

    def _partial(self, layer: int, numbers: list[tuple[int, int | None]]) -> list[int]:
        """S-ops that can be None and are mapped to a number of which nothing else is to be seen."""
        left = Counter(
            self._sop(body, "what can be None")
            for (where, _), body in self.silent.items()
            if where == layer and body is not None
        )
        left -= Counter(inner for _, inner in numbers if inner is not None)
        return list(left.elements())

    def _maps(self, layer: int, inner: int, sets: dict[int, frozenset[int]]) -> list[tuple[int, int | None]]:
        """Maps of one S-op to categoricals; those directions that turn out to be numbers are given back."""
        place = {d: 1 << i for i, d in enumerate(self.operations[inner].directions)}
        masks = {target: sum(place[d] for d in some) for target, some in sets.items()}
        doubtful = [target for target in masks if target not in self.evidence.numerical]
        full = (1 << len(place)) - 1
        for target in masks:
            if masks[target] == full:
                self._doubt(target)
        some = (left for count in range(len(doubtful) + 1) for left in combinations(doubtful, count))
        numbers: tuple[int, ...] = ()
        for numbers in islice(some, MOST_COVERS):
            classes = self._classes({target: mask for target, mask in masks.items() if target not in numbers}, full)
            if classes is not None:
                break
        else:
            numbers, classes = (), self.evidence.links.groups(masks)  # a function that is not defined everywhere
        for members in classes:
            data = {d: target for target in members for d in sets[target]}
            self._add(Operation("map", layer, (inner,), tuple(members), False, data))
        return [(target, inner) for target in numbers]

    def _classes(self, masks: dict[int, int], full: int) -> list[list[int]] | None:
        number = self.choice.covers.get(len(self.asked), 0)
        found = next(islice(_covers(masks, full, self.evidence), number, None), None)
        self.asked.append((masks, full))
        return found

    def _pairs(self, layer: int, pairs: list[int]) -> None:
        reads, writes = self.units[layer]
        families: dict[tuple[int, int], dict[int, set[tuple[int, int]]]] = defaultdict(lambda: defaultdict(set))
        copies: dict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
        for unit in pairs:
            a, b = sorted((d for d in reads[unit] if d not in self.special), key=lambda d: self.group.get(d, -1))
            key = (self._sop([a], "what a pair is made of"), self._sop([b], "what a pair is made of"))
            copies[key][a, b] += 1
            for target in writes[unit]:
                families[key][target].add((a, b))
        for key, cells in copies.items():
            place = {cell: 1 << i for i, cell in enumerate(cells)}
            masks = {target: sum(place[cell] for cell in some) for target, some in families[key].items()}
            classes = self._classes(masks, (1 << len(place)) - 1)
            if classes is None:
                classes = [list(masks)] if max(cells.values()) == 1 else self.evidence.links.groups(masks)
            for members in classes:
                data = {cell: target for target in members for cell in families[key][target]}
                self._add(Operation("pairs", layer, key, tuple(members), False, data))

    # Maps of numbers

    def _steps(self, layer: int, numbers: dict[int, list[int]], starts: list[int]) -> None:
        reads, writes = self.units[layer]
        links = Links()
        for unit in [*starts, *(unit for units in numbers.values() for unit in units)]:
            if writes[unit]:
                links.join(writes[unit])
        targets = [d for unit in starts for d in writes[unit]]
        targets += [d for units in numbers.values() for unit in units for d in writes[unit]]
        groups = links.groups(dict.fromkeys(targets))
        base: dict[int, float] = defaultdict(float)
        for unit in starts:
            for d, weight in writes[unit].items():
                base[d] += weight
        missing: list[tuple[int | None, tuple[float, ...]]] = []  # what Maps read of which nothing is to be seen
        seen, constant = 0, {min(group) for group in groups}
        for x, units in numbers.items():
            if not units:
                continue
            ladder = _ladder(units, reads, x, self.anchors.one, layer)
            seen += ladder.copies
            if self.mode != "fixed":
                self.exactness = ladder.steep
            found = 0
            for group in groups:
                deltas = {d: ladder.deltas(d, writes) for d in group}
                if any(any(row) for row in deltas.values()):
                    found += 1
                    constant.discard(min(group))
                    self._step(layer, x, group, ladder.thresholds, base, deltas)
            if x not in self.scratch:
                missing += [(self.group[x], ladder.thresholds)] * (ladder.copies - found)
        missing += [(None, ())] * (len(starts) - seen)
        self._constants(layer, [group for group in groups if min(group) in constant], base, missing)

    def _step(
        self,
        layer: int,
        x: int,
        group: list[int],
        thresholds: tuple[float, ...],
        base: Mapping[int, float],
        deltas: dict[int, list[float]],
    ) -> None:
        levels = {d: np.cumsum([base.get(d, 0.0), *deltas[d]]).tolist() for d in group}
        numerical = len(group) == 1 and self.evidence.numerical.get(group[0], True)
        if numerical:
            chosen: list[Any] = levels[group[0]]
        else:
            chosen = [next((d for d in group if levels[d][k] > 0.5), None) for k in range(len(thresholds) + 1)]
        if x not in self.scratch:
            steps = Steps(thresholds, tuple(chosen))
            self._add(Operation("steps", layer, (self.group[x],), tuple(group), numerical, steps))
            return
        head = self.scratch[x]
        keys = self._sop(head.keys, "keys")
        queries = self._sop({query for _, query in head.chosen}, "queries") if head.chosen else None
        by_width = None if numerical else dict(enumerate(reversed(chosen)))
        if by_width is not None and (None in by_width.values() or len(by_width) != self.bare.max_seq_len + 1):
            raise NotLiftable(f"the widths that {_name(head)} finds are not told apart")
        directions = tuple(group) if by_width is None else tuple(by_width.values())
        self._add(Operation("width", layer, (keys, queries), directions, numerical, (head.chosen, by_width)))

    def _constants(
        self,
        layer: int,
        groups: list[list[int]],
        base: Mapping[int, float],
        missing: list[tuple[int | None, tuple[float, ...]]],
    ) -> None:
        """Maps of a number whose result is always the same; a number that is always 0 leaves no trace at all."""
        silent = len(missing) - len(groups)
        if silent < 0 or silent > len(self.unwritten):
            raise NotLiftable(f"the MLP of layer {layer} has units that belong to no Map")
        results = [(group, base[group[0]]) for group in groups]
        results += [([d], 0.0) for d in self.unwritten[:silent]]
        missing.sort(key=lambda entry: -1 if entry[0] is None else entry[0])
        for (group, level), (inner, thresholds) in zip(results, missing, strict=True):
            d = group[0]
            numerical = d in self.unwritten or self.evidence.numerical.get(d, level != 1) is not False
            if level == 1:
                self._doubt(d)
            if d in self.unwritten:
                self.unwritten.remove(d)
            steps = Steps(thresholds, (level if numerical else d,) * (len(thresholds) + 1))
            number = self._add(Operation("steps", layer, (inner,), tuple(group), numerical, steps))
            if numerical:
                self.single.add(number)

    # -- the answer

    def output(self) -> int:
        readout = self.bare.readout
        if readout is not None:
            return self._sop(np.abs(readout.directions).argmax(0).tolist(), "what the answer is read from", whole=True)
        read = {number for operation in self.operations for number in operation.reads}
        free = [number for number in range(2, len(self.operations)) if number not in read]
        if not free:
            raise NotLiftable("every S-op is read by another: there is none that could be the answer")
        return free[-1]


def _name(head: AttentionHead) -> str:
    return f"head {head.number} of layer {head.layer}"


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(str(np.float32(value)))


def _is_zero(operation: Operation) -> bool:
    if operation.kind == "steps":
        return not any(operation.data.levels)
    return operation.kind == "number" and not any(operation.data.values())


# -- None as a direction of its own (mode `fixed`) -------------------------------------------------------------------


def _nones(layers: Sequence[Units], anchors: Anchors) -> tuple[set[int], dict[tuple[int, int], tuple[int, ...] | None]]:
    """The directions that say None, and the units that only serve them, each with the categoricals it reads, if any."""
    nones: set[int] = set()
    silent: dict[tuple[int, int], tuple[int, ...] | None] = {}
    one, bos = anchors.one, anchors.bos
    for layer, (reads, writes) in enumerate(layers):
        writers: dict[int, list[int]] = defaultdict(list)
        for unit, row in enumerate(writes):
            for d in row:
                writers[d].append(unit)
        for unit, row in enumerate(reads):
            body = [d for d in row if d not in (one, bos)]
            if not body:
                continue
            if all(d in nones for d in body):
                silent[layer, unit] = None
            elif row.get(bos, 0) == -1 and one is not None and row.get(one, 0) == 1 and all(row[d] == -1 for d in body):
                silent[layer, unit] = tuple(body)
        nones |= {d for d, units in writers.items() if all((layer, unit) in silent for unit in units)}
    return nones, silent


def _without(units: Units, nones: set[int]) -> Units:
    reads = [{d: w for d, w in row.items() if d not in nones} for row in units.reads]
    return Units(reads, [{d: w for d, w in row.items() if d not in nones} for row in units.writes])


# -- steps -----------------------------------------------------------------------------------------------------------


class _Ladder(NamedTuple):
    """The units that tell apart what one number can be.

    Attributes:
        steep: how steep they are.
        thresholds: ascending.
        rising: for each threshold the units that begin to rise there.
        falling: for each threshold those earlier thresholds whose second units are among `rising`.
        copies: how many Maps read the number.
    """

    steep: float
    thresholds: tuple[float, ...]
    rising: list[list[int]]
    falling: list[list[int]]
    copies: int

    def deltas(self, d: int, writes: Sequence[Mapping[int, float]]) -> list[float]:
        """What is added to a direction at each threshold."""
        found: list[float] = []
        for units, earlier in zip(self.rising, self.falling, strict=True):
            found.append(sum(writes[unit].get(d, 0.0) for unit in units) + sum(found[k] for k in earlier))
        return found


def _ladder(units: Sequence[int], reads: Sequence[Mapping[int, float]], x: int, one: int | None, layer: int) -> _Ladder:
    steep = reads[units[0]][x]
    if any(reads[unit][x] != steep for unit in units):
        raise NotLiftable(f"the steps by which layer {layer} reads direction {x} are not equally steep")
    by_bias: dict[float, list[int]] = defaultdict(list)
    for unit in units:
        by_bias[reads[unit].get(one, 0.0) if one is not None else 0.0].append(unit)
    biases = np.array(sorted(by_bias, reverse=True))
    left = {bias: len(by_bias[bias]) for bias in biases.tolist()}
    taken: dict[float, list[int]] = defaultdict(list)
    thresholds, rising, falling, counts = [], [], [], list[int]()
    for bias in biases.tolist():
        count = left[bias]
        if not count:
            continue
        second = float(biases[np.abs(biases - (bias - 1)).argmin()])
        if abs(second - (bias - 1)) > 1e-5 * max(1.0, abs(bias)) or left[second] < count:
            raise NotLiftable(f"the steps by which layer {layer} reads direction {x} do not come in pairs")
        left[second] -= count
        falling.append(taken[bias])
        taken[second] = [*taken[second], len(thresholds)]
        thresholds.append((1 - bias) / steep)
        rising.append(by_bias[bias])
        counts.append(count)
    copies = min(counts, default=0)  # a threshold of several units is one that rounding made of several
    return _Ladder(steep, tuple(thresholds), rising, falling, copies)


# -- directions by S-op ----------------------------------------------------------------------------------------------


def _covers(masks: Mapping[int, int], full: int, evidence: _Evidence) -> Iterator[list[list[int]]]:
    """Ways to share directions among S-ops so that each S-op has exactly one direction for every input.

    Args:
        masks: the inputs that switch each direction on, as bits.
        full: all inputs.
    """
    merged = []
    for members in evidence.links.groups(masks):
        union, total = 0, 0
        for d in members:
            union |= masks[d]
            total += masks[d].bit_count()
        if total != union.bit_count():
            return
        merged.append((union, members))
    if sum(mask.bit_count() for mask, _ in merged) % max(1, full.bit_count()):
        return

    def against(one: list[int], other: list[int]) -> bool:
        return any(evidence.differ(a, b) for a in one for b in other)

    def extend(left: list[tuple[int, list[int]]], open_: list[int], covered: int) -> Iterator[list[list[int]]]:
        clock.look()
        if covered == full:
            if not left:
                yield [open_]
                return
            mask, members = left[0]
            for rest in extend(left[1:], list(members), mask):
                yield [open_, *rest]
            return
        lowest = (~covered & full) & -(~covered & full)
        for place, (mask, members) in enumerate(left):
            if mask & lowest and not mask & covered and not against(open_, members):
                yield from extend(left[:place] + left[place + 1 :], [*open_, *members], covered | mask)

    if merged:
        yield from extend(merged[1:], list(merged[0][1]), merged[0][0])
    else:
        yield []


# -- operands that the weights do not show ---------------------------------------------------------------------------


def _wired(
    operations: list[Operation], output: int, bare: BareTransformer, single: set[int]
) -> tuple[list[Operation], bool]:
    """Choose what is not shown so that every S-op is needed, and sizes and layers come out as they are."""
    holes = [
        (number, place) for number, o in enumerate(operations) for place, read in enumerate(o.reads) if read is None
    ]
    choices = []
    read = {n for o in operations for n in o.reads if n is not None} | {output}
    for number, _ in holes:
        o = operations[number]
        fit = [n for n in range(number) if n < 2 or operations[n].slot < o.slot]
        fit = [n for n in fit if (n in single if o.kind == "steps" else not operations[n].numerical)]
        choices.append(sorted(fit, key=lambda n: (n in read, n)))
    first = loose = None
    for chosen in islice(product(*choices), MOST_WIRINGS):
        clock.look()
        filled = list(operations)
        for (number, place), operand in zip(holes, chosen, strict=True):
            reads = list(filled[number].reads)
            reads[place] = operand
            filled[number] = filled[number]._replace(reads=tuple(reads))
        first = first or filled
        sizes = _sizes(filled, output, bare)
        if sizes is not None and bare.key_size in sizes:
            return filled, True
        if sizes is not None and loose is None and _moved(filled) == bare.key_size:
            loose = filled
    if loose is not None:  # Tracr's key size is none of a value, `fixed` has it so
        return loose, True
    if first is None:
        raise NotLiftable(f"nothing is there that the operation in layer {operations[holes[0][0]].layer} could read")
    return first, False


def _sizes(operations: Sequence[Operation], output: int, bare: BareTransformer) -> list[int] | None:
    """What heads need to compare, if a compiler would put every operation where it stands; None if it would not."""
    nodes: list[Any] = []
    depths: list[int] = []
    for number, o in enumerate(operations):
        reads = [nodes[n] for n in o.reads if n is not None and n < number]
        if len(reads) != len(o.reads):
            return None
        depths.append(1 + max((depths[n] for n in o.reads if n is not None), default=-1))
        nodes.append((tokens, indices)[number] if number < 2 else _skeleton(o, reads))
    operated = list(range(2, len(operations)))
    needed = _needed(operations, output)
    if set(operated) - needed:
        return None
    halves = half_layers(nodes[output], [nodes[n] for n in operated], [depths[n] for n in operated])
    placed = {}
    for half, slot in slots(halves).items():
        for member in halves[half]:
            placed.setdefault(member, slot)
    if any(placed[place] != operations[n].slot for place, n in enumerate(operated)):
        return None
    sizes = [1]
    for o in operations:
        if o.kind in ("aggregate", "width"):
            keys, queries = (operations[n] for n in o.reads[:2] if n is not None)
            sizes += [len(queries.directions) + 2, len(keys.directions) + 1]
    return sizes if max(*sizes, _moved(operations)) == bare.key_size else None


def _moved(operations: Sequence[Operation]) -> int:
    """The most directions that a head moves."""
    return max((len(o.directions) for o in operations if o.kind == "aggregate"), default=0)


def _needed(operations: Sequence[Operation], output: int) -> set[int]:
    found, stack = {output}, [output]
    while stack:
        for read in operations[stack.pop()].reads:
            if read is not None and read not in found:
                found.add(read)
                stack.append(read)
    return found


def _skeleton(operation: Operation, reads: list[Any]) -> Expression:
    """An operation of the same shape, whose function does not matter."""
    match operation.kind:
        case "aggregate":
            return Aggregate(Select(reads[0], reads[1], "TRUE"), reads[2])
        case "width":
            return SelectorWidth(Select(reads[0], reads[1], "TRUE"))
        case "pairs" | "linear":
            return SequenceMap("x", reads[0], reads[1])
        case _:
            return Map("x", reads[0])
