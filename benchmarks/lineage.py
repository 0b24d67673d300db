"""Processor time to look for a network's parent among many files, and again from what is kept of them."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from benchmarks.record import keep
from weightspace.provenance.lineage import lineage_among
from weightspace.weights.network import Network
from weightspace.weights.symmetry import permute, random_permutation
from weightspace.zoo.networks import architecture_of, spec_of

FILES = 20_000


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    spec = spec_of(architecture_of("pooled-cnn", (1, 14, 14), classes=5))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "files"
        folder.mkdir()
        for number in range(FILES):
            weights = rng.normal(size=spec.size).astype(np.float32)
            save_file(dict(spec.split(weights)), folder / f"{number:05d}.safetensors")
        parent = Network(spec, rng.normal(size=spec.size).astype(np.float32))
        save_file(dict(parent.arrays()), folder / "parent.safetensors")
        child = permute(parent, random_permutation(spec, rng))

        def seconds() -> float:
            start = time.process_time()
            found = lineage_among(child, folder, cache=Path(place) / "cache")
            assert found.related and found.best.name.endswith("parent.safetensors")
            return time.process_time() - start

        first, again = seconds(), seconds()
    keep(
        "lineage",
        {
            "files": FILES + 1,
            "weights": spec.size,
            "seconds": round(first, 1),
            "seconds_from_what_is_kept": round(again, 1),
            "target": "20,000 candidates in under a minute",
        },
    )


if __name__ == "__main__":
    main()
