"""Networks of 1e3 to 1e8 weights embedded from their files: time and peak memory of each, and how they grow.

`python -m benchmarks.large small` stops at 1e5 weights. Each embedding has a process of its own, since a peak of memory
never falls again. Beside the reading by leaves the paper's plain one is measured: all chunks of the network attend to
each other, and the whole network is in memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.numpy import save_file

from benchmarks.record import keep
from weightspace.evaluation.tables import markdown_table
from weightspace.metamodels.config import MetaModelConfig
from weightspace.metamodels.embed import Normaliser
from weightspace.metamodels.metamodel import MetaModel, Transformer
from weightspace.metamodels.streaming import embed_file
from weightspace.weights.chunks import token_count
from weightspace.weights.leaves import LeafFile
from weightspace.weights.slots import Room
from weightspace.weights.state_dict import load_state_dict

SIZES = (1e3, 1e4, 1e5, 1e6, 3e6, 1e7, 3e7, 1e8)
SMALL = (1e3, 1e4, 1e5)
BLOCKS_FROM = 1e6
"""Networks from here on are transformers of 145 leaves, smaller ones chains of 8."""
FITTED_FROM = (1e6, 1e7)
"""Exponents are fitted from each of these on: below 1e7 the work around 145 small calls hides that of the weights."""
READINGS = {"leaves": 2, "chunks": 1}
"""And the processes of which the quickest counts: other jobs on the machine only make one longer."""
LIMIT = 300
"""Seconds after which an embedding is given up, and with it those of larger networks."""
CONFIG = MetaModelConfig(
    reading="leaves", chunk_size=1024, width=64, depth=2, heads=4, window=16, embedding="mlp", pooling="mean"
)
PLAIN = Normaliser({"all": (0.0, 0.02)})
THREADS = 2


def convolutional(weights: float) -> dict[str, tuple[int, ...]]:
    """Three convolutions and a dense layer, of about so many weights."""
    c = max(1, round((-667 + (667**2 + 4 * 90 * weights) ** 0.5) / 180))
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (outputs, inputs) in enumerate(((c, 3), (2 * c, c), (4 * c, 2 * c))):
        shapes |= {f"{number}.weight": (outputs, inputs, 3, 3), f"{number}.bias": (outputs,)}
    return shapes | {"3.weight": (10, 16 * 4 * c), "3.bias": (10,)}


def transformer(weights: float) -> dict[str, tuple[int, ...]]:
    """Twelve blocks of attention and MLP and a table of tokens, with GPT-2's proportions, of about so many weights."""
    d = 4 * round((weights / (12 * 12 + 26)) ** 0.5 / 4)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (26 * d, d)}
    for block in range(12):
        maps = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.{kind}": (d,) for kind in ("weight", "bias")}
        for name, shape in maps.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    return shapes


def write(path: Path, weights: float, seed: int) -> int:
    """A random network of about so many weights as a safetensors file; gives their exact number."""
    shapes = convolutional(weights) if weights < BLOCKS_FROM else transformer(weights)
    rng = np.random.default_rng(seed)
    save_file({n: 0.02 * rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}, path)
    return sum(map(prod, shapes.values()))


@dataclass(frozen=True)
class Cost:
    """Of one embedding, from a file on disk to a vector, in a process that has started and made the model.

    Attributes:
        seconds: on the clock, which other jobs on the machine make longer.
        cpu_seconds: that all its threads computed, which they make little longer.
        mib: resident at the peak of the process.
        before: the same before it began.
    """

    seconds: float
    cpu_seconds: float
    mib: float
    before: float


def peak_memory() -> int:
    """Most bytes that this process has had resident.

    `getrusage` counts what the parent had before this process became Python, so Linux's own figure is preferred.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def embed(reading: str, path: str) -> None:
    """What a process of its own does: print the numbers of a `Cost`, of an untrained model, as JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = MetaModel(replace(CONFIG, reading=reading, training=replace(CONFIG.training, device="cpu")))
    model.normaliser = PLAIN
    spec = LeafFile.open(path).spec
    model.model = Transformer(model.config, token_count(spec.size, CONFIG.chunk_size), 2, Room(0)).eval()
    before, start, cpu = peak_memory(), time.perf_counter(), time.process_time()
    if reading == "leaves":
        found = embed_file(path, model)
    else:
        with torch.no_grad():
            weights = torch.from_numpy(load_state_dict(path).weights)[None]
            found = model.model.pooled(model.as_tokens(weights, spec)).numpy()
    assert np.isfinite(found).all()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps([seconds, cpu_seconds, peak_memory() / 2**20, before / 2**20]))


def cost(reading: str, path: Path, repeats: int) -> Cost | None:
    """Of the quickest of some fresh processes; None if one takes longer than `LIMIT`."""
    found = []
    for _ in range(repeats):
        try:
            child = subprocess.run(
                [sys.executable, "-m", "benchmarks.large", "embed", reading, str(path)],
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=True,
                cwd=Path(__file__).parent.parent,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},  # as the command line has it
            )
        except subprocess.TimeoutExpired:
            return None
        found.append(json.loads(child.stdout))
    return Cost(*min(found))


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float] | None:
    """Slope of log seconds over log size by least squares, and its standard error; None of fewer than three points."""
    if len(sizes) < 3:
        return None
    x, y = np.log(sizes), np.log(seconds)
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    error = float(np.square(y - slope * x).sum() / (len(x) - 2) / (x @ x)) ** 0.5
    return slope, error


def table(costs: Mapping[int, Mapping[str, Cost | None]]) -> str:
    """Of each number of weights the cost of both readings, in markdown."""
    more = ("CPU seconds", "peak MiB")
    header = ["weights", "leaves: seconds", *more, "all chunks: seconds", *more]
    lines = []
    for weights, row in costs.items():
        cells = [f"{weights:,}"]
        for reading in READINGS:
            found = row[reading]
            known = None if found is None else (found.seconds, found.cpu_seconds, found.mib)
            cells += ["-"] * 3 if known is None else [f"{known[0]:.2f}", f"{known[1]:.2f}", f"{known[2]:.0f}"]
        lines.append(cells)
    return markdown_table(header, lines)


def main(sizes: Sequence[float] = SIZES) -> None:
    costs: dict[int, dict[str, Cost | None]] = {}
    given_up: set[str] = set()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        for size in sizes:
            row = costs[write(path, size, seed=0)] = dict.fromkeys(READINGS)
            for reading, repeats in READINGS.items():
                row[reading] = None if reading in given_up else cost(reading, path, repeats)
                if row[reading] is None:
                    given_up.add(reading)
            print(table(costs).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(costs))
    figures: dict[str, object] = {"threads": THREADS}
    for reading in READINGS:
        known = {weights: row[reading] for weights, row in costs.items()}
        for least in FITTED_FROM:
            fitted = {weights: c for weights, c in known.items() if c is not None and weights >= 0.9 * least}
            for kind in ("seconds", "cpu_seconds"):
                slope = exponent(list(fitted), [getattr(c, kind) for c in fitted.values()])
                rounded = None if slope is None else [round(n, 3) for n in slope]
                figures[f"{reading}_exponent_{kind}_from_{least:.0e}"] = rounded
        figures[reading] = {
            w: None if c is None else {k: round(v, 3) for k, v in vars(c).items()} for w, c in known.items()
        }
    keep("large", figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["embed"]:
        embed(*sys.argv[2:4])
    else:
        main(SMALL if sys.argv[1:] == ["small"] else SIZES)
