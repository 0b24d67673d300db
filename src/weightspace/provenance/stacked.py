"""Many networks of one architecture run at once on the same inputs: one grouped convolution for all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace.zoo.networks import ACTIVATIONS, BatchNorm, Dropout, Residual, answers

_ALIKE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, Dropout, *ACTIVATIONS.values())
"""Layers that treat each channel, and so each network's, alone."""


def stacked_answers(
    module: nn.Sequential, arrays: Mapping[str, Tensor], x: Float[Tensor, "b c h w"]
) -> Float[Tensor, "n b outputs"]:
    """Logits of n networks of one architecture in evaluation mode, as `zoo.networks.answers` gives them, twice as fast.

    Args:
        module: of the architecture; its own weights do not matter.
        arrays: parameters and buffers by name, each with a first axis of n.
        x: inputs, the same for all.
    """
    if not _known(module):
        return answers(module, arrays, x)
    count = len(next(iter(arrays.values())))
    found = _run(module, "", arrays, x, count, shared=True)
    return found.transpose(0, 1)


def _known(module: nn.Module) -> bool:
    """Whether every layer is one that can be stacked."""
    plain = (nn.Conv2d, nn.Linear, nn.Flatten, BatchNorm, *_ALIKE)
    return all(
        _known(layer.body) if isinstance(layer, Residual) else isinstance(layer, plain) for layer in module.children()
    )


def _run(
    module: nn.Module, prefix: str, arrays: Mapping[str, Tensor], x: Tensor, count: int, *, shared: bool
) -> Tensor:
    """(b, n * channels, h, w), or once flattened (b, n, features); shared inputs have no n."""
    for name, layer in module.named_children():
        own = f"{prefix}{name}"
        if isinstance(layer, nn.Conv2d):
            bias = None if layer.bias is None else arrays[f"{own}.bias"].flatten()
            kernel, groups = arrays[f"{own}.weight"].flatten(0, 1), 1 if shared else count
            x = F.conv2d(x, kernel, bias, layer.stride, layer.padding, groups=groups)  # pyright: ignore[reportArgumentType]
            shared = False
        elif isinstance(layer, nn.Linear):
            x = torch.einsum("bi,noi->bno" if shared else "bni,noi->bno", x, arrays[f"{own}.weight"])
            x = x if layer.bias is None else x + arrays[f"{own}.bias"]
            shared = False
        elif isinstance(layer, nn.Flatten):
            x = x.flatten(1) if shared else x.reshape(len(x), count, -1)
        elif isinstance(layer, BatchNorm):
            x = _normalised(layer, {part: arrays[f"{own}.{part}"] for part in _PARTS}, x, shared=shared)
            shared = False
        elif isinstance(layer, Residual):
            inner = _run(layer.body, f"{own}.body.", arrays, x, count, shared=shared)
            x = (x.repeat(1, count, 1, 1) if shared else x) + inner
            shared = False
        else:
            x = layer(x)
    return x


_PARTS = ("weight", "bias", "running_mean", "running_var")


def _normalised(layer: BatchNorm, parts: Mapping[str, Tensor], x: Tensor, *, shared: bool) -> Tensor:
    """BatchNorm by the running statistics."""
    scale = parts["weight"] * torch.rsqrt(parts["running_var"] + layer.eps)  # (n, channels)
    shift = parts["bias"] - parts["running_mean"] * scale
    if x.ndim == 4:
        x = x.repeat(1, len(scale), 1, 1) if shared else x
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
    return (x[:, None] if shared else x) * scale + shift
