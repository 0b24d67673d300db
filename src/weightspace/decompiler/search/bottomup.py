"""Programs enumerated by size and looked up among what one operation more would turn into the answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from weightspace import clock
from weightspace.decompiler.search.pool import BOOL, CATEGORICAL, FLOAT, FREQ, Pool, Recipe, parts_of
from weightspace.rasp.functions import Function
from weightspace.rasp.language import LinearSequenceMap, Map, SequenceMap, SOp
from weightspace.rasp.sampler import COMPARED, FACTORS, TYPED_COMPARISONS

Array = np.ndarray

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
        wanted: (inputs, places) the answer; NaN where it is None or in doubt.
        accept: whether an S-op gives the answer everywhere; it may be asked about many that do not.
    Attributes:
        levels: the numbers in the pool of the S-ops of each size.
        best: the largest share of places right, and the recipe that has it.
    """

    def __init__(self, pool: Pool, wanted: Array, numerical: bool, until: float, accept: Callable[[SOp], bool]) -> None:
        self.pool, self.numerical, self.until, self.accept = pool, numerical, until, accept
        self.real = pool.place.real & ~np.isnan(wanted)
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
                self.chains()
            self.large()
        except Solved:
            pass

    def large(self) -> None:
        """What is larger, the quickest families first."""
        while True:
            before = len(self.pool)
            families = sorted(self.families(len(self.levels) - 1), key=lambda family: family[0])
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
            made.append((seconds, lambda pair=pair, inner=inner: self.means(pair[0], pair[1], inner)))
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
        if clock.now() > self.until:
            raise Solved
        for place, finish, row in self.targets.hits(sums, numerical):
            made = recipe(place)
            key = (made, row, id(finish))
            if key not in self.refused:
                self.refused.add(key)
                if self.accept(finish(row, self.pool.build(made))) or clock.now() > self.until:
                    raise Solved

    def recheck(self, numbers: Sequence[int]) -> None:
        """Look up what is in the pool."""
        for numerical in (False, True):
            some = [i for i in numbers if self.pool.numerical[i] == numerical]
            for part in parts_of(some, max(1, CHUNK // self.real.size)):
                values = np.stack([self.pool.values[i] for i in part])
                self.check([self.pool.recipes[i] for i in part], values, numerical)

    # -- targets

    def from_answer(self) -> None:
        """The answer, and what a Map turns into it."""
        g, enter = self.wanted[None], self.targets.enter

        def mapped(source: str, numerical: bool) -> Finish:
            encoding = "numerical" if numerical else "categorical"
            return lambda _, node: Map(Function.parse(source, 1), node, encoding=encoding)

        enter(g, self.numerical, lambda _, node: node)
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
                                       for part in parts_of(numbers, max(1, CHUNK // self.real.size))])  # fmt: skip
                for a, b in itertools.product(FACTORS, FACTORS):

                    def finish(row: int, node: SOp, a: int = a, b: int = b) -> SOp:
                        return LinearSequenceMap(pool.node(numbers[row]), node, a, b)

                    self.targets.enter_sums((g @ self.weights - a * sums) / b, True, finish)
            return
        whole = [i for i in new if not pool.numerical[i] and not np.isnan(pool.values[i][self.real]).any()]
        for part in parts_of(whole, max(1, CHUNK // self.real.size)):
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
        for part in parts_of(self.levels[size], max(1, CHUNK // self.real.size)):
            yield from self.pool.map_all(part)

    def joined(self, first: int, second: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """SequenceMaps."""
        x = self.of(CATEGORICAL, first)
        for part in parts_of(self.of(CATEGORICAL, second), max(1, CHUNK // self.real.size)):
            for recipes, values in self.pool.sequence_map_all(x, part):
                yield recipes, values, False, CATEGORICAL

    def counted(self, first: int, second: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """SelectorWidths."""
        x = self.of(CATEGORICAL, first)
        for part in parts_of(self.of(CATEGORICAL, second), max(1, CHUNK // self.real.size // 42)):
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
            for part in parts_of(many, max(1, CHUNK // (7 * places * places * n))):
                held = np.stack([pool.values[j].T for j in part])
                k, q = (own, held) if few is x else (held, own)
                k, q = k[:, :, None], q[:, None]  # (s, keys, queries, inputs)
                known = ~np.isnan(k) & ~np.isnan(q) & pool.seen.T[:, :, None]
                recipes: list[Recipe] = []
                backs = []
                for comparison in TYPED_COMPARISONS:
                    recipes += [(i, j, comparison) if few is x else (j, i, comparison) for j in part]
                    chosen = known if comparison == "TRUE" else COMPARED[comparison](k, q) & known
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
        if clock.now() > self.until:
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
        chosen = (COMPARED[comparison](k, q) & ~np.isnan(k) & ~np.isnan(q) & pool.seen)[None]
        bos = chosen[..., 0].copy()
        chosen[..., 0] = False
        values, whole = pool.averaged(pool.attention(chosen, bos & pool.compat), inner)
        return values[0] if whole[0] else np.full_like(values[0], np.nan)

    def kept_means(self, keys: int, queries: int, inner: int) -> Iterator[tuple[list[Recipe], Array, bool, int]]:
        """Aggregates, value by value; those that are means of different categories are left out."""
        pool = self.pool
        for part in parts_of(self.of(CATEGORICAL, queries), max(1, CHUNK // self.real.size // 42)):
            for recipes, chosen, bos in pool.selections(self.of(CATEGORICAL, keys), part):
                weights = pool.attention(chosen, bos)
                for i in self.of(CATEGORICAL | BOOL, inner):
                    values, whole = pool.averaged(weights, i)
                    kept = np.flatnonzero(whole)
                    made = [("aggregate", *recipes[s], i) for s in kept.tolist()]
                    if made:
                        numerical = pool.numerical[i]
                        yield made, values[kept], numerical, FREQ if numerical else CATEGORICAL

    def chains(self) -> None:
        """LinearSequenceMaps of LinearSequenceMaps over forms a x + b of one S-op, where the answer is such a form."""
        pool, g = self.pool, self.wanted
        numbers = pool.of_kind(BOOL | FLOAT | FREQ)
        if not self.numerical or not numbers:
            return
        held = np.stack([pool.values[i][self.real] for i in numbers])
        centred = held - held.mean(1, keepdims=True)
        spread = (centred**2).sum(1)
        wanted = g - g.mean()
        fitting = np.abs((centred @ wanted) ** 2 - spread * (wanted @ wanted)) < 1e-9 * spread * (wanted @ wanted)
        if not fitting.any():
            return
        x = held[np.flatnonzero(fitting)[0]]
        forms, first = np.unique(np.round([_form(x, y) for y in held[fitting]], 6), axis=0, return_index=True)
        nodes = [pool.node(numbers[np.flatnonzero(fitting)[place]]) for place in first.tolist()]
        order = np.argsort(first)[:12]
        found = _chain(forms[order], np.array(_form(x, g)))
        if found is not None and self.accept(_linked(found, [nodes[i] for i in order.tolist()])):
            raise Solved

    def sums(self, first: int, second: int) -> None:
        """LinearSequenceMaps, by sums alone."""
        pool = self.pool
        x, y = self.of(BOOL | FLOAT | FREQ, first), self.of(BOOL | FLOAT | FREQ, second)
        if not x or not y:
            return
        along = np.concatenate([self.flat(np.stack([pool.values[j] for j in part])) @ self.weights
                                for part in parts_of(y, max(1, CHUNK // self.real.size))])  # fmt: skip
        for i in x:
            own = self.flat(pool.values[i][None]) @ self.weights
            for a, b in itertools.product(FACTORS, FACTORS):
                pool.tried += len(y)
                self.look(a * own + b * along, True, lambda s, a=a, b=b, i=i: ("linear", a, b, i, y[s]))

    def masked(self) -> None:
        """SequenceMaps of what is kept by `or`, `and` and `*`, whose first operand says where the second matters."""
        pool, g = self.pool, self.wanted
        whole = [
            i for i in range(len(pool)) if pool.kinds[i] & CATEGORICAL and not np.isnan(pool.values[i][self.real]).any()
        ]
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
                if clock.now() > self.until:
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


def _form(x: Array, y: Array) -> tuple[float, float]:
    """a and b of y = a x + b."""
    a = float((x - x.mean()) @ (y - y.mean()) / ((x - x.mean()) ** 2).sum())
    return a, float(y.mean() - a * x.mean())


Chain = int | tuple[Any, Any, int, int]
"""The number of a form, or two chains and their factors."""


def _chain(forms: Array, wanted: Array) -> Chain | None:
    """How weighted sums lead from some forms (n, 2) to another."""
    levels: list[tuple[Array, list[Chain]]] = [(forms, list(range(len(forms))))]
    for _ in range(2):  # what one and two more sums give
        made, built = levels[-1]
        sums, chains = [], []
        for (i, form), a, b in itertools.product(enumerate(forms), FACTORS, FACTORS):
            sums.append(a * form + b * made)
            chains += [(i, chain, a, b) for chain in built]
        distinct, first = np.unique(np.round(np.concatenate(sums), 6), axis=0, return_index=True)
        levels.append((distinct, [chains[place] for place in first.tolist()]))
    known = {tuple(form): chain for level, built in reversed(levels)
             for form, chain in zip(level.tolist(), built, strict=True)}  # fmt: skip
    for level, built in levels:
        for a, b in itertools.product(FACTORS, FACTORS):
            rest = np.round((wanted - a * level) / b, 6) + 0.0
            for place, form in enumerate(map(tuple, rest.tolist())):
                if form in known:
                    return built[place], known[form], a, b
    return None


def _linked(chain: Chain, nodes: Sequence[SOp]) -> SOp:
    if isinstance(chain, int):
        return nodes[chain]
    first, second, a, b = chain
    return LinearSequenceMap(_linked(first, nodes), _linked(second, nodes), a, b)
