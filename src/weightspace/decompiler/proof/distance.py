"""How far a program's weights are from given ones that are noisy or otherwise only nearly its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from weightspace import clock
from weightspace.decompiler.proof.certificate import Columns, axes_of, compiled_for, modes_of
from weightspace.rasp.compiler.bare import POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.language import BOS
from weightspace.rasp.program import Program
from weightspace.rasp.validate import Mode

Pairs = Callable[[np.ndarray], np.ndarray]
"""The best assignment: for each row of a matrix of likenesses its column."""


@dataclass(frozen=True)
class Distance:
    """How far a compiled program's weights are from a target's, when both are aligned as well as was found.

    Attributes:
        total: norm of the difference of all parameters, relative to the norm of the target's.
        balanced: root mean square of the matrices' own relative differences, in which each weighs the same; 1 and more
            is as bad as nothing at all.
        matrices: (name, norm of the difference relative to the larger norm of the two) for each parameter but those
            that are zero in both.
        largest: largest absolute difference of two entries.
        same_shape: whether width, layers, heads, key size and hidden units were equal, or zeros had to be added.
        mode: how the program was compiled.
    """

    total: float
    balanced: float
    matrices: tuple[tuple[str, float], ...]
    largest: float
    same_shape: bool
    mode: str

    def explain(self) -> str:
        """The distance in a sentence."""
        worst = max(self.matrices, key=lambda item: item[1], default=("", 0.0))
        shapes = "" if self.same_shape else " The shapes differ: zeros were added to the smaller."
        return (
            f"After the best alignment found the weights differ by {_share(self.total)} of their norm, "
            f"{_share(self.balanced)} if each matrix weighs the same, and most in {worst[0]} ({_share(worst[1])})."
            f"{shapes}"
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        facts = {"total": self.total, "balanced": self.balanced, "largest": self.largest}
        return facts | {"same_shape": self.same_shape, "mode": self.mode, "matrices": dict(self.matrices)}


def _share(number: float) -> str:
    """In per cent, with two digits that count: what rounding to half precision leaves is not nothing."""
    return f"{number:.2%}" if number == 0 or number >= 0.01 else f"{100 * number:.2g}%"


def distance(
    program: Program, target: BareTransformer, *, mode: Mode | None = None, seed: int = 0, rounds: int = 4
) -> Distance | None:
    """The distance of a compiled program from a target, for weights that are noisy or otherwise only nearly its own.

    Directions, units, heads and columns are paired by assignment: once from the embeddings on, each by what it reads of
    what is paired already, and once by what they do on some inputs; then by all their weights, for so long as that
    lowers the distance. The nearer of the two stands.

    Args:
        mode: how the program is compiled; unless given the nearest of the target's.
        seed: of the inputs.
        rounds: most rounds of pairing by weights.
    Returns:
        None if the program cannot be compiled.
    """
    found = []
    for chosen in modes_of(target, mode):
        candidate = compiled_for(program, target, chosen)
        if candidate is not None:
            found.append(distance_of(BareTransformer.of(candidate), target, seed=seed, rounds=rounds))
    return min(found, key=lambda d: d.balanced) if found else None


def distance_of(candidate: BareTransformer, target: BareTransformer, *, seed: int = 0, rounds: int = 4) -> Distance:
    """The distance of two transformers of one vocabulary and length, as `distance` gives it."""
    from scipy.optimize import linear_sum_assignment

    def pairs(likeness: np.ndarray) -> np.ndarray:
        clock.look()
        return linear_sum_assignment(likeness, maximize=True)[1]

    sizes = [(b.num_layers, b.width, b.num_heads, b.key_size, b.hidden_size) for b in (candidate, target)]
    common = tuple(max(pair) for pair in zip(*sizes, strict=True))
    own, other = _Padded.of(candidate, common), _Padded.of(target, common)
    starts = [_by_wiring(own, other, pairs), _by_activations(candidate, target, common, seed, pairs)]
    best = min((_followed(own, other, start, rounds, pairs) for start in starts), key=lambda d: d.balanced)
    return replace(best, same_shape=sizes[0] == sizes[1], mode=candidate.mode or "loaded")


class _Padded(NamedTuple):
    """A transformer's parameters by matrix, (layers, rows, columns), with zeros up to the sizes that two share.

    Attributes:
        embeddings: (rows of both, width)
        weights: of each matrix of a layer.
        biases: (layers, columns) of each.
        heads, key_size: of the columns of an attention matrix.
    """

    embeddings: np.ndarray
    weights: dict[str, np.ndarray]
    biases: dict[str, np.ndarray]
    heads: int
    key_size: int

    @staticmethod
    def of(bare: BareTransformer, common: tuple[int, ...]) -> _Padded:
        layers, width, heads, key_size, hidden = common
        embeddings = np.zeros((len(bare.tokens) + len(bare.positions), width))
        embeddings[:, : bare.width] = np.concatenate([bare.tokens, bare.positions])
        old = (bare.num_layers, bare.num_heads, bare.key_size)

        def attention(array: np.ndarray) -> np.ndarray:  # (layers, ..., heads * key_size) or without the middle
            shape = array.shape[1:-1]
            new = np.zeros((layers, *(width for _ in shape), heads, key_size))
            inside = array.reshape(old[0], *shape, old[1], old[2])
            new[(slice(old[0]), *(slice(bare.width) for _ in shape), slice(old[1]), slice(old[2]))] = inside
            return new.reshape(*new.shape[:-2], heads * key_size)

        def padded(array: np.ndarray, *shape: int) -> np.ndarray:
            new = np.zeros((layers, *shape))
            new[tuple(slice(size) for size in array.shape)] = array
            return new

        b = bare.biases
        weights = {f"attn/{name}": attention(getattr(bare, name)) for name in ("query", "key", "value")}
        weights["attn/linear"] = attention(bare.linear.swapaxes(1, 2)).swapaxes(1, 2)
        weights["mlp/linear_1"] = padded(bare.first, width, hidden)
        weights["mlp/linear_2"] = padded(bare.second, hidden, width)
        biases = {f"attn/{name}": attention(b[f"attn/{name}"]) for name in ("query", "key", "value")}
        biases["attn/linear"], biases["mlp/linear_2"] = (padded(b[n], width) for n in ("attn/linear", "mlp/linear_2"))
        biases["mlp/linear_1"] = padded(b["mlp/linear_1"], hidden)
        return _Padded(embeddings, weights, biases, heads, key_size)


def _residual(own: _Padded, other: _Padded, columns: Columns) -> Distance:
    """The distance under one alignment."""
    both = [("embeddings", own.embeddings, other.embeddings[:, columns.directions])]
    for matrix in own.weights:
        for layer in range(len(own.weights[matrix])):
            rows, across = axes_of(f"transformer/layer_{layer}/{matrix}/w", columns)
            name = f"layer_{layer}/{matrix}"
            both.append((name, own.weights[matrix][layer], other.weights[matrix][layer][rows][:, across]))
            both.append((f"{name}/b", own.biases[matrix][layer], other.biases[matrix][layer][across]))
    norms = [(float(((a - b) ** 2).sum()), float((b**2).sum()), float((a**2).sum())) for _, a, b in both]
    ratios = [
        (name, math.sqrt(difference / max(wanted, given)))
        for (name, _, _), (difference, wanted, given) in zip(both, norms, strict=True)
        if wanted or given
    ]
    total = math.sqrt(sum(d for d, _, _ in norms) / max(sum(w for _, w, _ in norms), 1e-30))
    balanced = math.sqrt(sum(ratio**2 for _, ratio in ratios) / max(1, len(ratios)))
    largest = max(float(np.abs(a - b).max()) for _, a, b in both)
    return Distance(total, balanced, tuple(ratios), largest, True, "")


def _followed(own: _Padded, other: _Padded, columns: Columns, rounds: int, pairs: Pairs) -> Distance:
    """The least distance on the way from one alignment to those that pairing by weights makes of it."""
    best = _residual(own, other, columns)
    for _ in range(rounds):
        columns = _by_weights(own, other, columns, pairs)
        found = _residual(own, other, columns)
        if found.balanced >= best.balanced - 1e-9:
            break
        best = found
    return best


# -- by wiring: from the embeddings on, everything by what it reads of what is paired already ------------------------


def _apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Minus the squared distances between the rows of two arrays."""
    return 2 * one @ two.T - (one**2).sum(1)[:, None] - (two**2).sum(1)


