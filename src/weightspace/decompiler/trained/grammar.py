"""The causal S-ops that are tried, the cheap first: counts, places since, values at the last, matches, comparisons."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from weightspace.decompiler.trained import columns
from weightspace.decompiler.trained.pool import Feature, Pool, pick
from weightspace.decompiler.trained.token_operators import TokenOperators
from weightspace.rasp.language import (
    Aggregate,
    Map,
    Select,
    Selector,
    SelectorAnd,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
)


def everywhere() -> Selector:
    """The selector of all keys up to here."""
    return Select(tokens, tokens, "TRUE")


@dataclass
class Grammar(TokenOperators):
    """Fills a pool with S-ops of every operator at every cost."""

    # -- filled ---------------------------------------------------------------------------------------------------

    def fill(self) -> Pool:
        """Every operator at every cost, until the pool is full or the time is over."""
        self._inputs()
        for cost in range(1, self.largest + 1):
            for operator in (
                self._tests,
                self._earlier,
                self._counts,
                self._occurrences,
                self._balances,
                self._interleaved,
                self._matches,
                self._orders,
                self._since,
                self._comparisons,
                self._modulo,
                self._differences,
                self._lasts,
                self._logic,
            ):
                if len(self.pool) >= self.most:
                    return self.pool
                operator(cost)
        return self.pool

    # -- numbers --------------------------------------------------------------------------------------------------

    def _atoms(self) -> list[Feature]:
        """Booleans of a letter, and of a letter of the question."""
        return [
            feature
            for feature in self.pool.of("bool", 1, 2)
            if feature.operator in ("test", "letter of the question")
            and (feature.cost == 1 or feature.operator != "test")
        ]

    def _counts(self, cost: int) -> None:
        for feature in self.pool.of("bool", cost, cost, self.quota // 2) if cost <= 4 else ():
            for holds in (True, False):
                chosen = (feature.values != 0) == holds
                self.pool.add(
                    "number", columns.counted(chosen & self.real), cost + (0 if cost == 1 else 0.5), "count",
                    lambda f=feature, h=holds: self._count_node(f, h),
                )  # fmt: skip

    def _occurrences(self, cost: int) -> None:
        """How often a token nearby, or one that was matched, has been seen."""
        if self.kind == "sets" or not 1 <= cost <= 4:
            return
        for feature in self.pool.of("token", cost - 1, cost - 1, None if self.few else self.quota // 8):
            if feature.operator in ("input", "earlier token", "match", "commonest"):
                self.pool.add(
                    "number", columns.occurrences(self.codes, feature.values), cost, "occurrences",
                    lambda f=feature: SelectorWidth(Select(tokens, f.node, "EQ")),
                )  # fmt: skip

    def _count_node(self, feature: Feature, holds: bool) -> SOp:
        return self.helper(("count", id(feature), holds), lambda: SelectorWidth(feature.chosen(holds)))

    def _balances(self, cost: int) -> None:
        """How many more there are of one kind than of another."""
        if cost != 2:
            return
        for first, second in itertools.combinations(self._atoms(), 2):
            if first.operator != second.operator:
                continue
            count = columns.counted(first.values) - columns.counted(second.values)
            self.pool.add("bool", count > 0, 2, "more", lambda f=first, s=second: Map("x > 0", self._mean_node(f, s)))
            self.pool.add("bool", count == 0, 2, "more", lambda f=first, s=second: Map("x == 0", self._mean_node(f, s)))
            self.pool.add("bool", count < 0, 2, "more", lambda f=first, s=second: Map("x < 0", self._mean_node(f, s)))
            self.pool.add("number", count, 2, "balance", lambda f=first, s=second: self._balance_node(f, s))

    def _mean_node(self, first: Feature, second: Feature) -> SOp:
        def make() -> SOp:
            plus, minus = first.node, second.node
            if isinstance(plus, Map) and isinstance(minus, Map) and plus.inner is minus.inner:
                source = f"1 if {plus.function.source} else -1 if {minus.function.source} else 0"
                step: SOp = Map(source, plus.inner, encoding="numerical")
            elif isinstance(plus, SequenceMap) and isinstance(minus, SequenceMap):
                source = f"1 if {plus.function.source} else -1 if {minus.function.source} else 0"
                step = SequenceMap(source, plus.first, plus.second, encoding="numerical")
            else:
                step = SequenceMap("x - y", plus, minus, encoding="numerical")
            return Aggregate(everywhere(), step, encoding="numerical")

        return self.helper(("mean", id(first), id(second)), make)

    def _balance_node(self, first: Feature, second: Feature) -> SOp:
        def make() -> SOp:
            return SequenceMap("round(x * (y + 1))", self._mean_node(first, second), indices)

        return self.helper(("balance", id(first), id(second)), make)

    def _interleaved(self, cost: int) -> None:
        """Counts and balances among the places that are equal to this one modulo a number."""
        if cost != 3 or self.kind == "sets":
            return
        atoms = [atom for atom in self._atoms() if atom.operator == "letter of the question"]
        for modulus in (2, 3, 4):
            counts = []
            for atom in atoms:
                count = np.zeros(self.codes.shape, np.int16)
                for rest in range(modulus):
                    count[:, rest::modulus] = np.cumsum(atom.values[:, rest::modulus], axis=1)
                counts.append(count)
                self.pool.add(
                    "number", count, cost, "interleaved count",
                    lambda a=atom, m=modulus: SelectorWidth(SelectorAnd(_equal_places(m), a.chosen())),
                )  # fmt: skip
            for (i, first), (j, second) in itertools.combinations(enumerate(atoms), 2):
                for sign, values in (
                    (">", counts[i] > counts[j]),
                    ("==", counts[i] == counts[j]),
                    ("<", counts[i] < counts[j]),
                ):
                    self.pool.add(
                        "bool", values, cost, "interleaved balance",
                        lambda f=first, s=second, m=modulus, t=sign: Map(f"x {t} 0", self._interleaved_node(f, s, m)),
                    )  # fmt: skip

    def _interleaved_node(self, first: Feature, second: Feature, modulus: int) -> SOp:
        def make() -> SOp:
            mean = self._mean_node(first, second)
            assert isinstance(mean, Aggregate)
            return Aggregate(_equal_places(modulus), mean.sop, encoding="numerical")

        return self.helper(("interleaved", id(first), id(second), modulus), make)

    def _since(self, cost: int) -> None:
        if cost > 4:
            return
        for feature in self.pool.of("bool", cost - 1, cost - 1, self.quota // 2):
            for holds in (True, False):
                chosen = ((feature.values != 0) == holds) & self.real
                self.pool.add(
                    "number", columns.since(chosen), cost, "since",
                    lambda f=feature, h=holds: self._since_node(f, h),
                )  # fmt: skip

    def _since_node(self, feature: Feature, holds: bool) -> SOp:
        place = self.helper(("place", id(feature), holds), lambda: pick("last", feature.chosen(holds), indices, 0))
        return self.helper(("since", id(feature), holds), lambda: SequenceMap("y - x", place, indices))

    def _differences(self, cost: int) -> None:
        numbers = self.pool.of("number", 0, cost - 1, self.quota // 4)
        for first, second in itertools.permutations(numbers, 2):
            if int(first.cost + second.cost) != cost - 1:
                continue
            if self.pool.full("larger", cost) and self.pool.full("difference", cost):
                return
            self.pool.add(
                "bool", first.values > second.values, cost, "larger",
                lambda f=first, s=second: SequenceMap("x > y", f.node, s.node),
            )  # fmt: skip
            if id(first) < id(second):
                self.pool.add(
                    "bool", first.values == second.values, cost, "as many",
                    lambda f=first, s=second: SequenceMap("x == y", f.node, s.node),
                )  # fmt: skip
                self.pool.add(
                    "number", first.values - second.values, cost, "difference",
                    lambda f=first, s=second: SequenceMap("x - y", f.node, s.node),
                )  # fmt: skip

    # -- booleans of numbers --------------------------------------------------------------------------------------

    def _comparisons(self, cost: int) -> None:
        for feature in self.pool.of("number", cost - 1, cost - 0.5, self.quota):
            found = np.unique(feature.values[self.real])
            for value in sorted(found.tolist(), key=abs)[: 26 if feature.cost <= 2 else 4]:
                self.pool.add(
                    "bool", feature.values == value, cost, "is",
                    lambda f=feature, v=value: Map(f"x == {v}", f.node),
                )  # fmt: skip
                self.pool.add(
                    "bool", feature.values > value, cost, "more than",
                    lambda f=feature, v=value: Map(f"x > {v}", f.node),
                )  # fmt: skip

    def _modulo(self, cost: int) -> None:
        for feature in self.pool.of("number", cost - 1, cost - 0.5, self.quota):
            for modulus in (2, 3, 4):
                for rest in range(modulus if modulus > 2 else 1):
                    self.pool.add(
                        "bool", feature.values % modulus == rest, cost, f"modulo {modulus}",
                        lambda f=feature, m=modulus, r=rest: Map(f"x % {m} == {r}", f.node),
                    )  # fmt: skip

    def _lasts(self, cost: int) -> None:
        """What a boolean was at the last place at which another one held."""
        for when_cost, whens, values in ((1, 12, self.quota // 2), (2, 20, self.quota // 8)):
            left = cost - 1 - when_cost
            for when in self.pool.of("bool", when_cost, when_cost, whens):
                for value in self.pool.of("bool", max(left - 0.5, 1), left, values):
                    if value is when or self.pool.full("last", cost):
                        continue
                    for holds in (True, False):
                        chosen = ((when.values != 0) == holds) & self.real
                        self.pool.add(
                            "bool", columns.taken(value.values, columns.latest(chosen), 0), cost, "last",
                            lambda w=when, v=value, h=holds: pick("last", w.chosen(h), v.node, 0),
                        )  # fmt: skip

    def _logic(self, cost: int) -> None:
        if cost > 4:
            return
        booleans = self.pool.of("bool", 1, cost - 1, self.quota // 3)
        # the first with the first: else one of them would meet all the others before the quota is full
        for i, j in sorted(itertools.combinations(range(len(booleans)), 2), key=sum):
            first, second = booleans[i], booleans[j]
            if first.cost + second.cost != cost or self.pool.full("logic", cost):
                continue
            for source, values in (
                ("x and y", first.values & second.values),
                ("x and not y", first.values & ~second.values & 1),
                ("not x and y", ~first.values & second.values & 1),
                ("not x and not y", ~first.values & ~second.values & 1),
                ("x != y", first.values ^ second.values),
            ):
                self.pool.add(
                    "bool", values, cost, "logic",
                    lambda f=first, s=second, t=source: SequenceMap(t, f.node, s.node),
                )  # fmt: skip


def _equal_places(modulus: int) -> Selector:
    return Select(indices, indices, f"(x - y) % {modulus} == 0")
