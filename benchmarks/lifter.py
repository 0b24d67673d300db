"""The lifter and the certificate by the number of parameters: seconds of one core, their growth, memory, budgets."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np

from benchmarks.record import keep
from weightspace.decompiler.decompile import decompile
from weightspace.decompiler.lifting.align import align
from weightspace.decompiler.lifting.lift import lift
from weightspace.decompiler.proof.verify import certify, permuted
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.language import Aggregate, Map, Select, SelectorWidth, SequenceMap, SOp, indices, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.values import KEPT

SIZES = ((3, 4), (4, 5), (5, 6), (6, 8), (8, 10), (10, 12), (12, 14), (15, 16), (17, 18), (20, 20))
"""Vocabulary and length of the sorts by which growth is fitted: 9 thousand to 3.5 million parameters."""
BUDGETS = (1.0, 5.0, 30.0)
REPEATS = 3


def sort(vocab: int, length: int) -> Program:
    """Sort with repeated tokens: keys of all pairs of a token and a place."""
    keys = SequenceMap(f"{length} * x + y", tokens, indices)
    place = SelectorWidth(Select(keys, keys, "LT"))
    return Program.of(Aggregate(Select(place, indices, "EQ"), tokens), vocab=range(vocab), max_seq_len=length)


def reverse(vocab: int, length: int) -> Program:
    count = SelectorWidth(Select(tokens, tokens, "TRUE"))
    place = Map("x - 1", SequenceMap("x - y", count, indices))
    return Program.of(Aggregate(Select(indices, place, "EQ"), tokens), vocab=range(vocab), max_seq_len=length)


def long(vocab: int, length: int, rounds: int = 10) -> Program:
    """Four operations a round, and one more: each round mixes what it has with what stands at another place."""
    node: SOp = tokens
    for number in range(rounds):
        place = Map(f"(x + {number + 1}) % {length}", indices)
        moved = Aggregate(Select(indices, place, "EQ"), node)
        node = SequenceMap(f"({number + 2} * x + y) % {vocab}", node, moved)
    return Program.of(Map(f"{vocab} - x", node), vocab=range(vocab), max_seq_len=length)


PROGRAMS = {"sort": sort, "reverse": reverse, "long": long}


def weights(name: str, vocab: int, length: int) -> BareTransformer:
    mode = "fixed" if name == "long" else "tracr_compat"  # in which a head may move more than it compares
    return permuted(BareTransformer.of(compile_program(PROGRAMS[name](vocab, length), mode=mode)), 1)


def one(name: str, vocab: int, length: int, budget: float) -> dict[str, float | str]:
    """CPU and wall-clock seconds, megabytes at the peak, of one decompilation in this process.

    `lifted` is the CPU time of the lifter and the certificate alone: without the answers, of which large transformers
    that are proved are asked fewer.
    """
    import resource

    bare = weights(name, vocab, length)
    started, clock = time.process_time(), time.monotonic()
    found = decompile(bare, budget)
    cpu, wall = time.process_time() - started, time.monotonic() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    KEPT.forget()  # tables of functions, that the first run has made
    started = time.process_time()
    program = lift(align(bare).bare).program
    certified = certify(program, replace(bare, vocab=bare.vocab))  # a copy, of which nothing is known yet
    lifted = time.process_time() - started
    assert certified is not None or found.status != "certified"
    operations = 0 if found.program is None else len(found.program)
    found_out: dict[str, float | str] = {"parameters": bare.size, "cpu": cpu, "wall": wall, "peak_mb": peak}
    found_out["lifted"] = lifted
    return found_out | {"status": found.status, "operations": operations}


def apart(*arguments: object) -> dict[str, float | str]:
    """`one` in a process of its own with one thread, so that its peak is its own."""
    call = [sys.executable, "-m", "benchmarks.lifter", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(call, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measured() -> list[dict[str, float | str]]:
    """Of each size the quickest of several runs."""
    points = []
    for vocab, length in SIZES:
        runs = [apart("sort", vocab, length, 600) for _ in range(REPEATS)]
        points.append(min(runs, key=lambda run: run["lifted"]))
    return points


def growth(points: list[dict[str, float | str]], what: str) -> tuple[float, float]:
    """The exponent of seconds by parameters, by least squares in logarithms, and its standard error."""
    x = np.log([float(point["parameters"]) for point in points])
    y = np.log([float(point[what]) for point in points])
    x0 = x - x.mean()
    slope = float((x0 * y).sum() / (x0**2).sum())
    rest = y - y.mean() - slope * x0
    error = math.sqrt(float((rest**2).sum()) / (len(x) - 2) / float((x0**2).sum()))
    return round(slope, 3), round(error, 3)


def main() -> None:
    points = measured()
    largest = points[-1]
    others = {name: apart(name, *size, 600) for name, size in {"reverse": (50, 30), "long": (20, 10)}.items()}
    kept = [(budget, size, apart("sort", *size, budget)) for budget in BUDGETS for size in ((8, 8), (12, 12), (20, 20))]
    worst = max(float(run["wall"]) - 1.1 * budget for budget, _, run in kept)
    keep(
        "lifter",
        {
            "parameters": [point["parameters"] for point in points],
            "cpu_s": [round(float(point["cpu"]), 3) for point in points],
            "certified": sum(point["status"] == "certified" for point in points),
            "lifter_and_certificate_s": [round(float(point["lifted"]), 3) for point in points],
            "exponent_and_error": growth(points, "cpu"),
            "exponent_and_error_lifter_and_certificate": growth(points, "lifted"),
            "sort_20_20_s": round(float(largest["cpu"]), 2),
            "sort_20_20_peak_mb": round(float(largest["peak_mb"])),
            **{f"{name}_{what}": run[what] for name, run in others.items() for what in ("parameters", "cpu", "status")},
            "long_operations": others["long"]["operations"],
            "wall_beyond_budget_s": round(worst, 2),
            "targets": "exponent 1.2, sort 20 20 in 60 s, long in 10 s, under 700 MB, wall at most 1.1 budget + 1 s",
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
    else:
        main()
