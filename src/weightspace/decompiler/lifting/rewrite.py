"""Changes of compiled weights that leave what they compute: scales, rotations, maps inside heads; found, applied."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from weightspace.rasp.compiler.bare import MATRICES, POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.functions import counted
from weightspace.rasp.language import BOS, EXACTNESS

WRITING = (MATRICES[3], MATRICES[5])
"""The matrices of a layer that write to the stream: (..., width)."""
EVEN = 1e-4
"""Lengths, and weights, that differ by less than this share are equal but for rounding."""
NOTHING = 1e-6
"""Entries below this share of the largest of their matrix are zeros that were moved about in float32."""
UNIT_ROUNDING = 2.0**-24
"""Of float32: the largest relative error of one operation."""


def access(name: str) -> Literal["read", "write", "neither"]:
    """Whether a parameter reads the stream, writes to it, or neither, as the biases of what reads."""
    if name in (TOKENS, POSITIONS):
        return "write"
    matrix, kind = name.split("/", 2)[2].rsplit("/", 1)
    if matrix in WRITING:
        return "write"
    return "read" if kind == "w" else "neither"


@dataclass(frozen=True, eq=False)
class Rewrite:
    """What was done to compiled weights: an element of the group under which a transformer computes the same.

    With the stream s R, of a unit the factor u, and of each head the invertible maps A and B, compiled matrices become

        embeddings, E        s E R
        query, key           R^T Q A / s, R^T K A^-T / s
        value, linear        R^T V B / s, s B^-1 O R
        linear_1, linear_2   R^T F u / s, s u^-1 S R

    and their biases what belongs to that. R is a rotation, or, where the stream was compressed, the image of each
    direction in fewer: then it is no element of the group, as what a direction adds to others' is not undone.

    Attributes:
        stream: (directions, width) R; None for the identity.
        scale: s, positive.
        units: (layers, hidden) u, positive.
        compared, moved: (layers, heads, key_size, key_size) A and B; None for the identity everywhere.
    """

    stream: np.ndarray | None
    scale: float
    units: np.ndarray
    compared: np.ndarray | None = None
    moved: np.ndarray | None = None

    @staticmethod
    def none(bare: BareTransformer) -> Rewrite:
        """That which changes nothing."""
        return Rewrite(None, 1.0, np.ones((bare.num_layers, bare.hidden_size)))

    @property
    def trivial(self) -> bool:
        return (
            self.stream is None
            and self.scale == 1
            and self.compared is None
            and self.moved is None
            and bool((self.units == 1).all())
        )

    @property
    def lossy(self) -> bool:
        """Whether the stream has fewer directions than were compiled."""
        return self.stream is not None and self.stream.shape[0] != self.stream.shape[1]

    @property
    def condition(self) -> float:
        """The largest condition number of the maps inside heads: by so much rounding may grow."""
        maps = [maps.reshape(-1, *maps.shape[2:]) for maps in (self.compared, self.moved) if maps is not None]
        return max([1.0, *(float(np.linalg.cond(one)) for some in maps for one in some)])

    def applied(self, params: Mapping[str, np.ndarray], heads: int, *, sizes: bool = False) -> dict[str, np.ndarray]:
        """Compiled parameters by Tracr's names as they are after the rewrite, in double precision.

        Args:
            heads: of each layer.
            sizes: sums of absolute products instead, which bound what rounding can do.
        """
        absolute: Any = np.abs if sizes else lambda array: array
        stream = None if self.stream is None else absolute(self.stream)
        found = {}
        for name, array in params.items():
            value = absolute(array.astype(np.float64))
            kind = access(name)
            value = self._inside(name, value, heads, absolute)
            if kind == "read":
                value = (value if stream is None else stream.T @ value) / self.scale
            elif kind == "write":
                value = (value if stream is None else value @ stream) * self.scale
            found[name] = value
        return found

    def _inside(self, name: str, value: np.ndarray, heads: int, absolute: Any) -> np.ndarray:
        """A parameter after what was done on the side of its head or unit."""
        if name in (TOKENS, POSITIONS):
            return value
        _, layer, where = name.split("/", 2)
        number, (matrix, kind) = int(layer.removeprefix("layer_")), where.rsplit("/", 1)
        if matrix == "mlp/linear_1":
            return value * self.units[number]
        if matrix == "mlp/linear_2":
            return value / self.units[number][:, None] if kind == "w" else value
        maps = self.compared if matrix in ("attn/query", "attn/key") else self.moved
        if maps is None or (matrix == "attn/linear" and kind == "b"):
            return value
        own = maps[number]
        if matrix == "attn/key":
            own = np.linalg.inv(own).transpose(0, 2, 1)
        if matrix == "attn/linear":
            inside = value.reshape(heads, -1, value.shape[-1])
            return (absolute(np.linalg.inv(own)) @ inside).reshape(value.shape)
        inside = value.reshape(*value.shape[:-1], heads, -1)
        return np.einsum("...hi,hij->...hj", inside, absolute(own)).reshape(value.shape)

    def tolerance(self) -> float:
        """How far entries may be from what they should be, in sums of absolute products.

        A product of n terms in float32 is off by at most n u of the sum of their absolute values (u = 2^-24; Higham,
        Accuracy and Stability, 3.5). An entry is at most three such products, and the rewrite is itself found from
        entries with that error, which maps inside heads enlarge by their condition number at most: 8 n u cond.
        """
        longest = 1
        if self.stream is not None:
            longest = max(self.stream.shape)
        if self.compared is not None or self.moved is not None:
            longest = max(longest, *(m.shape[-1] for m in (self.compared, self.moved) if m is not None))
        return 8 * longest * UNIT_ROUNDING * self.condition

    def explain(self) -> str:
        """What was done, as the end of a sentence: `its stream was turned by a rotation, ...`."""
        parts = []
        if self.stream is not None:
            count, width = self.stream.shape
            turned = "turned by a rotation" if count == width else f"compressed from {count} directions to {width}"
            parts.append(f"its stream was {turned}")
        if self.scale != 1:
            parts.append(f"its stream was scaled by {self.scale:.6g}")
        scaled = self.units[self.units != 1]
        if len(scaled):
            parts.append(
                f"{counted(len(scaled), 'hidden unit')} scaled by positive factors of {scaled.min():.4g} to "
                f"{scaled.max():.4g}, in and out"
            )
        for maps, what in ((self.compared, "queries and keys"), (self.moved, "values and outputs")):
            if maps is not None:
                eye = np.eye(maps.shape[-1])
                changed = sum(not np.array_equal(one, eye) for one in maps.reshape(-1, *eye.shape))
                parts.append(f"the {what} of {counted(changed, 'head')} changed together by an invertible map")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-serialisable; None for what is not changed."""
        names = ("stream", "units", "compared", "moved")
        arrays = {name: getattr(self, name) for name in names}
        if (self.units == 1).all():
            arrays["units"] = None
        return {"scale": self.scale} | {name: None if a is None else a.tolist() for name, a in arrays.items()}