class _Wiring:
    """Pairs found so far, half-layer by half-layer: a layer reads only directions that an earlier one has written."""

    def __init__(self, own: _Padded, other: _Padded, pairs: Pairs) -> None:
        self.own, self.other, self.pairs = own, other, pairs
        width = own.embeddings.shape[1]
        self.place = np.full(width, -1)
        self.free = np.arange(width)
        self.write(own.embeddings.T, other.embeddings.T)

    def write(self, one: np.ndarray, two: np.ndarray) -> None:
        """Pair the directions that are written for the first time, (width, numbers) of each by what is written."""
        new = np.flatnonzero(one.any(1) & (self.place < 0))
        if len(new):
            chosen = self.pairs(_apart(one[new], two[self.free]))
            self.place[new] = self.free[chosen]
            self.free = np.delete(self.free, chosen)

    def likeness(self, layer: int, read: Sequence[str], written: str) -> np.ndarray:
        """How alike units, or columns, are: in what they read of paired directions, and a little in what they write."""
        known = np.flatnonzero(self.place >= 0)
        total: Any = 0.0
        for name in read:
            one, two = self.own.weights[name][layer][known].T, self.other.weights[name][layer][self.place[known]].T
            bias = (self.own.biases[name][layer], self.other.biases[name][layer])
            scale = 1 / max(float(np.linalg.norm(self.other.weights[name][layer])), 1e-30)
            total = total + _apart(np.column_stack([one, bias[0]]) * scale, np.column_stack([two, bias[1]]) * scale)
        if written:
            both = [padded.weights[written][layer] for padded in (self.own, self.other)]
            sums = [np.column_stack([array.sum(1), np.linalg.norm(array, axis=1)]) for array in both]
            total = total + HINT * _apart(*(x / max(float(np.abs(sums[1]).max()), 1e-30) for x in sums))
        return total


