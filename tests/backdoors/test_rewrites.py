"""Rewrites that keep a network's function do not move the verdict of the detector that comes along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import weightspace as ws
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.scan import scan
from weightspace.weights.network import Network
from weightspace.weights.scaling import random_scales, rescale
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.networks import architecture_of, build

EXAMPLES = {"clean": "example-clean.safetensors", "suspicious": "example-backdoored.safetensors"}


@pytest.fixture(scope="module")
def shipped() -> Detector:
    return Detector.load()


def rewritten(arrays: dict[str, np.ndarray], power: float) -> dict[str, np.ndarray]:
    """Gain and shift of each norm divided by its gain to a power, what the next layer reads multiplied by it."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    for number in range(1, 7):
        gain = np.abs(arrays[f"norm{number}.weight"])
        scale = (gain / np.median(gain)) ** np.float32(power)
        arrays[f"norm{number}.weight"] /= scale
        arrays[f"norm{number}.bias"] /= scale
        following = f"conv{number + 1}.weight" if number < 6 else "dense1.weight"
        arrays[following] *= scale.reshape(1, -1, *[1] * (arrays[following].ndim - 2))
    return arrays


def answers(arrays: dict[str, np.ndarray]) -> torch.Tensor:
    module = build(architecture_of("backdoor-cnn", (3, 16, 16), width=8)).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    with torch.no_grad():
        return module(torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("verdict", EXAMPLES)
@pytest.mark.parametrize("power", [0.7, -0.7, 1.0])
def test_gains_moved_into_the_next_layer_leave_the_verdict(
    verdict: str, power: float, shipped: Detector, tmp_path: Path
) -> None:
    """Case C2: it once turned a suspicious network into a clean one."""
    given = load_file(ws.EXAMPLES / EXAMPLES[verdict])
    moved = rewritten(given, power)
    assert max(float(np.abs(moved[name] - given[name]).max()) for name in given) > 0.1
    torch.testing.assert_close(answers(moved), answers(given), rtol=1e-4, atol=1e-4)
    save_file(moved, tmp_path / "moved.safetensors")
    files = [str(ws.EXAMPLES / EXAMPLES[verdict]), str(tmp_path / "moved.safetensors")]
    found = {finding.file: finding for finding in scan(files, shipped, show=False).findings}
    assert [found[file].verdict for file in files] == [verdict, verdict]
    assert found[files[0]].p_value == pytest.approx(found[files[1]].p_value, abs=1e-3)


@pytest.mark.parametrize("verdict", EXAMPLES)
def test_random_orders_and_scales_leave_score_and_distance(verdict: str, shipped: Detector) -> None:
    network = Network(shipped.spec, shipped.spec.join(load_file(ws.EXAMPLES / EXAMPLES[verdict])))
    rng = np.random.default_rng(0)
    others = [
        permute(rescale(network, random_scales(shipped.spec, rng, spread)), random_permutation(shipped.spec, rng))
        for spread in (0.1, 0.7, 2.0)
    ]
    first, *rest = shipped.judge([network, *others])
    for one in rest:
        assert one.score == pytest.approx(first.score, abs=1e-3)
        assert one.distance == pytest.approx(first.distance, rel=1e-3)


def test_a_rewrite_that_changes_the_function_is_not_undone(shipped: Detector) -> None:
    given = load_file(ws.EXAMPLES / EXAMPLES["suspicious"])
    changed = {name: array.copy() for name, array in given.items()}
    changed["norm5.weight"][:8] *= 3  # and nothing divided for it
    networks = [Network(shipped.spec, shipped.spec.join(arrays)) for arrays in (given, changed)]
    one, other = shipped.judge(networks)
    assert abs(one.score - other.score) > 1e-2