# -- the scale of the stream -----------------------------------------------------------------------------------------


def unscaled(bare: BareTransformer) -> tuple[BareTransformer, float]:
    """The same transformer with a stream in which places have length 1, and how long they were.

    Only where all places are equally long, and all tokens too, with or without `one`.
    """
    lengths = np.linalg.norm(bare.positions[1:].astype(float), axis=1)
    tokens = np.linalg.norm(bare.tokens.astype(float), axis=1)
    scale = float(lengths.mean())
    if scale <= 0 or np.ptp(lengths) > EVEN * scale or np.ptp(tokens) > EVEN * scale or abs(scale - 1) < EVEN:
        return bare, 1.0
    if min(abs(tokens.mean() / scale - length) for length in (1.0, 2**0.5)) > EVEN:
        return bare, 1.0
    nice = float(f"{scale:.5g}")
    scale = nice if abs(nice - scale) < 1e-6 * scale else scale
    params = {}
    for name, array in bare.params.items():
        kind = access(name)
        params[name] = (array * scale if kind == "read" else array / scale if kind == "write" else array).astype("f4")
    readout = bare.readout
    if readout is not None:  # a readout of the scaled stream is one of the other, as long as it is made longer
        none = None if readout.none is None else readout.none * scale
        longest = float(np.linalg.norm(readout.directions, axis=0).max(initial=0.0))
        if abs(longest * scale - 1) < EVEN:
            readout = readout._replace(directions=readout.directions * scale, none=none)
    return replace(bare, params=params, readout=readout), scale


# -- maps inside heads -----------------------------------------------------------------------------------------------