HINT = 1e-3
"""How much sums of what is written count where what is read is alike."""


def _by_wiring(own: _Padded, other: _Padded, pairs: Pairs) -> Columns:
    """Each thing of the candidate paired with what reads the most similar of what is paired already."""
    wiring = _Wiring(own, other, pairs)
    layers, size, heads = len(own.weights["mlp/linear_1"]), own.key_size, own.heads
    units, of_heads, compared, moved = [], [], [], []
    for layer in range(layers):
        kinds = (
            wiring.likeness(layer, ("attn/query", "attn/key"), ""),
            wiring.likeness(layer, ("attn/value",), "attn/linear"),
        )
        inside = np.zeros((2, heads, heads, size), np.int64)
        alike = np.zeros((heads, heads))
        for kind, every in enumerate(kinds):
            for head in range(heads):
                for place in range(heads):
                    block = every[head * size : (head + 1) * size, place * size : (place + 1) * size]
                    inside[kind, head, place] = pairs(block)
                    alike[head, place] += block[np.arange(size), inside[kind, head, place]].sum()
        chosen = pairs(alike)
        columns = [
            np.concatenate([place * size + inside[k, h, place] for h, place in enumerate(chosen)]) for k in (0, 1)
        ]
        wiring.write(own.weights["attn/linear"][layer].T, other.weights["attn/linear"][layer][columns[1]].T)
        unit = pairs(wiring.likeness(layer, ("mlp/linear_1",), "mlp/linear_2"))
        wiring.write(own.weights["mlp/linear_2"][layer].T, other.weights["mlp/linear_2"][layer][unit].T)
        for found, row in ((units, unit), (of_heads, chosen), (compared, columns[0]), (moved, columns[1])):
            found.append(row)
    wiring.place[wiring.place < 0] = wiring.free
    return Columns(wiring.place, *(np.array(rows) for rows in (units, of_heads, compared, moved)))


