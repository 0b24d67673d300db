"""Base networks: each architecture as data, built into one plain PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from weightspace.errors import NetworkError
from weightspace.weights.modules import load_into_module, spec_of_module
from weightspace.weights.network import Network
from weightspace.weights.population import Population
from weightspace.weights.spec import NetworkSpec, Scaling
from weightspace.zoo.records import Architecture
from weightspace.zoo.varied import varied_cnn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel, as Flax applies it to images; epsilon 1e-6 as there."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.LayerNorm
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BatchNorm(nn.Module):
    """Batch normalisation that leaves its running statistics to the caller, so that stacks of networks can train.

    In training mode it normalises by the batch and keeps `batch_statistics` (mean and variance, (channels,) each);
    `update_running_statistics` moves the running ones. In evaluation mode it uses the running ones.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.batch_statistics: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:  # (b, channels) or (b, channels, h, w)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        if self.training:
            over = (0, *range(2, x.ndim))
            variance, mean = torch.var_mean(x, over, correction=0)
            self.batch_statistics = (mean, variance)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return x * scale.reshape(shape) + (self.bias - mean * scale).reshape(shape)


class Residual(nn.Module):
    """What comes in, and what the body makes of it, added."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Dropout(nn.Module):
    """Dropout whose mask is a function of (key, layer), so that every engine and device draws the same.

    `key` is a 0-dimensional int64 tensor that the engine sets for each step; without one, as in evaluation mode,
    nothing is dropped. The mask comes from an integer hash (a 31-bit multiply-xorshift) of the entry's number.
    """

    def __init__(self, rate: float, layer: int) -> None:
        super().__init__()
        self.rate, self.layer = rate, layer
        self.key: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.key is None or self.rate == 0:
            return x
        entry = torch.arange(x.numel(), dtype=torch.int32, device=x.device).reshape(x.shape)
        keep = hash31(entry + hash31(self.key + 7919 * self.layer).int()) >= int(self.rate * 2**31)
        return x * keep / (1 - self.rate)


def hash31(x: Tensor) -> Tensor:
    """A 31-bit mixing hash of integers, in arithmetic that every device does alike.

    Only the low 31 bits of a number count, and a product's low bits do not depend on the high ones: so int32, which
    wraps, gives the bits of int64 at half the memory, and of what is hashed for each pixel that is most of the cost.
    """
    x = x & 0x7FFFFFFF
    for multiplier in (0x2C1B3C6D, 0x297A2D39):
        x = ((x ^ (x >> 15)) * multiplier) & 0x7FFFFFFF
    return x ^ (x >> 15)


def build(architecture: Architecture) -> nn.Sequential:
    """The module of an architecture, with the names `conv1`, `norm1`, `dense1`, ... in order, and PyTorch's weights.

    Raises:
        ValueError: on an unknown layer or activation, or a layer that does not fit what reaches it.
    """
    if architecture.activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {architecture.activation!r}: choose from {', '.join(ACTIVATIONS)}")
    network, _ = _sequence(architecture.layers, _Reaching(*architecture.input_shape), architecture, 0)
    return network


@dataclass(frozen=True)
class _Reaching:
    """What reaches a layer: pixels of so many channels, or, once flattened, so many features."""

    channels: int
    height: int
    width: int
    features: int | None = None


def _sequence(
    layers: tuple[tuple[Any, ...], ...], at: _Reaching, architecture: Architecture, first: int
) -> tuple[nn.Sequential, _Reaching]:
    """The module of some layers, and what comes out of it; `first` is the number of the first one."""
    network = nn.Sequential()
    counts: dict[str, int] = {}
    for position, layer in enumerate(layers, first):
        found = _layer(layer, at, architecture, position)
        if found is None:
            raise ValueError(
                f"layer {position} of the architecture is {list(layer)}, which cannot stand there: it is unknown, or "
                "does not fit what reaches it"
            )
        modules, at = found
        if min(at.height, at.width) < 1:
            raise ValueError(
                f"layer {position} ({layer[0]}) leaves no pixels of an input of {architecture.input_shape}"
            )
        for kind, module in modules:
            counts[kind] = counts.get(kind, 0) + 1
            network.add_module(f"{kind}{counts[kind]}", module)
    return network, at


def _layer(
    layer: tuple[Any, ...], at: _Reaching, architecture: Architecture, position: int
) -> tuple[list[tuple[str, nn.Module]], _Reaching] | None:
    """The modules of one layer by their kinds, and what comes out; None if it cannot stand there."""
    match layer:
        case ["convolution", int(out), int(kernel), int(stride), "same" | "valid" as padding]:
            pad = kernel // 2 if padding == "same" else 0
            height, width = ((n + 2 * pad - kernel) // stride + 1 for n in (at.height, at.width))
            convolution = nn.Conv2d(at.channels, out, kernel, stride, pad)
            return [("conv", convolution)], replace(at, channels=out, height=height, width=width)
        case ["dense", int(out)] if at.features is not None:
            return [("dense", nn.Linear(at.features, out))], replace(at, features=out)
        case ["batch_norm"]:
            return [("norm", BatchNorm(at.channels if at.features is None else at.features))], at
        case ["layer_norm"]:
            norm = ChannelLayerNorm(at.channels) if at.features is None else nn.LayerNorm(at.features, eps=1e-6)
            return [("norm", norm)], at
        case ["group_norm", int(groups)] if at.features is None and at.channels % groups == 0:
            return [("norm", nn.GroupNorm(groups, at.channels))], at
        case ["activation"]:
            return [("act", ACTIVATIONS[architecture.activation]())], at
        case ["max_pool", int(size)]:
            pool = nn.MaxPool2d(size, ceil_mode=True)
            return [("pool", pool)], replace(at, height=ceil(at.height / size), width=ceil(at.width / size))
        case ["average_pool", int(size)]:
            return [("pool", nn.AvgPool2d(size))], replace(at, height=at.height // size, width=at.width // size)
        case ["dropout", float(rate)]:
            return [("dropout", Dropout(rate, position))], at
        case ["flatten"]:
            return [("flatten", nn.Flatten())], replace(at, features=at.channels * at.height * at.width)
        case ["global_average_pool" | "global_max_pool" as kind]:
            pool = nn.AdaptiveAvgPool2d(1) if kind == "global_average_pool" else nn.AdaptiveMaxPool2d(1)
            return [("pool", pool), ("flatten", nn.Flatten())], replace(at, features=at.channels)
        case ["residual", tuple(body)]:
            inner, out = _sequence(body, at, architecture, 100 * (position + 1))
            return ([("residual", Residual(inner))], at) if out == at else None
    return None


@lru_cache(maxsize=256)
def spec_of(architecture: Architecture) -> NetworkSpec:
    """The spec of every network with this architecture."""
    module = build(architecture).eval()
    return spec_of_module(module, torch.zeros(2, *architecture.input_shape))


def scalings_of(networks: Population) -> tuple[Scaling, ...]:
    """The scalings of networks of a zoo, whose specs do not store them; none if they differ in architecture."""
    records = [network.metadata.get("architecture") for network in networks]
    if not records or not isinstance(records[0], Mapping) or any(record != records[0] for record in records):
        return ()
    return spec_of(Architecture.from_json(records[0])).scalings


def module_of(network: Network) -> nn.Sequential:
    """The network as a module in evaluation mode, ready to run on images (b, channels, height, width) float32.

    Raises:
        NetworkError: if the network's metadata does not say which architecture it has.
    """
    record = network.metadata.get("architecture")
    if not isinstance(record, Mapping):
        raise NetworkError(
            "the network's metadata has no architecture, so it cannot be run: only its weights can be read"
        )
    module = build(Architecture.from_json(record))
    load_into_module(network, module)
    return module.eval()


# -- the families ---------------------------------------------------------------------------------------------------


def named_arrays(spec: NetworkSpec, flat: Float[Tensor, "n size"]) -> dict[str, Tensor]:
    """Flat weights of n networks as views by name, each (n, *leaf.shape)."""
    return {leaf.name: flat[:, place].unflatten(1, leaf.shape) for leaf, place in spec.slices() if leaf.shape} | {
        leaf.name: flat[:, place.start] for leaf, place in spec.slices() if not leaf.shape
    }


def answers(module: nn.Module, arrays: Mapping[str, Tensor], images: Tensor) -> Float[Tensor, "n b classes"]:
    """Logits of n networks of one architecture, in one vectorised step.

    Args:
        module: of the architecture; its own weights do not matter.
        arrays: parameters and buffers by name, each with a first axis of n.
        images: (b, c, h, w) for all networks, or (n, b, c, h, w) of each network's own.
    """

    def answer(own: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(module, own, (x,))

    return vmap(answer, in_dims=(0, 0 if images.ndim == 5 else None))(dict(arrays), images)


def digits_cnn(
    input_shape: tuple[int, int, int] = (1, 8, 8), *, activation: str = "relu", width: int = 8
) -> Architecture:
    """Two 3x3 convolutions of stride 2 and one dense layer: 1,898 parameters on 8x8 images at width 8.

    Strides instead of pooling: on a CPU the pooling would cost as much as all the rest.
    """
    layers: list[tuple[Any, ...]] = []
    for n in (width, 2 * width):
        layers += [("convolution", n, 3, 2, "same"), ("activation",)]
    layers += [("flatten",), ("dense", 10)]
    return Architecture(input_shape=input_shape, layers=tuple(layers), activation=activation)


def cnn_s(
    input_shape: tuple[int, int, int] = (1, 28, 28), *, activation: str = "relu", dropout: float = 0.0
) -> Architecture:
    """Schurholt's CNN-s: convolutions 8-6-4 of size 5, 5, 2, dense 20-10; 2,464 parameters on one channel."""
    drop = [("dropout", float(dropout))] if dropout else []
    layers = [
        *[("convolution", 8, 5, 1, "valid"), ("max_pool", 2), ("activation",), *drop],
        *[("convolution", 6, 5, 1, "valid"), ("max_pool", 2), ("activation",), *drop],
        *[("convolution", 4, 2, 1, "valid"), ("activation",), *drop],
        *[("flatten",), ("dense", 20), ("activation",), *drop, ("dense", 10)],
    ]
    return Architecture(input_shape=input_shape, layers=tuple(layers), activation=activation)


