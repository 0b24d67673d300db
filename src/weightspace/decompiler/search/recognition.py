"""S-ops recognised in what each half-layer of a transformer adds to its stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from weightspace import clock
from weightspace.decompiler.search.answers import by_length
from weightspace.decompiler.search.pool import BOOL, CATEGORICAL, FLOAT, FREQ, InputPlaces, Pool, Recipe
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.functions import Value
from weightspace.rasp.sampler import FACTORS

Array = np.ndarray


class Inside:
    """The half-layers of a transformer on a padded batch, each run on whatever stream it is given.

    Attributes:
        stream: (n, places, width) what the embeddings give.
        present: (n, places) False beyond an input's end.
    """

    def __init__(self, bare: BareTransformer, inputs: Sequence[tuple[Value, ...]], place: InputPlaces) -> None:
        self.bare, self.present = bare, place.present
        n, places = place.present.shape
        self.stream = np.zeros((n, places, bare.width), np.float32)
        for members, codes in by_length(bare, inputs):
            self.stream[members, : codes.shape[1]] = bare.tokens[codes] + bare.positions[: codes.shape[1]]

    def attention(self, layer: int, stream: Array) -> tuple[list[Addition], Array]:
        """What each head adds, and (heads, n, places, places) where it looks."""
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
        heads = [Addition.of(mixed, bare.linear[layer][bare.head(h)]) for h, mixed in enumerate(scores @ value)]
        return heads, scores

    def mlp(self, layer: int, stream: Array) -> Addition:
        """What the MLP adds."""
        hidden = np.maximum(stream @ self.bare.first[layer] + self.bare.biases["mlp/linear_1"][layer], 0)
        return Addition.of(hidden, self.bare.second[layer])

    def bias(self, layer: int, matrix: str) -> Array:
        """(width,) what a half-layer adds everywhere."""
        return self.bare.biases[matrix][layer]


class Addition(NamedTuple):
    """What a head or an MLP adds: how far it goes in each of the directions that it can write.

    A compressed stream squeezes directions together, but not what is about to be written: rows of a writing matrix that
    are multiples of each other are one direction of the stream as it was compiled.

    Attributes:
        along: (n, places, directions) how far, in units of the shortest row of each direction.
        directions: (directions, width).
    """

    along: Array
    directions: Array

    @staticmethod
    def of(units: Array, rows: Array) -> Addition:
        """Of (n, places, units) by what each writes, (units, width)."""
        lengths = np.linalg.norm(rows, axis=1)
        used = np.flatnonzero(lengths > 1e-5 * max(float(lengths.max(initial=0)), 1e-9))
        unit = rows[used] / lengths[used, None]
        angles = unit @ unit.T
        free = np.ones(len(used), bool)
        shares, directions = [], []
        for i in range(len(used)):
            if free[i]:
                members = np.flatnonzero(free & (np.abs(angles[i]) > PARALLEL))
                free[members] = False
                shortest = lengths[used[members]].min()
                share = np.zeros(len(rows), np.float32)
                share[used[members]] = np.sign(angles[i][members]) * lengths[used[members]] / shortest
                shares.append(share)
                directions.append(unit[i] * shortest)
        if not shares:
            return Addition(np.zeros((*units.shape[:2], 0), np.float32), np.zeros((0, rows.shape[1]), np.float32))
        return Addition(units @ np.stack(shares, 1), np.stack(directions))

    @property
    def added(self) -> Array:
        """(n, places, width)"""
        return self.along @ self.directions

    def read(self, readout: Array) -> Array:
        """(n, places, k) what is added to the directions (width, k) of an answer, and to nothing that overlaps them."""
        lengths = np.linalg.norm(self.directions, axis=1)[:, None] * np.maximum(np.linalg.norm(readout, axis=0), 1e-9)
        products = self.directions @ readout
        along = np.abs(products) > PARALLEL * lengths
        return self.along @ np.where(along, products / np.maximum((readout**2).sum(0), 1e-12), 0)


PARALLEL = 0.99
"""Rows whose angle has at least this cosine write one direction."""


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
        Strictness,
        ((0.999, 0.05, 20), (0.999, 0.42, 20), (0.999, 1.3, 20), (0.97, 0.42, 20), (0.85, 0.7, 20), (0.4, 1.5, 10)),
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


class Recognised:
    """What has been recognised of a transformer's inside so far.

    Attributes:
        pool: the S-ops known.
        inside: the half-layers, on the inputs of the pool.
        stream: (n, places, width) as far as it has been followed.
        answer: (n, places, values) what has been written to the directions of the answer.
        strictness: what counts as recognised.
        mended: whether what is recognised goes on as it should be, and not as it is.
        log: what was recognised where, line by line.
    """

    def __init__(self, pool: Pool, inside: Inside, strictness: Strictness, mended: bool, until: float) -> None:
        self.pool, self.inside, self.strictness, self.until = pool, inside, strictness, until
        self.real, self.mended = pool.place.real, mended
        self.stream = inside.stream
        readout = inside.bare.readout
        assert readout is not None
        self.readout = readout.directions
        self.answer = np.zeros((*self.real.shape, self.readout.shape[1]))
        self.log: list[str] = []
        self.widths: list[int] = []

    def entries(self, values: Array) -> Array:
        """(..., entries) of (..., inputs, places)."""
        return values[..., self.real]

    def added(self, written: Addition) -> Added | None:
        """What a half-layer adds, or None where it adds nothing to speak of."""
        along = written.along[self.real]
        if not along.size or np.abs(along).max() < 1e-3:
            return None
        return Added.of(along)

    def enter(
        self, where: str, recipe: Recipe, values: Array, numerical: bool, kinds: int, fit: Sequence[float]
    ) -> None:
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
            if clock.now() > self.until:
                return

    def mend(self, written: Addition, columns: Sequence[tuple[Array, bool]]) -> Addition:
        """What a half-layer should have added, if it writes the S-ops (values, whether numerical) given."""
        if not self.mended or not columns:
            return written
        parts = []
        for values, numerical in columns:
            if numerical:
                parts.append(np.nan_to_num(values)[..., None])
            else:
                named = np.unique(values[~np.isnan(values)])
                parts.append((values[..., None] == named).astype(float))
        design = np.concatenate(parts, -1) * self.pool.place.present[..., None]
        shares = np.linalg.lstsq(design[self.real], written.along[self.real].astype(float), rcond=1e-6)[0]
        return written._replace(along=(design @ shares).astype(np.float32))

    def add(self, written: Addition) -> None:
        self.stream = self.stream + written.added
        self.answer = self.answer + written.read(self.readout)

    def heads(self, layer: int) -> None:
        """Find the Aggregates and SelectorWidths of a layer."""
        heads, patterns = self.inside.attention(layer, self.stream)
        live = [(h, added) for h, written in enumerate(heads) if (added := self.added(written))]
        if live:
            looks = patterns[[h for h, _ in live]][:, self.real].astype(float)
            for (h, added), options in zip(live, self.selectors(looks), strict=True):
                heads[h] = self.mend(heads[h], self.head(f"head {layer}.{h}", added, options))
        for written in heads:
            self.add(written)
        self.stream = self.stream + self.inside.bias(layer, "attn/linear")

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
        written = self.inside.mlp(layer, self.stream)
        added = self.added(written)
        if added is not None:
            written = self.mend(written, self.written(f"mlp {layer}", added))
        self.add(written)
        self.stream = self.stream + self.inside.bias(layer, "mlp/linear_2")

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
