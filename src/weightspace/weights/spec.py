"""What a network's arrays are: names, shapes, roles, and which axis is which group of neurons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Literal, get_args

import numpy as np

from weightspace.errors import WeightspaceError

Role = Literal[
    "kernel",  # a linear map: dense, convolution, attention projection
    "bias",  # added after a linear map
    "scale",  # multiplied by a normalisation layer
    "shift",  # added by a normalisation layer
    "running_mean",  # a BatchNorm statistic
    "running_variance",  # a BatchNorm statistic
    "embedding",  # a table of vectors, one row an item
    "other",
]
ROLES: tuple[Role, ...] = get_args(Role)
DTYPES = ("float64", "float32", "float16", "bfloat16")


class SpecError(WeightspaceError):
    """A description of a network that contradicts itself or its arrays."""


@dataclass(frozen=True)
class NeuronGroup:
    """A set of neurons (units, channels, heads, embedding directions) that several axes index.

    Attributes:
        name: unique within a spec.
        size: number of neurons, at least 1.
        permutable: whether reordering them everywhere leaves the function as it is. False for inputs, outputs
            and wherever the reader of the network could not be sure.
        parent: name of a group of `size / k` neurons of which each owns a block of k consecutive ones: the blocks
            move with the parent's permutation, and inside each block any order is allowed. Attention heads are
            the parent of the directions of their queries and keys, and of their values.
    """

    name: str
    size: int
    permutable: bool = True
    parent: str | None = None


@dataclass(frozen=True)
class Factor:
    """One coordinate of an axis: `size` places that belong to `group`, or to no neurons where that is None."""

    group: str | None
    size: int


Segment = tuple[Factor, ...]
"""Consecutive places of an axis, laid out as the row-major product of its factors."""


@dataclass(frozen=True)
class Axis:
    """One axis of an array: the concatenation of its segments.

    A dense layer after a flattened 16x4x4 feature map has the input axis
    `((Factor("conv", 16), Factor(None, 16)),)`; a fused query-key-value projection has three segments.
    """

    segments: tuple[Segment, ...]

    @property
    def length(self) -> int:
        return sum(prod(factor.size for factor in segment) for segment in self.segments)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the neuron groups that this axis indexes, in order, without repeats."""
        names = [f.group for segment in self.segments for f in segment if f.group is not None]
        return tuple(dict.fromkeys(names))


def plain(size: int) -> Axis:
    """An axis of `size` places that belong to no neurons, such as the rows of a convolution kernel."""
    return Axis(((Factor(None, size),),))


def neurons(group: str, size: int, inner: int = 1) -> Axis:
    """An axis over one group, each neuron owning `inner` consecutive places (channels first, flattened)."""
    factors = (Factor(group, size),) if inner == 1 else (Factor(group, size), Factor(None, inner))
    return Axis((factors,))


