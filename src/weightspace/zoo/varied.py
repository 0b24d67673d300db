"""Convolutional networks as different people build them: one function of many choices."""

from __future__ import annotations

from typing import Any

from weightspace.zoo.records import Architecture

NORMS: dict[str, tuple[Any, ...]] = {
    "layer": ("layer_norm",),
    "group": ("group_norm", 4),
    "batch": ("batch_norm",),
}
STAGES = 3


def varied_cnn(
    input_shape: tuple[int, int, int] = (3, 32, 32),
    *,
    activation: str = "relu",
    width: int = 16,
    growth: float = 2.0,
    convolutions: int = 6,
    kernel: int = 3,
    norm: str = "none",
    pooling: str = "max",
    residual: bool = False,
    head: str = "average",
    dropout: float = 0.0,
    classes: int = 10,
) -> Architecture:
    """Three stages of convolutions, each followed by a norm and an activation; pooling between them; one dense layer.

    Args:
        width: channels of the first stage, a multiple of 4.
        growth: how many times as many the second has, and the third again; rounded to multiples of 4.
        convolutions: 3 or more in all; the surplus lies in the last stages.
        kernel: 3 or 5, on the first convolution of each stage; the others have 3.
        norm: layer (over the channels of each pixel), group (4 groups), batch or none.
        pooling: max, average, or stride: the first convolution of the second and third stage takes every second pixel.
        residual: whether what goes into a convolution that changes neither size nor channels is added to what its block
            gives.
        head: average or max over all pixels, or flatten: a dense layer of all of them.
        dropout: in front of the dense layer.
    """
    layers: list[tuple[Any, ...]] = []
    for stage in range(STAGES):
        channels = 4 * round(width * growth**stage / 4)
        depth = convolutions // STAGES + (stage >= STAGES - convolutions % STAGES)
        for number in range(depth):
            stride = 2 if pooling == "stride" and stage and not number else 1
            block = (
                ("convolution", channels, 3 if number else kernel, stride, "same"),
                *([NORMS[norm]] if norm != "none" else []),
                ("activation",),
            )
            layers += [("residual", block)] if residual and number else block
        if pooling != "stride" and (stage < STAGES - 1 or head == "flatten"):
            layers.append((f"{pooling}_pool", 2))
    layers.append({"average": ("global_average_pool",), "max": ("global_max_pool",), "flatten": ("flatten",)}[head])
    if dropout:
        layers.append(("dropout", float(dropout)))
    return Architecture(input_shape=input_shape, layers=(*layers, ("dense", classes)), activation=activation)
