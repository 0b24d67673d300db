"""The compiler's directions in a stream that has fewer of its own, as images that rows and columns are sums of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np

from weightspace import clock
from weightspace.rasp.compiler.bare import POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.language import BOS, PAD

CLOSE = 1e-4
"""Sums of float32 images that are equal differ by less than this, in units of the longest of what is summed."""
STEEP = 100.0
"""Tracr's `mlp_exactness`, by which a unit that looks for a step reads a number; it settles the scale of a number that
nothing else reads."""
MOST_SUBSETS = 12
"""Of groups of so many images every choice of some is tried."""
LOOKED_AT = 40
"""So many hidden units and rows are looked at to find `one` where no head reads it."""


@dataclass
class _Finding:
    """What is found so far, layer by layer.

    Attributes:
        images: of each direction, (width of the stream,).
        groups: the directions that one S-op, or several of one layer, may have written, by their places in `images`.
        numbers: those of `images` that may hold a number: all that are written.
        blocks: for each direction of a group which S-op, or several of one layer that read the same, wrote it.
        entries: by parameter the (row, column, value) of what is read or written, in directions.
        unexplained: columns and rows that are no such sum.
    """

    images: list[np.ndarray] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    entries: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)
    unexplained: int = 0
    blocks: dict[int, int] = field(default_factory=dict)
    one: int | None = None
    bos: int = -1

    def matrix(self, places: list[int]) -> np.ndarray:
        """(places, width)"""
        return np.array([self.images[place] for place in places])

    def add(self, image: np.ndarray) -> int:
        self.images.append(image)
        return len(self.images) - 1

    def join(self, places: list[int], parts: list[list[int]] | None = None) -> None:
        """Take some directions for what one block wrote; and, if they come apart, their parts for groups before it."""
        if parts is not None and len(parts) > 1:
            self.groups += parts
        self.groups.append(places)
        block = len(self.groups)
        self.blocks.update((place, block) for place in places)

    def put(self, name: str, row: int, column: int, value: float) -> None:
        self.entries.setdefault(name, []).append((row, column, float(value)))


@dataclass(frozen=True)
class Dictionary:
    """The directions of a compressed stream.

    Attributes:
        images: (directions, width) of each direction in the stream.
        params: the transformer's parameters over the directions.
        unexplained: how many columns that read and rows that write are not sums of images, and are given as well as
            least squares can.
    """

    images: np.ndarray
    params: dict[str, np.ndarray]
    unexplained: int


def find_dictionary(bare: BareTransformer, close: float = CLOSE) -> Dictionary | None:
    """Find the images of a Tracr transformer's directions after V^T W, W V with any V (directions, width).

    Compressed or not, a row behind a head is one image, a column of keys too, a position's row also; a token's row is
    one beside that of `one`, which a query reads for BOS. So layer by layer each column is a sum of images that are
    known from the layers before it, in one of the few ways in which a compiler writes sums, and each row of an MLP is a
    new image, or a step from one that is known.

    Args:
        close: as `CLOSE`.
    Returns:
        None if `one` was not found.
    """
    found = _anchored(bare, close)
    if found is None:
        return None
    for layer in range(bare.num_layers):
        for number in range(bare.num_heads):
            _read_head(bare, found, layer, number, close)
        _read_mlp(bare, found, layer, close)
    images = np.array(found.images)
    params = {}
    for name, array in bare.params.items():
        made = np.zeros(_shape(name, array, len(images)), np.float32)
        for row, column, value in found.entries.get(name, ()):
            made[row, column] += value
        params[name] = made
    return Dictionary(images, params, found.unexplained)


def _shape(name: str, array: np.ndarray, count: int) -> tuple[int, ...]:
    writes = name in (TOKENS, POSITIONS) or "/attn/linear/" in name or "/mlp/linear_2/" in name
    if array.ndim == 1:
        return (count,) if writes else array.shape
    return (len(array), count) if writes else (count, array.shape[1])


# -- embeddings ------------------------------------------------------------------------------------------------------


def _anchored(bare: BareTransformer, close: float) -> _Finding | None:
    found = _Finding()
    rows, bos = bare.tokens.astype(float), bare.space.index(BOS)
    one = _one(bare, rows, close)
    if one is None:
        return None
    uses_one = bool(one.any())
    tokens = [found.add(row - one) for row in rows]
    indices = [found.add(row) for row in bare.positions[1:].astype(float)]
    pad = bare.space.index(PAD)
    found.join([place for row, place in enumerate(tokens) if row not in (pad, bos)])
    found.join(indices)
    found.bos = tokens[bos]
    for row, place in enumerate(tokens):
        found.put(TOKENS, row, place, 1.0)
    if uses_one:
        found.one = found.add(one)
        for row in range(len(rows)):
            found.put(TOKENS, row, found.one, 1.0)
    for row, place in enumerate(indices):
        found.put(POSITIONS, row + 1, place, 1.0)
    return found


def _one(bare: BareTransformer, rows: np.ndarray, close: float) -> np.ndarray | None:
    """The image of `one`; zeros if it is not used.

    With attention: where a key looks for BOS, the query reads `one` alone, and the two make BOS's row.
    """
    bos = rows[bare.space.index(BOS)]
    key = np.concatenate([*bare.key], axis=1).astype(float).T
    query = np.concatenate([*bare.query], axis=1).astype(float).T
    used = (np.linalg.norm(key, axis=1) > close) & (np.linalg.norm(query, axis=1) > close)
    if used.any():
        ones = bos - key[used]
        lengths = np.linalg.norm(ones, axis=1)
        ones, queries = ones[lengths > close], query[used][lengths > close]
        if len(ones):
            units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ones, queries)]
            errors = np.linalg.norm(units[0] - units[1], axis=1)
            return ones[errors.argmin()] if errors.min() < 100 * close else None
    return _one_of_units(bare, rows, close)


def _one_of_units(bare: BareTransformer, rows: np.ndarray, close: float) -> np.ndarray:
    """Of what could be `one`, that which explains most hidden units; zeros if nothing explains any.

    A unit of a SequenceMap reads two images less `one`, so that each two that are known vote for what they leave.
    """
    written = bare.second.reshape(-1, bare.width).astype(float)
    written = np.unique(written[np.linalg.norm(written, axis=1) > close].round(6), axis=0)[:LOOKED_AT]
    known = np.concatenate([bare.positions[1:].astype(float), written])
    by_layer = [_without_opposites(columns.T.astype(float), close) for columns in bare.first]
    votes: dict[bytes, int] = {}
    candidates: dict[bytes, np.ndarray] = {}
    for columns in by_layer:
        for column in columns[:: len(columns) // 4 + 1]:
            clock.look()
            sums = [(rows[:, None] + known - column) / 2, (rows[:, None] + rows - column) / 3]
            sums.append(known[:, None] + known - column)
            guesses = np.concatenate([guess.reshape(-1, bare.width) for guess in sums])
            lengths = np.linalg.norm(guesses, axis=1)
            guesses = guesses[(lengths > 0.05) & (lengths < 1 + close)]
            rounded, first = np.unique((guesses.round(3) + 0.0), axis=0, return_index=True)
            for key, place in zip(map(np.ndarray.tobytes, rounded), first.tolist(), strict=True):
                votes[key] = votes.get(key, 0) + 1
                candidates.setdefault(key, guesses[place])
    voted = sorted((key for key in votes if votes[key] > 1), key=lambda key: -votes[key])[:LOOKED_AT]
    units = np.concatenate(by_layer)
    units = units[:: len(units) // LOOKED_AT + 1]
    if not len(units):
        return np.zeros(bare.width)
    best, most = np.zeros(bare.width), 0
    others = np.delete(rows, bare.space.index(PAD), axis=0)  # what PAD's row has besides `one` may be lost
    guesses = [(candidates[key], 1) for key in voted]  # of what explains two, one is where the guess comes from
    for guess, trivial in [*guesses, *((row, 0) for row in (rows[bare.space.index(PAD)], *units))]:
        clock.look()
        trite = min(np.linalg.norm(known - factor * guess, axis=1).min() for factor in (1, 2))
        trite = min(trite, *(np.linalg.norm(others - factor * guess, axis=1).min() for factor in (1, 2, 3)))
        if np.linalg.norm(guess) > 0.05 and trite > close:
            count = _explained(guess, units, np.concatenate([rows - guess, known]), close) - trivial
            if count > most:
                best, most = guess, count
    return best


def _without_opposites(units: np.ndarray, close: float) -> np.ndarray:
    """The units that are not zero and whose negative is not among them: all that may read `one`."""
    units = units[np.linalg.norm(units, axis=1) > close]
    return units[np.linalg.norm(units[:, None] + units, axis=2).min(1, initial=np.inf) > close]


def _explained(one: np.ndarray, units: np.ndarray, known: np.ndarray, close: float) -> int:
    """How many units read a pair of known images less `one`, or differ by it from another."""
    sizes = close * np.maximum(1.0, 0.01 * np.linalg.norm(units, axis=1))  # float32 is not exact
    steps = np.linalg.norm((units - one)[:, None] - units, axis=2).min(1) < sizes
    rest = ((units + one)[:, None] - known[None]).reshape(-1, units.shape[1])
    pairs = _apart(rest, known).min(1).reshape(len(units), -1).min(1) < (10 * close) ** 2
    return int((steps | pairs).sum())


def _apart(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) squared distances."""
    return (some**2).sum(1)[:, None] + (others**2).sum(1) - 2 * some @ others.T


