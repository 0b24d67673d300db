"""What is known so far about which axis indexes which neurons, as a network is read from its input to its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from weightspace.weights.spec import Axis, Factor, NeuronGroup, Segment, plain

Axes = tuple[Axis, ...]
"""One axis per dimension of a tensor; its factors name symbols of a `Channels`."""


@dataclass
class _Group:
    """A set of neurons that may still turn out to be another one, or several laid out side by side."""

    size: int
    hint: str
    rank: int  # whose name a merged group keeps: 0 an input's, 1 a layer's output's, 2 a layer's input's
    permutable: bool = True  # inside its parent's blocks, where it has a parent
    parent: str | None = None
    same_as: Axis | None = None


@dataclass(frozen=True)
class _Inside:
    """The place inside a block of a group whose axis was viewed as (blocks, places).

    Each block has its own order of its places, so a tensor that carries such an axis must carry the blocks too
    (`needs`, each exactly once); otherwise no order but the given one is a symmetry. Several groups: a stack of
    them, of which the other needed symbol selects one (queries, keys and values of one fused projection).
    """

    groups: tuple[str, ...]
    needs: tuple[str, ...]


class Channels:
    """Groups of neurons under union and refinement: sound at every moment, exact for the patterns it knows.

    A fact is only ever added: two axes are one (`unify`), an axis stands still (`fix`), an axis falls into parts
    (`split`) or into coordinates (`divide`). Whatever cannot be expressed as a `NetworkSpec` is fixed instead.
    """

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._inside: dict[str, _Inside] = {}
        self._stacks: dict[str, str] = {}  # the selecting symbol of a stack -> its _Inside

    def new(self, size: int, hint: str, permutable: bool = True, rank: int = 1) -> Axis:
        """An axis over a group that nothing else indexes yet; merged groups keep the hint of the lowest rank."""
        name = f"{len(self._groups)}"
        self._groups[name] = _Group(size, hint, rank, permutable)
        return Axis(((Factor(name, size),),))

    # Reading

    def resolve(self, axis: Axis) -> Axis:
        """The axis in terms of what is now known: no merged or split groups, adjacent factors joined."""
        segments: list[Segment] = []
        for segment in axis.segments:
            rows: list[Segment] = [()]
            for factor in segment:
                expansion = self._expand(factor)
                if len(expansion) > 1 and rows != [()]:
                    self.fix(Axis(expansion))  # parts side by side inside a block have no description
                    expansion = ((Factor(None, factor.size),),)
                rows = [row + piece for row in rows for piece in expansion]
            segments += [self._join(row) for row in rows]
        return _tidy(segments)

    def _expand(self, factor: Factor) -> tuple[Segment, ...]:
        name = factor.group
        if name is None or name in self._stacks:
            return ((factor,),)
        if name in self._inside:
            inside = self._inside[name]
            roots = [self._find(group) for group in inside.groups]
            if not all(self._groups[root].permutable for root in roots):
                self._fix(name)
                return ((Factor(None, factor.size),),)
            return ((Factor(self._place(roots[0]) if len(roots) == 1 else name, factor.size),),)
        same_as = self._groups[name].same_as
        return ((factor,),) if same_as is None else self.resolve(same_as).segments

    def _join(self, row: Segment) -> Segment:
        """Leave out factors of one place, and write (blocks, places) as the group that they number."""
        joined: list[Factor] = []
        for factor in row:
            last = joined[-1] if joined else None
            if factor.size == 1 and len(row) > 1:
                continue
            if last is not None and last.group is None and factor.group is None:
                joined[-1] = Factor(None, last.size * factor.size)
            elif last is not None and factor.group in self._inside:
                inside = self._inside[factor.group]
                root = self._find(inside.groups[0])
                parent = self._groups[root].parent
                if len(inside.groups) == 1 and parent and self._find(parent) == last.group:
                    joined[-1] = Factor(root, self._groups[root].size)
                else:
                    joined.append(factor)
            else:
                joined.append(factor)
        return tuple(joined) or (Factor(None, 1),)

    def _find(self, name: str) -> str:
        """The group that `name` has become by merging; one with a parent is never split."""
        while (same_as := self._groups[name].same_as) is not None:
            (((factor,),),) = (same_as.segments,)
            assert factor.group is not None
            name = factor.group
        return name

    def _place(self, root: str) -> str:
        """Symbol of the place inside a block of `root`."""
        name = f"{root}/inside"
        parent = self._groups[root].parent
        assert parent is not None
        self._inside[name] = _Inside((root,), (parent,))
        return name

    def _children(self, name: str) -> bool:
        parents = (g.parent for g in self._groups.values() if g.same_as is None and g.parent is not None)
        return any(self._find(parent) == name for parent in parents)

    def _free(self, name: str | None) -> bool:
        """Whether nothing is known of a group but its size."""
        group = self._groups.get(name) if name is not None else None
        return (
            group is not None
            and name is not None
            and group.permutable
            and group.parent is None
            and group.same_as is None
            and not self._children(name)
        )

    # Facts

    def fix(self, axis: Axis) -> None:
        """The places of this axis keep their order."""
        for segment in self.resolve(axis).segments:
            for factor in segment:
                if factor.group is not None:
                    self._fix(factor.group)

    def _fix(self, name: str) -> None:
        if name in self._stacks:
            return  # a selector never moves
        if name in self._inside:  # the blocks may still move, each with its places in order
            for group in self._inside[name].groups:
                self._groups[self._find(group)].permutable = False
            return
        group = self._groups[name]
        if group.same_as is not None:
            self.fix(group.same_as)
        group.permutable = False
        if group.parent is not None:
            self._fix(self._find(group.parent))

    def erase(self, axis: Axis) -> None:
        """The axis indexes no neurons: a place in a convolution kernel, say."""
        resolved = self.resolve(axis)
        factor = only(resolved)
        if factor is not None and factor.group is not None and self._free(factor.group):
            self._groups[factor.group].same_as = plain(factor.size)
        else:
            self.fix(resolved)

    def unify(self, one: Axis, other: Axis) -> Axis:
        """Both axes, of one length, index the same things; gives the axis that they have become."""
        one, other = self.resolve(one), self.resolve(other)
        if one == other:
            return one
        if layout(one) == layout(other):
            merged = tuple(
                tuple(self._merge(a, b) for a, b in zip(left, right, strict=True))
                for left, right in zip(one.segments, other.segments, strict=True)
            )
            return self.resolve(Axis(merged))
        for axis, structure in ((one, other), (other, one)):
            factor = only(axis)
            if factor is None or factor.group in structure.groups or not self._free(factor.group):
                continue
            if not any(g in self._inside or g in self._stacks for g in structure.groups):
                assert factor.group is not None
                self._groups[factor.group].same_as = structure
                return structure
        self.fix(one)
        self.fix(other)
        return plain(one.length)

    def _merge(self, one: Factor, other: Factor) -> Factor:
        if one.group == other.group:
            return one
        if one.group is None or other.group is None:
            named = other if one.group is None else one
            assert named.group is not None
            self._fix(named.group)
            return named
        if one.group in self._groups and other.group in self._groups:
            if self._resolved(one) and self._resolved(other):
                return Factor(self._merge_groups(one.group, other.group), one.size)
            # an earlier pair of the same axes has already merged one of these: look again
            return self._lone(self.unify(Axis(((one,),)), Axis(((other,),))), one)
        a, b = self._inside.get(one.group), self._inside.get(other.group)
        if a is not None and b is not None and len(a.groups) == len(b.groups) == 1:
            left, right = self._find(a.groups[0]), self._find(b.groups[0])
            if left != right:
                self._merge_groups(left, right)
            return one
        self._fix(one.group)
        self._fix(other.group)
        return other if other.group in self._stacks else one

    def _resolved(self, factor: Factor) -> bool:
        assert factor.group is not None
        return self._groups[factor.group].same_as is None

    def _lone(self, axis: Axis, factor: Factor) -> Factor:
        lone = only(axis)
        if lone is None:
            self.fix(axis)
            return Factor(None, factor.size)
        return lone

    def _merge_groups(self, one: str, other: str) -> str:
        first, second = sorted((one, other), key=lambda name: (self._groups[name].rank, int(name)))
        a, b = self._groups[first], self._groups[second]
        conflict = False
        if a.parent is not None and b.parent is not None:
            left, right = self._find(a.parent), self._find(b.parent)
            if self._groups[left].size != self._groups[right].size:
                conflict = True
            elif left != right:
                self._merge_groups(left, right)
        elif a.parent is not None or b.parent is not None:
            orphan = first if a.parent is None else second
            conflict = self._children(orphan)  # only one level of blocks has a description
            if not self._groups[orphan].permutable:
                self._fix(second if orphan == first else first)
        if conflict:
            self._fix(first)
            self._fix(second)
            a.parent = b.parent = None
        a.permutable = a.permutable and b.permutable
        a.parent = a.parent or b.parent
        b.same_as, b.parent = Axis(((Factor(first, a.size),),)), None
        return first

    # Parts and coordinates

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """The axis as consecutive parts, each permuted on its own from now on."""
        axis = self.resolve(axis)
        lone, filled = only(axis), [size for size in sizes if size > 0]
        if lone is not None and lone.group is not None and self._free(lone.group):
            self._lay_out(lone.group, filled)
        rest = list(self.resolve(axis).segments)
        parts: list[Axis] = []
        for size in sizes:
            taken: list[Segment] = []
            while size > 0:
                length = prod(f.size for f in rest[0])
                if length > size:
                    self._cut(rest[0], size)
                    rest = _cut_plain(list(self.resolve(Axis(tuple(rest))).segments), size)
                    length = prod(f.size for f in rest[0])
                taken.append(rest.pop(0))
                size -= length
            parts.append(_tidy(taken) if taken else Axis(()))
        return parts

    def _lay_out(self, name: str, sizes: list[int]) -> None:
        """A free group is from now on several, side by side."""
        if len(sizes) > 1:
            hint, rank = self._groups[name].hint, self._groups[name].rank
            parts = [self.new(size, f"{hint}.{i}", rank=rank) for i, size in enumerate(sizes)]
            self._groups[name].same_as = Axis(tuple(segment for part in parts for segment in part.segments))

    def _cut(self, segment: Segment, at: int) -> None:
        """Make a boundary after `at` places of one segment: a free outer group becomes two, anything else is fixed."""
        inner = prod(f.size for f in segment[1:])
        outer = segment[0].group
        if outer is not None and at % inner == 0 and self._free(outer):
            group = self._groups[outer]
            self._lay_out(outer, [at // inner, group.size - at // inner])
        else:
            self.fix(Axis((segment,)))

    def divide(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """The axis as coordinates: what `view` makes of one dimension of `prod(sizes)` places."""
        axis = self.resolve(axis)
        wanted = [size for size in sizes if size != 1]
        pieces: list[Axis] | None = [axis] if len(wanted) <= 1 else None
        if pieces is None and len(axis.segments) == 1:
            pieces = self._divide(list(axis.segments[0]), wanted)
        if pieces is None:
            self.fix(axis)
            pieces = [plain(size) for size in wanted]
        found = iter(pieces)
        return [plain(1) if size == 1 else next(found) for size in sizes]

    def _divide(self, factors: list[Factor], sizes: list[int]) -> list[Axis] | None:
        pieces: list[Axis] = []
        for i, size in enumerate(sizes):
            taken: list[Factor] = []
            while size > 1:
                factor = factors[0]
                if size % factor.size == 0:
                    taken.append(factors.pop(0))
                    size //= factor.size
                    continue
                coordinates = _coordinates(factor.size, [size, *sizes[i + 1 :]])
                if coordinates is None:
                    return None
                factors[:1] = self._break(factor, coordinates)
            pieces.append(_tidy([self._join(tuple(taken))]))
        return pieces

    def _break(self, factor: Factor, sizes: list[int]) -> list[Factor]:
        """One factor as a product of several: (blocks, places), or (one of a stack, blocks, places)."""
        name, fixed = factor.group, [Factor(None, size) for size in sizes]
        if name is None:
            return fixed
        if name not in self._groups:
            self._fix(name)
            return fixed
        if len(sizes) == 3 and self._free(name):
            return self._break_stack(factor, sizes)
        blocks = self._blocks(name, sizes[0])
        if blocks is None:
            return fixed
        inside = Factor(self._place(name), factor.size // sizes[0])
        if len(sizes) == 2:
            return [Factor(blocks, sizes[0]), inside]
        self._fix(self._place(name))
        return [Factor(blocks, sizes[0]), *fixed[1:]]

    def _break_stack(self, factor: Factor, sizes: list[int]) -> list[Factor]:
        count, blocks, width = sizes
        parts = self.split(Axis(((factor,),)), [blocks * width] * count)
        names = [f.group for part in parts for segment in part.segments for f in segment]
        heads = [self._blocks(name, blocks) for name in names if name is not None]
        known = [head for head in heads if head is not None]
        assert len(known) == count
        for head in known[1:]:
            self._merge_groups(self._find(known[0]), self._find(head))
        selector = f"stack {len(self._stacks)}"
        inside = f"{selector}/inside"
        head = self._find(known[0])
        self._stacks[selector] = inside
        self._inside[inside] = _Inside(tuple(n for n in names if n is not None), (head, selector))
        return [Factor(selector, count), Factor(head, blocks), Factor(inside, width)]

    def _blocks(self, name: str, count: int) -> str | None:
        """The parent of `count` blocks of a group, made where there is none; None where there can be none."""
        group = self._groups[name]
        if group.parent is not None:
            parent = self._find(group.parent)
            if self._groups[parent].size == count:
                return parent
        elif self._free(name):
            parent = self._only_name(self.new(count, f"{group.hint}.blocks", rank=group.rank))
            group.parent = parent
            return parent
        self._fix(name)
        return None

    def _only_name(self, axis: Axis) -> str:
        factor = only(axis)
        assert factor is not None and factor.group is not None
        return factor.group

    def convolve_groups(self, filters: Axis, channels: Axis, count: int) -> None:
        """A grouped convolution: each of `count` blocks of channels has its own block of filters.

        The channels inside a block are numbered alike for all blocks, so they stay in place: exact where a block is
        one channel (depthwise), conservative otherwise.
        """
        blocks, inside = self.divide(channels, [count, channels.length // count])
        self.fix(inside)
        filter_blocks, _ = self.divide(filters, [count, filters.length // count])
        self.unify(filter_blocks, blocks)

    def product(self, axes: Sequence[Axis]) -> Axis:
        """One axis with the places of several, row-major: the inverse of `divide`."""
        outer, *rest = [axis for axis in map(self.resolve, axes) if axis.length != 1] or [plain(1)]
        tail: Segment = ()
        for axis in rest:
            inner, *others = axis.segments
            if others:  # parts side by side inside a block have no description
                self.fix(axis)
                inner = (Factor(None, axis.length),)
            tail += inner
        return self.resolve(Axis(tuple(segment + tail for segment in outer.segments)))

    def select(self, axes: Axes, dimension: int, position: int) -> Axes:
        """The axes of `tensor.select(dimension, position)`."""
        chosen = self.resolve(axes[dimension])
        rest = axes[:dimension] + axes[dimension + 1 :]
        factor = only(chosen)
        inside = self._stacks.get(factor.group) if factor and factor.group else None
        if inside is None:
            self.fix(chosen)
            return rest
        groups = self._inside[inside].groups
        root = self._find(groups[position])
        if self._groups[root].parent is None:
            return tuple(self.resolve(axis) for axis in rest)
        place = self._place(root)
        return tuple(
            Axis(
                tuple(
                    tuple(Factor(place, f.size) if f.group == inside else f for f in segment)
                    for segment in axis.segments
                )
            )
            for axis in map(self.resolve, rest)
        )

    def settle(self, tensors: Iterable[Axes], outputs: Sequence[Axes]) -> None:
        """Fix the order inside blocks wherever an output of an operation does not tell the blocks apart."""
        inside = {
            factor.group
            for axes in (*tensors, *outputs)
            for axis in map(self.resolve, axes)
            for segment in axis.segments
            for factor in segment
            if factor.group in self._inside
        }
        for name in sorted(n for n in inside if n is not None):
            needs = [n if n in self._stacks else self._find(n) for n in self._inside[name].needs]
            for axes in outputs:
                count = Counter(
                    factor.group for axis in map(self.resolve, axes) for segment in axis.segments for factor in segment
                )
                if any(count[need] != 1 for need in needs):
                    self._fix(name)

    # The result

    def finish(self, leaves: Mapping[str, Axes]) -> tuple[dict[str, Axes], tuple[NeuronGroup, ...]]:
        """Axes in terms of named groups, and the groups that they name."""
        while True:  # resolving may fix what has no description, and that must reach every leaf
            before = sum(group.permutable for group in self._groups.values())
            resolved = {name: tuple(map(self.resolve, axes)) for name, axes in leaves.items()}
            if before == sum(group.permutable for group in self._groups.values()):
                break
        uses = Counter(s for axes in resolved.values() for axis in axes for s in axis.segments)
        names: dict[Segment, str] = {}
        groups: dict[str, NeuronGroup] = {}

        def declare(segment: Segment) -> Factor:
            """One group for a whole segment: a group that moves, or places that all stand still."""
            size = prod(factor.size for factor in segment)
            if segment not in names:
                first = next(f.group for f in segment if f.group is not None)
                group = self._groups[first]
                names[segment] = name = _unused(group.hint, groups)
                groups[name] = NeuronGroup(name, size, permutable=False)
                if self._moves(first):
                    parent = None
                    if group.parent is not None:
                        above = self._find(group.parent)
                        parent = declare((Factor(above, self._groups[above].size),)).group
                    groups[name] = NeuronGroup(name, size, group.permutable, parent)
            return Factor(names[segment], size)

        def describe(segment: Segment) -> Segment:
            if uses[segment] == 1 and segment[0].size == len(segment) == 1:
                return (Factor(None, 1),)  # a stretched dimension of a parameter, rather than a neuron
            moving = [f.group is not None and self._moves(f.group) for f in segment]
            if any(moving):
                return _tidy_factors(
                    [declare((f,)) if moves else Factor(None, f.size) for f, moves in zip(segment, moving, strict=True)]
                )
            return (declare(segment),) if any(f.group is not None for f in segment) else segment

        axes = {
            name: tuple(Axis(tuple(map(describe, axis.segments))) for axis in described)
            for name, described in resolved.items()
        }
        return axes, tuple(groups.values())

    def _moves(self, name: str) -> bool:
        group = self._groups[name]
        return group.permutable or (group.parent is not None and self._moves(self._find(group.parent)))


def only(axis: Axis) -> Factor | None:
    """The factor of an axis that has just one."""
    if len(axis.segments) == 1 and len(axis.segments[0]) == 1:
        return axis.segments[0][0]
    return None


def layout(axis: Axis) -> list[list[int]]:
    return [[factor.size for factor in segment] for segment in axis.segments]


def _tidy_factors(factors: Sequence[Factor]) -> Segment:
    tidy: list[Factor] = []
    for factor in factors:
        if tidy and tidy[-1].group is None and factor.group is None:
            tidy[-1] = Factor(None, tidy[-1].size * factor.size)
        else:
            tidy.append(factor)
    return tuple(tidy)


def _tidy(segments: Sequence[Segment]) -> Axis:
    """Join neighbouring segments that belong to no neurons."""
    tidy: list[Segment] = []
    for segment in segments:
        if tidy and all(len(s) == 1 and s[0].group is None for s in (tidy[-1], segment)):
            tidy[-1] = (Factor(None, tidy[-1][0].size + segment[0].size),)
        else:
            tidy.append(segment)
    return Axis(tuple(tidy))


def _cut_plain(segments: list[Segment], at: int) -> list[Segment]:
    """Make a boundary after `at` places; what `Channels._cut` could not cut is fixed and loses its names."""
    length = prod(factor.size for factor in segments[0])
    if length > at:
        segments[:1] = [(Factor(None, at),), (Factor(None, length - at),)]
    return segments


def _coordinates(size: int, wanted: list[int]) -> list[int] | None:
    """How many of the `wanted` coordinates one factor of `size` places gives, the last perhaps only in part."""
    coordinates: list[int] = []
    for want in wanted:
        if size % want == 0:
            coordinates.append(want)
            size //= want
        elif want % size == 0:
            coordinates.append(size)
            size = 1
        else:
            return None
        if size == 1:
            return coordinates
    return None


def _unused(hint: str, taken: Mapping[str, object]) -> str:
    name, i = hint, 2
    while name in taken:
        name, i = f"{hint}#{i}", i + 1
    return name
