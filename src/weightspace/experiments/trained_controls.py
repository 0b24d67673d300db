"""Networks that compute nothing of the kind: untrained ones, and trained ones whose heads are shuffled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from weightspace.errors import NetworkError
from weightspace.files.tensors import read_safetensors
from weightspace.transformers.loading import CONFIG, load_trained
from weightspace.transformers.trained import TrainedTransformer

WEIGHTS = "model.safetensors"
SCALE = 0.02
"""Standard deviation of GPT-2's weights before training."""


def untrained(folder: Path, seed: int = 0) -> TrainedTransformer:
    """A GPT-2 of the same shape before its training."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, array in _arrays(folder).items():
        if name.endswith(".bias") or array.ndim < 2:
            arrays[name] = (
                np.ones_like(array) if ".ln_" in f".{name}" and name.endswith("weight") else np.zeros_like(array)
            )
        else:
            arrays[name] = generator.normal(0, SCALE, array.shape).astype(np.float32)
    return load_trained(arrays, config=folder / CONFIG)


def shuffled_heads(folder: Path, seed: int = 0) -> TrainedTransformer:
    """The trained GPT-2 in which what heads move is permuted: each writes what others have read."""
    arrays = dict(_arrays(folder))
    for name, array in arrays.items():
        if name.endswith(("attn.c_attn.weight", "attn.c_attn.bias")):
            width = array.shape[-1] // 3
            order = np.random.default_rng([seed, int(name.split("h.")[1].split(".")[0])]).permutation(width)
            changed = array.copy()
            changed[..., 2 * width :] = array[..., 2 * width :][..., order]
            arrays[name] = changed
    return load_trained(arrays, config=folder / CONFIG)


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise NetworkError(f"{folder} holds no {WEIGHTS}: controls are made of GPT-2s in Hugging Face form")
    return {name: np.asarray(array, np.float32) for name, array in read_safetensors(path)[0].items()}