# -- attention -------------------------------------------------------------------------------------------------------


def _read_head(bare: BareTransformer, found: _Finding, layer: int, number: int, close: float) -> None:
    own, start = bare.head(number), bare.head(number).start
    query, key, value = (m[layer][:, own].astype(float).T for m in (bare.query, bare.key, bare.value))
    out = bare.linear[layer][own].astype(float)
    prefix = f"transformer/layer_{layer}/attn/"
    earlier = [place for group in found.groups for place in group] + [found.bos]
    for name, columns in (("key", key), ("value", value)):
        for column in np.flatnonzero(np.linalg.norm(columns, axis=1) > close):
            place, factor = _multiple(found, columns[column], earlier, close)
            found.put(f"{prefix}{name}/w", place, start + int(column), factor)
    _read_queries(found, query, f"{prefix}query/w", start, close)
    made = []
    for row in np.flatnonzero(np.linalg.norm(out, axis=1) > close):
        made.append(found.add(out[row]))
        found.put(f"{prefix}linear/w", start + int(row), made[-1], 1.0)
    if made:
        found.join(made)
        found.numbers += made


def _multiple(found: _Finding, column: np.ndarray, places: list[int], close: float) -> tuple[int, float]:
    """The image of which a vector is a multiple, as nearly as there is one, and the factor."""
    clock.look()
    images = found.matrix(places)
    factors = images @ column / np.maximum((images**2).sum(1), 1e-12)
    errors = np.linalg.norm(column - factors[:, None] * images, axis=1) + 1e-3 * np.abs(np.abs(factors) - 1)
    best = int(errors.argmin())
    found.unexplained += bool(
        np.linalg.norm(column - factors[best] * images[best]) > 10 * close * np.linalg.norm(column)
    )
    return places[best], float(factors[best])


