"""Trees of conditions whose leaves are S-ops: what a network answers, explained by few of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from weightspace.decompiler.trained.pool import Feature
from weightspace.rasp.choices import Choose
from weightspace.rasp.functions import Value
from weightspace.rasp.language import Map, SequenceMap, SOp, tokens

CONDITIONS, LEAVES = 900, 800
"""So many are tried with each other."""
SUPERSETS = 900
"""Booleans, and negations, that hold wherever a target does, which are tried with each other."""
BEST_ENDS = 12
"""Ends for which conditions are looked for."""
LEAST_SPLIT = 2.5
"""Lines that a split adds at the least."""
KEPT, REFINED = 40, 6
"""Trees of one depth that are kept, and of these that are refined."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """What a tree gives at its end.

    Attributes:
        feature: the S-op; None where it is a constant.
        constant: the value where it is one, a number of a token or a boolean.
        holds: whether a boolean is meant, or its negation.
        shown: the constant as programs have it.
    """

    feature: Feature | None
    constant: int = 0
    holds: bool = True
    shown: Value = None

    @property
    def cost(self) -> float:
        return 0.5 if self.feature is None else float(self.feature.cost)

    @property
    def depth(self) -> int:
        return 0

    def features(self) -> Iterator[Feature]:
        if self.feature is not None:
            yield self.feature

    def values(self) -> np.ndarray | int:
        """What it gives at every place, or everywhere."""
        if self.feature is None:
            return self.constant
        return self.feature.values if self.holds else 1 - self.feature.values

    def node(self) -> SOp:
        """Its expression."""
        if self.feature is None:
            return Map(repr(self.shown), tokens)
        return self.feature.node if self.holds else negated(self.feature.node)


@dataclass(frozen=True, eq=False)
class Split:
    """A condition, and what is given where it holds and where it does not."""

    condition: Feature
    yes: Tree
    no: Tree

    @property
    def cost(self) -> float:
        return 1.0 + self.condition.cost + self.yes.cost + self.no.cost

    @property
    def depth(self) -> int:
        return 1 + max(self.yes.depth, self.no.depth)

    def features(self) -> Iterator[Feature]:
        yield self.condition
        yield from self.yes.features()
        yield from self.no.features()

    def values(self) -> np.ndarray:
        return np.where(self.condition.values != 0, self.yes.values(), self.no.values())

    def node(self) -> SOp:
        """Its expression: `and` and `or` where a side is a boolean constant."""
        condition = self.condition.node
        yes, no = self.yes, self.no
        for side, other, texts in ((yes, no, ("x or y", "not x and y")), (no, yes, ("not x or y", "x and y"))):
            if isinstance(side, Leaf) and isinstance(side.shown, bool):
                # where the side holds: the condition (or its negation) or else the other; where not, and the other
                return SequenceMap(texts[0] if side.shown else texts[1], condition, other.node())
        if isinstance(no, Leaf) and no.feature is None and isinstance(yes, Leaf) and yes.feature is None:
            return Map(f"{yes.shown!r} if x else {no.shown!r}", condition)
        if isinstance(yes, Leaf) and yes.feature is None:
            return SequenceMap(f"{yes.shown!r} if x else y", condition, no.node())
        if isinstance(no, Leaf) and no.feature is None:
            return SequenceMap(f"y if x else {no.shown!r}", condition, yes.node())
        return Choose(condition, yes.node(), no.node())


Tree = Leaf | Split


def varied(tree: Tree, feature: Feature, other: Feature) -> Tree:
    """The tree that reads another feature in the place of one."""
    if isinstance(tree, Leaf):
        return Leaf(other, holds=tree.holds) if tree.feature is feature else tree
    condition = other if tree.condition is feature else tree.condition
    return Split(condition, varied(tree.yes, feature, other), varied(tree.no, feature, other))


def negated(node: SOp) -> SOp:
    """What holds where a boolean does not."""
    if isinstance(node, Map) and node.function.has_expression:
        opposite = {"==": "!=", ">": "<=", "<": ">="}
        parts = node.function.source.split(" ")
        if len(parts) == 3 and parts[1] in opposite:
            return Map(" ".join((parts[0], opposite[parts[1]], parts[2])), node.inner)
        return Map(f"not ({node.function.source})", node.inner)
    if isinstance(node, SequenceMap) and node.function.has_expression:
        return SequenceMap(f"not ({node.function.source})", node.first, node.second)
    return Map("not x", node)


@dataclass(frozen=True, eq=False)
class Fit:
    """A tree and how far it is from the answers.

    Attributes:
        error: sum of the weights of cells at which it is wrong.
    """

    tree: Tree
    error: float

    def rank(self, line: float) -> tuple[float, float]:
        """What it is sorted by: its error and its lines, each of which has to make up for `line` of error."""
        return (self.error + line * float(self.tree.cost), float(self.tree.cost))


class Table:
    """Booleans at the cells that count, the cheap first.

    Attributes:
        features: the booleans.
        holds: (features, cells).
        cells: which places of the strings these are, flat.
        weights: of each cell.
    """

    def __init__(self, features: Sequence[Feature], weights: np.ndarray) -> None:
        self.cells = np.flatnonzero(weights.ravel() > 0)
        self.weights = weights.ravel()[self.cells].astype(np.float32)
        self.features = sorted(features, key=lambda feature: feature.cost)
        self.costs = np.array([feature.cost for feature in self.features])
        self.holds = np.zeros((len(self.features), len(self.cells)), np.uint8)
        for row, feature in enumerate(self.features):
            self.holds[row] = feature.values.ravel()[self.cells]

    def errors(self, wanted: np.ndarray) -> Float[np.ndarray, " features"]:
        """The weights of cells at which each boolean differs from what is wanted."""
        signed = self.weights * (1 - 2 * wanted.astype(np.float32))
        parts = [self.holds[i : i + 1024].astype(np.float32) @ signed for i in range(0, len(self.holds), 1024)]
        return (np.concatenate(parts) if parts else np.zeros(0)) + float((self.weights * wanted).sum())

    def leaves(self, wanted: np.ndarray, line: float) -> tuple[list[Leaf], np.ndarray]:
        """Booleans and negations that may be the ends of a tree, and the numbers of those that may be conditions."""
        errors, total = self.errors(wanted), float(self.weights.sum())
        least = np.minimum(errors, total - errors) + line * self.costs
        near = np.argsort(least, kind="stable")[: LEAVES // 2]
        chosen = list(dict.fromkeys([*near.tolist(), *range(min(LEAVES // 2, len(self.features)))]))
        found = [Leaf(self.features[i], holds=bool(holds)) for i in chosen for holds in (1, 0)]
        conditions = dict.fromkeys(
            [*range(min(CONDITIONS * 2 // 3, len(self.features))), *near[: CONDITIONS // 3].tolist()]
        )
        return found, np.array(sorted(conditions), np.int64)

    def conditions(self, wanted: np.ndarray, constants: Sequence[Leaf], ends: Sequence[Leaf]) -> np.ndarray:
        """The numbers of booleans that may tell where a constant or one of the best ends is right: cheap, or near."""
        wrong = np.stack([self.at(leaf) != wanted for leaf in (*constants, *ends)])
        order = np.argsort(wrong @ self.weights, kind="stable")
        best = list(dict.fromkeys([*range(min(len(constants), BEST_ENDS // 2)), *order.tolist()]))[:BEST_ENDS]
        total = float(self.weights.sum())
        chosen = dict.fromkeys(range(min(CONDITIONS // 2, len(self.features))))
        for end in best:
            errors = self.errors(wrong[end].astype(np.uint8))
            near = np.argsort(np.minimum(errors, total - errors) + self.costs / 4, kind="stable")
            chosen |= dict.fromkeys(near[: CONDITIONS // (2 * BEST_ENDS)].tolist())
        return np.array(sorted(chosen), np.int64)

    def at(self, leaf: Leaf) -> np.ndarray:
        """What a leaf gives at the cells."""
        values = leaf.values()
        return np.full(len(self.cells), values) if isinstance(values, int) else values.ravel()[self.cells]


def fitted(
    table: Table, values: np.ndarray, constants: Sequence[Leaf], ends: Sequence[Leaf] | None = None, *,
    depth: int = 3, line: float = 1.0,
) -> list[Fit]:  # fmt: skip
    """Trees that explain what a network answers, the best first.

    Args:
        table: conditions.
        values: what is to be explained, at every place.
        constants: leaves that are the same everywhere.
        ends: further leaves; unless given the booleans and their negations.
        depth: of the deepest.
        line: error that a line more has to repair.
    """
    wanted = values.ravel()[table.cells]
    binary = ends is None
    if ends is None:
        ends, conditions = table.leaves(wanted.astype(np.uint8), line)
    else:
        conditions = table.conditions(wanted, constants, ends)
    leaves = [*constants, *ends]
    wrong = np.stack([table.at(leaf) != wanted for leaf in leaves]).astype(np.float32)
    errors = (wrong @ table.weights).astype(np.float64)
    costs = np.array([leaf.cost for leaf in leaves])
    order = np.argsort(errors + line * costs, kind="stable")
    found = [[Fit(leaves[i], float(errors[i])) for i in order[:KEPT]]]
    if not len(conditions) or depth == 0 or found[0][0].error <= LEAST_SPLIT * line:
        return found[0]
    if binary:
        found.append(conjunctions(table, wanted.astype(np.uint8), constants, line))
        if min((fit.error for fits in found for fit in fits), default=0.0) <= LEAST_SPLIT * line:
            return _ranked(found, line)
    known = [table.features[i] for i in conditions]
    search = _Search(known, leaves, table.holds[conditions].astype(np.float32), wrong, line)
    found.append(search.split(table.weights, KEPT))
    for _ in range(2, depth + 1):
        best = min(fit.rank(line) for fits in found for fit in fits)
        deeper = [tree for fit in found[-1][:REFINED] for tree in search.refined(fit, table.weights)]
        deeper.sort(key=lambda fit: fit.rank(line))
        found.append(deeper[:KEPT])
        if not deeper or deeper[0].rank(line) >= best:
            break
    return _ranked(found, line)


def _ranked(found: Sequence[Sequence[Fit]], line: float) -> list[Fit]:
    return sorted((fit for fits in found for fit in fits), key=lambda fit: fit.rank(line))[:KEPT]


def conjunctions(table: Table, wanted: np.ndarray, constants: Sequence[Leaf], line: float) -> list[Fit]:
    """`f and g`, `f and g and h`, and their negations: of booleans that hold wherever the target does, or does not.

    Args:
        constants: the leaves False and True.
    """
    found: list[Fit] = []
    for holds in (1, 0):
        target = wanted if holds else 1 - wanted
        found += _conjunctions(table, target, constants[1 - holds], holds == 1, line)
    return found


def _conjunctions(table: Table, target: np.ndarray, outside: Leaf, plain: bool, line: float) -> list[Fit]:
    """Of one target; `outside` is the leaf where a conjunction does not hold."""
    inside, rest = np.flatnonzero(target), np.flatnonzero(1 - target)
    weights_in, weights = table.weights[inside], table.weights[rest]
    held_in = _products(table.holds[:, inside], weights_in)
    held_out = _products(table.holds[:, rest], weights)
    missed = np.concatenate([weights_in.sum() - held_in, held_in])  # of each boolean and its negation
    extra = np.concatenate([held_out, weights.sum() - held_out])
    costs = np.concatenate([table.costs, table.costs])
    full = weights_in == weights_in.max(initial=0.0)  # on the distribution none may be missed
    strict = _products(table.holds[:, inside[full]], weights_in[full])
    strictly = np.concatenate([weights_in[full].sum() - strict, strict])
    score = np.where(strictly <= line, extra + missed + line * costs, np.inf)
    chosen = np.argsort(score, kind="stable")[:SUPERSETS]
    chosen = chosen[np.isfinite(score[chosen])]
    if len(chosen) < 2:
        return []
    count = len(table.features)
    holds = np.stack([table.holds[i % count, rest] ^ (i >= count) for i in chosen]).astype(np.float32)
    both = (holds * weights) @ holds.T
    total = both + line * (costs[chosen][:, None] + costs[chosen]) + missed[chosen][:, None] + missed[chosen]
    total[np.tril_indices(len(chosen))] = np.inf
    fits = []

    def fit(parts: Sequence[int], error: float) -> Fit:
        literals = [(table.features[chosen[part] % count], bool(chosen[part] < count)) for part in parts]
        feature, positive = literals[-1]
        tree: Tree = Leaf(feature, holds=positive if plain else not positive)
        for condition, holding in reversed(literals[:-1]):
            tree = Split(condition, tree, outside) if holding else Split(condition, outside, tree)
        return Fit(tree, error)

    order = np.argsort(total, axis=None)[:KEPT]
    for place, (i, j) in enumerate(zip(*np.unravel_index(order, total.shape), strict=True)):
        error = float(both[i, j] + missed[chosen[i]] + missed[chosen[j]])
        fits.append(fit((int(i), int(j)), error))
        if place < REFINED and error > line:
            three = holds @ (holds[i] * holds[j] * weights) + missed[chosen] + line * costs[chosen]
            third = int(three.argmin())
            fits.append(
                fit(
                    (int(i), int(j), third),
                    float(three[third] - line * costs[chosen[third]] + missed[chosen[i]] + missed[chosen[j]]),
                )
            )
    return fits


def _products(holds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    parts = [holds[i : i + 1024].astype(np.float32) @ weights for i in range(0, len(holds), 1024)]
    return np.concatenate(parts) if parts else np.zeros(0)


class _Search:
    """Splits of cells by conditions, each side explained by its best leaf."""

    def __init__(
        self,
        conditions: Sequence[Feature],
        leaves: Sequence[Leaf],
        holds: Float[np.ndarray, "conditions cells"],
        wrong: Float[np.ndarray, "leaves cells"],
        line: float,
    ) -> None:
        self.conditions, self.leaves, self.holds, self.wrong, self.line = conditions, leaves, holds, wrong, line
        self.leaf_costs = np.array([leaf.cost for leaf in leaves]) * line
        self.costs = np.array([feature.cost for feature in conditions]) * line

    def split(self, weights: Float[np.ndarray, " cells"], count: int) -> list[Fit]:
        """The best trees of one condition and two leaves, on cells of these weights."""
        cells = np.flatnonzero(weights)
        if not len(cells):
            return []
        weighted = self.wrong[:, cells] * weights[cells]
        yes = self.holds[:, cells] @ weighted.T
        no = weighted.sum(1)[None] - yes
        best_yes, best_no = (yes + self.leaf_costs).argmin(1), (no + self.leaf_costs).argmin(1)
        rows = np.arange(len(yes))
        errors = yes[rows, best_yes] + no[rows, best_no]
        total = errors + self.costs + self.leaf_costs[best_yes] + self.leaf_costs[best_no]
        return [
            Fit(
                Split(self.conditions[i], self.leaves[best_yes[i]], self.leaves[best_no[i]]),
                float(max(errors[i], 0.0)),
            )
            for i in np.argsort(total, kind="stable")[:count]
            if best_yes[i] != best_no[i]
        ]

    def refined(self, fit: Fit, weights: Float[np.ndarray, " cells"]) -> list[Fit]:
        """The tree with one leaf replaced by a split: that at which most is wrong."""
        worst = max(self._ends(fit.tree, weights), key=lambda end: end[2])
        path, inside, error = worst
        if error <= self.line:
            return []
        return [
            Fit(_replaced(fit.tree, path, part.tree), fit.error - error + part.error)
            for part in self.split(np.where(inside, weights, 0).astype(np.float32), 4)
        ]

    def _ends(self, tree: Tree, weights: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
        """Each leaf's path, the cells that come to it, and its error there."""
        index = {id(leaf): place for place, leaf in enumerate(self.leaves)}
        number = {id(feature): place for place, feature in enumerate(self.conditions)}

        def walk(part: Tree, path: str, inside: np.ndarray) -> Iterator[tuple[str, np.ndarray, float]]:
            if isinstance(part, Leaf):
                yield path, inside, float((self.wrong[index[id(part)]] * weights)[inside].sum())
                return
            holds = self.holds[number[id(part.condition)]] > 0
            yield from walk(part.yes, path + "y", inside & holds)
            yield from walk(part.no, path + "n", inside & ~holds)

        return list(walk(tree, "", np.ones(len(weights), bool)))


def _replaced(tree: Tree, path: str, by: Tree) -> Tree:
    if not path:
        return by
    assert isinstance(tree, Split)
    if path[0] == "y":
        return Split(tree.condition, _replaced(tree.yes, path[1:], by), tree.no)
    return Split(tree.condition, tree.yes, _replaced(tree.no, path[1:], by))
