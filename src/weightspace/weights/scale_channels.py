"""What is known so far about the scales of neurons, as a network is read from its input to its output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from weightspace.weights.channels import Axes, Channels, layout, only
from weightspace.weights.spec import Axis, Factor, ScaledAxis, Scaling, Segment, plain

Term = tuple[Axis, float]
"""An axis and the power to which its scales stand in a product that is one."""

_Equation = dict[str, Fraction]


class ScaleChannels(Channels):
    """Groups whose neurons have positive scales: equal where axes are unified, one where they are fixed.

    A group of `Channels` is here an unknown vector of logarithms of scales, and `permutable` says that it need not be
    zero. To what holds of orders come relations: of some axes the scales, each to a power, multiply to one.

    Attributes:
        tied: axes of which all places have one scale.
        rough: axes of which a scale is lost but for an epsilon, with it.
        bent: axes that something other than a linear map looks at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tied: list[Axis] = []
        self.rough: list[tuple[Axis, float]] = []
        self.bent: list[Axis] = []
        self._relations: list[tuple[Term, ...]] = []

    def new(self, size: int, hint: str, permutable: bool = True, rank: int = 1) -> Axis:
        """As `Channels.new`; a single place has no scale, since axes do not keep track of those."""
        return plain(1) if size == 1 else super().new(size, hint, permutable, rank)

    def free(self, axis: Axis) -> bool:
        """Whether a place of this axis may still have a scale other than one."""
        return any(
            name in self._stacks or any(self._groups[root].permutable for root in self._roots(name))
            for name in self.resolve(axis).groups
        )

    def _roots(self, name: str) -> list[str]:
        groups = self._inside[name].groups if name in self._inside else (name,)
        return [self._find(group) for group in groups]

    def relate(self, *terms: Term) -> None:
        """The scales of these axes, to their powers, multiply to one; the first is what others are solved for."""
        if self._alike([axis for axis, _ in terms]):
            self._relations.append(terms)

    def combined(self, *terms: Term, depends: int | None = None) -> Axis:
        """An axis with the product of the scales of others, to their powers.

        Args:
            depends: which of them is solved for; unless given, it is the new axis.
        """
        axes = [axis for axis, _ in terms]
        if not self._alike(axes):
            return plain(axes[0].length)
        made = self._mirror(self.resolve(axes[0]))
        if made is None:
            for axis in axes:
                self.fix(axis)
            return plain(axes[0].length)
        ordered = [(made, -1.0), *terms]
        if depends is not None:
            ordered.insert(0, ordered.pop(depends + 1))
        self._relations.append(tuple(ordered))
        return made

    def _mirror(self, axis: Axis) -> Axis | None:
        """An axis of the same layout over new groups; None where a symbol has no size of its own."""
        if any(name not in self._groups for name in axis.groups):
            return None
        fresh = {name: only(self.new(self._groups[name].size, self._groups[name].hint, rank=3)) for name in axis.groups}
        segments: list[Segment] = []
        for segment in axis.segments:
            segments.append(tuple((fresh[f.group] or f) if f.group is not None else f for f in segment))
        return Axis(tuple(segments))

    def _alike(self, axes: Sequence[Axis]) -> bool:
        """Give axes of one length one layout; where that is not possible, fix them all."""
        resolved = [self.resolve(axis) for axis in axes]
        whole = max(resolved, key=lambda axis: sum(map(len, axis.segments)))
        for axis in resolved:
            factor = only(axis)
            if layout(axis) == layout(whole) or factor is None:
                continue
            if factor.group is not None and self._free(factor.group):
                mirrored = self._mirror(whole)
                if mirrored is not None:
                    self._groups[factor.group].same_as = mirrored
        if len({str(layout(self.resolve(axis))) for axis in axes}) == 1:
            return True
        for axis in axes:
            self.fix(axis)
        return False

    # The result

    def scalings(self, leaves: Mapping[str, Axes]) -> tuple[Scaling, ...]:
        """A basis of all scalings of these arrays."""
        equations = self._settled(leaves)
        known = _solved(equations, {name for name, g in self._groups.items() if g.permutable and g.same_as is None})
        places: dict[str, list[tuple[str, int, Axis]]] = defaultdict(list)
        for leaf, axes in leaves.items():
            for dimension, axis in enumerate(map(self.resolve, axes)):
                for group in axis.groups:
                    places[group].append((leaf, dimension, axis))
        touched: dict[str, _Equation] = defaultdict(dict)
        for group, terms in known.items():
            for unknown, power in terms.items():
                touched[unknown][group] = power
        found: dict[str, Scaling] = {}
        for unknown, powers in touched.items():
            if any(places[group] for group in powers):
                scaling = self._scaling(unknown, powers, places, found)
                found[scaling.name] = scaling
        return tuple(found.values())

    def _settled(self, leaves: Mapping[str, Axes]) -> list[_Equation]:
        """All relations in terms of groups, after what has no description has been fixed everywhere."""
        while True:
            before = [(g.permutable, g.same_as) for g in self._groups.values()]
            for axes in leaves.values():
                for axis in map(self.resolve, axes):
                    for name in axis.groups:
                        if name not in self._groups:  # blocks and places along two axes of one array
                            self._fix(name)
            self._relations = [terms for terms in self._relations if self._alike([axis for axis, _ in terms])]
            for parent in {g.parent for g in self._groups.values() if g.same_as is None and g.parent is not None}:
                self._groups[self._find(parent)].permutable = False  # the scale of a head is that of its places
            for axis in self.tied:
                names = [name for name in self.resolve(axis).groups if self.free(axis)]
                if len(names) > 1 or any(name not in self._groups for name in names):
                    self.fix(axis)
            equations = [equation for terms in self._relations for equation in self._equations(terms)]
            if before == [(g.permutable, g.same_as) for g in self._groups.values()]:
                return equations

    def _equations(self, terms: Sequence[Term]) -> list[_Equation]:
        """A relation group by group; where symbols of different kinds meet, both are fixed."""
        found = []
        resolved = [self.resolve(axis) for axis, _ in terms]
        for segments in zip(*(axis.segments for axis in resolved), strict=True):
            for factors in zip(*segments, strict=True):
                equation: _Equation = {}
                kinds = set()
                for factor, (_, power) in zip(factors, terms, strict=True):
                    if factor.group is None:
                        continue
                    roots = self._roots(factor.group) if factor.group not in self._stacks else []
                    if len(roots) != 1:
                        self._fix_all(factors)
                        equation = {}
                        break
                    inside = factor.group in self._inside
                    kinds.add(self._find(self._groups[roots[0]].parent or roots[0]) if inside else "")
                    equation[roots[0]] = equation.get(roots[0], Fraction(0)) + Fraction(power)
                if len(kinds) > 1:
                    self._fix_all(factors)
                    equation = {}
                found.append({name: power for name, power in equation.items() if power})
        return [equation for equation in found if equation]

    def _fix_all(self, factors: Sequence[Factor]) -> None:
        for factor in factors:
            if factor.group is not None and factor.group not in self._stacks:
                self._fix(factor.group)
            elif factor.group is not None:
                self._fix(self._stacks[factor.group])

    def _scaling(
        self,
        unknown: str,
        powers: Mapping[str, Fraction],
        places: Mapping[str, Sequence[tuple[str, int, Axis]]],
        taken: Mapping[str, Scaling],
    ) -> Scaling:
        name, size = self._groups[unknown].hint, self._groups[unknown].size
        number = 2
        while name in taken:
            name, number = f"{self._groups[unknown].hint}#{number}", number + 1
        axes = []
        for group, power in powers.items():
            for leaf, dimension, axis in places[group]:
                own = Axis(
                    tuple(
                        tuple(Factor(name if f.group == group else None, f.size) for f in segment)
                        for segment in axis.segments
                    )
                )
                axes.append(ScaledAxis(leaf, dimension, own, float(power)))
        epsilon = max((eps for axis, eps in self.rough if self._meets(axis, powers)), default=0.0)
        tied = any(self._meets(axis, powers) for axis in self.tied)
        blocks = {self._groups[self._find(p)].size for g in powers if (p := self._groups[g].parent)} or {1}
        linear = not tied and not epsilon and not any(self._meets(axis, powers) for axis in self.bent)
        whole = all(len(one.places.segments) == 1 or one.dimension == 0 for one in axes)
        maps = linear and whole and len(blocks) == 1 and set(map(abs, powers.values())) == {1}
        return Scaling(name, size, tuple(axes), tied, epsilon, blocks.pop() if maps else 0)

    def _meets(self, axis: Axis, powers: Mapping[str, Fraction]) -> bool:
        return any(
            root in powers
            for name in self.resolve(axis).groups
            if name not in self._stacks
            for root in self._roots(name)
        )