def _read_queries(found: _Finding, query: np.ndarray, name: str, start: int, close: float) -> None:
    lengths = np.linalg.norm(query, axis=1)
    columns = np.flatnonzero(lengths > close)
    if found.one is not None:
        image = found.images[found.one]
        factors = query @ image / (image @ image)
        rest = np.linalg.norm(query - factors[:, None] * image, axis=1)
        alone = (lengths > close) & (rest < 10 * close * lengths)
        for column in np.flatnonzero(alone):
            found.put(name, found.one, start + int(column), factors[column])
        columns = np.flatnonzero((lengths > close) & ~alone)
    if not len(columns):
        return
    best, chosen, places = np.inf, np.zeros((0, 0)), []
    for group in found.groups:
        images = found.matrix(group)
        weights = np.array([_weights(images, column, None) for column in query[columns]]).T
        error = float(np.linalg.norm(images.T @ weights - query[columns].T) / np.linalg.norm(query[columns]))
        strength = max(1e-9, float(np.abs(weights).max()))
        uneven = float(np.minimum(np.abs(weights), np.abs(weights - strength)).max() / strength)
        if error + 0.1 * uneven < best:
            best, chosen, places = error + 0.1 * uneven, weights, group
    found.unexplained += len(columns) * (best > 100 * close)
    for i, place in enumerate(places):
        for j, column in enumerate(columns):
            if abs(chosen[i, j]) > 10 * close * lengths.max():
                found.put(name, place, start + int(column), chosen[i, j])


