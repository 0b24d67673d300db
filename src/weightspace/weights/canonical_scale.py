"""The canonical scale: of all networks that scalings make of one, the one with the smallest weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec, ScaledAxis, Scaling, SpecError

STEPS = 200
"""Most Newton steps; ten are usual."""
TOLERANCE = 1e-9
"""A step that changes no logarithm of a scale by more is the last."""
LONGEST = 4.0
"""No step changes the logarithm of a scale by more."""
DENSE = 3_000
"""Scales up to which each step is one linear system; more are solved for by conjugate gradients."""
AT_ONCE = 2**22
"""Weights that are brought to scale together, at most, but for single networks that are larger."""


def canonical_scale(
    weights: Float[Tensor, "n size"], spec: NetworkSpec, *, exact: bool = False
) -> Float[Tensor, "n size"]:
    """Each network in canonical scale: its function stays the same, and all its rescalings become the same weights.

    The scales minimise half the sum of all squared weights, less, of each scale that a normalisation takes out again
    (an approximate one), its logarithm times the number of weights that grow with it. So a neuron is written with
    weights as large, in sum of squares, as those it is read by; a kernel in front of a normalisation has mean square 1;
    and a running variance is 1. That is a convex problem in the logarithms of the scales, solved by Newton's method in
    float64, so that rounding of the given weights is not blown up. Its solution moves with the neurons when they are
    permuted. A neuron of which one side is zero has mean square 1 on the other.

    For ReLUs without normalisations this is the balance of equi-normalisation (Stock et al. 2019).

    Args:
        weights: of n networks.
        spec: with their scalings; without any the weights come back as they are.
        exact: leave out scalings that an epsilon makes approximate.
    Returns:
        in the type of `weights`, and differentiable with respect to them, scales included.
    Raises:
        SpecError: if a weight is NaN or infinite.
    """
    chosen = [scaling for scaling in spec.scalings if not (exact and scaling.epsilon)]
    if not chosen:
        return weights
    scaled = weights.double()
    if not bool(torch.isfinite(scaled).all()):
        raise SpecError("weights that are NaN or infinite have no scale: leave the network out")
    spreads = [scaling for scaling in chosen if _spread(scaling, spec)]
    for scaling in spreads:  # first, as no other scaling touches a variance
        scaled = _applied(scaled, spec, [scaling], _flattened(scaled, spec, scaling))
    others = [scaling for scaling in chosen if scaling not in spreads and _plain_powers(scaling, spec)]
    if others:
        problem = _Problem.of(spec, others, scaled**2)
        scaled = _applied(scaled, spec, others, problem.solve())
    return scaled.to(weights.dtype)


def in_canonical_scale(networks: Sequence[Network], scalings: Sequence[Scaling] | None = None) -> Population:
    """Networks in canonical scale, in memory.

    Args:
        scalings: of all of them, who must share one spec; unless given, each network's own spec says which it has.
    """
    population = Population.of(networks)
    changed: list[Network | None] = [None] * len(population)
    for spec, positions in population.groups():
        known = spec if scalings is None else NetworkSpec(spec.leaves, spec.groups, tuple(scalings))
        rows = max(1, AT_ONCE // spec.size)
        for first in range(0, len(positions), rows):
            block = positions[first : first + rows]
            with torch.no_grad():
                scaled = canonical_scale(torch.from_numpy(population.read(block)), known).numpy()
            for place, row in zip(block, scaled, strict=True):
                changed[int(place)] = Network(known, row, population[int(place)].metadata)
    return Population.of([network for network in changed if network is not None])


def _spread(scaling: Scaling, spec: NetworkSpec) -> list[ScaledAxis]:
    """The axes of running variances that a scaling changes."""
    return [axis for axis in scaling.axes if spec.leaves[spec.index(axis.leaf)].role == "running_variance"]


def _flattened(weights: Tensor, spec: NetworkSpec, scaling: Scaling) -> Tensor:
    """Logarithms (n, size) of the scales that make running variances 1, on average where there are several."""
    logs = weights.new_zeros(len(weights), scaling.size)
    axes = _spread(scaling, spec)
    for axis in axes:
        places = np.flatnonzero(axis.neurons >= 0)
        variance = weights[:, spec.offsets[spec.index(axis.leaf)] + torch.from_numpy(places)].clamp(min=1e-30)
        share = -variance.log() / (axis.exponent * len(axes))
        logs = logs.index_add(1, torch.from_numpy(axis.neurons[places]), share)
    return logs


def _plain_powers(scaling: Scaling, spec: NetworkSpec) -> bool:
    return all(abs(axis.exponent) == 1 for axis in scaling.axes if _counts(axis, spec))


def _counts(axis: ScaledAxis, spec: NetworkSpec) -> bool:
    """Whether an array's weights are made small; running statistics only follow."""
    return spec.leaves[spec.index(axis.leaf)].role not in ("running_mean", "running_variance")


