"""S-ops by what their compiled form gives on a batch of inputs, whole families of operations at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from weightspace.rasp.functions import Function, Value
from weightspace.rasp.language import (
    Aggregate,
    Comparison,
    LinearSequenceMap,
    Map,
    Select,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
)
from weightspace.rasp.sampler import COMPARED, JOINED, MAPPED, MAPS, TYPED_COMPARISONS
from weightspace.rasp.tokens import TYPED_SEQUENCE_MAPS

Array = np.ndarray

assert set(JOINED) == set(TYPED_SEQUENCE_MAPS) and set(COMPARED) == set(TYPED_COMPARISONS)

CATEGORICAL, BOOL, FLOAT, FREQ = 1, 2, 4, 8
"""The sampler's types as bits: equal S-ops of several types are one that may be read as any of them."""
KINDS = {"categorical": CATEGORICAL, "bool": BOOL, "float": FLOAT, "freq": FREQ}


class InputPlaces(NamedTuple):
    """What a transformer sees: inputs with BOS in front.

    Attributes:
        tokens: (n, places) numbers, NaN at BOS and beyond an input's end.
        present: (n, places) False beyond an input's end.
        real: the same, but False at BOS too.
    """

    tokens: Array
    present: Array
    real: Array

    @staticmethod
    def of(inputs: Sequence[Sequence[Value]], longest: int) -> InputPlaces:
        held = np.full((len(inputs), longest + 1), np.nan)
        for row, entry in zip(held, inputs, strict=True):
            row[1 : 1 + len(entry)] = entry
        real = ~np.isnan(held)
        present = real.copy()
        present[:, 0] = True
        return InputPlaces(held, present, real)


Recipe = tuple[Any, ...]