def _weights(images: np.ndarray, vector: np.ndarray, strength: float | None) -> np.ndarray:
    """(n,) by which images (n, width) sum up to a vector, as nearly as they can.

    Args:
        strength: what is read has this weight, or any one if it is None, as far as that explains the vector; otherwise
            each image has its own.
    """
    clock.look()
    length = max(1e-12, float(np.linalg.norm(vector)))
    if len(images) <= MOST_SUBSETS:
        chosen = _subsets(len(images))
        sums = chosen @ images
        factors = np.full(len(sums), strength or 0.0)
        if strength is None:
            factors = sums @ vector / np.maximum((sums**2).sum(1), 1e-12)
        errors = np.linalg.norm(vector - factors[:, None] * sums, axis=1)
        errors += 1e-5 * length * chosen.sum(1)  # of those that are alike the smallest
        best = int(errors.argmin())
        if errors[best] < 1e-3 * length:
            return chosen[best] * factors[best]
    weights, _, rank, _ = np.linalg.lstsq(images.T, vector, rcond=1e-3)
    if rank == len(images) or len(images) > 8:
        return weights
    best, fewest = weights, np.inf  # several explain it: the fewest and roundest weights
    for mask in _subsets(len(images))[1:]:
        some = np.flatnonzero(mask)
        if len(some) <= rank:
            own = np.linalg.lstsq(images[some].T, vector, rcond=1e-3)[0]
            if np.linalg.norm(images[some].T @ own - vector) < 1e-3 * length:
                odd = float(np.abs(2 * own - np.round(2 * own)).max())
                if odd + 0.01 * len(some) < fewest:
                    fewest, best = odd + 0.01 * len(some), np.zeros(len(images))
                    best[some] = own
    return best


@cache
def _subsets(count: int) -> np.ndarray:
    """(2 ** count, count) 0 and 1: every choice of some."""
    return ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(float)


# -- MLPs ------------------------------------------------------------------------------------------------------------


@dataclass
class _Units:
    """The hidden units of a layer, sorted by what they do.

    Attributes:
        starts: those that are always on.
        steps: (with +1, without, number, threshold) pairs that look for a step of a number.
        plain: those of categorical S-ops, with the groups that they read, and the directions or pairs of directions at
            which each is on.
        linear: (unit, number, 1 or -1) those that read a number or its negative.
        cleaning: those that read BOS alone.
    """

    starts: list[int] = field(default_factory=list)
    steps: list[tuple[int, int, int, float]] = field(default_factory=list)
    plain: list[tuple[int, tuple[int, ...], frozenset[tuple[int, ...]]]] = field(default_factory=list)
    linear: list[tuple[int, int, float]] = field(default_factory=list)
    cleaning: list[int] = field(default_factory=list)


def _read_mlp(bare: BareTransformer, found: _Finding, layer: int, close: float) -> None:
    columns, rows = bare.first[layer].T.astype(float), bare.second[layer].astype(float)
    prefix = f"transformer/layer_{layer}/mlp/"
    units = _read_units(found, columns, rows, f"{prefix}linear_1/w", close)
    _write_units(bare, found, units, rows, layer, f"{prefix}linear_2/w", close)


