"""From flat weights to vectors: normalise by the training split, cut into chunks, embed each linearly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from weightspace.metamodels.config import EmbeddingKind
from weightspace.weights.chunks import chunk, leaf_composition
from weightspace.weights.population import Population
from weightspace.weights.spec import ROLES, NetworkSpec

MAX_LAYERS = 64
"""Layers that have an encoding of their own; deeper ones share the last."""
FITTING_SAMPLE = 2000
"""Networks that the normalisation is fitted on, at most."""


def layer_numbers(spec: NetworkSpec) -> list[int]:
    """For each leaf the layer it belongs to: the number of kernels and embeddings up to it, from 0."""
    numbers, layer = [], -1
    for leaf in spec.leaves:
        layer += leaf.role in ("kernel", "embedding")
        numbers.append(min(max(layer, 0), MAX_LAYERS - 1))
    return numbers


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Means and standard deviations of the training split's weights.

    Attributes:
        statistics: for each "role/layer" (such as "kernel/0") or for "all": mean and standard deviation.
    """

    statistics: Mapping[str, tuple[float, float]]

    @staticmethod
    def fit(networks: Population, by_layer: bool, seed: int = 0) -> Normaliser:
        """Take the statistics over a population, or over 2,000 of its networks where it is larger.

        They are gathered block by block in float64, in which the squares of float32 weights neither overflow nor
        vanish.
        """
        chosen = np.arange(len(networks))
        if len(chosen) > FITTING_SAMPLE:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, FITTING_SAMPLE, replace=False))
        moments: dict[str, _Moments] = {}
        sample = networks.select(chosen)
        for spec, positions in sample.groups():
            for block in np.array_split(positions, -(-len(positions) * spec.size // 2**24)):
                weights = sample.read(block).astype(np.float64)
                for (_, place), key in zip(spec.slices(), _keys(spec, by_layer), strict=True):
                    for name in {key, "all"}:
                        moments.setdefault(name, _Moments()).add(weights[:, place])
        return Normaliser({name: found.summary() for name, found in moments.items()})

    def columns(self, spec: NetworkSpec) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Mean and standard deviation for every entry of flat weights; a layer never seen gets those of all weights."""
        return _columns(self, spec)

    def by_leaf(self, spec: NetworkSpec) -> list[tuple[float, float]]:
        """The same, once for each leaf."""
        return [self.statistics.get(key, self.statistics["all"]) for key in _keys(spec, by_layer=True)]

    def __hash__(self) -> int:
        return id(self)

    def to_json(self) -> dict[str, Any]:
        return {key: list(values) for key, values in self.statistics.items()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Normaliser:
        return Normaliser({key: (float(mean), float(deviation)) for key, (mean, deviation) in record.items()})


class _Moments:
    """Mean and variance of values that come in blocks (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares, self.largest = 0, 0.0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        shift = float(values.mean()) - self.mean
        total = self.count + values.size
        self.squares += float(values.var()) * values.size + shift**2 * self.count * values.size / total
        self.mean += shift * values.size / total
        self.count, self.largest = total, max(self.largest, float(np.abs(values).max()))

    def summary(self) -> tuple[float, float]:
        """Mean and standard deviation; values that are all alike have no scale, so their size stands in for it."""
        deviation = (self.squares / self.count) ** 0.5
        return self.mean, deviation if deviation > 1e-7 * self.largest else self.largest or 1.0


def _keys(spec: NetworkSpec, by_layer: bool) -> list[str]:
    if not by_layer:
        return ["all"] * len(spec.leaves)
    return [f"{leaf.role}/{layer}" for leaf, layer in zip(spec.leaves, layer_numbers(spec), strict=True)]


@lru_cache(maxsize=4096)
def _columns(normaliser: Normaliser, spec: NetworkSpec) -> tuple[Tensor, Tensor]:
    mean, deviation = torch.empty(spec.size), torch.empty(spec.size)
    for (_, place), found in zip(spec.slices(), normaliser.by_leaf(spec), strict=True):
        mean[place], deviation[place] = found
    return mean, deviation


@lru_cache(maxsize=4096)
def composition(spec: NetworkSpec, size: int) -> Float[Tensor, "t kinds"]:
    """Which share of each token has which role (columns 0 to 7) and which layer (the following 64)."""
    shares = leaf_composition(spec, size)  # (t, leaves)
    return shares @ leaf_kinds(spec)


def leaf_kinds(spec: NetworkSpec) -> Float[Tensor, "leaves kinds"]:
    """Role and layer of each leaf, encoded as `composition` does."""
    kinds = torch.zeros(len(spec.leaves), len(ROLES) + MAX_LAYERS)
    for row, leaf, layer in zip(kinds, spec.leaves, layer_numbers(spec), strict=True):
        row[ROLES.index(leaf.role)] = 1
        row[len(ROLES) + layer] = 1
    return kinds


@dataclass(frozen=True)
class TokenBatch:
    """A batch of networks as tokens.

    Attributes:
        values: (b, t, chunk) normalised weights, (b, t, features) of neurons, or (b, t, window * chunk) of windows of
            leaves; zero on padding.
        mask: (b, t) False where a network has no token, having fewer than the largest in the batch.
        kinds: (b, t, 72) what `composition` says.
        padded: whether any of the mask is False, known without asking the device.
        summary: (b, s) statistics of each array, then of each role, for a meta-model that sees them too.
        places: (b, t, 2) of windows: the number of the leaf that each belongs to, and how many of its chunks there are;
            (0, 0) on padding.
    """

    values: Float[Tensor, "b t c"]
    mask: Bool[Tensor, "b t"]
    kinds: Float[Tensor, "b t k"]
    padded: bool = False
    summary: Float[Tensor, "b s"] | None = None
    places: Int[Tensor, "b t 2"] | None = None

    def select(self, rows: Int[Tensor, " k"]) -> TokenBatch:
        """The networks at `rows`, in that order."""
        return self._each(lambda x: x[rows])

    def to(self, device: torch.device) -> TokenBatch:
        return self._each(lambda x: x.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TokenBatch:
        summary = None if self.summary is None else change(self.summary)
        places = None if self.places is None else change(self.places)
        return TokenBatch(change(self.values), change(self.mask), change(self.kinds), self.padded, summary, places)


def squash(x: Tensor) -> Tensor:
    """The inverse hyperbolic sine: the identity near 0, a signed logarithm far out.

    A weight a million standard deviations away must not drown its token, and float32 squares must not overflow.
    """
    return torch.asinh(x.clamp(-1e30, 1e30))


class Embedding(nn.Module):
    """Tokens to vectors: a linear map or an MLP, a learnt position, and learnt encodings of role and layer.

    Args:
        chunk_size: weights a token.
        width: size of a vector.
        tokens: most tokens that a network may have.
        layer_encoding: whether to add the encodings of role and layer, mixed as the token mixes them.
        kind: "linear", or "mlp".
    """

    def __init__(self, chunk_size: int, width: int, tokens: int, layer_encoding: bool, kind: EmbeddingKind) -> None:
        super().__init__()
        self.weights: nn.Module = nn.Linear(chunk_size, width)
        if kind == "mlp":
            self.weights = nn.Sequential(nn.Linear(chunk_size, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.position = nn.Embedding(tokens, width)
        nn.init.normal_(self.position.weight, std=0.02)
        self.kind = nn.Linear(len(ROLES) + MAX_LAYERS, width, bias=False) if layer_encoding else None

    def forward(self, tokens: TokenBatch) -> Float[Tensor, "b t d"]:
        x = self.weights(tokens.values) + self.position.weight[: tokens.values.shape[1]]
        return x if self.kind is None else x + self.kind(tokens.kinds)


def tokenise(weights: Float[Tensor, "b n"], spec: NetworkSpec, normaliser: Normaliser, size: int) -> TokenBatch:
    """Networks of one spec as tokens, without padding beyond the last chunk."""
    mean, deviation = normaliser.columns(spec)
    values, _ = chunk(squash((weights - mean) / deviation), size)
    b, t, _ = values.shape
    return TokenBatch(values, torch.ones(b, t, dtype=torch.bool), composition(spec, size).expand(b, -1, -1))


def gather_tokens(parts: list[tuple[np.ndarray, TokenBatch]]) -> TokenBatch:
    """One padded batch from tokens of several specs, each with the positions (k,) of its networks in the batch."""
    if len(parts) == 1 and (np.diff(parts[0][0]) == 1).all():
        return parts[0][1]
    count = sum(len(positions) for positions, _ in parts)
    longest = max(tokens.values.shape[1] for _, tokens in parts)
    first = parts[0][1]
    values = torch.zeros(count, longest, first.values.shape[2])
    mask = torch.zeros(count, longest, dtype=torch.bool)
    kinds = torch.zeros(count, longest, first.kinds.shape[2])
    summary = None if first.summary is None else torch.zeros(count, first.summary.shape[1])
    places = None if first.places is None else torch.zeros(count, longest, 2, dtype=torch.long)
    for positions, tokens in parts:
        t = tokens.values.shape[1]
        rows = torch.from_numpy(positions)
        values[rows, :t], mask[rows, :t], kinds[rows, :t] = tokens.values, tokens.mask, tokens.kinds
        if summary is not None and tokens.summary is not None:
            summary[rows] = tokens.summary
        if places is not None and tokens.places is not None:
            places[rows, :t] = tokens.places
    # Networks with as many windows may still differ in their number of leaves
    padded = len({tokens.values.shape[1] for _, tokens in parts}) > 1 or places is not None
    return TokenBatch(values, mask, kinds, padded, summary, places)