@dataclass(frozen=True)
class Leaf:
    """One named array of a network.

    Attributes:
        name: its name in the state dict.
        shape: its lengths, as many as `axes`; a scalar has none.
        role: what it does, one of `ROLES`.
        axes: which neurons each axis indexes.
        dtype: how the network's own file holds it; in a `Network` every value is float32.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    axes: tuple[Axis, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class ScaledAxis:
    """How one axis of one array follows a scaling.

    Attributes:
        leaf: name of the array.
        dimension: of its axes.
        places: the axis, of which the factor named like the scaling numbers the neurons; all others are None.
        exponent: the power of a neuron's scale by which its entries are multiplied: 1 where it is written, -1 where it
            is read, 2 for a running variance.
    """

    leaf: str
    dimension: int
    places: Axis
    exponent: float

    @cached_property
    def neurons(self) -> np.ndarray:
        """Of each place of the axis the neuron that owns it, -1 for none: (places.length,) int64."""
        parts = []
        for segment in self.places.segments:
            shape = tuple(factor.size for factor in segment)
            owner = np.full(shape, -1)
            for dimension, factor in enumerate(segment):
                if factor.group is not None:
                    owner = np.broadcast_to(
                        np.arange(factor.size).reshape(-1, *[1] * (len(shape) - 1 - dimension)), shape
                    )
            parts.append(owner.reshape(-1))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Scaling:
    """Positive scales of some neurons that leave the function as it is, whatever they are.

    Attributes:
        name: unique among a spec's scalings.
        size: number of neurons.
        axes: the axes that follow; an axis may follow several scalings.
        tied: whether all neurons must have one scale, as in front of a LayerNorm.
        epsilon: 0 where it is exact. Otherwise the constant that a normalisation adds to a variance v: with a scale s
            what comes out is multiplied by sqrt((v + epsilon) / (v + epsilon / s^2)), which is as far from 1 as
            epsilon / 2v at most for s of 1 or more.
        blocks: where nothing but linear maps lies between the axes, as between the values of an attention head and its
            output: any invertible map of the neurons inside each of so many blocks is a symmetry too. Otherwise 0.
    """

    name: str
    size: int
    axes: tuple[ScaledAxis, ...]
    tied: bool = False
    epsilon: float = 0.0
    blocks: int = 0


@dataclass(frozen=True)
class NetworkSpec:
    """Names, shapes, roles and neuron groups of a network's arrays, in the order in which they are flattened.

    Two networks with equal specs have comparable flat weights: entry i is the same entry of the same array. What is
    known of scalings is no part of that: it depends on the activations, which arrays do not show, so that a network of
    ReLUs and one of tanhs may have equal specs and different scalings.

    Attributes:
        leaves, groups: the arrays, and the neurons that they index.
        scalings: the positive scalings that are known to leave the function as it is; `signature` and equality do not
            look at them, and zoos do not store them.

    Raises:
        SpecError: on a repeated name, an axis that does not fit its shape or its group, an unknown group, role or
            dtype, a parent whose size does not divide its child's, or no leaves at all.
    """

    leaves: tuple[Leaf, ...]
    groups: tuple[NeuronGroup, ...] = ()
    scalings: tuple[Scaling, ...] = field(default=(), compare=False)
    _groups: dict[str, NeuronGroup] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_groups", {group.name: group for group in self.groups})
        _check(self)

    def group(self, name: str) -> NeuronGroup:
        return self._groups[name]

    @cached_property
    def size(self) -> int:
        """Number of weights of the network."""
        return sum(leaf.size for leaf in self.leaves)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each leaf starts in the flat weights; one entry more than leaves, the last is `size`."""
        return tuple(int(n) for n in np.cumsum([0, *(leaf.size for leaf in self.leaves)]))

    @cached_property
    def signature(self) -> str:
        """Twelve hexadecimal digits that agree exactly when two specs do."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def index(self, name: str) -> int:
        """Position of the leaf `name`."""
        for i, leaf in enumerate(self.leaves):
            if leaf.name == name:
                return i
        raise SpecError(f"no array is named {name!r}; there are {[leaf.name for leaf in self.leaves]}")

    def leaf_at(self, position: int) -> Leaf:
        """The leaf that holds entry `position` of the flat weights."""
        return self.leaves[int(np.searchsorted(self.offsets, position, side="right")) - 1]

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The different axes that index neurons, each once."""
        return tuple(dict.fromkeys(axis for leaf in self.leaves for axis in leaf.axes if axis.groups))

    @cached_property
    def strides(self) -> tuple[tuple[slice, tuple[tuple[int | None, int, int], ...]], ...]:
        """Of each leaf with neurons its place in the flat weights, and of each of its axes: which of `axes` it is (None
        for one without neurons), its length, and how many entries one step along it skips."""
        number = {axis: place for place, axis in enumerate(self.axes)}
        found = []
        for leaf, place in self.slices():
            steps = (prod(leaf.shape[dimension + 1 :]) for dimension in range(len(leaf.shape)))
            axes = tuple(zip(map(number.get, leaf.axes), leaf.shape, steps, strict=True))
            if any(axis.groups for axis in leaf.axes):
                found.append((place, axes))
        return tuple(found)

    def slices(self) -> Iterator[tuple[Leaf, slice]]:
        """Each leaf with its place in the flat weights."""
        for leaf, start in zip(self.leaves, self.offsets[:-1], strict=True):
            yield leaf, slice(start, start + leaf.size)

    def split(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Views of the arrays inside flat weights (..., size), each (..., *leaf.shape)."""
        if flat.shape[-1] != self.size:
            raise SpecError(f"the weights have {flat.shape[-1]} entries, the spec {self.size}")
        return {leaf.name: flat[..., place].reshape(flat.shape[:-1] + leaf.shape) for leaf, place in self.slices()}

    def join(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Flat float32 weights (size,) from named arrays; the inverse of `split`.

        Raises:
            SpecError: on a missing or unexpected array, or one of another shape.
        """
        names = {leaf.name for leaf in self.leaves}
        if names != set(arrays):
            missing, unexpected = sorted(names - set(arrays)), sorted(set(arrays) - names)
            raise SpecError(f"the arrays do not fit the spec: missing {missing}, unexpected {unexpected}")
        flat = np.empty(self.size, np.float32)
        for leaf, place in self.slices():
            array = np.asarray(arrays[leaf.name])
            if array.shape != leaf.shape:
                raise SpecError(f"array {leaf.name!r} has shape {array.shape}, the spec says {leaf.shape}")
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is found later
                flat[place] = array.reshape(-1)
        return flat

    def to_json(self, *, scalings: bool = False) -> dict[str, Any]:
        """Plain lists and dictionaries from which `from_json` makes an equal spec.

        Args:
            scalings: whether they are written too, where there are any.
        """
        known = {"scalings": [_scaling_to_json(one) for one in self.scalings]} if scalings and self.scalings else {}
        return {
            "leaves": [
                {
                    "name": leaf.name,
                    "shape": list(leaf.shape),
                    "role": leaf.role,
                    "dtype": leaf.dtype,
                    "axes": [_axis_to_json(axis) for axis in leaf.axes],
                }
                for leaf in self.leaves
            ],
            "groups": [
                {"name": g.name, "size": g.size, "permutable": g.permutable, "parent": g.parent} for g in self.groups
            ],
            **known,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> NetworkSpec:
        """The inverse of `to_json`.

        Raises:
            SpecError: if the record is not one that `to_json` makes.
        """
        try:
            leaves = tuple(
                Leaf(
                    name=leaf["name"],
                    shape=tuple(int(n) for n in leaf["shape"]),
                    role=leaf["role"],
                    dtype=leaf["dtype"],
                    axes=tuple(map(_axis, leaf["axes"])),
                )
                for leaf in record["leaves"]
            )
            groups = tuple(
                NeuronGroup(g["name"], int(g["size"]), bool(g["permutable"]), g["parent"]) for g in record["groups"]
            )
            scalings = tuple(_scaling_from_json(one) for one in record.get("scalings", ()))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"not the description of a network: {error!r}") from error
        return NetworkSpec(leaves, groups, scalings)


def _axis_to_json(axis: Axis) -> list[Any]:
    return [[[f.group, f.size] for f in segment] for segment in axis.segments]


def _axis(record: Any) -> Axis:
    return Axis(tuple(tuple(Factor(g, int(n)) for g, n in segment) for segment in record))


def _scaling_to_json(scaling: Scaling) -> dict[str, Any]:
    axes = [[one.leaf, one.dimension, _axis_to_json(one.places), one.exponent] for one in scaling.axes]
    return {**scaling.__dict__, "axes": axes}


def _scaling_from_json(record: Mapping[str, Any]) -> Scaling:
    axes = tuple(ScaledAxis(leaf, int(d), _axis(places), float(power)) for leaf, d, places, power in record["axes"])
    return Scaling(
        str(record["name"]),
        int(record["size"]),
        axes,
        bool(record["tied"]),
        float(record["epsilon"]),
        int(record["blocks"]),
    )


def _check(spec: NetworkSpec) -> None:
    """Raise a SpecError on the first contradiction inside `spec`."""
    if not spec.leaves:
        raise SpecError("the network is empty: it has no floating-point arrays")
    if len(spec._groups) != len(spec.groups):
        raise SpecError("two neuron groups have one name")
    for group in spec.groups:
        parent = spec._groups.get(group.parent) if group.parent is not None else None
        if group.size < 1:
            raise SpecError(f"neuron group {group.name!r} has size {group.size}, it needs at least 1")
        if group.parent is not None and (parent is None or parent.parent is not None):
            raise SpecError(f"the parent {group.parent!r} of group {group.name!r} is not a group without parent")
        if parent is not None and group.size % parent.size:
            raise SpecError(f"group {group.name!r} of {group.size} does not divide among {parent.size} parents")
    seen: set[str] = set()
    for leaf in spec.leaves:
        if leaf.name in seen:
            raise SpecError(f"two arrays are named {leaf.name!r}")
        seen.add(leaf.name)
        if leaf.role not in ROLES or leaf.dtype not in DTYPES:
            raise SpecError(f"array {leaf.name!r}: unknown role {leaf.role!r} or dtype {leaf.dtype!r}")
        if leaf.size == 0:
            raise SpecError(f"array {leaf.name!r} of shape {leaf.shape} holds no number: leave it out")
        if tuple(axis.length for axis in leaf.axes) != leaf.shape:
            lengths = tuple(axis.length for axis in leaf.axes)
            raise SpecError(f"array {leaf.name!r} of shape {leaf.shape} is described with axes {lengths}")
        for factor in (f for axis in leaf.axes for segment in axis.segments for f in segment):
            if factor.group is None:
                continue
            if factor.group not in spec._groups or spec._groups[factor.group].size != factor.size:
                raise SpecError(f"array {leaf.name!r} indexes {factor}, which is no group of the spec")
    _check_scalings(spec)


def _check_scalings(spec: NetworkSpec) -> None:
    shapes = {leaf.name: leaf.shape for leaf in spec.leaves}
    if len({scaling.name for scaling in spec.scalings}) != len(spec.scalings):
        raise SpecError("two scalings have one name")
    for scaling in spec.scalings:
        for axis in scaling.axes:
            shape = shapes.get(axis.leaf, ())
            sizes = {f.size for segment in axis.places.segments for f in segment if f.group is not None}
            if not 0 <= axis.dimension < len(shape) or shape[axis.dimension] != axis.places.length:
                raise SpecError(f"scaling {scaling.name!r} does not fit axis {axis.dimension} of array {axis.leaf!r}")
            if axis.places.groups != (scaling.name,) or sizes != {scaling.size}:
                raise SpecError(f"scaling {scaling.name!r} has other neurons in array {axis.leaf!r}")