class Pool:
    """S-ops that are known, each once: of those that give the same everywhere, the first.

    What an S-op gives is what its *compiled* form gives. In `tracr_compat` that differs from the interpreter: BOS holds
    values too and draws all attention when it is selected, a Map of a number reads the nearest value that Tracr
    expects, a negative number is clipped where a Map writes it, and a number is never None.

    Args:
        place: the batch on which S-ops are told apart.
        compat: whether they are compiled as by Tracr, and not `fixed`.
        length: of the longest input.
        causal: whether a place sees only itself and what is before it.
    """

    def __init__(self, place: InputPlaces, compat: bool, length: int, causal: bool = False, seed: int = 0) -> None:
        self.place, self.compat, self.length = place, compat, length
        n, places = place.present.shape
        self.seen = np.tri(places, dtype=bool) if causal else np.ones((places, places), bool)  # (queries, keys)
        generator = np.random.default_rng(seed)
        self.weights = (generator.normal(size=(n, places)) * place.present).ravel()
        self.known: dict[tuple[bool, float], int] = {}
        self.recipes: list[Recipe] = []
        self.numerical: list[bool] = []
        self.kinds: list[int] = []
        self.values: list[Array] = []
        self.nodes: dict[Any, Any] = {}
        self.expected: dict[int, Array] = {}
        self.sets: dict[int, Array] = {}
        self.tried = 0
        where = np.where(place.real, np.arange(places) - 1.0, np.nan)
        self.add([("tokens",), ("indices",)], np.stack([place.tokens, where]), False, CATEGORICAL)

    def __len__(self) -> int:
        return len(self.recipes)

    def names(self, values: Array) -> Array:
        """(n,) of (n, inputs, places): numbers that are equal where what is given is equal."""
        flat = values.reshape(len(values), -1)
        return np.round(np.where(np.isnan(flat), 7.3195, flat) @ self.weights, 8) + 0.0

    def add(self, recipes: Sequence[Recipe], values: Array, numerical: bool, kinds: int) -> Array:
        """Enter S-ops; gives the number of each, which is that of an equal one if there is one."""
        if not len(recipes):
            return np.empty(0, int)
        names, first, which = np.unique(self.names(values), return_index=True, return_inverse=True)
        numbers = np.empty(len(names), int)
        for place in np.argsort(first).tolist():
            key = (numerical, float(names[place]))
            number = self.known.get(key)
            if number is None:
                number = self.known[key] = self._enter(
                    recipes[int(first[place])], values[first[place]], numerical, kinds
                )
            else:
                self.kinds[number] |= kinds
            numbers[place] = number
        return numbers[which.reshape(-1)]

    def _enter(self, recipe: Recipe, values: Array, numerical: bool, kinds: int) -> int:
        number = len(self.recipes)
        self.recipes.append(recipe)
        self.numerical.append(numerical)
        self.kinds.append(kinds)
        self.values.append(np.array(values))
        return number

    # -- what operations give

    def of_kind(self, bits: int, among: Iterable[int] | None = None) -> list[int]:
        return [i for i in (range(len(self)) if among is None else among) if self.kinds[i] & bits]

    def value_set(self, number: int) -> Array:
        """The values that the compiler expects of an S-op, sorted."""
        found = self.sets.get(number)
        if found is not None:
            return found
        recipe = self.recipes[number]
        match recipe[0]:
            case "tokens":
                found = np.unique(self.place.tokens[self.place.real])
            case "indices":
                found = np.arange(float(self.length))
            case "map":
                made = MAPPED[recipe[1]](self.value_set(recipe[2])) + 0.0
                found = np.unique(made)
            case "sequence_map":
                x, y = self.value_set(recipe[2]), self.value_set(recipe[3])
                made = JOINED[recipe[1]](x[:, None], y) if recipe[2] != recipe[3] else JOINED[recipe[1]](x, x)
                found = np.unique(made)
            case "linear":
                _, a, b, i, j = recipe
                found = np.unique(np.round(np.add.outer(a * self.value_set(i), b * self.value_set(j)), 9))
            case "width":
                found = np.arange(self.length + 1.0)
            case _:
                found = self.value_set(recipe[4])
                if self.numerical[number]:
                    found = np.unique(found[:, None] / np.arange(1, self.length + 1))
        self.sets[number] = found
        return found

    def read(self, number: int) -> Array:
        """(inputs, places) what a Map finds: of Tracr's numbers the nearest of those that it expects."""
        x = self.values[number]
        if not (self.compat and self.numerical[number]):
            return x
        found = self.expected.get(number)
        if found is None:
            values = self.value_set(number)
            x = values[np.searchsorted((values[1:] + values[:-1]) / 2, x + 1e-9, side="right")]
            found = self.expected[number] = np.where(self.place.present, x, np.nan)
        return found

    def map_all(self, among: Sequence[int]) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """Every Map of the S-ops given, by the function and the kind that it has."""
        read: dict[str, tuple[list[int], Array, Array]] = {}
        for (source_kind, kind), sources in MAPS.items():
            if source_kind not in read:
                chosen = self.of_kind(KINDS[source_kind], among)
                x = np.stack([self.read(i) for i in chosen]) if chosen else np.empty(0)
                read[source_kind] = chosen, x, np.isnan(x)
            chosen, x, none = read[source_kind]
            if not chosen:
                continue
            numerical = kind != "categorical"
            for source in sources:
                values = MAPPED[source](x)
                if numerical and self.compat and source_kind == "categorical":
                    values = np.where(none, np.where(self.place.present, 0.0, np.nan), np.maximum(values, 0.0))
                else:
                    values = np.where(none, np.nan, values)
                yield [("map", source, i, numerical) for i in chosen], values, numerical, KINDS[kind]

    def sequence_map_all(self, first: Sequence[int], second: Sequence[int]) -> Iterator[tuple[list[Recipe], Array]]:
        """Every SequenceMap of pairs of the categorical S-ops given."""
        if not first or not second:
            return
        few, many = (first, second) if len(first) <= len(second) else (second, first)
        held = np.stack([self.values[i] for i in many])
        missing = np.isnan(held)
        for i in few:
            own = self.values[i][None]
            none = np.isnan(own) | missing
            for source, function in JOINED.items():
                if few is first:
                    recipes: list[Recipe] = [("sequence_map", source, i, j) for j in many]
                    yield recipes, np.where(none, np.nan, function(own, held))
                else:
                    recipes = [("sequence_map", source, j, i) for j in many]
                    yield recipes, np.where(none, np.nan, function(held, own))

    def selections(self, keys: Sequence[int], queries: Sequence[int]) -> Iterator[tuple[list[Recipe], Array, Array]]:
        """Some at a time, recipes (keys, queries, comparison), (n, inputs, places, places) what is selected, BOS left
        out, and (n, inputs, places) whether BOS itself is selected."""
        if not keys or not queries:
            return
        few, many = (keys, queries) if len(keys) <= len(queries) else (queries, keys)
        held = np.stack([self.values[i] for i in many])
        for i in few:
            own = self.values[i][None]
            k, q = (own, held) if few is keys else (held, own)
            k, q = k[:, :, None, :], q[:, :, :, None]
            both = ~np.isnan(q) & ~np.isnan(k) & self.seen
            recipes, parts = [], []
            for comparison in TYPED_COMPARISONS:
                recipes += [(i, j, comparison) if few is keys else (j, i, comparison) for j in many]
                parts.append(COMPARED[comparison](k, q) & both)
            chosen = np.concatenate(parts)
            bos = chosen[..., 0].copy()
            chosen[..., 0] = False
            yield recipes, chosen, bos if self.compat else np.zeros_like(bos)

    def attention(self, chosen: Array, bos: Array) -> Array:
        """(n, inputs, places, places) the weights with which an Aggregate reads; BOS where nothing is selected."""
        width = chosen.sum(-1)
        weights = chosen / np.maximum(width, 1)[..., None]
        to_bos = bos | (width == 0)
        weights[to_bos] = 0
        weights[..., 0] += to_bos
        return weights

    def averaged(self, weights: Array, number: int) -> tuple[Array, Array]:
        """(n, inputs, places) what Aggregates of an S-op give, and (n,) whether one value is found everywhere."""
        values, place = self.values[number], self.place
        some = np.where(np.isnan(values), 0.0, values)
        read = np.matmul(weights, some[:, :, None])[..., 0]
        if self.numerical[number]:
            return np.where(place.present, read, np.nan), np.ones(len(read), bool)
        held = (~np.isnan(values)).astype(float)
        share = np.matmul(weights, held[:, :, None])[..., 0]
        square = np.matmul(weights, (some * some)[:, :, None])[..., 0]
        pure = (np.abs(square - read * read) < 1e-6) & ((share > 1 - 1e-6) | (share < 1e-6))
        whole = (pure | ~place.real).all((1, 2))
        return np.where(place.present & (share > 0.5), read, np.nan), whole

    def widths(self, chosen: Array, bos: Array) -> Array:
        """(n, inputs, places) what SelectorWidths give."""
        width = np.where(bos, 0.0, chosen.sum(-1))
        return np.where(self.place.real, width, np.nan)

    # -- programs

    def node(self, number: int) -> SOp:
        """The S-op as an expression; shared parts are one node."""
        found = self.nodes.get(number)
        if found is not None:
            return found
        self.nodes[number] = made = self.build(self.recipes[number])
        return made

    def build(self, recipe: Recipe) -> SOp:
        """A new S-op over those that are known."""
        match recipe[0]:
            case "tokens":
                return tokens
            case "indices":
                return indices
            case "map":
                encoding = "numerical" if recipe[3] else "categorical"
                return Map(Function.parse(recipe[1], 1), self.node(recipe[2]), encoding=encoding)
            case "sequence_map":
                return SequenceMap(Function.parse(recipe[1], 2), self.node(recipe[2]), self.node(recipe[3]))
            case "linear":
                return LinearSequenceMap(self.node(recipe[3]), self.node(recipe[4]), recipe[1], recipe[2])
            case "width":
                return SelectorWidth(self._select(*recipe[1:4]))
        encoding = "numerical" if self.numerical[recipe[4]] else "categorical"
        return Aggregate(self._select(*recipe[1:4]), self.node(recipe[4]), encoding=encoding)

    def _select(self, keys: int, queries: int, comparison: Comparison) -> Select:
        key = (keys, queries, comparison)
        if key not in self.nodes:
            self.nodes[key] = Select(self.node(keys), self.node(queries), comparison)
        return self.nodes[key]


def parts_of(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
