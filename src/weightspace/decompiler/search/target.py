"""Weights prepared for matching: anchors, strengths of noise, and every matrix in units of its own.

The weights are taken to be compiled ones under Gaussian noise, of a strength of its own in every matrix (clean ones are
the limit of none).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from weightspace import clock
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import BOS
from weightspace.rasp.validate import Mode

QUIET = 0.3853
"""Of a half-normal distribution: three tenths of it lie below so many standard deviations."""
FAINTEST = 1e-3
"""Noise is taken to be at least this share of a matrix's root mean square, so that clean weights fit finitely well."""


def noise_of(matrix: np.ndarray) -> float:
    """The standard deviation of the noise on a matrix of which most entries would be zero without it."""
    scale = float(np.sqrt((matrix.astype(np.float64) ** 2).mean()))
    if scale == 0.0:
        return 1.0
    quiet = float(np.quantile(np.abs(matrix), 0.3)) / QUIET
    return max(quiet, FAINTEST * scale)


@dataclass(frozen=True, eq=False)
class MatchTarget:
    """Weights prepared for matching.

    Attributes:
        bare: the weights, in a basis of directions.
        mode: by which compiler they are taken to be made.
        token_rows: (rows,) the direction of each row of the token embedding, BOS and PAD among them.
        places: (max_seq_len,) the direction of each place.
        one: the direction that is 1 everywhere, -1 if there is none.
        lossy: whether values that never occur may have no direction.
    """

    bare: BareTransformer
    mode: Mode
    token_rows: np.ndarray
    places: np.ndarray
    one: int
    lossy: bool = False

    @staticmethod
    def of(bare: BareTransformer, mode: Mode, lossy: bool = False) -> MatchTarget:
        """Find what the embeddings give away, under noise too."""
        from scipy.optimize import linear_sum_assignment  # a fifth of a second that a clean lift does without

        shared = bare.tokens.mean(0)
        one = int(shared.argmax())
        used = shared[one] > 0.5 and len(bare.tokens) > 1
        rows = bare.tokens - (np.eye(1, bare.width, one) * 10 if used else 0)
        cost = -np.concatenate([rows, bare.positions[1:]])
        if used:
            cost[:, one] = 100.0
        _, found = linear_sum_assignment(cost)
        return MatchTarget(bare, mode, found[: len(rows)], found[len(rows) :], one if used else -1, lossy)

    @property
    def bos(self) -> int:
        return int(self.token_rows[self.bare.space.index(BOS)])

    @cached_property
    def anchored(self) -> np.ndarray:
        """(width,) which directions the embeddings write."""
        known = np.zeros(self.bare.width, bool)
        known[self.token_rows] = known[self.places] = True
        if self.one >= 0:
            known[self.one] = True
        return known

    @cached_property
    def profile(self) -> np.ndarray:
        return profile(self.bare)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Layer(self.bare, number) for number in range(self.bare.num_layers))


class Layer:
    """The matrices of a layer in units of their noise, in double precision.

    Attributes:
        first, second: (width, hidden), (hidden, width).
        query, key, value, linear: (width, heads * key_size), and the last the other way round.
        scale: by matrix name, one over its noise.
        unit_energy: (hidden,) sum of squares of each unit's column and row.
        head_energy: (heads,) the same of all that belongs to a head.
        units, heads: those that are not all zero.
    """

    def __init__(self, bare: BareTransformer, number: int) -> None:
        clock.look()
        self.scale: dict[str, float] = {}
        for name in ("query", "key", "value", "linear", "first", "second"):
            matrix = getattr(bare, name)[number].astype(np.float64)
            self.scale[name] = 1 / noise_of(matrix)
            setattr(self, name, matrix * self.scale[name])
        self.first_energy, self.second_energy = (self.first**2).sum(0), (self.second**2).sum(1)
        self.unit_energy = self.first_energy + self.second_energy
        size = bare.key_size
        columns = sum((getattr(self, name) ** 2).sum(0) for name in ("query", "key", "value"))
        columns = columns + (self.linear**2).sum(1)
        self.head_energy = columns.reshape(-1, size).sum(1)
        self.units = np.flatnonzero(self.unit_energy)
        moving = (self.linear**2).sum(1).reshape(-1, size).sum(1)
        self.heads = np.flatnonzero(moving).tolist()
        self.moved_energy = moving

    first: np.ndarray
    second: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    linear: np.ndarray


def profile(bare: BareTransformer) -> np.ndarray:
    """(width, 4 * layers): how each direction is read in each layer, as query, as key, as value, and by how many units.

    It tells apart directions that are written alike; only what stands out of the noise counts.
    """
    parts = []
    for number in range(bare.num_layers):
        for name, least in (("query", 20.0), ("key", 0.4), ("value", 0.4)):
            matrix = np.abs(getattr(bare, name)[number])
            parts.append((matrix > max(least, 4 * noise_of(matrix))).any(1).astype(float))
        matrix = np.abs(bare.first[number])
        parts.append(np.log1p((matrix > max(0.4, 4 * noise_of(matrix))).sum(1)))
    return np.stack(parts, 1)
