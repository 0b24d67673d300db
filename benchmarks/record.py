"""How a benchmark prints and keeps what it measured."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def hardware() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"


def seconds(function: Callable[[], object], repeats: int = 5, warm: int = 1) -> float:
    """Median wall-clock seconds of `function`."""
    for _ in range(warm):
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def paired(ours: Callable[[], object], plain: Callable[[], object], repeats: int = 5) -> tuple[float, float, float]:
    """Median seconds of both, run in turn, and the median of plain / ours pair by pair: noise hits both alike."""
    ours()
    plain()
    pairs = [(seconds(ours, 1, 0), seconds(plain, 1, 0)) for _ in range(repeats)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def keep(name: str, figures: dict[str, object]) -> None:
    """Print the figures and write them to `results/NAME.json`."""
    record = {"benchmark": name, "date": date.today().isoformat(), "hardware": hardware(), **figures}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
