"""Run every benchmark: `python -m benchmarks`, or some: `python -m benchmarks store startup`."""

import importlib
import sys

NAMES = (
    "startup",
    "store",
    "permutations",
    "metamodel",
    "zoo",
    "gpu",
    "interpreter",
    "rasp",
    "decompile",
    "lifter",
    "pages",
    "large",
    "scan",
    "lineage",
    "trained",
)

if __name__ == "__main__":
    chosen = sys.argv[1:] or NAMES
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        sys.exit(f"no benchmark is named {', '.join(unknown)}: choose from {', '.join(NAMES)}")
    for name in chosen:
        importlib.import_module(f"benchmarks.{name}").main()
