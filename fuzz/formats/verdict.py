"""The shipped examples, one clean and one with a backdoor, in files that are both: a scan may not call one clean."""

from __future__ import annotations

import random
from functools import cache
from importlib import resources

import numpy as np
import safetensors.numpy

from fuzz.archives import build, spoil
from fuzz.case import Case
from fuzz.formats import polyglot
from fuzz.torchfiles import sound


@cache
def example(name: str) -> dict[str, np.ndarray]:
    """The arrays of an example, `clean` or `backdoored`."""
    held = resources.files("weightspace") / "pretrained" / f"example-{name}.safetensors"
    return {name: array for name, array in safetensors.numpy.load(held.read_bytes()).items() if array.dtype.kind == "f"}


def make(drawn: random.Random) -> Case:
    """A file that holds both, or one of them in an archive that contradicts itself."""
    first, second = example("clean"), example("backdoored")
    if drawn.random() < 0.2:
        first, second = second, first
    if drawn.random() < 0.5:
        how = drawn.choice(polyglot.WAYS)
        content, told = how(drawn, first, second), [how.__name__.strip("_")]
    else:
        archive, other = sound(first), next(iter(second.values())).tobytes()
        told = [spoil(drawn, archive, other) for _ in range(drawn.choice((1, 2, 3)))]
        content = build(archive, drawn.choice((64, 1)))
    name = drawn.choice(polyglot.NAMES)
    return Case("verdict", name, {name: content}, told=tuple(told))
