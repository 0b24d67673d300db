"""The layers of a network from its arrays alone."""

import numpy as np
import pytest
import torch
from torch import nn

from weightspace.errors import NetworkError
from weightspace.weights.layers import layers_of
from weightspace.weights.modules import network_of_module
from weightspace.weights.network import Network
from weightspace.weights.state_dict import load_state_dict

NORMS = nn.ModuleDict({
    "conv1": nn.Conv2d(3, 8, 3), "conv2": nn.Conv2d(8, 8, 5), "conv3": nn.Conv2d(8, 12, 3),
    "bn1": nn.BatchNorm2d(8), "bn2": nn.BatchNorm2d(8), "bn3": nn.BatchNorm2d(12),
    "classifier": nn.Linear(12 * 4, 10), "fc": nn.Linear(10, 5),
})  # fmt: skip
"""Layers registered as people do: all convolutions, then all normalisations."""


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def test_layers_stand_in_the_order_of_the_pass_whatever_order_the_arrays_have() -> None:
    torch.manual_seed(0)
    for part in NORMS.parameters():
        nn.init.normal_(part)
    stored = arrays(NORMS)
    in_order, by_name = (layers_of(load_state_dict(dict(items))) for items in (stored.items(), sorted(stored.items())))
    assert [layer.name for layer in in_order] == [
        *("conv1.weight", "conv2.weight", "conv3.weight"),
        *("classifier.weight", "fc.weight"),
    ]
    for one, other in zip(in_order, by_name, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.kernel, other.kernel)
    assert [layer.normalised for layer in in_order] == [True, True, True, False, False]
    for number, layer in enumerate(in_order[:3], 1):
        assert np.array_equal(layer.scale, stored[f"bn{number}.weight"].astype(float))  # pyright: ignore
        assert np.array_equal(layer.shift, stored[f"bn{number}.bias"].astype(float))  # pyright: ignore
        assert np.array_equal(layer.bias, stored[f"conv{number}.bias"].astype(float))  # pyright: ignore
        assert layer.running_variance is not None
    assert in_order[3].kernel.shape == (10, 12, 4), "a flattened image is read channel by channel"


def test_what_makes_no_chain_stays_as_it_stands_with_dense_layers_last() -> None:
    module = nn.ModuleDict({
        "fc": nn.Linear(16, 10), "stem": nn.Conv2d(3, 8, 3), "branch": nn.Conv2d(8, 16, 3),
        "shortcut": nn.Conv2d(8, 16, 1),
    })  # fmt: skip
    found = layers_of(network_of_module(module))
    assert [layer.name for layer in found] == ["stem.weight", "branch.weight", "shortcut.weight", "fc.weight"]
    assert found[-1].bias is not None and not found[0].normalised


def test_a_network_without_a_layer_of_classes_is_refused() -> None:
    for module in (nn.Linear(4, 2), nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3))):
        with pytest.raises(NetworkError, match="without a dense layer of classes"):
            layers_of(network_of_module(module))
    assert isinstance(network_of_module(nn.Linear(4, 2)), Network)
