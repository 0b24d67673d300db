"""PyTorch files whose zip archive contradicts itself: central directory, local headers, doubles, bytes around it."""

from __future__ import annotations

import random

from fuzz.archives import build, spoil
from fuzz.case import Case
from fuzz.draws import spoiled, weights
from fuzz.pickles import state_dict, whole_pickle
from fuzz.torchfiles import sound, told_of

NAMES = ("model.pt",) * 6 + (
    "model.pth",
    "model.bin",
    "model.ckpt",
    "model.pth.tar",
    "model",
    "model.safetensors",
    "m.onnx",
)


def make(drawn: random.Random) -> Case:
    """A PyTorch file with zero to four mutations of its archive."""
    arrays = weights(drawn)
    archive = sound(arrays)
    if drawn.random() < 0.5:  # contents of another network with the same names and shapes, for what is doubled
        other = next(iter(arrays.values())) + 4096
        twin = other.astype(next(iter(arrays.values())).dtype).tobytes()
    else:
        twin = whole_pickle(state_dict({f"{name}.other": said for name, said in told_of(arrays).items()}))
    told = [spoil(drawn, archive, twin) for _ in range(drawn.choice((0, 1, 1, 1, 2, 2, 4)))]
    content = build(archive, drawn.choice((64, 64, 1)))
    if drawn.random() < 0.1:
        content = spoiled(drawn, content)
        told.append("bytes")
    name = drawn.choice(NAMES)
    return Case("zip", name, {name: content}, told=tuple(told))
