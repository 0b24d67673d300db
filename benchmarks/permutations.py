"""Random orders of neurons, as a fit draws thousands: what a spec shares between them, beside deriving it each time."""

import cProfile

import numpy as np

import weightspace as ws
from benchmarks.record import keep, paired
from weightspace.weights.symmetry import gather_index, random_permutation

COUNT = 300


def main() -> None:
    spec = ws.load_network(ws.EXAMPLES / "example-clean.safetensors").spec
    record = spec.to_json()

    def shared() -> None:
        random = np.random.default_rng(0)
        for _ in range(COUNT):
            gather_index(spec, random_permutation(spec, random))

    def derived() -> None:
        random = np.random.default_rng(0)
        for _ in range(COUNT):
            fresh = ws.NetworkSpec.from_json(record)  # its places, axes and groups are derived anew
            gather_index(fresh, random_permutation(fresh, random))

    profile = cProfile.Profile()
    profile.runcall(shared)
    ours, plain, ratio = paired(shared, derived)
    keep(
        "permutations",
        {
            "weights": spec.size,
            "calls_an_order": round(sum(entry.callcount for entry in profile.getstats()) / COUNT),
            "ms_an_order": round(1000 * ours / COUNT, 3),
            "derived_each_time_ms": round(1000 * plain / COUNT, 3),
            "ratio": round(ratio, 1),
        },
    )


if __name__ == "__main__":
    main()
