"""Programs found from what a transformer does: from its answers alone, or from its activations as well."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from weightspace.rasp.bare import Activations, BareTransformer
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
)
from weightspace.rasp.sampler import FACTORS, MAPS, TYPED_COMPARISONS
from weightspace.rasp.tokens import TYPED_SEQUENCE_MAPS

Array = np.ndarray
Semantics = Literal["fixed", "tracr_compat"]

EVERY = 20_000
"""So many inputs are all tried; of more, as many drawn with a seed."""
BATCH = 160
"""S-ops are told apart by what they give on so many inputs."""

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
        weights = generator.normal(size=(2, n, places)) * place.present
        self.weights = weights.reshape(2, -1).T.copy()
        self.known: dict[tuple[bool, float, float], int] = {}
        self.recipes: list[Recipe] = []
        self.numerical: list[bool] = []
        self.kinds: list[int] = []
        self.past: list[frozenset[int]] = []
        self.values: list[Array] = []
        self.nodes: dict[Any, Any] = {}
        self.sets: dict[int, Array] = {}
        self.tried = 0
        where = np.where(place.real, np.arange(places) - 1.0, np.nan)
        self.add([("tokens",), ("indices",)], np.stack([place.tokens, where]), False, CATEGORICAL)

    def __len__(self) -> int:
        return len(self.recipes)

    def hashes(self, values: Array) -> Array:
        """(n, 2) of (n, inputs, places); equal where what is given is equal."""
        flat = np.nan_to_num(values.reshape(len(values), -1), nan=7.3195)
        return np.round(flat @ self.weights, 5) + 0.0

    def add(self, recipes: Sequence[Recipe], values: Array, numerical: bool, kinds: int) -> list[int]:
        """Enter S-ops; gives the number of each, which is that of an equal one if there is one."""
        self.tried += len(recipes)
        if not len(recipes):
            return []
        found = []
        for recipe, value, (first, second) in zip(recipes, values, self.hashes(values).tolist(), strict=True):
            key = (numerical, first, second)
            number = self.known.get(key)
            if number is None:
                number = self.known[key] = len(self.recipes)
                self.recipes.append(recipe)
                self.numerical.append(numerical)
                self.kinds.append(kinds)
                past = frozenset((number,)) if recipe[0] not in ("tokens", "indices") else frozenset()
                self.past.append(past.union(*(self.past[i] for i in _reads(recipe))))
                self.values.append(value)
            else:
                self.kinds[number] |= kinds
            found.append(number)
        return found

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

    def mapped(self, number: int, source: str, numerical: bool) -> Array:
        """(inputs, places) a function of a known S-op."""
        x, present = self.values[number], self.place.present
        if self.numerical[number]:
            if self.compat:
                expected = self.value_set(number)
                x = expected[np.searchsorted((expected[1:] + expected[:-1]) / 2, x + 1e-9, side="right")]
            return np.where(present & ~np.isnan(x), _SINGLE[source](x), np.nan)
        y = np.where(np.isnan(x), np.nan, _SINGLE[source](x))
        if numerical and self.compat:
            return np.where(present, np.maximum(np.nan_to_num(y), 0), np.nan)
        return y

    def map_all(self, among: Sequence[int]) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """Every Map of the S-ops given, by the kind that it has."""
        for (source_kind, kind), sources in MAPS.items():
            numerical = kind != "categorical"
            chosen = self.of_kind(_KINDS[source_kind], among)
            recipes = [("map", source, i, numerical) for i in chosen for source in sources]
            if recipes:
                values = np.stack([self.mapped(i, source, numerical) for _, source, i, _ in recipes])
                yield recipes, values, numerical, _KINDS[kind]

    def sequence_map_all(self, first: Sequence[int], second: Sequence[int]) -> Iterator[tuple[list[Recipe], Array]]:
        """Every SequenceMap of pairs of the categorical S-ops given."""
        if not first or not second:
            return
        y = np.stack([self.values[j] for j in second])
        for i in first:
            x = self.values[i][None]
            none = np.isnan(x) | np.isnan(y)
            for source, function in _PAIRED.items():
                recipes: list[Recipe] = [("sequence_map", source, i, j) for j in second]
                yield recipes, np.where(none, np.nan, function(x, y))

    def selections(self, keys: Sequence[int], queries: Sequence[int]) -> Iterator[tuple[list[Recipe], Array, Array]]:
        """For each key: recipes (keys, queries, comparison), (n, inputs, places, places) selected, BOS left out, and
        (n, inputs, places) whether BOS itself is selected."""
        if not keys or not queries:
            return
        q = np.stack([self.values[j] for j in queries])[:, :, :, None]
        known_q = ~np.isnan(q)
        for i in keys:
            k = self.values[i][None, :, None, :]
            both = known_q & ~np.isnan(k)
            recipes, parts = [], []
            for comparison in TYPED_COMPARISONS:
                recipes += [(i, j, comparison) for j in queries]
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
        some = np.nan_to_num(values)
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
        recipe = self.recipes[number]
        match recipe[0]:
            case "tokens":
                made: SOp = tokens
            case "indices":
                made = indices
            case "map":
                encoding = "numerical" if recipe[3] else "categorical"
                made = Map(Function.parse(recipe[1], 1), self.node(recipe[2]), encoding=encoding)
            case "sequence_map":
                made = SequenceMap(Function.parse(recipe[1], 2), self.node(recipe[2]), self.node(recipe[3]))
            case "linear":
                made = LinearSequenceMap(self.node(recipe[3]), self.node(recipe[4]), recipe[1], recipe[2])
            case "width":
                made = SelectorWidth(self._select(*recipe[1:4]))
            case _:
                encoding = "numerical" if self.numerical[number] else "categorical"
                made = Aggregate(self._select(*recipe[1:4]), self.node(recipe[4]), encoding=encoding)
        self.nodes[number] = made
        return made

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


@dataclass(frozen=True, eq=False)
class Seen:
    """The activations of a transformer on a batch, padded to one length.

    Attributes:
        heads: for each layer (heads, n, places, width) what each head adds.
        patterns: for each layer (heads, n, places, places) how much each place attends to each.
        mlps: for each layer (n, places, width) what its MLP adds.
    """

    heads: list[Array]
    patterns: list[Array]
    mlps: list[Array]

    @staticmethod
    def of(bare: BareTransformer, inputs: Sequence[tuple[Value, ...]]) -> Seen:
        n, places, layers = len(inputs), bare.max_seq_len + 1, bare.num_layers
        heads = [np.zeros((bare.num_heads, n, places, bare.width), np.float32) for _ in range(layers)]
        patterns = [np.zeros((bare.num_heads, n, places, places), np.float32) for _ in range(layers)]
        mlps = [np.zeros((n, places, bare.width), np.float32) for _ in range(layers)]
        for members, codes in _by_length(bare, inputs):
            seen, length = bare.activations(codes), codes.shape[1]
            for layer in range(layers):
                heads[layer][:, members, :length] = seen.heads[layer]
                patterns[layer][:, members, :length, :length] = _patterns(bare, layer, seen.stream[2 * layer])
                mlps[layer][members, :length] = seen.stream[2 * layer + 2] - seen.stream[2 * layer + 1]
        return Seen(heads, patterns, mlps)


def _patterns(bare: BareTransformer, layer: int, stream: Array) -> Array:
    """(heads, batch, places, places) how much each place attends to each, from the stream before the layer."""
    batch, places, _ = stream.shape
    query, key = (
        (stream @ matrix[layer] + bare.biases[name][layer])
        .reshape(batch, places, bare.num_heads, bare.key_size)
        .transpose(2, 0, 1, 3)
        for name, matrix in (("attn/query", bare.query), ("attn/key", bare.key))
    )
    scores = query @ key.swapaxes(2, 3) / np.sqrt(np.float32(bare.key_size))
    if bare.causal:
        scores = scores + np.triu(np.full((places, places), -np.inf, np.float32), 1)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


class Target(NamedTuple):
    """What a head or an MLP adds, in as few coordinates as it takes.

    Attributes:
        scores: (entries, rank) the vectors added, centred, by their principal coordinates.
        basis: (entries, rank) the same, each of length 1.
        energy: the sum of squares of `scores`.
    """

    scores: Array
    basis: Array
    energy: float

    @staticmethod
    def of(vectors: Array, share: float = 1e-4) -> Target:
        centred = vectors - vectors.mean(0)
        gram = (centred.T @ centred).astype(float)
        energies, axes = np.linalg.eigh(gram)
        kept = energies > share * max(energies.max(initial=0.0), 1e-12)
        scores = centred.astype(float) @ axes[:, kept]
        norms = np.sqrt((scores * scores).sum(0))
        return Target(scores, scores / np.maximum(norms, 1e-12), float((scores * scores).sum()))


class Columns(NamedTuple):
    """Candidates as what they would put into the stream: one-hot values, or numbers.

    Attributes:
        values: (n, entries) codes or numbers, centred.
        numerical: whether they are numbers.
        sizes: (n,) directions that they take.
        energy: (n,) sum of squares, centred.
    """

    values: Array
    numerical: bool
    sizes: Array
    energy: Array
    counts: Array

    @staticmethod
    def of(values: Array, numerical: bool) -> Columns:
        """Of (n, entries) values, NaN for None."""
        if numerical:
            centred = np.nan_to_num(values)
            centred = centred - centred.mean(1, keepdims=True)
            return Columns(centred, True, np.ones(len(values), int), (centred**2).sum(1), np.empty(0))
        distinct, codes = np.unique(np.nan_to_num(values, nan=-1e9), return_inverse=True)
        codes = codes.reshape(values.shape) + len(distinct) * np.arange(len(values))[:, None]
        counts = np.bincount(codes.ravel(), minlength=codes.size and len(values) * len(distinct))
        counts = counts.reshape(len(values), len(distinct)).astype(float)
        energy = (counts - counts**2 / values.shape[1]).sum(1)
        return Columns(codes, False, (counts > 0).sum(1) - 1, energy, counts)

    def read(self, vectors: Array) -> Array:
        """(n,) how much of centred `vectors` (entries, rank) each spans: a sum of squares."""
        if self.numerical:
            along = self.values @ vectors
            return (along**2).sum(1) / np.maximum(self.energy, 1e-12)
        total = np.zeros(len(self.values))
        for column in vectors.T:
            sums = np.bincount(self.values.ravel(), np.broadcast_to(column, self.values.shape).ravel(),
                               minlength=self.counts.size).reshape(self.counts.shape)  # fmt: skip
            total += (sums**2 / np.maximum(self.counts, 1)).sum(1)
        return total

    def decodable(self, basis: Array) -> Array:
        """(n,) the share of each that is a linear function of what has an orthonormal `basis` (entries, rank)."""
        if self.numerical:
            return ((self.values @ basis) ** 2).sum(1) / np.maximum(self.energy, 1e-12)
        total = np.zeros(len(self.values))
        for column in basis.T:
            sums = np.bincount(self.values.ravel(), np.broadcast_to(column, self.values.shape).ravel(),
                               minlength=self.counts.size).reshape(self.counts.shape)  # fmt: skip
            total += (sums**2).sum(1)
        return total / np.maximum(self.energy, 1e-12)


class Reader:
    """What has been recognised of a transformer's inside so far.

    Attributes:
        pool: the S-ops known, on `place`.
        real: (n, places) where entries of the regressions stand.
        until: when to stop.
    """

    def __init__(self, pool: Pool, seen: Seen, until: float) -> None:
        self.pool, self.seen, self.until = pool, seen, until
        self.real = pool.place.real
        self.largest = max(float(np.abs(part).max(initial=0)) for part in (*seen.heads, *seen.mlps))
        self.log: list[str] = []

    def entries(self, values: Array) -> Array:
        """(..., entries) of (..., inputs, places)."""
        return values[..., self.real]

    def target(self, added: Array) -> Target | None:
        """What a half-layer adds, or None where it adds nothing to speak of."""
        vectors = added[self.real]
        if np.abs(vectors - vectors.mean(0)).max() < 1e-3 * self.largest:
            return None
        return Target.of(vectors)

    # -- heads

    def heads(self, layer: int) -> None:
        """Find the Aggregates and SelectorWidths of a layer."""
        live = [(h, target) for h, added in enumerate(self.seen.heads[layer]) if (target := self.target(added))]
        if not live:
            return
        patterns = self.seen.patterns[layer][[h for h, _ in live]][:, self.real].astype(float)
        found = self.selectors(patterns)
        for (h, target), options in zip(live, found, strict=True):
            self.head(f"{layer}.{h}", target, options)

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

    def head(self, name: str, target: Target, options: list[tuple[float, Recipe, Array | None, Array]]) -> None:
        pool = self.pool
        nearest = options[0][0]
        options = [option for option in options if option[0] <= nearest + 0.15]
        inner = [i for i in range(len(pool)) if pool.kinds[i] & (CATEGORICAL | BOOL)]
        fits: list[tuple[float, float, int, Recipe, Array, bool]] = []
        for distance, recipe, attention, given in options:
            if attention is None:
                column = Columns.of(1.0 / (1.0 + self.entries(given)[None]), True)
                fit = float(column.read(target.scores)[0]) / target.energy
                fits.append((fit, distance, 1, ("width", *recipe), given, False))
                continue
            for i in inner:
                pool.tried += 1
                values, whole = pool.averaged(attention[None], i)
                if not whole[0]:
                    continue
                numerical = pool.numerical[i]
                column = Columns.of(self.entries(values), numerical)
                fit = float(column.read(target.scores)[0]) / target.energy
                fits.append((fit, distance, int(column.sizes[0]), ("aggregate", *recipe, i), values[0], numerical))
        if not fits:
            return
        best = max(fit - 0.003 * size - 0.3 * distance for fit, distance, size, *_ in fits)
        chosen = [f for f in fits if f[0] - 0.003 * f[2] - 0.3 * f[1] > best - 0.01]
        chosen.sort(key=lambda f: -(f[0] - 0.003 * f[2] - 0.3 * f[1]))
        for fit, distance, size, recipe, values, numerical in chosen[:8]:
            kinds = FREQ if numerical else CATEGORICAL
            added = pool.add([recipe], values[None], numerical, kinds)
            self.log.append(f"head {name}: {recipe} fit {fit:.4f} distance {distance:.4f} size {size} -> {added[0]}")

    # -- MLPs

    def mlp(self, layer: int) -> None:
        """Find the Maps, SequenceMaps, LinearSequenceMaps and SelectorWidths of a layer."""
        target = self.target(self.seen.mlps[layer])
        if target is None:
            return
        pool = self.pool
        entered: list[tuple[float, float, int, Recipe, Array, bool, int]] = []
        for recipes, values, numerical, kinds in self.candidates():
            pool.tried += len(recipes)
            column = Columns.of(self.entries(values), numerical)
            decodable = column.decodable(target.basis)
            explained = column.read(target.scores) / target.energy
            for s in np.flatnonzero((decodable > 0.98) & (column.energy > 1e-6)).tolist():
                entered.append((float(explained[s]), float(decodable[s]), int(column.sizes[s]), recipes[s], values[s],
                                numerical, kinds))  # fmt: skip
        entered.sort(key=lambda e: -(e[0] - 0.01 * e[2]))
        for fit, decodable, size, recipe, values, numerical, kinds in entered[:60]:
            before = len(pool)
            added = pool.add([recipe], values[None], numerical, kinds)
            if len(pool) > before:
                self.log.append(f"mlp {layer}: {recipe} fit {fit:.4f} decodable {decodable:.4f} size {size} -> {added[0]}")
        self.log.append(f"mlp {layer}: {len(entered)} decodable")

    def candidates(self) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        pool = self.pool
        yield from pool.map_all(range(len(pool)))
        categorical = pool.of_kind(CATEGORICAL)
        for recipes, values in pool.sequence_map_all(categorical, categorical):
            yield recipes, values, False, CATEGORICAL
        numbers = pool.of_kind(BOOL | FLOAT | FREQ)
        for i in numbers:
            for j in numbers:
                if i != j:
                    recipes = [("linear", a, b, i, j) for a in FACTORS for b in FACTORS]
                    values = np.stack([a * pool.values[i] + b * pool.values[j] for _, a, b, *_ in recipes])
                    yield recipes, values, True, FLOAT
