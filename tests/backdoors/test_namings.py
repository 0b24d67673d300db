"""One network is one network: its verdict does not depend on the names of its arrays, nor on the file they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import weightspace as ws
from tests.weights.test_matching import NAMINGS, renamed
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.scan import scan
from weightspace.backdoors.verdict import Finding
from weightspace.files.checkpoints import outlines


@pytest.fixture(scope="module")
def shipped() -> Detector:
    return Detector.load()


def arrays(example: str) -> dict[str, torch.Tensor]:
    network = ws.load_network(ws.EXAMPLES / f"example-{example}.safetensors")
    return {name: torch.from_numpy(array.copy()) for name, array in network.arrays().items()}


def named(example: str, naming: str) -> dict[str, torch.Tensor]:
    names = renamed(NAMINGS[naming])
    return {names[name]: array for name, array in arrays(example).items()}


def written(tensors: Mapping[str, torch.Tensor], stem: str, folder: Path) -> list[Path]:
    """The same arrays as safetensors, which sorts them, and as PyTorch's files in three orders."""
    order = [str(name) for name in np.random.default_rng(1).permutation(sorted(tensors))]
    save_file(dict(tensors), folder / f"{stem}.safetensors")
    torch.save(dict(tensors), folder / f"{stem}.pt")
    torch.save({name: tensors[name] for name in order}, folder / f"{stem}-mixed.pth")
    torch.save({"state_dict": {n: tensors[n] for n in sorted(tensors)}, "epoch": 3}, folder / f"{stem}-sorted.ckpt")
    return [folder / f"{stem}{end}" for end in (".safetensors", ".pt", "-mixed.pth", "-sorted.ckpt")]


def findings(paths: list[Path], detector: Detector) -> list[Finding]:
    return list(scan([str(path) for path in paths], detector, show=False).findings)


@pytest.mark.parametrize("example", ["clean", "backdoored"])
def test_one_verdict_and_one_p_value_under_every_naming_and_in_every_container(
    example: str, shipped: Detector, tmp_path: Path
) -> None:
    paths = [
        path
        for number, naming in enumerate(NAMINGS)
        for path in written(named(example, naming), f"net-{number}", tmp_path)
    ]
    (expected,) = findings([ws.EXAMPLES / f"example-{example}.safetensors"], shipped)
    assert expected.verdict == {"clean": "clean", "backdoored": "suspicious"}[example]
    for finding in findings(paths, shipped):
        assert (finding.verdict, finding.p_value) == (expected.verdict, expected.p_value), finding
        assert finding.probability == pytest.approx(expected.probability, abs=1e-6)


def test_what_changes_nothing_beside_a_known_network_is_left_out_and_told(shipped: Detector, tmp_path: Path) -> None:
    beside = {
        "mean": torch.zeros(1, 3, 1, 1),
        "std": torch.ones(1, 3, 1, 1),
        "features.1.num_batches_tracked": torch.tensor(7),
        "step": torch.tensor(0.5),
        "empty": torch.zeros(0),
    }
    for path in written(named("backdoored", "features and fc") | beside, "beside", tmp_path):
        (finding,) = findings([path], shipped)
        assert finding.verdict == "suspicious", finding
        notes = " ".join(shipped.matched(outlines(path)[0]).notes)
        for name in (*beside, "features.0.weight is conv1.weight"):
            assert name in notes


@pytest.mark.parametrize("naming", ["its own", "features and fc", "Keras"])
def test_a_network_with_anything_more_or_less_is_never_judged(naming: str, shipped: Detector, tmp_path: Path) -> None:
    tensors = named("clean", naming)
    names = renamed(NAMINGS[naming])
    others = {
        "kernel of noughts": tensors | {"extra.weight": torch.zeros(8, 8, 3, 3)},
        "layer behind": tensors | {"features.30.weight": torch.eye(10), "features.30.bias": torch.zeros(10)},
        "no bias": {name: array for name, array in tensors.items() if name != names["conv2.bias"]},
        "statistics": tensors | {f"{names['norm1.weight'].rpartition('.')[0]}.running_mean": torch.zeros(8)},
        "turned": tensors | {names["dense1.weight"]: tensors[names["dense1.weight"]].T.contiguous()},
    }
    for what, changed in others.items():
        for path in written(changed, what, tmp_path):
            (finding,) = findings([path], shipped)
            assert finding.verdict == "out_of_scope" and finding.p_value is None, (what, finding)
            assert "network" in finding.reason or "the detector's" in finding.reason


def test_exchanged_scale_and_shift_are_judged_as_the_network_that_the_file_gives(
    shipped: Detector, tmp_path: Path
) -> None:
    tensors = named("clean", "layers")
    exchanged = dict(tensors)
    for number in range(6):
        scale, shift = f"layers.{number}.norm.weight", f"layers.{number}.norm.bias"
        exchanged |= {scale: tensors[shift], shift: tensors[scale]}
    for path in written(exchanged, "exchanged", tmp_path):
        part = outlines(path)[0]
        from weightspace.files.checkpoints import read

        names = shipped.matched(part).names
        network = shipped.network(read(part, names), names)
        np.testing.assert_array_equal(network.arrays()["norm1.weight"], arrays("clean")["norm1.bias"].numpy())