# -- by activations --------------------------------------------------------------------------------------------------

_traced: WeakKeyDictionary[BareTransformer, dict[tuple[int, int], _Traces]] = WeakKeyDictionary()
PROBES = 64
"""Inputs on which activations are compared."""


class _Traces(NamedTuple):
    """What each thing of a transformer does on some inputs, a row of numbers each.

    Attributes:
        directions: (width, numbers)
        added: (layers, heads, numbers, width) what each head adds.
        compared, moved: (layers, heads * key_size, numbers)
        units: (layers, hidden, numbers) before ReLU.
    """

    directions: np.ndarray
    added: np.ndarray
    compared: np.ndarray
    moved: np.ndarray
    units: np.ndarray


def _trace(bare: BareTransformer, seed: int, layers: int) -> _Traces:
    """What everything does on random inputs, and on blends of them.

    A blend is what no input can be: every row of the embeddings a random sum of all of them. It tells things apart that
    no input moves, such as a value that never occurs.
    """
    random = np.random.default_rng(seed)
    rows = np.array([bare.space.index(token) for token in bare.vocab])
    drawn = rows[random.integers(len(rows), size=(PROBES, bare.max_seq_len))]
    codes = np.concatenate([np.full((PROBES, 1), bare.space.index(BOS)), drawn], axis=1)
    params = dict(bare.params)
    for name in (TOKENS, POSITIONS):
        count = len(params[name])
        params[name] = random.normal(size=(count, count)).astype(np.float32) @ params[name]
    found = [_trace_on(entry, codes, layers) for entry in (bare, replace(bare, params=params))]
    both = zip(*found, strict=True)
    return _Traces(*(np.concatenate(pair, axis=2 if i == 1 else -1) for i, pair in enumerate(both)))


def _trace_on(bare: BareTransformer, codes: np.ndarray, layers: int) -> _Traces:
    found = bare.activations(codes)

    def flat(array: np.ndarray) -> np.ndarray:  # (batch, places, n) -> (n, numbers)
        return array.reshape(-1, array.shape[-1]).T.astype(float)

    stream = [*found.stream, *[found.stream[-1]] * (2 * (layers - bare.num_layers))]
    b = bare.biases

    def through(weights: np.ndarray, which: str, half: int = 0) -> np.ndarray:
        before = found.stream[half : 2 * bare.num_layers : 2]
        return np.stack([flat(s @ w + bias) for s, w, bias in zip(before, weights, b[which], strict=True)])

    compared = np.concatenate([through(bare.query, "attn/query"), through(bare.key, "attn/key")], axis=2)
    added = np.stack([head.reshape(len(head), -1, head.shape[-1]) for head in found.heads]).astype(float)
    units = through(bare.first, "mlp/linear_1", 1)
    return _Traces(flat(np.concatenate(stream)), added, compared, through(bare.value, "attn/value"), units)


PROFILE = 10.0
"""How much sums of weights count beside activations: they tell apart what does the same but is read elsewhere."""


def _profile(bare: BareTransformer, layers: int) -> np.ndarray:
    """(width, numbers) of each direction the sum and the norm of what each matrix reads from it and writes to it."""
    numbers = []
    for matrix, axis in (
        (bare.query, 2),
        (bare.key, 2),
        (bare.value, 2),
        (bare.first, 2),
        (bare.linear, 1),
        (bare.second, 1),
    ):
        weights = matrix.astype(float)
        for size in (weights.sum(axis), np.sqrt((weights**2).sum(axis))):
            padded = np.zeros((layers, bare.width))
            padded[: bare.num_layers] = size / max(float(np.abs(size).max()), 1e-30)
            numbers.append(padded)
    return PROFILE * np.concatenate(numbers).T