def _applied(weights: Tensor, spec: NetworkSpec, scalings: Sequence[Scaling], logs: Tensor) -> Tensor:
    """Weights (n, size) with scales of these logarithms (n, neurons of all scalings)."""
    padded = torch.nn.functional.pad(logs, (0, 1))
    factors: dict[str, Tensor] = {}
    start = 0
    for scaling in scalings:
        for axis in scaling.axes:
            rank = len(axis_shape := spec.leaves[spec.index(axis.leaf)].shape)
            own = padded[:, torch.from_numpy(np.where(axis.neurons < 0, -1, start + axis.neurons))]
            shaped = axis.exponent * own.reshape(len(own), *_along(axis.dimension, rank, axis_shape[axis.dimension]))
            factors[axis.leaf] = shaped if axis.leaf not in factors else factors[axis.leaf] + shaped
        start += scaling.size
    pieces = []
    for leaf, piece in zip(spec.leaves, weights.split([leaf.size for leaf in spec.leaves], 1), strict=True):
        if leaf.name in factors:
            piece = (piece.reshape(len(piece), *leaf.shape) * factors[leaf.name].exp()).reshape(len(piece), -1)
        pieces.append(piece)
    return torch.cat(pieces, 1)


def _along(dimension: int, rank: int, length: int) -> list[int]:
    return [length if d == dimension else 1 for d in range(rank)]


@dataclass(frozen=True)
class _Array:
    """An array of which places that follow the same scales have been summed up.

    Attributes:
        squares: (n, ...) sums of squares.
        powers: of each dimension and each scaling that it follows, of each place the number of its scale (that of all
            scales for none), and the power.
    """

    squares: Tensor
    powers: tuple[tuple[int, Tensor, float], ...]

    def at(self, logs: Tensor) -> Tensor:
        """The sums of squares at other scales, whose logarithms are (n, scales + 1), the last 0."""
        total = torch.zeros_like(self.squares)
        for dimension, index, power in self.powers:
            shape = _along(dimension, self.squares.ndim - 1, len(index))
            total = total + 2 * power * logs[:, index].reshape(len(logs), *shape)
        return self.squares * total.exp()

    def sums(self, values: Tensor, kept: Sequence[int]) -> Tensor:
        """Values (n, ...) summed over all dimensions but some, which come out in rising order."""
        others = [d + 1 for d in range(values.ndim - 1) if d not in kept]
        return values.sum(others) if others else values


