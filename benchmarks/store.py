"""Random batches from a store of 20,000 networks of 5,000 weights, against one file a network."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import keep, paired, seconds
from weightspace.weights.network import Network
from weightspace.weights.spec import Leaf, NetworkSpec, plain
from weightspace.zoo.store import Record, Zoo, finish, split_of, write_description, write_shard

NETWORKS, SIZE, SHARD, BATCH = 20_000, 5_000, 1_000, 256
SINGLES = 512
"""Files of one network each: enough to measure the plain way; 20,000 would only take longer to write."""


def build(folder: Path) -> None:
    rng = np.random.default_rng(0)
    spec = NetworkSpec((Leaf("w", (SIZE,), "other", (plain(SIZE),)),))
    config = {"recipe": "benchmark", "seed": 0, "count": NETWORKS, "space": {}, "architectural": []}
    write_description(folder, {"config": config, "version": "benchmark"})
    for shard in range(NETWORKS // SHARD):
        weights = rng.standard_normal((SHARD, SIZE), np.float32)
        numbers = range(shard * SHARD, (shard + 1) * SHARD)
        facts = [{"network": i, "split": split_of(i, 0), "seed": i, "lr": 0.1, "optimiser": "adam"} for i in numbers]
        write_shard(folder, shard, [Record(spec, w, f) for w, f in zip(weights, facts, strict=True)])
    finish(folder, NETWORKS // SHARD)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "zoo"
        build(folder)
        singles = Path(temporary) / "singles"
        zoo = Zoo.open(folder)
        population = zoo.population()
        for i in range(SINGLES):
            population[i].save(singles / f"{i}.safetensors")
        for number in range(NETWORKS // SHARD):  # into the page cache
            zoo.shard(number).matrices[zoo.specs[0].signature].sum()
        rng = np.random.default_rng(1)
        buffer = np.empty((BATCH, SIZE), np.float32)

        def ours() -> None:
            for _ in range(20):
                population.read(rng.integers(NETWORKS, size=BATCH), buffer)

        def files() -> None:
            for i in rng.integers(SINGLES, size=64):
                Network.load(singles / f"{i}.safetensors")

        def opening() -> None:
            opened = Zoo.open(folder)
            opened.population("train").read(np.arange(4))

        ours_s, files_s, _ = paired(ours, files)
        keep(
            "store",
            {
                "networks_per_s": round(20 * BATCH / ours_s),
                "one_file_each_networks_per_s": round(64 / files_s),
                "ratio": round((20 * BATCH / ours_s) / (64 / files_s), 1),
                "open_ms": round(1000 * seconds(opening, 9), 1),
                "targets": "200,000 networks/s, opening under 100 ms",
            },
        )


if __name__ == "__main__":
    main()
