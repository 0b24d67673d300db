"""Programs found from what a transformer does: from its answers alone, or from its activations as well."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from weightspace.rasp.bare import BareTransformer
from weightspace.rasp.compiler import compile_program
from weightspace.rasp.functions import Function, RaspError, Value, is_number
from weightspace.rasp.interpreter import Batch, evaluate_batch
from weightspace.rasp.language import (
    Aggregate,
    Comparison,
    Expression,
    LinearSequenceMap,
    Map,
    Program,
    Select,
    SelectorWidth,
    SequenceMap,
    SOp,
    indices,
    tokens,
    walk,
)
from weightspace.rasp.sampler import FACTORS, MAPS, TYPED_COMPARISONS
from weightspace.rasp.tokens import TYPED_SEQUENCE_MAPS

Array = np.ndarray
Semantics = Literal["fixed", "tracr_compat"]

EVERY = 20_000
"""So many inputs are all tried; of more, as many drawn with a seed."""
BATCH = 160
"""S-ops are told apart by what they give on so many inputs."""

FEW = 44
"""The same where very many S-ops are told apart."""

_SINGLE: dict[str, Callable[[Array], Array]] = {
    "x": lambda x: x,
    "x + 0.5": lambda x: x + 0.5,
    "x + 1": lambda x: x + 1,
    "x - 1": lambda x: x - 1,
    "x * 2": lambda x: x * 2,
    "not x": lambda x: x == 0,
    "int(x)": np.trunc,
    **{f"x == {n}": lambda x, n=n: x == n for n in range(4)},
    **{f"x != {n}": lambda x, n=n: x != n for n in (2, 3)},
    **{f"x > {n}": lambda x, n=n: x > n for n in (0.5, 2, 3, 3.5)},
    **{f"x < {n}": lambda x, n=n: x < n for n in (2, 3, 3.5)},
}
_PAIRED: dict[str, Callable[[Array, Array], Array]] = {
    "x * y": lambda x, y: x * y,
    "x + y % 10": lambda x, y: x + y % 10,
    "x - y": lambda x, y: x - y,
    "x or y": lambda x, y: np.where(x != 0, x, y),
    "x and y": lambda x, y: np.where(x != 0, y, x),
}
_COMPARED: dict[str, Callable[[Array, Array], Array]] = {
    "EQ": np.equal,
    "TRUE": lambda x, y: np.ones(np.broadcast_shapes(x.shape, y.shape), bool),
    "GEQ": np.greater_equal,
    "GT": np.greater,
    "LEQ": np.less_equal,
    "LT": np.less,
    "NEQ": np.not_equal,
}
assert set(_PAIRED) == set(TYPED_SEQUENCE_MAPS) and set(_COMPARED) == set(TYPED_COMPARISONS)

CATEGORICAL, BOOL, FLOAT, FREQ = 1, 2, 4, 8
"""The sampler's types as bits: equal S-ops of several types are one that may be read as any of them."""
_KINDS = {"categorical": CATEGORICAL, "bool": BOOL, "float": FLOAT, "freq": FREQ}


class Place(NamedTuple):
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
    def of(inputs: Sequence[Sequence[Value]], longest: int) -> Place:
        held = np.full((len(inputs), longest + 1), np.nan)
        for row, entry in zip(held, inputs, strict=True):
            row[1 : 1 + len(entry)] = entry
        real = ~np.isnan(held)
        present = real.copy()
        present[:, 0] = True
        return Place(held, present, real)


Recipe = tuple[Any, ...]


class Pool:
    """S-ops that are known, each once: of those that give the same everywhere, the cheapest.

    What an S-op gives is what its *compiled* form gives. In `tracr_compat` that differs from the interpreter: BOS holds
    values too and draws all attention when it is selected, a Map of a number reads the nearest value that Tracr
    expects, a negative number is clipped where a Map writes it, and a number is never None.
    """

    def __init__(self, place: Place, compat: bool, length: int, seed: int = 0) -> None:
        self.place, self.compat, self.length = place, compat, length
        n, places = place.present.shape
        generator = np.random.default_rng(seed)
        self.weights = (generator.normal(size=(n, places)) * place.present).ravel()
        self.known: dict[tuple[bool, float], int] = {}
        self.recipes: list[Recipe] = []
        self.numerical: list[bool] = []
        self.kinds: list[int] = []
        self.past: list[frozenset[int]] = []
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
                number = self.known[key] = self._enter(recipes[first[place]], values[first[place]], numerical, kinds)
            else:
                self.kinds[number] |= kinds
            numbers[place] = number
        return numbers[which.reshape(-1)]

    def _enter(self, recipe: Recipe, values: Array, numerical: bool, kinds: int) -> int:
        number = len(self.recipes)
        self.recipes.append(recipe)
        self.numerical.append(numerical)
        self.kinds.append(kinds)
        own = frozenset((number,)) if recipe[0] not in ("tokens", "indices") else frozenset()
        self.past.append(own.union(*(self.past[i] for i in _reads(recipe))))
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
                made = _SINGLE[recipe[1]](self.value_set(recipe[2])) + 0.0
                found = np.unique(made)
            case "sequence_map":
                x, y = self.value_set(recipe[2]), self.value_set(recipe[3])
                made = _PAIRED[recipe[1]](x[:, None], y) if recipe[2] != recipe[3] else _PAIRED[recipe[1]](x, x)
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
                chosen = self.of_kind(_KINDS[source_kind], among)
                x = np.stack([self.read(i) for i in chosen]) if chosen else np.empty(0)
                read[source_kind] = chosen, x, np.isnan(x)
            chosen, x, none = read[source_kind]
            if not chosen:
                continue
            numerical = kind != "categorical"
            for source in sources:
                values = _SINGLE[source](x)
                if numerical and self.compat and source_kind == "categorical":
                    values = np.where(none, np.where(self.place.present, 0.0, np.nan), np.maximum(values, 0.0))
                else:
                    values = np.where(none, np.nan, values)
                yield [("map", source, i, numerical) for i in chosen], values, numerical, _KINDS[kind]

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
            for source, function in _PAIRED.items():
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
            both = ~np.isnan(q) & ~np.isnan(k)
            recipes, parts = [], []
            for comparison in TYPED_COMPARISONS:
                recipes += [(i, j, comparison) if few is keys else (j, i, comparison) for j in many]
                parts.append(_COMPARED[comparison](k, q) & both)
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


def _reads(recipe: Recipe) -> tuple[int, ...]:
    match recipe[0]:
        case "map":
            return (recipe[2],)
        case "sequence_map":
            return recipe[2:4]
        case "linear":
            return recipe[3:5]
        case "width":
            return recipe[1:3]
        case "aggregate":
            return (recipe[1], recipe[2], recipe[4])
    return ()