@dataclass(frozen=True)
class _Problem:
    """Scales that make the squares of n networks' weights small.

    Attributes:
        arrays: all that follow.
        scales: how many there are to find for each network.
        reward: (n, scales) by how much the objective falls for each unit of a scale's logarithm.
        expand: (neurons of all scalings,) which scale is whose: tied neurons share one.
        dead: (n, scales) what no weight depends on.
    """

    arrays: tuple[_Array, ...]
    scales: int
    reward: Tensor
    expand: Tensor
    dead: Tensor

    @staticmethod
    def of(spec: NetworkSpec, scalings: Sequence[Scaling], squares: Float[Tensor, "n size"]) -> _Problem:
        numbers: list[np.ndarray] = []
        count = 0
        for scaling in scalings:
            numbers.append(np.full(scaling.size, count) if scaling.tied else count + np.arange(scaling.size))
            count += 1 if scaling.tied else scaling.size
        arrays, sides = [], squares.new_zeros(2, len(squares), count + 1)
        entries = torch.zeros_like(sides)
        for leaf, place in spec.slices():
            follows = [
                (axis.dimension, np.append(own, count)[axis.neurons], axis.exponent)
                for scaling, own in zip(scalings, numbers, strict=True)
                for axis in scaling.axes
                if axis.leaf == leaf.name and _counts(axis, spec)
            ]
            if not follows:
                continue
            array = _summed(squares[:, place].reshape(len(squares), *leaf.shape), follows)
            arrays.append(array)
            for dimension, owner, power in follows:
                others = leaf.size // leaf.shape[dimension]
                counted = np.bincount(owner, minlength=count + 1) * float(others)
                entries[int(power < 0)] += torch.from_numpy(counted)
            for dimension, index, power in array.powers:
                sides[int(power < 0)].index_add_(1, index, array.sums(array.squares, [dimension]).detach())
        up, down = sides[:, :, :-1]
        ups, downs = entries[:, :, :-1]
        lost = [scaling.epsilon > 0 for scaling in scalings for _ in range(1 if scaling.tied else scaling.size)]
        alone = (up > 0) != (down > 0)
        reward = torch.where(alone | torch.tensor(lost), torch.where(up > 0, ups, -downs), torch.zeros_like(up))
        dead = (up == 0) & (down == 0)
        return _Problem(tuple(arrays), count, reward, torch.from_numpy(np.concatenate(numbers)), dead)

    def solve(self) -> Float[Tensor, "n neurons"]:
        """Logarithms of the scales of all neurons."""
        squares = self.reward
        with torch.no_grad():
            logs = squares.new_zeros(len(squares), self.scales)
            for _ in range(STEPS):
                step = self._newton(logs)
                step = step * (LONGEST / step.abs().amax(1, keepdim=True).clamp(min=LONGEST))
                logs = self._descend(logs, step)
                if float(step.abs().max()) <= TOLERANCE:
                    break
        if any(array.squares.requires_grad for array in self.arrays):
            logs = logs + self._newton(logs)  # at the solution this step is 0 and its derivative that of the solution
        return logs[:, self.expand]

    def _descend(self, logs: Tensor, step: Tensor) -> Tensor:
        """The step, for each network halved until the objective does not rise."""
        before = self._objective(logs)
        size = torch.ones_like(before)
        for _ in range(30):
            after = self._objective(logs + size[:, None] * step)
            worse = after > before + 1e-12 * before.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        return logs + size[:, None] * step

    def _objective(self, logs: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(logs, (0, 1))
        total = -(self.reward * logs).sum(1)
        for array in self.arrays:
            total = total + 0.5 * array.at(padded).reshape(len(logs), -1).sum(1)
        return total

    def _newton(self, logs: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(logs, (0, 1))
        values = [array.at(padded) for array in self.arrays]
        slope = torch.nn.functional.pad(-self.reward, (0, 1))
        for array, value in zip(self.arrays, values, strict=True):
            for dimension, index, power in array.powers:
                slope.index_add_(1, index, power * array.sums(value, [dimension]))
        slope = slope[:, :-1]
        if self.scales <= DENSE:
            return -torch.linalg.solve(self._curvature(values), slope)
        return -_conjugate_gradients(lambda x: self._curved(values, x), slope)

    def _curvature(self, values: Sequence[Tensor]) -> Tensor:
        """Second derivatives (n, scales, scales)."""
        n, width = len(self.reward), self.scales + 1
        flat = self.reward.new_zeros(n, width * width)
        for array, value in zip(self.arrays, values, strict=True):
            for one, index, power in array.powers:
                for other, against, factor in array.powers:
                    sums = array.sums(value, [one, other])
                    if one == other:
                        places = index * width + against
                    else:
                        places = (index[:, None] * width + against[None, :]).reshape(-1)
                        sums = (sums if one < other else sums.transpose(1, 2)).reshape(n, -1)
                    flat.index_add_(1, places, 2 * power * factor * sums)
        matrix = flat.reshape(n, width, width)[:, :-1, :-1]
        return matrix + torch.diag_embed(self._ridge(torch.diagonal(matrix, dim1=1, dim2=2)))

    def _ridge(self, diagonal: Tensor) -> Tensor:
        """A trace of curvature where rounding or a dead neuron leaves none."""
        return torch.where(self.dead, torch.ones_like(diagonal), 1e-12 * diagonal.detach() + 1e-300)

    def _curved(self, values: Sequence[Tensor], x: Tensor) -> Tensor:
        """The second derivatives times a vector (n, scales)."""
        padded = torch.nn.functional.pad(x, (0, 1))
        result = torch.zeros_like(padded)
        diagonal = torch.zeros_like(padded)
        for array, value in zip(self.arrays, values, strict=True):
            moved = torch.zeros_like(value)
            for dimension, index, power in array.powers:
                shape = _along(dimension, value.ndim - 1, len(index))
                moved = moved + power * padded[:, index].reshape(len(x), *shape)
            for dimension, index, power in array.powers:
                result = result.index_add(1, index, 2 * power * array.sums(value * moved, [dimension]))
                diagonal = diagonal.index_add(1, index, 2 * array.sums(value, [dimension]))
        return result[:, :-1] + self._ridge(diagonal[:, :-1]) * x


def _summed(squares: Tensor, follows: Sequence[tuple[int, np.ndarray, float]]) -> _Array:
    """An array with the places of each dimension summed up that follow the same scales."""
    powers = []
    for dimension in range(squares.ndim - 1):
        here = [(owner, power) for d, owner, power in follows if d == dimension]
        if not here:
            squares = squares.sum(dimension + 1, keepdim=True)
            continue
        kinds, kind = np.unique(np.stack([owner for owner, _ in here]), axis=1, return_inverse=True)
        shape = [*squares.shape[: dimension + 1], kinds.shape[1], *squares.shape[dimension + 2 :]]
        squares = squares.new_zeros(shape).index_add(dimension + 1, torch.from_numpy(kind.reshape(-1)), squares)
        powers += [(dimension, torch.from_numpy(own), power) for own, (_, power) in zip(kinds, here, strict=True)]
    return _Array(squares, tuple(powers))


def _conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, most: int = 500) -> Tensor:
    """x of A x = right (n, m) for symmetric positive A, known by its products; good enough for a Newton step."""
    x, left = torch.zeros_like(right), right
    along, error = left, (left * left).sum(1, keepdim=True)
    goal = 1e-20 * error
    for _ in range(most):
        if bool((error <= goal).all()):
            break
        turned = product(along)
        size = error / (along * turned).sum(1, keepdim=True).clamp(min=1e-300)
        x, left = x + size * along, left - size * turned
        fresh = (left * left).sum(1, keepdim=True)
        along = left + (fresh / error.clamp(min=1e-300)) * along
        error = fresh
    return x