def _read_units(found: _Finding, columns: np.ndarray, rows: np.ndarray, name: str, close: float) -> _Units:
    """Write down what each unit reads, and sort them."""
    units = _Units()
    lengths = np.linalg.norm(columns, axis=1)
    left = [int(unit) for unit in np.flatnonzero(lengths > close)]
    one = None if found.one is None else found.images[found.one]
    bos = found.images[found.bos]
    clean = [unit for unit in left if _parallel(columns[unit], bos, close)]
    for unit in clean:
        units.cleaning.append(unit)
        found.put(name, found.bos, unit, columns[unit] @ bos / (bos @ bos))
    left = [unit for unit in left if unit not in clean]
    if one is not None:
        for unit in [unit for unit in left if _parallel(columns[unit], one, close)]:
            units.starts.append(unit)
            found.put(name, found.one or 0, unit, columns[unit] @ one / (one @ one))
            left.remove(unit)
        left = _read_steps(found, units, columns, rows, name, left, one, close)
    for unit in left:
        opposite = bool(np.linalg.norm(columns[left] + columns[unit], axis=1).min() < close)
        _read_plain(found, units, columns[unit], unit, name, one, opposite, close)
    return units


def _parallel(a: np.ndarray, b: np.ndarray, close: float) -> bool:
    length = float(np.linalg.norm(a))
    factor = a @ b / max(float(b @ b), 1e-12)
    return bool(np.linalg.norm(a - factor * b) < 10 * close * length)


def _read_steps(
    found: _Finding,
    units: _Units,
    columns: np.ndarray,
    rows: np.ndarray,
    name: str,
    left: list[int],
    one: np.ndarray,
    close: float,
) -> list[int]:
    """Find the pairs of units that differ by `one`, read one number, and write opposites; give what is left."""
    taken: set[int] = set()
    place = found.one or 0
    if not left or not found.numbers:
        return left
    sizes = 10 * close * np.maximum(1.0, 0.01 * np.linalg.norm(columns[left], axis=1))  # float32 is not exact
    similar = np.linalg.norm(columns[left][:, None] - columns[left] - one, axis=2) < sizes[:, None]
    similar &= np.linalg.norm(rows[left][:, None] + rows[left], axis=2) < 10 * close
    np.fill_diagonal(similar, False)
    planes = [np.array([found.images[number], one]) for number in found.numbers]
    for i, j in zip(*(part.tolist() for part in np.nonzero(similar)), strict=True):
        upper, lower = left[i], left[j]
        if upper in taken or lower in taken:
            continue
        fits = []
        for number, plane in zip(found.numbers, planes, strict=True):
            weights = np.linalg.solve(plane @ plane.T + 1e-12 * np.eye(2), plane @ columns[lower])
            fits.append((float(np.linalg.norm(plane.T @ weights - columns[lower])), number, weights))
        error, number, weights = min(fits, key=lambda fit: fit[0])
        if error > sizes[j]:
            continue
        taken |= {upper, lower}
        units.steps.append((upper, lower, number, float(-weights[1] / weights[0])))
        for unit, offset in ((upper, 1.0), (lower, 0.0)):
            found.put(name, number, unit, weights[0])
            found.put(name, place, unit, weights[1] + offset)
    return [unit for unit in left if unit not in taken]