# -- what is asked for -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Synthesised:
    """What a search for a program has found.

    Attributes:
        program: the best one, or None if there is none at all.
        exact: whether its compiled form answers as the transformer does, at every place of every input tried.
        share: of the places at which they agree.
        inputs: how many inputs were tried.
        exhaustive: whether these are all there are.
        candidates: how many S-ops were looked at.
        seconds: how long it took.
    """

    program: Program | None
    exact: bool
    share: float
    inputs: int
    exhaustive: bool
    candidates: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Goal:
    """What a transformer answers.

    Attributes:
        inputs: the inputs tried.
        answers: (inputs, longest + 1) as numbers; NaN for None, at BOS and beyond an input's end.
        numerical: whether it answers with numbers.
        exhaustive: whether `inputs` are all there are.
        noise: how far numbers are from those that they were rounded to: the mean of the squares.
    """

    inputs: list[tuple[Value, ...]]
    answers: Array
    numerical: bool
    exhaustive: bool
    noise: float

    @staticmethod
    def of(bare: BareTransformer, seed: int = 0) -> Goal:
        """Ask a transformer.

        Raises:
            RaspError: if it is not known where it answers, or what it answers is no number.
        """
        if bare.readout is None or bare.readout.values == ():
            raise RaspError("it is not known where in the stream the answer stands, or what its directions mean")
        named = [value for value in (*bare.vocab, *(bare.readout.values or ())) if not is_number(value)]
        if named:
            raise RaspError(f"{named[0]!r} is not a number: synthesis knows programs over numbers only")
        inputs, exhaustive = _inputs(bare.vocab, bare.max_seq_len, EVERY, seed)
        answers = np.full((len(inputs), bare.max_seq_len + 1), np.nan)
        for members, codes in _by_length(bare, inputs):
            decoded = bare.decode(bare.forward(codes)[:, 1:])
            answers[members, 1 : codes.shape[1]] = np.array(decoded, float)
        numerical = bare.readout.values is None
        noise = 0.0
        if numerical:
            rounded = _plausible(answers)
            noise = float(np.nanmean((answers - rounded) ** 2))
            answers = rounded
        return Goal(inputs, answers, numerical, exhaustive, noise)


def _plausible(numbers: Array) -> Array:
    """Numbers rounded to halves, thirds, quarters and fifths, whichever is next."""
    options = np.stack([np.round(numbers * n) / n for n in (2, 3, 4, 5)])
    best = np.abs(options - numbers).argmin(0)
    return np.take_along_axis(options, best[None], 0)[0]


def _inputs(vocab: Sequence[Value], longest: int, most: int, seed: int) -> tuple[list[tuple[Value, ...]], bool]:
    """Every input if there are at most `most`, else as many drawn, long ones more often."""
    count = 0
    for length in range(1, longest + 1):
        count += len(vocab) ** length
        if count > most:
            generator = np.random.default_rng(seed)
            lengths = np.ceil(longest * np.sqrt(generator.random(most))).astype(int)
            return [tuple(vocab[i] for i in generator.integers(len(vocab), size=n)) for n in lengths.tolist()], False
    return Batch.every(vocab, longest).inputs(), True


def _by_length(bare: BareTransformer, inputs: Sequence[tuple[Value, ...]]) -> Iterator[tuple[list[int], Array]]:
    """Which of the inputs have a length, and their codes."""
    lengths = [len(entry) for entry in inputs]
    for length in sorted(set(lengths)):
        members = [i for i, found in enumerate(lengths) if found == length]
        yield members, bare.encode([inputs[i] for i in members])


def _some(goal: Goal, count: int, seed: int) -> list[int]:
    """Which inputs to tell S-ops apart by: of every length some, of long ones more, short ones first."""
    lengths = np.array([len(entry) for entry in goal.inputs])
    generator = np.random.default_rng(seed)
    shares = np.unique(lengths) / np.unique(lengths).sum()
    chosen: list[int] = []
    for length, share in zip(np.unique(lengths).tolist(), shares.tolist(), strict=True):
        members = np.flatnonzero(lengths == length)
        chosen += sorted(generator.permutation(members)[: max(1, round(share * count))].tolist())
    return chosen


# -- activations -----------------------------------------------------------------------------------------------------


