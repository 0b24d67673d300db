"""Two networks of any kind of file made comparable: the arrays of one in the places of the other's."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from weightspace.errors import NetworkError
from weightspace.files.checkpoints import FLOATING, Outline, read
from weightspace.files.tensors import METADATA_KEY
from weightspace.provenance.filters import group_entries, kernel_places
from weightspace.weights.matching import match
from weightspace.weights.network import Network, check_finite
from weightspace.weights.spec import NetworkSpec, SpecError
from weightspace.weights.state_dict import load_state_dict, natural_order
from weightspace.zoo.importers.foreign import Unfit
from weightspace.zoo.importers.state_dicts import network_in


class ComparisonError(NetworkError):
    """Networks that cannot be compared; one sentence says why."""


def outline_of(path: str | Path) -> Outline:
    """The state dict of a file that is a network.

    Raises:
        NetworkError: if there is none, or several.
    """
    if Path(path).is_dir():
        raise ComparisonError(f"{path} is a folder: name a checkpoint, or a folder as the second of the two")
    try:
        return network_in(Path(path))
    except Unfit as error:
        raise ComparisonError(str(error)) from None


def network_of(source: str | Path | Network) -> Network:
    """A network with the order of its layers, where that can be told.

    A file of ours describes itself. Of another one the arrays are taken for a chain of layers if their shapes make up
    one; otherwise nothing is known of the order of neurons, and they are compared as they stand.

    Raises:
        NetworkError: if the file cannot be read, or the network has no kernel.
    """
    if isinstance(source, Network):
        return source
    found = outline_of(source)
    if METADATA_KEY in found.metadata and found.kind == "safetensors":
        return Network.load(source)
    names = natural_order(found.floating)
    arrays = read(found, names)
    # in the order of the file if that makes a chain: names such as stem, body, head do not sort
    orders = [names, [name for name in found.shapes if name in set(names)]]
    for order in orders:
        try:
            network = load_state_dict({name: arrays[name] for name in order}, topology="chain")
        except SpecError:
            continue
        return network
    return load_state_dict(arrays, topology="unknown")


def weights_as(source: str | Path | Network, spec: NetworkSpec, whose: str) -> np.ndarray:
    """A network's weights (spec.size,) in the places of another's, whatever its arrays are called.

    Args:
        whose: the other, for the sentence.
    Raises:
        ComparisonError: if it is another architecture; it says the first difference.
    """
    if isinstance(source, Network):
        if source.spec == spec:
            return source.weights
        arrays: Mapping[str, np.ndarray] = source.arrays()
        names = _matched(spec, {name: array.shape for name, array in arrays.items()}, None, "the network", whose)
    else:
        found = outline_of(source)
        names = _matched(spec, found.shapes, found.dtypes, str(source), whose)
        arrays = read(found, names)
    return spec.join({leaf.name: arrays[name] for leaf, name in zip(spec.leaves, names, strict=True)})


def _matched(
    spec: NetworkSpec,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str] | None,
    name: str,
    whose: str,
) -> tuple[str, ...]:
    packed = {n: d for n, d in (dtypes or {}).items() if d not in FLOATING}
    if sum(prod(shapes[n]) for n in packed) > sum(prod(s) for n, s in shapes.items() if n not in packed):
        raise ComparisonError(f"{name} is not comparable with {whose}: its weights are quantised or packed")
    try:
        return match(spec, shapes, dtypes, whose=whose).names
    except NetworkError as error:
        raise ComparisonError(f"{name} is not comparable with {whose}: {error}") from None


def check_comparable(spec: NetworkSpec, weights: np.ndarray, name: str) -> None:
    """Raise a ComparisonError that names the file, if weights hold a NaN, or nothing but one number in each kernel."""
    try:
        check_finite(spec, weights, name)
    except NetworkError as error:
        raise ComparisonError(str(error)) from None
    if not kernel_places(spec):
        raise ComparisonError(f"{name} has no kernel (a dense layer or a convolution): it has no filters to match")
    if all(np.ptp(weights[kernel.place]) == 0 for kernel in kernel_places(spec)):
        raise ComparisonError(f"every kernel of {name} is constant: it was never trained, so nothing can be matched")


def knows_order(spec: NetworkSpec) -> bool:
    """Whether it is known which neurons can be reordered."""
    return bool(group_entries(spec))