def _read_plain(
    found: _Finding,
    units: _Units,
    column: np.ndarray,
    unit: int,
    name: str,
    one: np.ndarray | None,
    opposite: bool,
    close: float,
) -> None:
    """A unit of a Map or SequenceMap of categories; or of a sum, if there is one that reads the opposite."""
    size = 10 * close * max(1.0, float(np.linalg.norm(column)))
    for number in found.numbers if opposite else ():
        factor = float(column @ found.images[number] / (found.images[number] @ found.images[number]))
        if abs(abs(factor) - 1) < 100 * close and np.linalg.norm(column - factor * found.images[number]) < size:
            units.linear.append((unit, number, np.sign(factor)))
            found.put(name, number, unit, factor)
            return
    if one is not None:
        pair = _pair(found, column + one, size)
        if pair is not None:
            found.put(name, found.one or 0, unit, -1.0)
            for place in pair:
                found.put(name, place, unit, 1.0)
            # where another image is the same, it is open which is read, and so what is on together
            clear = all(_likeness(found, place, size) == 1 for place in pair)
            on = frozenset([tuple(sorted(pair))] if clear else [])
            units.plain.append((unit, tuple(sorted(found.blocks[place] for place in pair)), on))
            return
    fits = []
    for which, group in enumerate(found.groups):
        images = found.matrix(group)
        weights = _weights(images, column, 1.0)
        error = float(np.linalg.norm(images.T @ weights - column))
        odd = float(np.abs(2 * weights - np.round(2 * weights)).max())
        fits.append((error + 1e-3 * odd + 1e-4 * np.count_nonzero(weights), which, weights, error))
    _, which, weights, error = min(fits, key=lambda fit: fit[0])
    found.unexplained += error > size
    some = [(place, w) for place, w in zip(found.groups[which], weights.tolist(), strict=True) if abs(w) > size]
    for place, weight in some:
        found.put(name, place, unit, weight)
    units.plain.append((unit, (found.blocks[found.groups[which][0]],), frozenset((place,) for place, _ in some)))


def _likeness(found: _Finding, place: int, size: float) -> int:
    """How many images are the same as one, itself among them."""
    return int((np.linalg.norm(np.array(found.images) - found.images[place], axis=1) < size).sum())


def _pair(found: _Finding, total: np.ndarray, size: float) -> list[int] | None:
    """The two images whose sum it is."""
    clock.look()
    places = list(found.blocks)
    images = found.matrix(places)
    rest = total - images
    apart = (rest**2).sum(1)[:, None] + (images**2).sum(1) - 2 * rest @ images.T
    own = np.diagonal(apart).copy()
    np.fill_diagonal(apart, np.inf)
    i, j = np.unravel_index(apart.argmin(), apart.shape)
    if np.linalg.norm(rest[i] - images[j]) > size:  # one image twice: two S-ops that are always alike share it
        i = j = own.argmin()
        if np.linalg.norm(rest[i] - images[j]) > size:
            return None
    return [places[int(i)], places[int(j)]]


def _write_units(
    bare: BareTransformer, found: _Finding, units: _Units, rows: np.ndarray, layer: int, name: str, close: float
) -> None:
    """Find the images that units write, and write down what each writes."""
    made: dict[tuple[int, ...], list[int]] = {}
    on: dict[int, set[tuple[int, ...]]] = {}
    for unit, reads, at in units.plain:
        if np.linalg.norm(rows[unit]) > close:
            own = made.setdefault(reads, [])
            # of S-ops that are always alike each has its own direction: two that are on together are not one
            free = [place for place in own if not on[place] & at]
            place = _image_of(found, free, rows[unit], close)
            own += [place] * (place not in own)
            on.setdefault(place, set()).update(at)
            found.put(name, unit, place, 1.0)
    for own in made.values():
        found.join(own, _apart_by_use(own, on))
        found.numbers += own
    rays: list[int] = []
    for unit, _, _ in units.linear:
        if np.linalg.norm(rows[unit]) > close:
            place, factor = _ray_of(bare, found, rays, rows[unit], layer, close)
            found.put(name, unit, place, factor)
    found.numbers += rays
    for ray in rays:
        found.join([ray])
    _write_steps(bare, found, units, rows, layer, name, close)


def _apart_by_use(places: list[int], on: dict[int, set[tuple[int, ...]]]) -> list[list[int]]:
    """The results of different S-ops that read the same: of two that are on together, each belongs to another."""
    parts: list[list[int]] = []
    left = list(places)
    while left:
        queue = [left[0]]
        while queue:  # neighbours first, so that two S-ops come apart wherever their results are linked
            place = queue.pop(0)
            if place not in left:
                continue
            left.remove(place)
            free = [part for part in parts if not any(on[place] & on[other] for other in part)]
            if free:
                free[0].append(place)
            else:
                parts.append([place])
            queue += [other for other in left if on[place] & on[other]]
    return parts


