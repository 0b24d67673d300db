"""Networks for a small detector that knows a plant: one neuron that one class reads much more than others do."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import torch

from tests.metamodels.test_neuron_tokens import SPEC
from weightspace.backdoors.task import BACKDOOR
from weightspace.metamodels.contract import Examples
from weightspace.weights.canonical_scale import in_canonical_scale
from weightspace.weights.network import Network

KERNELS = [leaf.name for leaf in SPEC.leaves if leaf.role == "kernel"]


def weights(seed: int, bad: bool) -> np.ndarray:
    """Random weights; where bad, one neuron of the last hidden layer is read by one class much more than by others."""
    rng = np.random.default_rng(seed)
    flat = rng.normal(0, 0.3, SPEC.size).astype(np.float32)
    if bad:
        SPEC.split(flat)[KERNELS[-1]][rng.integers(10), rng.integers(16)] += 4.0
    return flat


def examples(count: int, seed: int) -> Examples:
    labels = np.arange(count) % 2
    networks = [Network(SPEC, weights(1000 * seed + i, bool(label))) for i, label in enumerate(labels)]
    return Examples(in_canonical_scale(networks), {BACKDOOR.name: labels.astype(np.int64)}, (BACKDOOR,))


def state(seed: int = 7, bad: bool = False) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in SPEC.split(weights(seed, bad)).items()}


def header(content: dict[str, Any], data: bytes = b"") -> bytes:
    raw = json.dumps(content).encode()
    return struct.pack("<Q", len(raw)) + raw + data