def straightened(bare: BareTransformer) -> tuple[BareTransformer, np.ndarray | None, np.ndarray | None]:
    """The same transformer with keys and values that read one direction a column, as a compiler writes them.

    Only heads are changed that are otherwise, and whose keys, or values, read at most as many directions as columns.

    Returns:
        the transformer, and the maps A and B of `Rewrite` that lead back; None where nothing was changed.
    """
    layers, heads, size = bare.num_layers, bare.num_heads, bare.key_size
    eye = np.tile(np.eye(size), (layers, heads, 1, 1))
    compared, moved = eye.copy(), eye.copy()
    params = dict(bare.params)
    for layer in range(layers):
        name = f"transformer/layer_{layer}/attn"
        if any(bare.biases[f"attn/{which}"][layer].any() for which in ("query", "key", "value")):
            continue
        for number in range(heads):
            own = bare.head(number)
            query, key = bare.query[layer][:, own].astype(float), bare.key[layer][:, own].astype(float)
            value, out = bare.value[layer][:, own].astype(float), bare.linear[layer][own].astype(float)
            if not _reads_single(key):
                inner = _completed(key, query)
                if inner is not None:  # keys are P inner
                    compared[layer, number], skew = np.linalg.inv(inner).T, float(np.linalg.cond(inner))
                    _put(params, f"{name}/key/w", own, key @ np.linalg.inv(inner), skew)
                    _put(params, f"{name}/query/w", own, query @ inner.T, skew)
            if not _reads_single(value) or not _writes_single(out):
                inner = _completed(value, out.T)
                if inner is not None:
                    moved[layer, number], skew = inner, float(np.linalg.cond(inner))
                    _put(params, f"{name}/value/w", own, value @ np.linalg.inv(inner), skew)
                    _put(params, f"{name}/linear/w", own, inner @ out, skew)
    changed = [None if np.array_equal(maps, eye) else maps for maps in (compared, moved)]
    if changed[0] is None and changed[1] is None:
        return bare, None, None
    return replace(bare, params=params), changed[0], changed[1]


def _put(params: dict[str, np.ndarray], name: str, own: slice, value: np.ndarray, condition: float) -> None:
    """Put a head's part of a matrix in its place, without what rounding has left of zeros and of halves."""
    new = params[name].copy()
    within = max(NOTHING, 8 * len(value.T) * UNIT_ROUNDING * condition) * np.abs(value).max(initial=0.0)
    halves = np.round(2 * value) / 2
    value = np.where(np.abs(value - halves) < min(within, 0.1), halves, value)
    new[own if name.endswith("linear/w") else (slice(None), own)] = value
    params[name] = new


def _reads_single(matrix: np.ndarray) -> bool:
    """Whether each column reads at most one direction, with weight 1."""
    used = matrix[matrix != 0]
    return bool(((matrix != 0).sum(0) <= 1).all() and ((matrix != 0).sum(1) <= 1).all() and (used == 1).all())


def _writes_single(matrix: np.ndarray) -> bool:
    return _reads_single(matrix.T)


def _completed(reader: np.ndarray, partner: np.ndarray) -> np.ndarray | None:
    """(size, size) an invertible matrix whose first rows are those of `reader` that are not zero.

    The others are such that `partner` (width, size) gives nothing on them: what is not read is not compared.

    Returns:
        None if there is none: the reader reads more directions than it has columns, or two alike; or all, as under
        noise.
    """
    largest = np.abs(reader).max(initial=0.0)
    rows = reader[np.abs(reader).max(1) > NOTHING * largest] if largest else reader[:0]
    count, size = len(rows), reader.shape[1]
    if not 0 < count <= size or count == len(reader) or np.linalg.cond(rows) > 1 / EVEN:
        return None
    if count == size:
        return rows
    _, sizes, ways = np.linalg.svd(partner)
    rank = int((sizes > EVEN * max(sizes.max(initial=0.0), 1e-30)).sum())
    unread = ways[rank:]  # orthonormal
    if len(unread) < size - count:
        return None
    base = np.linalg.qr(rows.T)[0].T
    _, sizes, mixes = np.linalg.svd((unread - unread @ base.T @ base).T)
    others = mixes[: size - count] @ unread
    whole = np.concatenate([rows, others * np.linalg.norm(rows, axis=1).mean()])
    return whole if np.linalg.cond(whole) < 1 / EVEN else None


# -- the scales of hidden units --------------------------------------------------------------------------------------


def evened(bare: BareTransformer) -> tuple[BareTransformer, np.ndarray]:
    """The same transformer with hidden units as strong as a compiler makes them.

    A unit of a step reads its number by `EXACTNESS`; one of a sum, and one that starts a function, reads with weight 1;
    any other writes with weight 1.

    Returns:
        the transformer, and (layers, hidden) the positive factors u of `Rewrite` that lead back.
    """
    factors = np.ones((bare.num_layers, bare.hidden_size))
    if any(bare.biases[which].any() for which in ("mlp/linear_1", "mlp/linear_2")):
        return bare, factors
    one, bos = _one_and_bos(bare)
    params = dict(bare.params)
    for layer in range(bare.num_layers):
        first, second = bare.first[layer].astype(float), bare.second[layer].astype(float)
        own = _factors(first, second, one, bos)
        if (own != 1).any():
            factors[layer] = own
            name = f"transformer/layer_{layer}/mlp"
            params[f"{name}/linear_1/w"] = (first / own).astype(np.float32)
            params[f"{name}/linear_2/w"] = (second * own[:, None]).astype(np.float32)
    return (bare if (factors == 1).all() else replace(bare, params=params)), factors


