"""Causal S-ops that give tokens, and tests of tokens: what the others are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from weightspace.decompiler.trained import columns
from weightspace.decompiler.trained.answering import value_of
from weightspace.decompiler.trained.asked import BOS, SEP, SPECIAL, Kind, Strings
from weightspace.decompiler.trained.pool import Feature, Pool, pick
from weightspace.rasp.functions import Value
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

FEW_LETTERS = 16
"""With more letters than these no S-op asks for one by name."""
NOTHING = ""
"""The token that a Pick gives where nothing is selected: none of the vocabulary."""


def before(by: int) -> Selector:
    """The selector of the key `by` places before."""
    return Select(indices, indices, f"x == y - {by}")


@dataclass
class TokenOperators:
    """A pool, and the operators that add tokens to it.

    Attributes:
        strings: on which S-ops are tried.
        vocab: the texts of the tokens.
        kind: what the network is asked.
        largest: cost up to which S-ops are made.
    """

    strings: Strings
    vocab: tuple[str, ...]
    kind: Kind
    letters: tuple[int, ...]
    largest: int = 5
    quota: int = 500
    most: int = 24_000
    pool: Pool = field(init=False)
    helpers: dict[tuple[object, ...], SOp] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.codes = self.strings.codes.astype(np.int16)
        self.real = self.codes >= 0
        self.pool = Pool(self.real, self.quota, self.most)
        self.values: tuple[Value, ...] = tuple(value_of(text) for text in self.vocab)
        self.numeric = len(self.letters) > 2 and all(isinstance(self.values[i], int) for i in self.letters)
        self.few = len(self.letters) <= FEW_LETTERS
        self.places = np.broadcast_to(np.arange(self.codes.shape[1], dtype=np.int16), self.codes.shape)

    def helper(self, key: tuple[object, ...], make: Callable[[], SOp]) -> SOp:
        """An S-op that several features read, made once."""
        if key not in self.helpers:
            self.helpers[key] = make()
        return self.helpers[key]

    def _inputs(self) -> None:
        add = self.pool.add
        self.token = Feature("token", np.where(self.real, self.codes, -1), 0, "input", lambda: tokens)
        self.index = Feature("number", self.places.copy(), 0, "input", lambda: indices)
        add("token", self.token.values, 0, "input", lambda: tokens)
        add("number", self.index.values, 0, "input", lambda: indices)

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _named(self) -> list[int]:
        """The tokens that are asked for by name."""
        wanted = set(np.unique(self.codes[self.real]).tolist())
        return [i for i in range(len(self.vocab)) if i in wanted and (self.few or self.vocab[i] in SPECIAL)]

    def _tests(self, cost: int) -> None:
        for feature in self.pool.of("token", cost - 1, cost - 1):
            for number in self._named():
                literal = repr(self.values[number])
                self.pool.add(
                    "bool", feature.values == number, cost, "test",
                    lambda f=feature, t=literal: Map(f"x == {t}", f.node),
                )  # fmt: skip
            if feature.operator in ("order", "match", "last token"):
                self.pool.add(
                    "bool", feature.values == -1, cost, "nothing",
                    lambda f=feature: Map(f"x == {NOTHING!r}", f.node),
                )  # fmt: skip
        for first, second in itertools.combinations(self.pool.of("token", 0, cost - 1), 2):
            if first.cost + second.cost == cost - 1:
                self.pool.add(
                    "bool", first.values == second.values, cost, "equal tokens",
                    lambda f=first, s=second: SequenceMap("x == y", f.node, s.node),
                )  # fmt: skip
        if cost == 2 and self.kind == "answers":
            self._of_question()

    def _of_question(self) -> None:
        """Letters before `<sep>` alone."""
        if SEP not in self.vocab or not self.few:
            return
        after = columns.counted(self.codes == self.vocab.index(SEP))
        for number in self.letters:
            literal = repr(self.values[number])
            self.pool.add(
                "bool", (self.codes == number) & (after == 0), 2, "letter of the question",
                lambda t=literal: SequenceMap(f"x == {t} and y == 0", tokens, self.parted),
            )  # fmt: skip

    @property
    def parted(self) -> SOp:
        """How often `<sep>` has been seen."""
        return self.helper(("parted",), lambda: SelectorWidth(Select(tokens, tokens, f"x == {SEP!r}")))

    def _earlier(self, cost: int) -> None:
        """Values of places before, and those of the first places."""
        if cost <= 4:
            self.pool.add(
                "token", columns.shifted(self.token.values, cost, -1), cost, "earlier token",
                lambda by=cost: Aggregate(before(by), tokens, default=NOTHING),
            )  # fmt: skip
        for feature in self.pool.of("bool", cost - 1, cost - 1) if 2 <= cost <= 3 and self.few else ():
            for holds in (True, False) if feature.operator in ("test", "letter of the question") else ():
                chosen = ((feature.values != 0) == holds) & self.real
                self.pool.add(
                    "token", columns.taken(self.token.values, columns.latest(chosen), -1), cost, "last token",
                    lambda f=feature, h=holds: pick("last", f.chosen(h), tokens, NOTHING),
                )  # fmt: skip
        for place in (1, 2) if cost == 1 and self.kind == "answers" else ():
            where = columns.earliest(self.places == place)
            self.pool.add(
                "token", columns.taken(self.token.values, where, -1), 1, "token at a place",
                lambda p=place: pick("first", Select(indices, indices, f"x == {p}"), tokens, NOTHING),
            )  # fmt: skip
        for feature in self.pool.of("bool", cost - 1, cost - 1, self.quota // 4) if 2 <= cost <= 4 else ():
            if feature.operator != "test":
                self.pool.add(
                    "bool", columns.shifted(feature.values, 1, 0), cost, "earlier",
                    lambda f=feature: Aggregate(before(1), f.node, default=0),
                )  # fmt: skip
        if self.numeric and cost == 2:
            for feature in self.pool.of("token", 0, 1):
                self._steps(feature)

    def _steps(self, feature: Feature) -> None:
        """The token one above and one below, of tokens that are numbers without gaps."""
        by_value = {int(self.vocab[number]): number for number in self.letters}
        least, most = min(by_value), max(by_value)
        if most - least + 1 != len(by_value):
            return
        for step in (1, -1):
            table = np.full(len(self.vocab) + 1, -1, np.int16)
            for value, number in by_value.items():
                table[number] = by_value.get(value + step, -1)
            source = f"x + 1 if {least} <= x < {most} else {NOTHING!r}"
            if step < 0:
                source = f"x - 1 if {least} < x <= {most} else {NOTHING!r}"
            self.pool.add(
                "token", table[feature.values], feature.cost + 1, "step",
                lambda f=feature, t=source: Map(t, self.number_of(f)),
            )  # fmt: skip

    def number_of(self, feature: Feature) -> SOp:
        """A token as a number, -1 for those that are none."""
        others = tuple(value for value in (*self.values, NOTHING) if not isinstance(value, int))
        return self.helper(("number", id(feature)), lambda: Map(f"-1 if x in {others!r} else x", feature.node))

    def numbers(self, feature: Feature) -> np.ndarray:
        """What `number_of` is on the strings."""
        table = np.array([value if isinstance(value, int) else -1 for value in self.values] + [-1], np.int16)
        return table[feature.values]

    def _matches(self, cost: int) -> None:
        """The token that stands where a key equals a query; keys and queries are tokens nearby, or places."""
        if cost not in (2, 3) or self.kind == "sets":
            return
        near = [f for f in self.pool.of("token", 0, 2) if f.operator in ("input", "earlier token")]
        asked = [*near]
        if cost == 3:
            asked += [self._begun(f) for f in near[:2]]
        for key, query in itertools.product(near, asked):
            if key.cost + query.cost + 1 > cost + 1:
                continue
            for strict in (False, True):
                if strict and key is not query:
                    continue
                selected = columns.pairs(key.values, query.values, strict)
                self._picked(cost, selected, self._matching(key, query, strict), near)
        if cost == 3:
            self._matches_twice(near)
            self._by_place(near)

    def _begun(self, feature: Feature) -> Feature:
        """A token, but `<bos>` for `<sep>`: an answer begins as its question does."""
        separator, begin = self.vocab.index(SEP) if SEP in self.vocab else -2, self.vocab.index(BOS)
        values = np.where(feature.values == separator, begin, feature.values).astype(np.int16)
        source = f"{BOS!r} if x == {SEP!r} else x"

        def make() -> SOp:
            return self.helper(("begun", id(feature)), lambda: Map(source, feature.node))

        return Feature("token", values, feature.cost, "begun", make)

    def _matching(self, key: Feature, query: Feature, strict: bool) -> Callable[[], Selector]:
        def make() -> Selector:
            equal = Select(key.node, query.node, "EQ")
            return SelectorAnd(equal, Select(indices, indices, "LT")) if strict else equal

        return make

    def _picked(
        self, cost: int, selected: np.ndarray, selector: Callable[[], Selector], near: Sequence[Feature]
    ) -> None:
        for which in ("first", "last"):
            places = columns.picked(selected, which)
            for value in near:
                self.pool.add(
                    "token", columns.taken(value.values, places, -1), cost + value.cost / 2, "match",
                    lambda v=value, w=which: pick(w, selector(), v.node, NOTHING),
                )  # fmt: skip

    def _matches_twice(self, near: Sequence[Feature]) -> None:
        if len(near) < 3:
            return
        now, last, last_but_one = near[:3]
        begun = self._begun(now)
        for keys, queries in (((last, last_but_one), (now, last)), ((last, last_but_one), (begun, last))):
            both = columns.pairs(keys[0].values, queries[0].values) & columns.pairs(keys[1].values, queries[1].values)
            parts = [self._matching(key, query, False) for key, query in zip(keys, queries, strict=True)]
            self._picked(3, both, lambda p=parts: SelectorAnd(p[0](), p[1]()), near[:1])

    def _by_place(self, near: Sequence[Feature]) -> None:
        """The token at a place that is counted from `<sep>`."""
        if SEP not in self.vocab:
            return
        separator = self.codes == self.vocab.index(SEP)
        gone = np.where(columns.counted(separator) > 0, columns.since(separator) + 1, -1)

        def node() -> SOp:
            parted = Select(tokens, tokens, f"x == {SEP!r}")
            place = self.helper(("parted at",), lambda: pick("last", parted, indices, -1))
            return self.helper(("gone",), lambda: SequenceMap("y - x + 1 if x >= 0 else -1", place, indices))

        selected = columns.pairs(np.where(self.real, self.places, -2), gone)
        self._picked(3, selected, lambda: Select(indices, node(), "EQ"), near[:1])

    def _orders(self, cost: int) -> None:
        """The nearest larger or smaller token, and the commonest."""
        if self.kind == "sets":
            return
        if self.numeric and cost == 2:
            by_value = {self.values[number]: number for number in self.letters}
            table = np.full(2**15 + 1, -1, np.int16)
            for value, number in by_value.items():
                assert isinstance(value, int)
                table[value] = number
            own = self.numbers(self.token)
            keys = own >= 0
            for which, near in (("least", columns.next_above), ("most", columns.next_below)):
                wanted = own if which == "least" else np.where(own < 0, 2**14, own)
                found = near(np.where(keys, own, -1), wanted, -1, keys)
                self.pool.add(
                    "token", np.where(found >= 0, table[found], -1), 2, "order",
                    lambda w=which: self._nearest_node(w),
                )  # fmt: skip
        if cost == 2:
            special = tuple(text for text in self.vocab if text in SPECIAL)
            letters = np.isin(self.codes, self.letters)
            self.pool.add(
                "token", columns.commonest(self.token.values, letters, len(self.vocab)), cost, "commonest",
                lambda: pick("commonest", Select(tokens, tokens, f"x not in {special!r}"), tokens, NOTHING),
            )  # fmt: skip
        if cost in (2, 3):
            for feature in self.pool.of("bool", cost - 1, cost - 1, self.quota // 8):
                self.pool.add(
                    "token", columns.commonest(self.token.values, feature.values, len(self.vocab)), cost, "commonest",
                    lambda f=feature: pick("commonest", f.chosen(), tokens, NOTHING),
                )  # fmt: skip

    def _nearest_node(self, which: str) -> SOp:
        number = self.number_of(self.token)
        if which == "least":
            return pick("least", Select(number, number, "x > y"), number, NOTHING)
        return pick("most", Select(number, number, "0 <= x and (x < y or y < 0)"), number, NOTHING)