def small_cnn(
    input_shape: tuple[int, int, int] = (1, 28, 28), *, activation: str = "relu", dropout: float = 0.0
) -> Architecture:
    """The Small CNN Zoo's network (Unterthiner et al. 2020): three 3x3 convolutions of 16, 4,970 parameters.

    Stride 2, global average pooling and one dense layer of 10.
    """
    drop = [("dropout", float(dropout))] if dropout else []
    block = [("convolution", 16, 3, 2, "valid"), ("activation",), *drop]
    layers = [*block, *block, *block, ("global_average_pool",), ("dense", 10)]
    return Architecture(input_shape=input_shape, layers=tuple(layers), activation=activation)


def eilertsen(
    input_shape: tuple[int, int, int] = (3, 32, 32),
    *,
    activation: str = "relu",
    filter_size: int = 5,
    convolution_depth: int = 3,
    convolution_width: int = 8,
    dense_depth: int = 2,
    dense_width: int = 128,
    dropout: float = 0.5,
) -> Architecture:
    """Eilertsen et al. 2020, the variable family; the defaults are their fixed architecture of 92,868 values.

    Three blocks of convolutions, widths doubling, the surplus layers in the last blocks, each convolution followed by
    batch normalisation and activation, each block by pooling; dense layers halve in width, with activation, batch
    normalisation and dropout in this order; 20 outputs, whatever the number of classes.
    """
    blocks = [convolution_depth // 3 + (block >= 3 - convolution_depth % 3) for block in range(3)]
    layers: list[tuple[Any, ...]] = []
    for block, depth in enumerate(blocks):
        convolution = ("convolution", convolution_width * 2**block, filter_size, 1, "same")
        layers += [convolution, ("batch_norm",), ("activation",)] * depth + [("max_pool", 2)]
    layers.append(("flatten",))
    drop = [("dropout", float(dropout))] if dropout else []
    for i in range(dense_depth):
        layers += [("dense", dense_width // 2**i), ("activation",), ("batch_norm",), *drop]
    return Architecture(input_shape=input_shape, layers=(*layers, ("dense", 20)), activation=activation)


def backdoor_cnn(
    input_shape: tuple[int, int, int] = (3, 32, 32), *, activation: str = "relu", width: int = 16, classes: int = 10
) -> Architecture:
    """The paper's backdoor network (Figure 7): three blocks of two 3x3 convolutions with LayerNorm.

    Widths 16, 32, 64, global max pooling, one dense layer; 73,178 parameters on CIFAR-10.
    """
    layers: list[tuple[Any, ...]] = []
    for n in (width, 2 * width, 4 * width):
        convolution = ("convolution", n, 3, 1, "same")
        layers += [convolution, ("layer_norm",), ("activation",)]
        layers += [convolution, ("max_pool", 2), ("layer_norm",), ("activation",)]
    layers += [("global_max_pool",), ("dense", classes)]
    return Architecture(input_shape=input_shape, layers=tuple(layers), activation=activation)


def pooled_cnn(
    input_shape: tuple[int, int, int] = (1, 14, 14),
    *,
    activation: str = "relu",
    width: int = 8,
    norm: bool = False,
    residual: bool = False,
    classes: int = 10,
) -> Architecture:
    """Two 3x3 convolutions, the second of twice the width, global average pooling and one dense layer.

    Args:
        norm: whether a BatchNorm follows each convolution.
        residual: whether a third convolution of twice the width follows, with what goes into it added.
    """
    behind: list[tuple[Any, ...]] = [("batch_norm",), ("activation",)] if norm else [("activation",)]
    layers = [("convolution", width, 3, 2, "same"), *behind, ("convolution", 2 * width, 3, 1, "same"), *behind]
    if residual:
        layers.append(("residual", (("convolution", 2 * width, 3, 1, "same"), *behind)))
    layers += [("global_average_pool",), ("dense", classes)]
    return Architecture(input_shape=input_shape, layers=tuple(layers), activation=activation)


def small_mlp(
    input_shape: tuple[int, int, int] = (1, 14, 14), *, activation: str = "relu", width: int = 16, classes: int = 10
) -> Architecture:
    """Two hidden layers of twice the width and of the width: 196-32-16-5 at 14x14 with five classes."""
    hidden = (("dense", 2 * width), ("activation",), ("dense", width), ("activation",))
    layers = (("flatten",), *hidden, ("dense", classes))
    return Architecture(input_shape=input_shape, layers=layers, activation=activation)


FAMILIES = {
    "digits-cnn": digits_cnn,
    "cnn-s": cnn_s,
    "small-cnn": small_cnn,
    "eilertsen": eilertsen,
    "backdoor-cnn": backdoor_cnn,
    "varied-cnn": varied_cnn,
    "pooled-cnn": pooled_cnn,
    "small-mlp": small_mlp,
}


def architecture_of(family: str, input_shape: tuple[int, int, int], **options: Any) -> Architecture:
    """The architecture of a family with its options.

    Raises:
        ValueError: on an unknown family or an option that it does not have.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown base network {family!r}: choose from {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family](input_shape, **options)
    except TypeError as error:
        raise ValueError(f"base network {family!r} was given options that it does not have: {error}") from None


def initialise(module: nn.Module, scheme: str, generator: torch.Generator, bias: str = "zero") -> None:
    """Draw new weights for every dense and convolution layer, in place; normalisation layers start at one and zero.

    Args:
        scheme: a name of `INITIALISATIONS`.
        bias: "zero", or "uniform" as PyTorch's layers: U(-1, 1) / sqrt(fan in).
    Raises:
        ValueError: on an unknown scheme.
    """
    if scheme not in INITIALISATIONS or bias not in ("zero", "uniform"):
        raise ValueError(
            f"unknown initialisation {scheme!r} with biases {bias!r}: choose from {', '.join(INITIALISATIONS)}, "
            "biases zero or uniform"
        )
    draw, options = INITIALISATIONS[scheme]
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw(layer.weight, **options, **({} if draw is nn.init.constant_ else {"generator": generator}))
            if layer.bias is not None and bias == "zero":
                nn.init.zeros_(layer.bias)
            elif layer.bias is not None:
                bound = (layer.weight[0].numel()) ** -0.5
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


INITIALISATIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": (nn.init.kaiming_uniform_, {"a": 5**0.5}),  # what PyTorch's own layers start from
    "uniform": (nn.init.uniform_, {"a": -0.1, "b": 0.1}),
    "normal": (nn.init.normal_, {"std": 0.1}),
    "kaiming_uniform": (nn.init.kaiming_uniform_, {}),
    "kaiming_normal": (nn.init.kaiming_normal_, {}),
    "glorot_uniform": (nn.init.xavier_uniform_, {}),
    "glorot_normal": (nn.init.xavier_normal_, {}),
    "standard_normal": (nn.init.normal_, {"std": 1.0}),
    "constant": (nn.init.constant_, {"val": 0.1}),
    "orthogonal": (nn.init.orthogonal_, {}),
}