class Inside:
    """The half-layers of a transformer on a padded batch, each run on whatever stream it is given.

    Attributes:
        stream: (n, places, width) what the embeddings give.
        present: (n, places) False beyond an input's end.
    """

    def __init__(self, bare: BareTransformer, inputs: Sequence[tuple[Value, ...]], place: Place) -> None:
        self.bare, self.present = bare, place.present
        n, places = place.present.shape
        self.stream = np.zeros((n, places, bare.width), np.float32)
        for members, codes in _by_length(bare, inputs):
            self.stream[members, : codes.shape[1]] = bare.tokens[codes] + bare.positions[: codes.shape[1]]

    def attention(self, layer: int, stream: Array) -> tuple[Array, Array]:
        """(heads, n, places, width) what each head adds, and (heads, n, places, places) where it looks."""
        bare = self.bare
        n, places, _ = stream.shape
        query, key, value = (
            (stream @ matrix[layer] + bare.biases[name][layer])
            .reshape(n, places, bare.num_heads, bare.key_size)
            .transpose(2, 0, 1, 3)
            for name, matrix in (("attn/query", bare.query), ("attn/key", bare.key), ("attn/value", bare.value))
        )
        scores = query @ key.swapaxes(2, 3) / np.sqrt(np.float32(bare.key_size))
        scores = np.where(self.present[:, None, :], scores, -np.inf)
        if bare.causal:
            scores = scores + np.triu(np.full((places, places), -np.inf, np.float32), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        added = (scores @ value) @ bare.linear[layer].reshape(bare.num_heads, 1, bare.key_size, -1)
        added[0] += bare.biases["attn/linear"][layer]
        return added, scores

    def mlp(self, layer: int, stream: Array) -> Array:
        """(n, places, width) what the MLP adds."""
        bare = self.bare
        hidden = np.maximum(stream @ bare.first[layer] + bare.biases["mlp/linear_1"][layer], 0)
        return hidden @ bare.second[layer] + bare.biases["mlp/linear_2"][layer]


class Added(NamedTuple):
    """What a head or an MLP adds, (entries, width), by its singular value decomposition; of full rank.

    Attributes:
        left: (entries, rank) orthonormal.
        sizes: (rank,) singular values.
        mean: (rank,) the mean of the vectors in the coordinates in which they are `left * sizes`.
        energy: the sum of squares around the mean.
    """

    left: Array
    sizes: Array
    mean: Array
    energy: float

    @staticmethod
    def of(vectors: Array, share: float = 1e-2) -> Added:
        energies, axes = np.linalg.eigh((vectors.T @ vectors).astype(float))
        kept = energies > share**2 * max(energies.max(initial=0.0), 1e-12)
        sizes = np.sqrt(energies[kept])
        scores = vectors.astype(float) @ axes[:, kept]
        mean = scores.mean(0)
        return Added(scores / sizes, sizes, mean, float(((scores - mean) ** 2).sum()))


class Fit(NamedTuple):
    """How well candidates go with what is added.

    Attributes:
        explained: (n,) share of the energy added that each explains, up to a constant.
        decodable: (n,) share of each that is a linear function of what is added.
        odd: (n,) how far the directions that it would take are from length 1: the root mean square of the logarithm.
        sizes: (n,) directions that it takes.
    """

    explained: Array
    decodable: Array
    odd: Array
    sizes: Array

    @staticmethod
    def of(values: Array, numerical: bool, added: Added) -> Fit:
        """Of (n, entries) values, NaN for None."""
        if numerical:
            filled = np.nan_to_num(values)
            return Fit.of_numbers(filled @ added.left, filled.sum(1), (filled**2).sum(1), values.shape[1], added)
        distinct, codes = np.unique(np.nan_to_num(values, nan=-1e9), return_inverse=True)
        shape = (len(values), len(distinct))
        codes = codes.reshape(values.shape) + len(distinct) * np.arange(len(values))[:, None]
        counts = np.bincount(codes.ravel(), minlength=shape[0] * shape[1]).reshape(shape).astype(float)
        sums = np.empty((*shape, added.left.shape[1]))
        for r, column in enumerate(added.left.T):
            weights = np.broadcast_to(column, values.shape).ravel()
            sums[:, :, r] = np.bincount(codes.ravel(), weights, minlength=shape[0] * shape[1]).reshape(shape)
        held = counts > 0
        around = sums * added.sizes - counts[:, :, None] * added.mean
        explained = ((around**2).sum(2) / np.maximum(counts, 1)).sum(1) / added.energy
        if distinct[0] == -1e9:  # None is a class, but no direction
            sums, counts, held = sums[:, 1:], counts[:, 1:], held[:, 1:]
        decodable = (sums**2).sum((1, 2)) / np.maximum(counts.sum(1), 1)
        lengths = ((sums / added.sizes) ** 2).sum(2)
        logs = np.log(np.maximum(lengths, 1e-9)) / 2 * held
        odd = np.sqrt((logs**2).sum(1) / np.maximum(held.sum(1), 1))
        return Fit(explained, decodable, odd, held.sum(1))

    @staticmethod
    def of_numbers(along: Array, total: Array, square: Array, entries: int, added: Added) -> Fit:
        """Of numbers by (n, rank) their products with `added.left`, (n,) their sums and sums of squares."""
        spread = np.maximum(square - total**2 / entries, 1e-9)
        around = along * added.sizes - total[:, None] * added.mean
        explained = (around**2).sum(1) / spread / added.energy
        decodable = (along**2).sum(1) / np.maximum(square, 1e-9)
        lengths = ((along / added.sizes) ** 2).sum(1)
        odd = np.abs(np.log(np.maximum(lengths, 1e-9))) / 2
        constant = square - total**2 / entries < 1e-6
        return Fit(explained, np.where(constant, 0.0, decodable), odd, np.ones(len(along), int))


class Strictness(NamedTuple):
    """What counts as recognised: least share decodable, greatest oddity, and how many S-ops a half-layer may give."""

    decodable: float
    odd: float
    most: int


STRICTNESS = tuple(
    itertools.starmap(
        Strictness, ((0.999, 0.05, 20), (0.999, 0.42, 20), (0.999, 1.3, 20), (0.97, 0.42, 20), (0.85, 0.7, 20), (0.4, 1.5, 10))
    )
)


class Candidate(NamedTuple):
    """An S-op that may be written by a half-layer.

    Attributes:
        recipe: how it is made of S-ops that are known.
        values: (inputs, places) what it gives.
        numerical: whether it is held as a number.
        kinds: the types that it may be read as.
        figures: explained, decodable, odd, size: see `Fit`.
    """

    recipe: Recipe
    values: Array
    numerical: bool
    kinds: int
    figures: tuple[float, ...]

    @property
    def merit(self) -> float:
        explained, decodable, odd, size = self.figures
        return explained + decodable - 0.3 * odd - 0.01 * size


ALIKE = 12
"""Of S-ops that put the same into the stream so many are kept: they differ in what values are called."""


def _codes(values: Array, numerical: bool) -> Array:
    """(entries,) numbers, centred, or codes of values from 0."""
    if numerical:
        return values - values.mean()
    return np.unique(np.nan_to_num(values, nan=-1e9), return_inverse=True)[1].reshape(-1)


def _between(codes: Array, scores: Array) -> float:
    """The sum of squares of `scores` (entries, rank) between classes."""
    one_hot = np.zeros((len(codes), codes.max() + 1))
    one_hot[np.arange(len(codes)), codes] = 1
    return float(((one_hot.T @ scores) ** 2 / one_hot.sum(0)[:, None]).sum())


def _residual(scores: Array, columns: Sequence[Array], numerical: Sequence[bool]) -> Array:
    """What is left of `scores` (entries, rank) when all that the columns explain together is taken out."""
    parts = [np.ones((len(scores), 1))]
    for column, number in zip(columns, numerical, strict=True):
        if number:
            parts.append(column[:, None])
        else:
            parts.append((column[:, None] == np.arange(column.max() + 1)).astype(float))
    design = np.concatenate(parts, 1)
    q, sizes, _ = np.linalg.svd(design, full_matrices=False)
    q = q[:, sizes > 1e-6 * sizes[0]]
    return scores - q @ (q.T @ scores)


class Reader:
    """What has been recognised of a transformer's inside so far.

    Attributes:
        pool: the S-ops known.
        inside: the half-layers, on the inputs of the pool.
        stream: (n, places, width) as far as it has been followed.
        strictness: what counts as recognised.
        mended: whether what is recognised goes on as it should be, and not as it is.
        log: what was recognised where, line by line.
    """

    def __init__(self, pool: Pool, inside: Inside, strictness: Strictness, mended: bool, until: float) -> None:
        self.pool, self.inside, self.strictness, self.until = pool, inside, strictness, until
        self.real, self.mended = pool.place.real, mended
        self.stream = inside.stream
        self.largest = float(np.abs(inside.stream).max())
        self.log: list[str] = []
        self.widths: list[int] = []

    def entries(self, values: Array) -> Array:
        """(..., entries) of (..., inputs, places)."""
        return values[..., self.real]

    def added(self, vectors: Array) -> Added | None:
        """What a half-layer adds, or None where it adds nothing to speak of."""
        vectors = vectors[self.real]
        if np.abs(vectors).max() < 1e-3 * self.largest:
            return None
        return Added.of(vectors)

    def enter(self, where: str, recipe: Recipe, values: Array, numerical: bool, kinds: int, fit: Sequence[float]) -> None:
        before = len(self.pool)
        number = self.pool.add([recipe], values[None], numerical, kinds)[0]
        if len(self.pool) > before:
            figures = " ".join(f"{figure:.4f}" for figure in fit)
            self.log.append(f"{where}: {recipe} {figures} -> {number}")

    # -- heads

    def read(self) -> None:
        """Go through all half-layers."""
        for layer in range(self.inside.bare.num_layers):
            self.heads(layer)
            self.mlp(layer)
            if time.monotonic() > self.until:
                return

    def mend(self, vectors: Array, columns: Sequence[tuple[Array, bool]]) -> Array:
        """What a half-layer should have added, if it writes the S-ops (values, whether numerical) given."""
        if not self.mended or not columns:
            return vectors
        parts = []
        for values, numerical in columns:
            if numerical:
                parts.append(np.nan_to_num(values)[..., None])
            else:
                named = np.unique(values[~np.isnan(values)])
                parts.append((values[..., None] == named).astype(float))
        design = np.concatenate(parts, -1) * self.pool.place.present[..., None]
        written = np.linalg.lstsq(design[self.real], vectors[self.real].astype(float), rcond=1e-6)[0]
        return (design @ written).astype(np.float32)

    def heads(self, layer: int) -> None:
        """Find the Aggregates and SelectorWidths of a layer."""
        vectors, patterns = self.inside.attention(layer, self.stream)
        live = [(h, added) for h, part in enumerate(vectors) if (added := self.added(part))]
        if live:
            looks = patterns[[h for h, _ in live]][:, self.real].astype(float)
            for (h, added), options in zip(live, self.selectors(looks), strict=True):
                columns = self.head(f"head {layer}.{h}", added, options)
                vectors[h] = self.mend(vectors[h], columns)
        self.stream = self.stream + vectors.sum(0)

    def selectors(self, patterns: Array, most: int = 40) -> list[list[tuple[float, Recipe, Array | None, Array]]]:
        """For each pattern (heads, entries, places) the nearest selectors: distance, recipe, and what they give:
        the weights of an Aggregate, or None and the values of a SelectorWidth."""
        pool = self.pool
        categorical = pool.of_kind(CATEGORICAL)
        flat = patterns.reshape(len(patterns), -1)
        best: list[list[tuple[float, Recipe, Array | None, Array]]] = [[] for _ in patterns]
        seen: set[float] = set()
        weights = np.random.default_rng(1).normal(size=flat.shape[1])
        for keys in categorical:
            for recipes, chosen, bos in pool.selections([keys], categorical):
                pool.tried += 2 * len(recipes)
                attention = pool.attention(chosen, bos)
                counted = chosen.astype(float)
                counted[..., 0] = 1
                counted[bos] = 0
                counted[bos, 0] = 1
                counted /= np.maximum(counted.sum(-1, keepdims=True), 1)
                for kind, options in ((0, attention), (1, counted)):
                    rows = options[:, self.real].reshape(len(options), -1)
                    names = np.round(rows @ weights, 6) + 1000.0 * kind
                    distances = ((rows**2).sum(1) - 2 * (flat @ rows.T) + (flat**2).sum(1)[:, None]) / len(patterns[0])
                    for s, name in enumerate(names.tolist()):
                        if name in seen:
                            continue
                        seen.add(name)
                        for h in range(len(patterns)):
                            if len(best[h]) < most or distances[h, s] < best[h][-1][0]:
                                given = pool.widths(chosen[s : s + 1], bos[s : s + 1])[0] if kind else options[s]
                                entry = (float(distances[h, s]), recipes[s], None if kind else options[s], given)
                                best[h].append(entry)
                                best[h].sort(key=lambda e: e[0])
                                del best[h][most:]
        return best

    def head(
        self, where: str, added: Added, options: list[tuple[float, Recipe, Array | None, Array]]
    ) -> list[tuple[Array, bool]]:
        """Find what one head adds; gives that as columns."""
        pool = self.pool
        if not options:
            return []
        nearest = options[0][0]
        inner = [i for i in range(len(pool)) if pool.kinds[i] & (CATEGORICAL | BOOL)]
        fits: list[tuple[float, Recipe, Array, bool, int, tuple[float, ...], Array]] = []

        def consider(recipe: Recipe, values: Array, numerical: bool, kinds: int, distance: float, held: Array) -> None:
            fit = Fit.of(self.entries(held)[None], numerical, added)
            explained, decodable, odd, size = (float(part[0]) for part in fit)
            merit = explained + decodable - 0.2 * odd - 0.003 * size - 0.3 * distance
            fits.append((merit, recipe, values, numerical and kinds != CATEGORICAL, kinds,
                         (explained, decodable, odd, size, distance), held))  # fmt: skip

        for distance, recipe, attention, given in options:
            if distance > nearest + 0.15:
                break
            pool.tried += len(inner)
            if attention is None:
                consider(("width", *recipe), given, True, CATEGORICAL, distance, 1 / (1 + given))
                continue
            for i in inner:
                values, whole = pool.averaged(attention[None], i)
                if whole[0]:
                    numerical = pool.numerical[i]
                    kinds = FREQ if numerical else CATEGORICAL
                    consider(("aggregate", *recipe, i), values[0], numerical, kinds, distance, values[0])
        fits.sort(key=lambda f: -f[0])
        for merit, recipe, values, numerical, kinds, figures, _ in fits[:8]:
            if merit > fits[0][0] - 0.01:
                self.enter(where, recipe, values, numerical, kinds, figures)
                if recipe[0] == "width":
                    self.widths.append(len(self.pool) - 1)
        if not fits or fits[0][5][0] < 0.3:
            return []
        first = fits[0]
        return [(first[6], first[3] or first[1][0] == "width")]

    # -- MLPs

    def mlp(self, layer: int) -> None:
        """Find the Maps, SequenceMaps, LinearSequenceMaps and SelectorWidths of a layer."""
        vectors = self.inside.mlp(layer, self.stream)
        added = self.added(vectors)
        if added is not None:
            vectors = self.mend(vectors, self.written(f"mlp {layer}", added))
        self.stream = self.stream + vectors

    def written(self, where: str, added: Added) -> list[tuple[Array, bool]]:
        """Find what an MLP adds; gives that as columns."""
        found: list[Candidate] = []
        for recipes, values, numerical, kinds in self.tables():
            fit = Fit.of(self.entries(values), numerical, added)
            for s in self.passing(fit).tolist():
                figures = tuple(float(part[s]) for part in fit)
                found.append(Candidate(recipes[s], values[s], numerical, kinds, figures))
        found += self.sums(added)
        # widths have been entered with their head already
        found += [
            Candidate(self.pool.recipes[i], self.pool.values[i], False, CATEGORICAL, (0.0, 1.0, 0.0, 1.0))
            for i in self.widths
        ]
        self.widths = []
        found.sort(key=lambda c: -c.merit)
        found = found[:400]
        chosen, picked = self.smallest(found, added) if found else ([], [])
        rest = [c for c in found if all(c is not d for d in chosen)][: self.strictness.most]
        for c in (*chosen, *rest):
            self.enter(where, c.recipe, c.values, c.numerical, c.kinds, c.figures)
        self.log.append(f"{where}: {len(found)} recognised, {len(chosen)} chosen")
        return [(c.values, c.numerical) for c in picked]

    def smallest(self, found: list[Candidate], added: Added) -> tuple[list[Candidate], list[Candidate]]:
        """Few candidates that together explain what is added, with those that put the same into the stream; and
        without."""
        scores = added.left * added.sizes - added.mean
        columns = [_codes(self.entries(c.values), c.numerical) for c in found]
        numbers = [i for i, c in enumerate(found) if c.numerical]
        tables = [i for i, c in enumerate(found) if not c.numerical]
        held = np.stack([columns[i] for i in numbers]) if numbers else np.empty((0, len(scores)))
        odd = np.array([c.figures[2] for c in found])
        sizes = np.array([c.figures[3] for c in found])
        chosen: list[Candidate] = []
        picked: list[int] = []
        rest = scores
        for _ in range(6):
            gain = np.zeros(len(found))
            if numbers:
                gain[numbers] = ((held @ rest) ** 2).sum(1) / np.maximum((held**2).sum(1), 1e-9)
            for i in tables:
                gain[i] = _between(columns[i], rest)
            gain /= added.energy
            merit = gain - 0.004 * sizes - 0.1 * odd * (gain > 1e-3)
            best = int(merit.argmax())
            if gain[best] < 3e-3:
                break
            picked.append(best)
            same = np.flatnonzero((np.abs(gain - gain[best]) < 1e-4) & (merit > merit[best] - 0.01))
            alike = sorted(same.tolist(), key=lambda i: (i != best, odd[i], len(found[i].recipe)))
            chosen += [found[i] for i in alike[:ALIKE] if all(found[i] is not c for c in chosen)]
            rest = _residual(scores, [columns[i] for i in picked], [found[i].numerical for i in picked])
            if (rest**2).sum() < 1e-3 * added.energy:
                break
        return chosen, [found[i] for i in picked]

    def passing(self, fit: Fit) -> Array:
        return np.flatnonzero((fit.decodable > self.strictness.decodable) & (fit.odd < self.strictness.odd)
                              & (fit.explained > 1e-6))  # fmt: skip

    def tables(self) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """Every Map and SequenceMap of what is known."""
        pool = self.pool
        count = len(pool)
        for family in pool.map_all(range(count)):
            pool.tried += len(family[0])
            yield family
        categorical = pool.of_kind(CATEGORICAL)
        for recipes, values in pool.sequence_map_all(categorical, categorical):
            pool.tried += len(recipes)
            yield recipes, values, False, CATEGORICAL

    def sums(self, added: Added) -> list[Candidate]:
        """Every LinearSequenceMap of what is known, by products alone: they are linear in what they read."""
        pool = self.pool
        numbers = pool.of_kind(BOOL | FLOAT | FREQ)
        if not numbers:
            return []
        held = self.entries(np.stack([pool.values[i] for i in numbers]))
        along, total, gram = held @ added.left, held.sum(1), held @ held.T
        first, second = (part.ravel() for part in np.indices((len(numbers), len(numbers))))
        first, second = first[first != second], second[first != second]
        found: list[Candidate] = []
        for a, b in itertools.product(FACTORS, FACTORS):
            pool.tried += len(first)
            square = a * a * gram[first, first] + 2 * a * b * gram[first, second] + b * b * gram[second, second]
            fit = Fit.of_numbers(
                a * along[first] + b * along[second], a * total[first] + b * total[second], square, held.shape[1], added
            )
            for s in self.passing(fit).tolist():
                i, j = numbers[first[s]], numbers[second[s]]
                figures = tuple(float(part[s]) for part in fit)
                values = a * pool.values[i] + b * pool.values[j]
                found.append(Candidate(("linear", a, b, i, j), values, True, FLOAT, figures))
        return found


# -- bottom up, and backwards from the answer ------------------------------------------------------------------------

Finish = Callable[[int, SOp], SOp]
"""From a row of targets and an S-op that is that target to the S-op that gives the answer."""
NEAR = 2e-6
"""Sums nearer than this are one."""
STORED = 40_000
"""So many S-ops are kept to build on."""
CHUNK = 4_000_000
"""So many numbers are held at once."""


BINS_TO_ONE = 100_000.0
"""Bins by which sums are looked up at first, in an interval of length 1."""


class Targets:
    """What would settle the search if it turned up: the answer, and what one more operation turns into it.

    Everything is known by two sums over places with random weights, in which LinearSequenceMap and Aggregate are
    linear; so whole families of candidates are looked up without ever being made.
    """

    def __init__(self, weights: Array) -> None:
        self.weights = weights
        self.parts: dict[bool, list[tuple[Array, Finish]]] = {False: [], True: []}
        self.tables: dict[bool, tuple[Array, Array, Array]] = {}
        self.bins: dict[bool, Array] = {}

    def enter(self, values: Array, numerical: bool, finish: Finish) -> None:
        """(n, entries) values wanted of an S-op."""
        self.enter_sums(values @ self.weights, numerical, finish)

    def enter_sums(self, sums: Array, numerical: bool, finish: Finish) -> None:
        self.parts[numerical].append((sums, finish))
        self.tables.pop(numerical, None)

    def table(self, numerical: bool) -> tuple[Array, Array, Array]:
        """(n, 2) sums in order of the first, and which part and which row of it each is."""
        found = self.tables.get(numerical)
        if found is None:
            parts = [sums for sums, _ in self.parts[numerical]] or [np.empty((0, 2))]
            sums = np.concatenate(parts)
            owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
            rows = np.concatenate([np.arange(len(part)) for part in parts])
            order = np.argsort(sums[:, 0], kind="stable")
            found = self.tables[numerical] = (sums[order], owner[order], rows[order])
            bins = self.bins[numerical] = np.zeros(1 << 24, bool)
            for side in (-NEAR, NEAR):
                bins[((sums[:, 0] + side) * BINS_TO_ONE).astype(np.int64) & (len(bins) - 1)] = True
        return found

    def near(self, sums: Array, numerical: bool) -> Array:
        """At which places of (n,) first sums something is wanted."""
        wanted = self.table(numerical)[0]
        bins = self.bins[numerical]
        places = np.flatnonzero(bins.take((sums * BINS_TO_ONE).astype(np.int64) & (len(bins) - 1)))
        if not len(places):
            return places
        keys = np.ascontiguousarray(wanted[:, 0])
        first = np.minimum(np.searchsorted(keys, sums[places] - NEAR), len(keys) - 1)
        return places[np.abs(keys[first] - sums[places]) <= NEAR]

    def hits(self, sums: Array, numerical: bool) -> Iterator[tuple[int, Finish, int]]:
        """Which of (n, 2) sums are wanted: (place, finish, row)."""
        wanted, owner, rows = self.table(numerical)
        for place in self.near(np.ascontiguousarray(sums[:, 0]), numerical).tolist():
            at = int(np.searchsorted(wanted[:, 0], sums[place, 0] - NEAR))
            while at < len(wanted) and wanted[at, 0] <= sums[place, 0] + NEAR:
                if abs(wanted[at, 1] - sums[place, 1]) <= NEAR:
                    yield place, self.parts[numerical][owner[at]][1], int(rows[at])
                at += 1


class Solved(Exception):
    """The search is over: an answer was found, or time is up."""


class Enumeration:
    """S-ops in the order of their size, each looked up among the targets.

    Args:
        pool: what is there to begin with.
        wanted: (inputs, places) the answer.
        accept: whether an S-op gives the answer everywhere; it may be asked about many that do not.
    Attributes:
        levels: the numbers in the pool of the S-ops of each size.
        best: the largest share of places right, and the recipe that has it.
    """

    def __init__(self, pool: Pool, wanted: Array, numerical: bool, until: float, accept: Callable[[SOp], bool]) -> None:
        self.pool, self.numerical, self.until, self.accept = pool, numerical, until, accept
        self.real = pool.place.real
        self.wanted = wanted[self.real]
        self.weights = np.random.default_rng(5).normal(size=(len(self.wanted), 2))
        self.spread = np.zeros((*self.real.shape, 2))
        self.spread[self.real] = self.weights
        self.targets = Targets(self.weights)
        self.probe = np.random.default_rng(6).normal(size=self.real.size)
        self.levels: list[list[int]] = [list(range(len(pool)))]
        self.entered = 0
        self.refused: set[Any] = set()
        self.best: tuple[float, Recipe | None] = (-1.0, None)

    def run(self) -> None:
        """Enumerate until an answer is accepted or time is up."""
        try:
            self.from_answer()
            self.linked()
            for size in (1, 2):
                self.level(size)
            self.large()
        except Solved:
            pass

    def large(self) -> None:
        """What is larger, the quickest families first."""
        while True:
            before = len(self.pool)
            families = sorted(self.families(len(self.levels) - 1), key=lambda f: f[0])
            for _, family in families:
                family()
            self.linked()
            if not self.numerical:
                self.masked()
            if len(self.pool) == before:
                return
            self.levels.append(list(range(before, len(self.pool))))

    def families(self, last: int) -> list[tuple[float, Callable[[], None]]]:
        """What is made of the levels up to the last, that one at least once unless it is the second; with a guess at
        the seconds that it takes."""
        kinds = (CATEGORICAL, BOOL, BOOL | FLOAT | FREQ)
        counts = [[len(self.pool.of_kind(kind, level)) for kind in kinds] for level in self.levels]
        cats, numbers = [float(count[0]) for count in counts], [float(count[2]) for count in counts]
        made: list[tuple[float, Callable[[], None]]] = []
        levels = range(last + 1)
        for pair in itertools.product(levels, repeat=2):
            inner = range(last + 1) if last == 2 or last in pair else (last,)
            read = sum(sum(counts[level][:2]) for level in inner)
            seconds = 7 * cats[pair[0]] * cats[pair[1]] * (2e-5 + 5e-8 * read)
            made.append((seconds, lambda pair=pair, inner=inner: self.means(*pair, inner)))
        for pair in itertools.product(levels, repeat=2):
            if sum(pair) < 2 or (last > 2 and last not in pair):
                continue
            first, second = pair
            if first <= second:
                made.append((1.3e-5 * numbers[first] * numbers[second], lambda pair=pair: self.sums(*pair)))
            harder = 6 if self.numerical and len(self.pool) > STORED // 2 else 1
            made.append((harder * 2e-5 * cats[first] * cats[second], lambda pair=pair: self.keep(self.joined(*pair))))
            made.append((15e-4 * cats[first] * cats[second], lambda pair=pair: self.keep(self.counted(*pair))))
        made.append((5e-4 * cats[last] + 1e-4 * numbers[last], lambda: self.keep(self.maps(last))))
        if not self.numerical:
            made.append((0.3, self.masked))
        return made

    # -- looking up

    def flat(self, values: Array) -> Array:
        """(n, entries) of (n, inputs, places); None becomes the smallest value, as a compiled answer has it."""
        held = values[:, self.real]
        if np.isnan(held).any():
            lowest = np.where(np.isnan(held), np.inf, held).min(1, keepdims=True)
            held = np.where(np.isnan(held), np.where(np.isfinite(lowest), lowest, 0), held)
        return held

    def check(self, recipes: Sequence[Recipe], values: Array, numerical: bool) -> None:
        """Look candidates up, and remember the one that is right at most places."""
        flat = self.flat(values)
        if numerical == self.numerical:
            shares = (np.abs(flat - self.wanted) < 1e-3).mean(1)
            first = int(shares.argmax())
            if shares[first] > self.best[0]:
                self.best = float(shares[first]), recipes[first]
        self.look(flat @ self.weights, numerical, recipes.__getitem__)

    def look(self, sums: Array, numerical: bool, recipe: Callable[[int], Recipe]) -> None:
        """Look (n, 2) sums up.

        Raises:
            Solved: if one settles the search, or time is up.
        """
        if time.monotonic() > self.until:
            raise Solved
        for place, finish, row in self.targets.hits(sums, numerical):
            made = recipe(place)
            key = (made, row, id(finish))
            if key not in self.refused:
                self.refused.add(key)
                if self.accept(finish(row, self.pool.build(made))) or time.monotonic() > self.until:
                    raise Solved

    def recheck(self, numbers: Sequence[int]) -> None:
        """Look up what is in the pool."""
        for numerical in (False, True):
            some = [i for i in numbers if self.pool.numerical[i] == numerical]
            for part in _parts(some, max(1, CHUNK // self.real.size)):
                values = np.stack([self.pool.values[i] for i in part])
                self.check([self.pool.recipes[i] for i in part], values, numerical)

    # -- targets

    def from_answer(self) -> None:
        """The answer, and what a Map turns into it."""
        g, enter = self.wanted[None], self.targets.enter

        def mapped(source: str, numerical: bool) -> Finish:
            encoding = "numerical" if numerical else "categorical"
            return lambda row, node: Map(Function.parse(source, 1), node, encoding=encoding)

        enter(g, self.numerical, lambda row, node: node)
        if self.numerical:
            for numerical in (False, True):
                for source, before in (("x", g), ("x + 0.5", g - 0.5), ("x + 1", g - 1), ("x * 2", g / 2)):
                    if source != "x" or not numerical:
                        enter(before, numerical, mapped(source, True))
        else:
            enter(g - 1, False, mapped("x + 1", False))
            enter(g + 1, False, mapped("x - 1", False))
            enter(g, True, mapped("x", False))
        if np.isin(g, (0, 1)).all():
            enter(1 - g, True, mapped("not x", self.numerical))

    def rows_of_targets(self) -> None:
        """What a LinearSequenceMap or a SequenceMap with an S-op of the pool turns into the answer."""
        pool, g = self.pool, self.wanted[None]
        new = range(self.entered, len(pool))
        self.entered = len(pool)
        if self.numerical:
            numbers = [i for i in new if pool.numerical[i]]
            if numbers:
                sums = np.concatenate([self.flat(np.stack([pool.values[i] for i in part])) @ self.weights
                                       for part in _parts(numbers, max(1, CHUNK // self.real.size))])  # fmt: skip
                for a, b in itertools.product(FACTORS, FACTORS):

                    def finish(row: int, node: SOp, a: int = a, b: int = b) -> SOp:
                        return LinearSequenceMap(pool.node(numbers[row]), node, a, b)

                    self.targets.enter_sums((g @ self.weights - a * sums) / b, True, finish)
            return
        whole = [i for i in new if not pool.numerical[i] and not np.isnan(pool.values[i][self.real]).any()]
        for part in _parts(whole, max(1, CHUNK // self.real.size)):
            x = self.flat(np.stack([pool.values[i] for i in part]))

            def joined(source: str, first: bool, part: Sequence[int] = part) -> Finish:
                function = Function.parse(source, 2)
                if first:
                    return lambda row, node: SequenceMap(function, pool.node(part[row]), node)
                return lambda row, node: SequenceMap(function, node, pool.node(part[row]))

            enter = self.targets.enter
            enter(x - g, False, joined("x - y", True))
            enter(g + x, False, joined("x - y", False))
            enter(g - x % 10, False, joined("x + y % 10", False))
            enter(g - x, False, joined("x + y % 10", True))

    # -- families

    def level(self, size: int) -> None:
        """All S-ops of a small size; they are kept."""
        self.levels.append([])
        before = len(self.pool)
        for sizes in itertools.product(range(size), repeat=3):
            if sum(sizes) == size - 1:
                self.keep(self.kept_means(*sizes))
        self.keep(self.maps(size - 1))
        for first in range(size):
            second = size - 1 - first
            self.keep(self.joined(first, second))
            self.keep(self.counted(first, second))
            self.keep(self.weighted(first, second))
        self.levels[size] = list(range(before, len(self.pool)))
        self.linked()
        if not self.numerical:
            self.masked()

    def keep(self, family: Iterable[tuple[list[Recipe], Array, bool, int]]) -> None:
        """Look a family up and build on it later."""
        for recipes, values, numerical, kinds in family:
            self.pool.tried += len(recipes)
            self.check(recipes, values, numerical)
            if len(self.pool) < STORED:
                self.pool.add(recipes, values, numerical, kinds)

    def linked(self) -> None:
        """Look everything up again after new targets have been made of what is new."""
        entered = self.entered
        self.rows_of_targets()
        if self.entered > entered:
            self.recheck(range(len(self.pool)))

    def of(self, kinds: int, size: int) -> list[int]:
        return self.pool.of_kind(kinds, self.levels[size])

    def maps(self, size: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        for part in _parts(self.levels[size], max(1, CHUNK // self.real.size)):
            yield from self.pool.map_all(part)

    def joined(self, first: int, second: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """SequenceMaps."""
        x = self.of(CATEGORICAL, first)
        for part in _parts(self.of(CATEGORICAL, second), max(1, CHUNK // self.real.size)):
            for recipes, values in self.pool.sequence_map_all(x, part):
                yield recipes, values, False, CATEGORICAL

    def counted(self, first: int, second: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """SelectorWidths."""
        x = self.of(CATEGORICAL, first)
        for part in _parts(self.of(CATEGORICAL, second), max(1, CHUNK // self.real.size // 42)):
            for recipes, chosen, bos in self.pool.selections(x, part):
                yield [("width", *recipe) for recipe in recipes], self.pool.widths(chosen, bos), False, CATEGORICAL

    def weighted(self, first: int, second: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """LinearSequenceMaps."""
        pool = self.pool
        for i in self.of(BOOL | FLOAT | FREQ, first):
            y = [j for j in self.of(BOOL | FLOAT | FREQ, second) if j != i]
            if not y:
                continue
            held = np.stack([pool.values[j] for j in y])
            for a, b in itertools.product(FACTORS, FACTORS):
                yield [("linear", a, b, i, j) for j in y], a * pool.values[i] + b * held, True, FLOAT

    def means(self, keys: int, queries: int, inner: Iterable[int]) -> None:
        """Aggregates, by sums alone."""
        pool = self.pool
        some = [i for level in inner for i in self.of(CATEGORICAL | BOOL, level)]
        if not some:
            return
        held = np.stack([pool.values[i].T for i in some]).reshape(len(some), -1)
        held = np.where(np.isnan(held), 0.0, held)
        numbers = np.array([pool.numerical[i] for i in some])
        groups = [(numerical, np.flatnonzero(numbers == numerical)) for numerical in (False, True)]
        for recipes, back in self.selectors(keys, queries):
            for numerical, own in groups:
                if len(own):
                    sums = back @ held[own].T
                    pool.tried += sums.size
                    self.glance(sums, numerical, recipes, [some[i] for i in own.tolist()])

    def selectors(self, keys: int, queries: int) -> Iterator[tuple[list[Recipe], Array]]:
        """Selectors (keys, queries, comparison), and (n, places * inputs) how their Aggregates' sum depends on what is
        read where."""
        pool = self.pool
        x, y = self.of(CATEGORICAL, keys), self.of(CATEGORICAL, queries)
        if not x or not y:
            return
        n, places = self.real.shape
        spread = np.ascontiguousarray(self.spread[..., 0].T)[None]  # (1, queries, inputs)
        few, many = (x, y) if len(x) <= len(y) else (y, x)
        for i in few:
            own = pool.values[i].T[None]
            for part in _parts(many, max(1, CHUNK // (7 * places * places * n))):
                held = np.stack([pool.values[j].T for j in part])
                k, q = (own, held) if few is x else (held, own)
                k, q = k[:, :, None], q[:, None]  # (s, keys, queries, inputs)
                known = ~np.isnan(k) & ~np.isnan(q)
                recipes: list[Recipe] = []
                backs = []
                for comparison in TYPED_COMPARISONS:
                    recipes += [(i, j, comparison) if few is x else (j, i, comparison) for j in part]
                    chosen = known if comparison == "TRUE" else _COMPARED[comparison](k, q) & known
                    backs.append(self.back(chosen, spread).reshape(len(part), -1))
                back = np.concatenate(backs)
                _, first = np.unique(np.round(back @ self.probe, 7), return_index=True)
                yield [recipes[s] for s in first.tolist()], back[first]

    def back(self, chosen: Array, spread: Array) -> Array:
        """(n, keys, inputs) from (n, keys, queries, inputs) what is selected."""
        bits = chosen.view(np.uint8)
        width = bits[:, 1].copy()
        for key in range(2, bits.shape[1]):  # many times faster than `sum` over so few
            width += bits[:, key]
        nothing = width == 0
        if self.pool.compat:
            nothing |= chosen[:, 0]
        share = spread / np.maximum(width, 1)
        share[nothing] = 0
        result = np.einsum("skqi,sqi->ski", chosen.astype(float), share)
        result[:, 0] = np.einsum("sqi,sqi->si", nothing.astype(float), np.broadcast_to(spread, nothing.shape))
        return result

    def glance(self, sums: Array, numerical: bool, selectors: list[Recipe], inner: list[int]) -> None:
        """Look up the first sums (selectors, inner) of Aggregates, and make what might be wanted."""
        if time.monotonic() > self.until:
            raise Solved
        places = self.targets.near(sums.ravel(), numerical)
        for start in range(0, len(places), 256):
            some = [divmod(place, len(inner)) for place in places[start : start + 256].tolist()]
            recipes: list[Recipe] = [("aggregate", *selectors[s], inner[i]) for s, i in some]
            values = np.stack([self.aggregate(recipe) for recipe in recipes])
            self.look(self.flat(values) @ self.weights, numerical, recipes.__getitem__)

    def aggregate(self, recipe: Recipe) -> Array:
        """(inputs, places) what one Aggregate gives; NaN everywhere if it is a mean of different categories."""
        _, keys, queries, comparison, inner = recipe
        pool = self.pool
        k, q = pool.values[keys][:, None, :], pool.values[queries][:, :, None]
        chosen = (_COMPARED[comparison](k, q) & ~np.isnan(k) & ~np.isnan(q))[None]
        bos = chosen[..., 0].copy()
        chosen[..., 0] = False
        values, whole = pool.averaged(pool.attention(chosen, bos & pool.compat), inner)
        return values[0] if whole[0] else np.full_like(values[0], np.nan)

    def kept_means(self, keys: int, queries: int, inner: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """Aggregates, value by value; those that are means of different categories are left out."""
        pool = self.pool
        for part in _parts(self.of(CATEGORICAL, queries), max(1, CHUNK // self.real.size // 42)):
            for recipes, chosen, bos in pool.selections(self.of(CATEGORICAL, keys), part):
                weights = pool.attention(chosen, bos)
                for i in self.of(CATEGORICAL | BOOL, inner):
                    values, whole = pool.averaged(weights, i)
                    kept = np.flatnonzero(whole)
                    made = [("aggregate", *recipes[s], i) for s in kept.tolist()]
                    if made:
                        numerical = pool.numerical[i]
                        yield made, values[kept], numerical, FREQ if numerical else CATEGORICAL

    def sums(self, first: int, second: int) -> None:
        """LinearSequenceMaps, by sums alone."""
        pool = self.pool
        x, y = self.of(BOOL | FLOAT | FREQ, first), self.of(BOOL | FLOAT | FREQ, second)
        if not x or not y:
            return
        along = np.concatenate([self.flat(np.stack([pool.values[j] for j in part])) @ self.weights
                                for part in _parts(y, max(1, CHUNK // self.real.size))])  # fmt: skip
        for i in x:
            own = self.flat(pool.values[i][None]) @ self.weights
            for a, b in itertools.product(FACTORS, FACTORS):
                pool.tried += len(y)
                self.look(a * own + b * along, True, lambda s, a=a, b=b, i=i: ("linear", a, b, i, y[s]))

    def masked(self) -> None:
        """SequenceMaps of what is kept by `or`, `and` and `*`, whose first operand says where the second matters."""
        pool, g = self.pool, self.wanted
        whole = [i for i in range(len(pool)) if pool.kinds[i] & CATEGORICAL and not np.isnan(pool.values[i][self.real]).any()]
        if not whole:
            return
        held = np.stack([pool.values[i][self.real] for i in whole])
        zero = held == 0
        options = {
            "x or y": ((held == g) | zero).all(1),
            "x and y": ((g == 0) | ~zero).all(1),
            "x * y": ((g == 0) | ~zero).all(1),
        }
        for source, possible in options.items():
            for row in np.flatnonzero(possible).tolist()[:1_500]:
                x, matters = held[row], zero[row] if source == "x or y" else ~zero[row]
                wanted = g / np.where(x == 0, 1, x) if source == "x * y" else g
                pool.tried += len(held)
                if time.monotonic() > self.until:
                    raise Solved
                ahead = np.flatnonzero(matters)[:8]
                some = np.flatnonzero((held[:, ahead] == wanted[ahead]).all(1))
                for other in some.tolist():
                    if (held[other][matters] == wanted[matters]).all():
                        made = ("sequence_map", source, whole[row], whole[other])
                        if made not in self.refused:
                            self.refused.add(made)
                            if self.accept(pool.build(made)):
                                raise Solved


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


# -- the search ------------------------------------------------------------------------------------------------------


def match_activations(bare: BareTransformer, budget: float = 10.0, seed: int = 0) -> Synthesised:
    """Find the program that a transformer computes from its answers and its activations.

    Args:
        bare: `readout` has to say where it answers.
        budget: seconds.
    Raises:
        RaspError: if it is not known where it answers, or its tokens or answers are no numbers.
    """
    started = time.monotonic()
    search = Search(bare, Goal.of(bare, seed), started + budget, seed)
    pools = [search.pool()]
    for mended, strictness in itertools.product((False, True), STRICTNESS):
        if search.over or search.read(strictness, mended, pools):
            break
    for pool in (min(pools[1:], key=len, default=pools[0]), pools[0]):  # what was read may lack only the last step
        if not search.over:
            search.enumerate(pool, time.monotonic() + (search.until - time.monotonic()) / 2)
    return search.result(started)


def synthesise(bare: BareTransformer, budget: float = 10.0, seed: int = 0) -> Synthesised:
    """Find the program that a transformer computes from its answers alone.

    Args:
        bare: `readout` has to say where it answers.
        budget: seconds.
    Raises:
        RaspError: if it is not known where it answers, or its tokens or answers are no numbers.
    """
    started = time.monotonic()
    search = Search(bare, Goal.of(bare, seed), started + budget, seed, FEW)
    search.enumerate(search.pool(), search.until)
    return search.result(started)


class Search:
    """What a search has found so far.

    Attributes:
        best: the share of places right and the S-op that has it; by its own semantics, on the batch.
    """

    def __init__(self, bare: BareTransformer, goal: Goal, until: float, seed: int, batch: int = BATCH) -> None:
        self.bare, self.goal, self.until = bare, goal, until
        self.mode: Semantics = "fixed" if bare.mode == "fixed" else "tracr_compat"
        chosen = _some(goal, batch, seed)
        self.inputs = [goal.inputs[i] for i in chosen]
        self.wanted = goal.answers[chosen]
        self.place = Place.of(self.inputs, bare.max_seq_len)
        self.inside = Inside(bare, self.inputs, self.place)
        self.best: tuple[float, SOp | None] = (-np.inf, None)
        self.exact: Program | None = None
        self.tried = 0
        self.log: list[str] = []

    def pool(self) -> Pool:
        return Pool(self.place, self.mode == "tracr_compat", self.bare.max_seq_len)

    @property
    def over(self) -> bool:
        return self.exact is not None or time.monotonic() > self.until

    def read(self, strictness: Strictness, mended: bool, pools: list[Pool]) -> bool:
        """Read the activations once; whether that gave a program that is right everywhere.

        Args:
            pools: to which is added what was recognised.
        """
        pool = self.pool()
        reader = Reader(pool, self.inside, strictness, mended, self.until)
        reader.read()
        self.log = reader.log
        found = self.judge(pool, reader.stream if mended else None)
        self.tried += pool.tried
        if len(pool) > 2:
            pools.append(pool)
        return found

    def enumerate(self, pool: Pool, until: float) -> bool:
        """Enumerate from a pool; whether that gave a program that is right everywhere."""
        pool.tried = 0
        enumeration = Enumeration(pool, self.wanted, self.goal.numerical, until, self.verify)
        enumeration.run()
        share, recipe = enumeration.best
        if recipe is not None and share > self.best[0]:
            self.best = share, pool.build(recipe)
        self.tried += pool.tried
        return self.exact is not None

    def judge(self, pool: Pool, stream: Array | None) -> bool:
        """Look for the answer among the S-ops of a pool.

        Args:
            stream: the final stream after mending, whose answers are an opinion too.
        """
        goal, real = self.goal, self.place.real
        numbers = [i for i in range(len(pool)) if pool.numerical[i] == goal.numerical]
        if not numbers:
            return False
        values = np.stack([self.answered(pool, i) for i in numbers])
        shares = _same(values, self.wanted[real]).mean(1)
        for s in np.flatnonzero(shares == 1).tolist():
            if self.verify(pool.node(numbers[s])):
                return True
        opinion = shares
        if stream is not None:
            opinion = np.maximum(shares, self.opinion(values, stream))
        first = int(opinion.argmax())
        if opinion[first] > self.best[0]:
            self.best = float(opinion[first]), pool.node(numbers[first])
        return False

    def opinion(self, values: Array, stream: Array) -> Array:
        """How well the values (n, entries) of S-ops go with a final stream, at most 0.999."""
        readout = self.bare.readout
        assert readout is not None
        read = (stream @ readout.directions)[self.place.real].astype(float)
        if self.goal.numerical:
            error = ((values - read[:, 0]) ** 2).mean(1)
            return np.minimum(0.999, 1 - error / max(float(read.var()), 1e-3))
        assert readout.values is not None
        names = np.array([float(value) for value in readout.values if is_number(value)])
        return np.minimum(0.999, _same(values, names[read.argmax(1)]).mean(1))

    def answered(self, pool: Pool, number: int) -> Array:
        """(entries,) what is answered if an S-op is the output."""
        values = pool.values[number][self.place.real]
        if self.mode == "tracr_compat" and not pool.numerical[number]:
            return np.where(np.isnan(values), pool.value_set(number)[0], values)
        return values

    def program(self, node: SOp) -> Program:
        return Program.of(
            _reading_tokens(node),
            vocab=self.bare.vocab,
            max_seq_len=self.bare.max_seq_len,
            causal=self.bare.causal,
        )

    def verify(self, node: SOp) -> bool:
        """Whether an S-op answers everything as the transformer does when it is compiled; if so it is kept."""
        program = self.program(node)
        answers = self.compiled_answers(program)
        if answers is None:
            return False
        if _same(answers, self.goal.answers).all():
            self.exact = program
            return True
        return False

    def compiled_answers(self, program: Program) -> Array | None:
        try:
            compiled = BareTransformer.of(compile_program(program, mode=self.mode))
        except RaspError:
            return None
        answers = np.full(self.goal.answers.shape, np.nan)
        for members, codes in _by_length(compiled, self.goal.inputs):
            answers[members, 1 : codes.shape[1]] = np.array(compiled.decode(compiled.forward(codes)[:, 1:]), float)
        return answers

    def result(self, started: float) -> Synthesised:
        program, share = self.exact, 1.0
        if program is None and self.best[1] is not None:
            program = self.program(self.best[1])
            answers = self.compiled_answers(program)
            share = 0.0
            if answers is not None:
                asked = np.array([len(entry) for entry in self.goal.inputs])[:, None] > np.arange(answers.shape[1] - 1)
                share = float(_same(answers, self.goal.answers)[:, 1:][asked].mean())
        return Synthesised(
            program,
            self.exact is not None,
            share if program is not None else 0.0,
            len(self.goal.inputs),
            self.goal.exhaustive,
            self.tried,
            time.monotonic() - started,
        )


def _same(given: Array, wanted: Array) -> Array:
    """Where answers agree: numbers within a thousandth, None with None."""
    near = np.abs(given - wanted) <= 1e-3 * np.maximum(1.0, np.abs(wanted))
    return near | (np.isnan(given) & np.isnan(wanted))


def _reading_tokens(node: SOp) -> SOp:
    """The same S-op as one that is an operation and reads the tokens, as the compiler asks for."""
    if node is tokens:
        return SequenceMap("x or y", tokens, tokens)
    if any(part is tokens for part in walk(node)):
        return node
    nought = SequenceMap("x - y", tokens, tokens)
    if node.numerical:
        return LinearSequenceMap(node, Map("x", nought, encoding="numerical"), 1, 1)
    return SequenceMap("x - y", node, nought)