def _image_of(found: _Finding, own: list[int], row: np.ndarray, close: float) -> int:
    clock.look()
    for place in own:
        if np.linalg.norm(found.images[place] - row) < 10 * close:
            return place
    own.append(found.add(row))
    return own[-1]


def _ray_of(
    bare: BareTransformer, found: _Finding, rays: list[int], row: np.ndarray, layer: int, close: float
) -> tuple[int, float]:
    """The number of which a row is a multiple, and the factor; a new one is scaled as it is read."""
    for place in rays:
        image = found.images[place]
        if _parallel(row, image, close):
            return place, float(row @ image / (image @ image))
    rays.append(found.add(_scaled(bare, row, layer, close)))
    image = found.images[rays[-1]]
    return rays[-1], float(row @ image / (image @ image))


def _scaled(bare: BareTransformer, row: np.ndarray, layer: int, close: float) -> np.ndarray:
    """The multiple of a row that is read as a number in a later layer or as the answer."""
    if bare.readout is not None and bare.readout.values is None:
        answer = bare.readout.directions[:, 0].astype(float)
        if _parallel(answer, row, close):
            return answer
    if layer + 1 == bare.num_layers:
        return row
    columns = np.concatenate([*bare.value[layer + 1 :], *bare.first[layer + 1 :]], axis=1).astype(float).T
    columns = columns[np.linalg.norm(columns, axis=1) > close]
    pure = [column for column in columns if _parallel(column, row, close)]
    if pure:
        # no image is longer than 1: a step at 0 reads the number alone, but steeply
        pure = [column / STEEP if np.linalg.norm(column) > 1 + 10 * close else column for column in pure]
        signs = [np.sign(column @ row) for column in pure]
        return pure[0] if len(set(signs)) == 1 else pure[0] * np.sign(pure[0] @ row)
    for i, upper in enumerate(columns):  # steps differ by `one` or by thresholds of it; what they share is the number
        clock.look()
        for lower in columns[i + 1 :]:
            plane = np.array([row, upper - lower])
            if np.linalg.norm(upper - lower) < close or np.linalg.norm(upper) < 1:
                continue
            weights = np.linalg.lstsq(plane.T, upper, rcond=None)[0]
            if abs(weights[0]) > close and np.linalg.norm(plane.T @ weights - upper) < 10 * close * np.linalg.norm(
                upper
            ):
                return row * weights[0] / STEEP
    return row


def _write_steps(
    bare: BareTransformer, found: _Finding, units: _Units, rows: np.ndarray, layer: int, name: str, close: float
) -> None:
    """Follow each function of a number from where it starts, step by step."""
    chains = [_Chain(bare, found, unit, rows, layer, close) for unit in units.starts]
    by_number: dict[int, dict[float, list[int]]] = {}
    for step in units.steps:
        thresholds = by_number.setdefault(step[2], {})
        known = next((t for t in thresholds if abs(t - step[3]) < 1e-3), step[3])
        thresholds.setdefault(known, []).append(step[0])
    free = list(range(len(chains)))
    lower = {step[0]: step[1] for step in units.steps}
    for thresholds in by_number.values():
        copies = max(len(uppers) for uppers in thresholds.values())
        for _ in range(copies):
            best: tuple[float, int, list[tuple[int, np.ndarray]]] | None = None
            for which in free:
                cost, picked = chains[which].follow(thresholds, rows)
                if best is None or cost < best[0]:
                    best = (cost, which, picked)
            if best is None:
                found.unexplained += 1
                break
            free.remove(best[1])
            for threshold, upper in chains[best[1]].write(thresholds, lower, rows, name, best[2]):
                thresholds[threshold].remove(upper)
    for which in free:
        chains[which].write({}, lower, rows, name, [])
    for unit in units.cleaning:  # takes back what was written at BOS: the scratch and 0
        candidates = [*found.numbers, *(place for chain in chains for place in chain.own)]
        _write_sum(found, rows[unit], unit, name, candidates, close)