def _solved(equations: Sequence[_Equation], free: set[str]) -> dict[str, _Equation]:
    """Every free unknown in terms of a few of them; those that must be zero are left out.

    Each equation is solved for the first of its unknowns that is left.
    """
    solutions: dict[str, _Equation] = {}

    def reduced(equation: Mapping[str, Fraction]) -> _Equation:
        result: _Equation = {}
        for name, power in equation.items():
            if name not in free:
                continue
            for other, factor in solutions.get(name, {name: Fraction(1)}).items():
                result[other] = result.get(other, Fraction(0)) + power * factor
        return {name: power for name, power in result.items() if power}

    for equation in equations:
        left = reduced(equation)
        if not left:
            continue
        order = {name: place for place, name in enumerate(equation)}
        pivot = min(left, key=lambda name: (order.get(name, len(order)), name))
        power = left.pop(pivot)
        solution = {name: -value / power for name, value in left.items()}
        solutions[pivot] = solution
        for name, terms in solutions.items():
            if pivot in terms:
                solutions[name] = {}
                factor = terms.pop(pivot)
                for other, value in solution.items():
                    terms[other] = terms.get(other, Fraction(0)) + factor * value
                solutions[name] = {other: value for other, value in terms.items() if value}
    unknowns = sorted(free - solutions.keys(), key=int)
    known = {name: {name: Fraction(1)} for name in unknowns}
    return known | {name: terms for name, terms in solutions.items() if terms}