def _by_activations(
    candidate: BareTransformer, target: BareTransformer, common: tuple[int, ...], seed: int, pairs: Pairs
) -> Columns:
    """Each thing of the candidate paired with what does the most similar in the target."""
    layers, width, heads, key_size, hidden = common
    own = _trace(candidate, seed, layers)
    kept = _traced.setdefault(target, {})
    if (seed, layers) not in kept:
        kept[seed, layers] = _trace(target, seed, layers)
    other = kept[seed, layers]

    def paired(one: np.ndarray, two: np.ndarray, size: int) -> np.ndarray:
        one, two = (np.concatenate([x, np.zeros((size - len(x), x.shape[1]))]) for x in (one, two))
        return pairs(_apart(one, two))

    one, two = (np.hstack([t.directions, _profile(b, layers)]) for t, b in ((own, candidate), (other, target)))
    directions = paired(one, two, width)
    both = min(candidate.num_layers, target.num_layers)
    units = np.tile(np.arange(hidden), (layers, 1))
    of_heads = np.tile(np.arange(heads), (layers, 1))
    compared, moved = (np.tile(np.arange(heads * key_size), (layers, 1)) for _ in range(2))
    shared = np.flatnonzero((directions < target.width) & (np.arange(width) < candidate.width))
    for layer in range(both):
        units[layer] = paired(own.units[layer], other.units[layer], hidden)
        one = own.added[layer][..., shared].reshape(candidate.num_heads, -1)
        two = other.added[layer][..., directions[shared]].reshape(target.num_heads, -1)
        of_heads[layer] = paired(one, two, heads)
        for head, place in enumerate(of_heads[layer].tolist()):
            for columns, one, two in ((compared, own.compared, other.compared), (moved, own.moved, other.moved)):
                mine = one[layer][head * candidate.key_size : (head + 1) * candidate.key_size]
                its = two[layer][place * target.key_size : (place + 1) * target.key_size]
                inside = paired(mine, its, key_size)
                columns[layer, head * key_size : (head + 1) * key_size] = place * key_size + inside
    return Columns(directions, units, of_heads, compared, moved)


def _by_weights(own: _Padded, other: _Padded, columns: Columns, pairs: Pairs) -> Columns:
    """Units and columns, then directions, paired by their weights where all else stands as it is."""
    scale = {name: 1 / max(float(np.linalg.norm(array)), 1e-30) ** 2 for name, array in other.weights.items()}

    def likeness(names: Sequence[str], layer: int, one: Any, two: Any) -> np.ndarray:
        total: Any = 0.0
        for name in names:
            a, b = one(own.weights[name][layer], name), two(other.weights[name][layer], name)
            total = total + scale[name] * _apart(a, b)
        return total

    def upright(array: np.ndarray, name: str) -> np.ndarray:  # a row for each unit or column
        return array if name in ("attn/linear", "mlp/linear_2") else array.T

    directions = columns.directions
    units, compared, moved = columns.units.copy(), columns.compared.copy(), columns.moved.copy()
    size = own.key_size
    for layer in range(len(units)):

        def turned(array: np.ndarray, name: str) -> np.ndarray:
            return upright(array, name)[:, directions]

        units[layer] = pairs(likeness(("mlp/linear_1", "mlp/linear_2"), layer, upright, turned))
        for inside, names in ((compared, ("attn/query", "attn/key")), (moved, ("attn/value", "attn/linear"))):
            every = likeness(names, layer, upright, turned)
            for head, place in enumerate(columns.heads[layer].tolist()):
                mine, its = slice(head * size, (head + 1) * size), slice(place * size, (place + 1) * size)
                inside[layer, mine] = place * size + pairs(every[mine, its])
    a, b = own.embeddings.T, other.embeddings.T
    total = _apart(a, b) / max(float((b**2).sum()), 1e-30)
    order = columns._replace(units=units, compared=compared, moved=moved)
    for layer in range(len(units)):

        def lying(array: np.ndarray, name: str) -> np.ndarray:
            return upright(array, name).T

        def sorted_(array: np.ndarray, name: str, layer: int = layer) -> np.ndarray:
            inside = {"attn/query": compared, "attn/key": compared, "attn/value": moved, "attn/linear": moved}
            return upright(array, name)[inside.get(name, units)[layer]].T

        total = total + likeness(tuple(own.weights), layer, lying, sorted_)
    return order._replace(directions=pairs(total))