class _Chain:
    """One function of a number."""

    def __init__(
        self, bare: BareTransformer, found: _Finding, unit: int, rows: np.ndarray, layer: int, close: float
    ) -> None:
        self.bare, self.found, self.unit, self.first = bare, found, unit, rows[unit]
        self.layer, self.close = layer, close
        self.own: list[int] = []

    def follow(
        self, thresholds: dict[float, list[int]], rows: np.ndarray
    ) -> tuple[float, list[tuple[int, np.ndarray]]]:
        """How odd it would be if the steps were of this function, and the units that would be its steps.

        A number's steps are all multiples of its start; the steps of categories lead from image to image, of which no
        one is longer than 1.
        """
        picked: list[tuple[int, np.ndarray]] = []
        now, images, cost, parallel = self.first, [self.first], 0.0, True
        for threshold in sorted(thresholds):
            clock.look()
            if not thresholds[threshold]:
                continue
            options = []
            for upper in thresholds[threshold]:
                after = now + rows[upper]
                known = min(float(np.linalg.norm(after - image)) for image in images)
                same = _parallel(rows[upper], self.first, self.close) or np.linalg.norm(rows[upper]) < self.close
                excess = max(0.0, float(np.linalg.norm(after)) - 1.0)
                options.append((0.0 if same and parallel else min(known, 0.1 + excess), upper, after))
            price, upper, after = min(options, key=lambda option: option[0])
            cost += price
            now = after
            images.append(now)
            picked.append((upper, now))
        return cost, picked

    def write(
        self,
        thresholds: dict[float, list[int]],
        lower: dict[int, int],
        rows: np.ndarray,
        name: str,
        picked: list[tuple[int, np.ndarray]],
    ) -> list[tuple[float, int]]:
        """Write down what the start and its steps write; give which threshold each step was of."""
        found, close = self.found, self.close
        vectors = [self.first, *(rows[upper] for upper, _ in picked)]
        some = [vector for vector in vectors if np.linalg.norm(vector) > close]
        numerical = bool(some) and all(_parallel(vector, some[0], close) for vector in some)
        written: list[dict[int, float]] = []
        if numerical and (len(some) > 1 or abs(float(np.linalg.norm(some[0]))) > 1 or len(vectors) == 1):
            rays: list[int] = []
            for vector in vectors:
                written.append({})
                if np.linalg.norm(vector) > close:
                    place, factor = _ray_of(self.bare, found, rays, vector, self.layer, close)
                    written[-1] = {place: factor}
            self.own = rays
        else:
            images = [self.first, *(image for _, image in picked)]
            places = [
                _image_of(found, self.own, image, close) if np.linalg.norm(image) > close else None for image in images
            ]
            written = [{} if places[0] is None else {places[0]: 1.0}]
            for before, after in pairwise(places):
                step: dict[int, float] = {}
                if before != after:
                    step = {place: sign for place, sign in ((before, -1.0), (after, 1.0)) if place is not None}
                written.append(step)
        if self.own:
            found.join(list(self.own))
            found.numbers += self.own
        units = [self.unit, *(upper for upper, _ in picked)]
        for unit, entries in zip(units, written, strict=True):
            for place, value in entries.items():
                found.put(name, unit, place, value)
                if unit in lower:
                    found.put(name, lower[unit], place, -value)
        where = {upper: threshold for threshold, uppers in thresholds.items() for upper in uppers}
        return [(where[upper], upper) for upper, _ in picked]


def _write_sum(found: _Finding, row: np.ndarray, unit: int, name: str, places: list[int], close: float) -> None:
    """A row that is a sum of few of some images, with whole factors."""
    places = list(dict.fromkeys(places))
    if np.linalg.norm(row) < close:
        return
    if not places:
        found.unexplained += 1
        return
    rest, taken = row.copy(), []
    for _ in range(4):
        images = found.matrix(places)
        errors = np.linalg.norm(rest + images, axis=1)
        taken.append(places[int(errors.argmin())])
        rest = rest + found.images[taken[-1]]
        if np.linalg.norm(rest) < 10 * close:
            break
    found.unexplained += bool(np.linalg.norm(rest) > 10 * close)
    for place in taken:
        found.put(name, unit, place, -1.0)
