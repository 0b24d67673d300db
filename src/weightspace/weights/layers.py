"""The layers of a network of any architecture: each kernel with the vectors beside it, in the order of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from weightspace.errors import NetworkError
from weightspace.weights.network import Network

CHANNELS = 4
"""Most channels that an image has."""
VECTORS = ("bias", "scale", "shift", "running_mean", "running_variance")


@dataclass(frozen=True, eq=False)
class Layer:
    """A dense layer or a convolution, and the normalisation behind it.

    Attributes:
        name: of the kernel.
        kernel: (neurons, inputs, places) float64; places are those of a convolution's kernel, or the pixels that a
            dense layer reads of each channel before it.
        bias, scale, shift, running_mean, running_variance: (neurons,), None for none.
    """

    name: str
    kernel: Float[np.ndarray, "neurons inputs places"]
    bias: Float[np.ndarray, " neurons"] | None = None
    scale: Float[np.ndarray, " neurons"] | None = None
    shift: Float[np.ndarray, " neurons"] | None = None
    running_mean: Float[np.ndarray, " neurons"] | None = None
    running_variance: Float[np.ndarray, " neurons"] | None = None

    @property
    def normalised(self) -> bool:
        """Whether a normalisation takes the size of the kernel out again."""
        return self.scale is not None or self.running_variance is not None

    @property
    def spatial(self) -> bool:
        """Whether it is a convolution."""
        return self.kernel.shape[2] > 1


def layers_of(network: Network) -> tuple[Layer, ...]:
    """The layers that a network's arrays make up, by their shapes and roles alone.

    Kernels are put in an order in which each reads what the one before it gives, where there is one (a safetensors file
    may be sorted by name); otherwise they stay as they stand. A vector belongs to the kernel of its own layer by name;
    a normalisation to the first kernel, behind that of the normalisation before, of as many neurons. Residual
    connections do not show in the arrays.

    Raises:
        NetworkError: if there are less than two kernels, or the last is no dense layer.
    """
    arrays = network.arrays()
    roles = {leaf.name: leaf.role for leaf in network.spec.leaves}
    names = [n for n, role in roles.items() if role == "kernel" and 2 <= arrays[n].ndim <= 4]
    names.sort(key=lambda name: arrays[name].ndim == 2)  # where they make no chain, dense layers come last
    kernels = _chained({name: arrays[name].astype(np.float64).reshape(*arrays[name].shape[:2], -1) for name in names})
    if len(kernels) < 2 or arrays[kernels[-1].name].ndim != 2:
        raise NetworkError(
            f"a network of {len(kernels)} layers without a dense layer of classes at its end cannot be looked at"
        )
    beside: list[dict[str, np.ndarray]] = [{} for _ in kernels]
    owner: dict[str, int] = {}
    behind = -1
    for name, role in roles.items():
        if role not in VECTORS or arrays[name].ndim != 1:
            continue
        prefix = name.rpartition(".")[0]
        if role == "bias":
            own = [i for i, layer in enumerate(kernels) if layer.name.rpartition(".")[0] == prefix]
            place = own[0] if own else None
        elif prefix in owner:
            place = owner[prefix]
        else:
            later = range(behind + 1, len(kernels))
            place = next((i for i in later if len(kernels[i].kernel) == len(arrays[name])), None)
            if place is not None:
                owner[prefix] = behind = place
        if place is not None and len(kernels[place].kernel) == len(arrays[name]):
            beside[place][role] = arrays[name].astype(np.float64)
    return tuple(replace(layer, **own) for layer, own in zip(kernels, beside, strict=True))


def _chained(kernels: dict[str, np.ndarray]) -> list[Layer]:
    """Kernels in the order in which they read each other, dense ones by channel where they read a flattened image."""
    left = dict(kernels)
    found: list[Layer] = []
    while left:
        name = next((n for n, kernel in left.items() if _reads(kernel, found[-1] if found else None)), None)
        if name is None:
            break
        kernel = left.pop(name)
        if found and kernel.shape[1] != len(found[-1].kernel):
            kernel = kernel.reshape(len(kernel), len(found[-1].kernel), -1)
        found.append(Layer(name, kernel))
    return [Layer(name, kernel) for name, kernel in kernels.items()] if left else found


def is_chain(layers: Sequence[Layer]) -> bool:
    """Whether each layer reads all that the one before gives, from the channels of an image on."""
    widths = [len(layer.kernel) for layer in layers[:-1]]
    return layers[0].kernel.shape[1] <= CHANNELS and widths == [layer.kernel.shape[1] for layer in layers[1:]]


def _reads(kernel: np.ndarray, before: Layer | None) -> bool:
    if before is None:
        return kernel.shape[1] <= CHANNELS
    inputs, neurons = kernel.shape[1], len(before.kernel)
    dense_after_pixels = kernel.shape[2] == 1 and before.spatial and inputs % neurons == 0
    return inputs == neurons or dense_after_pixels


@dataclass(frozen=True, eq=False)
class NormalLayer:
    """A layer in normal form, see `normal_form`.

    Attributes:
        kernel: (neurons, inputs, places); of hidden layers each neuron's weights have size 1.
        offset: (neurons,) what is added, on the scale of the neuron.
    """

    kernel: Float[np.ndarray, "neurons inputs places"]
    offset: Float[np.ndarray, " neurons"]


def normal_form(layers: Sequence[Layer]) -> tuple[NormalLayer, ...]:
    """The same layers with all scales pushed on to the classes.

    From the first layer on, each neuron's weights get size 1; what that takes away, or the scale of the normalisation
    that stands there, goes into the weights by which the neuron is read. So all networks that differ only in scales
    between layers have one normal form: of ReLUs these compute the same. A BatchNorm becomes a part of its kernel and
    bias, as it is in evaluation; signs of another normalisation's scales go into the kernel; of the classes' weights
    and biases their mean is taken, as no answer depends on it.
    """
    found: list[NormalLayer] = []
    gain = np.ones(layers[0].kernel.shape[1])
    for layer in map(_folded, layers[:-1]):
        kernel = _reading(layer, gain)
        size = np.linalg.norm(kernel.reshape(len(kernel), -1), axis=1) + TINY
        kernel = kernel / size[:, None, None]
        gain, added = size, layer.bias
        if layer.scale is not None:
            gain, added = np.abs(layer.scale) + TINY, layer.shift
            kernel = kernel * np.where(layer.scale < 0, -1, 1)[:, None, None]
        found.append(NormalLayer(kernel, np.zeros(len(kernel)) if added is None else added / gain))
    last = _reading(layers[-1], gain)
    bias = np.zeros(len(last)) if layers[-1].bias is None else layers[-1].bias
    return (*found, NormalLayer(last - last.mean(0), bias - bias.mean()))


TINY = 1e-12
EPSILON = 1e-5
"""What BatchNorms add to a variance, unless told otherwise."""


def _folded(layer: Layer) -> Layer:
    """A layer with its BatchNorm, if it has one, in its kernel and bias."""
    if layer.running_variance is None:
        return layer
    nothing = np.zeros(len(layer.kernel))
    factor = (1 if layer.scale is None else layer.scale) / np.sqrt(layer.running_variance + EPSILON)
    bias, mean, shift = (
        nothing if vector is None else vector for vector in (layer.bias, layer.running_mean, layer.shift)
    )
    return Layer(layer.name, layer.kernel * factor[:, None, None], shift + factor * (bias - mean))


def _reading(layer: Layer, gain: np.ndarray) -> np.ndarray:
    """The kernel for inputs of size 1, where it is known which they are."""
    return layer.kernel * gain[:, None] if layer.kernel.shape[1] == len(gain) else layer.kernel