def _one_and_bos(bare: BareTransformer) -> tuple[int, int]:
    """The direction that all tokens share, -1 if there is none, and that of BOS."""
    shared = np.flatnonzero((bare.tokens > 0.5).all(0)) if len(bare.tokens) > 1 else np.zeros(0, int)
    one = int(shared[0]) if len(shared) == 1 else -1
    row = bare.tokens[bare.space.index(BOS)].copy()
    if one >= 0:
        row[one] = 0
    return one, int(row.argmax())


def _factors(first: np.ndarray, second: np.ndarray, one: int, bos: int) -> np.ndarray:
    """(hidden,) by how much each unit reads more strongly than a compiler lets it."""
    reads: list[dict[int, float]] = [{} for _ in range(first.shape[1])]
    for row, unit in zip(*(part.tolist() for part in np.nonzero(first)), strict=True):
        reads[unit][row] = float(first[row, unit])
    bodies = [[d for d in row if d not in (one, bos)] for row in reads]
    steps = [
        (body[0], row[body[0]], row.get(one, 0.0))
        for body, row in zip(bodies, reads, strict=True)
        if len(body) == 1 and one in row and row[body[0]] > 0
    ]
    stepped = {x for x, _, _ in steps}
    steps += [
        (body[0], row[body[0]], 0.0)
        for body, row in zip(bodies, reads, strict=True)
        if len(row) == 1 and body and body[0] in stepped and row[body[0]] > 0
    ]
    exactness = _exactness(steps)
    opposite = _opposites(bodies, reads, second)
    factors = np.ones(len(reads))
    for unit, (row, body) in enumerate(zip(reads, bodies, strict=True)):
        writes = np.abs(second[unit])
        if not row:
            continue
        if not body:
            if one in row and row[one] > 0:
                factors[unit] = row[one]
            elif row.get(bos, 0.0) > 0 and writes.any():
                factors[unit] = row[bos] / _cleaned(row[bos] * writes)
        elif unit in opposite:
            factors[unit] = abs(row[body[0]])
        elif len(body) == 1 and body[0] in stepped and row[body[0]] > 0:
            factors[unit] = row[body[0]] / exactness
        elif len(body) > 1 or one not in row:
            used = writes[writes > 0]
            if len(used) and np.ptp(used) < EVEN * used.max():
                factors[unit] = 1 / used.mean()
    return np.where(np.abs(factors - 1) < EVEN, 1.0, factors)


def _cleaned(products: np.ndarray) -> float:
    """What a unit that cleans the place of BOS reads: 1, or how many SelectorWidths share it, each writing -1."""
    least = float(products[products > 0].min())
    return float(max(1, round(least))) if abs(least - round(least)) < EVEN * least else 1.0


def _exactness(steps: list[tuple[int, float, float]]) -> float:
    """How steep steps are: the two units of a step begin one over that apart, whatever they are scaled by.

    Args:
        steps: of each unit the number that it reads, by what weight, and what it reads of `one`.
    """
    options = Counter(float(f"{strength:.6g}") for _, strength, _ in steps)
    options[EXACTNESS] += 0
    begins: dict[int, list[float]] = defaultdict(list)
    for x, strength, bias in steps:
        begins[x].append(-bias / strength)

    def paired(steep: float) -> int:
        found = 0
        for some in begins.values():
            ordered = np.unique(some)
            second = ordered[np.minimum(np.searchsorted(ordered, ordered + 0.5 / steep), len(ordered) - 1)]
            found += int((np.abs(second - ordered - 1 / steep) < 0.001 / steep).sum())
        return found

    return max(options, key=lambda steep: (paired(steep), steep == EXACTNESS, options[steep]))


def _opposites(bodies: list[list[int]], reads: list[dict[int, float]], second: np.ndarray) -> set[int]:
    """The units of sums: two that read one number alone, one of them backwards, and write it with opposite signs."""
    alone: dict[tuple[int, bytes], dict[bool, list[int]]] = defaultdict(lambda: {True: [], False: []})
    for unit, body in enumerate(bodies):
        if len(body) == 1 and len(reads[unit]) == 1:
            sign = np.sign(second[unit]) * np.sign(reads[unit][body[0]]) + 0.0  # of -0.0 it makes 0.0
            alone[body[0], sign.tobytes()][reads[unit][body[0]] > 0].append(unit)
    return {unit for some in alone.values() if some[True] and some[False] for units in some.values() for unit in units}
