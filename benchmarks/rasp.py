"""Programs compiled a second, the whole pipeline, and the compiled forward pass; each against its plain alternative."""

import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.interpreter import program
from benchmarks.record import keep, seconds
from weightspace.rasp.batch import all_inputs
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.language import SequenceMap, SOp, tokens
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample
from weightspace.rasp.validate import Mode, NotCompilable
from weightspace.rasp.values import KEPT
from weightspace.zoo.programs.config import ProgramZooConfig
from weightspace.zoo.programs.making import make_program_zoo

PROGRAMS, REPEATS, LARGEST = 1_000, 5, 65_536
POPULATION = 5_000
TRACR = 0.4
"""Programs a second of Tracr itself, whole compile calls on two cores (shared notes; it cannot be installed here)."""


def small(mode: Mode, seed: int) -> list[Program]:
    """Typed programs whose transformers have at most 65,536 parameters, as in the published population."""
    found: list[Program] = []
    for drawn in sample("typed", seed):
        try:
            if len(compile_program(drawn, mode=mode)) <= LARGEST:
                found.append(drawn)
        except NotCompilable:
            continue
        if len(found) == PROGRAMS:
            return found
    raise AssertionError


def cold() -> None:
    """Forget every table and block, as if each program were the first."""
    KEPT.forget()


def rates(mode: Mode) -> dict[str, float]:
    """Programs a second: sparse entries, dense parameters, and sparse from cold caches; the median of several runs.

    Each run compiles programs that were not compiled since the caches were last emptied; other programs have filled
    them again.
    """
    others, measured = small(mode, 1), [small(mode, 2 + i) for i in range(REPEATS)]
    runs: dict[str, list[float]] = {"sparse": [], "dense": [], "cold": []}
    for programs in measured:
        cold()
        for other in others:
            compile_program(other, mode=mode)
        gc.collect()
        start = time.perf_counter()
        transformers = [compile_program(one, mode=mode) for one in programs]
        middle = time.perf_counter()
        for transformer in transformers:
            transformer.params  # noqa: B018 - makes them
        end = time.perf_counter()
        runs["sparse"].append(len(programs) / (middle - start))
        runs["dense"].append(len(programs) / (end - start))
        few = programs[: max(1, len(programs) // 10)]
        spent = 0.0
        for one in few:
            cold()
            start = time.perf_counter()
            compile_program(one, mode=mode)
            spent += time.perf_counter() - start
        runs["cold"].append(len(few) / spent)
    return {name: statistics.median(found) for name, found in runs.items()}


def chain(length: int) -> Program:
    node: SOp = tokens
    for _ in range(length):
        node = SequenceMap("x and y", node, node)
    return Program.of(node, vocab=range(5), max_seq_len=5)


def forward_ms() -> dict[str, float]:
    """Milliseconds of the compiled forward pass on every input of vocabulary 5 and length up to 5."""
    transformer = compile_program(program(), vocab=range(5), max_seq_len=5)
    inputs = all_inputs(range(5), 5)
    codes = [np.array(transformer.encode([i for i in inputs if len(i) == n])) for n in range(1, 6)]
    one_by_one = codes[-1][:200]

    def every() -> None:
        for batch in codes:
            transformer.forward(batch)

    def singly() -> None:
        for row in one_by_one:
            transformer.forward(row[None])

    every()
    return {
        "forward": 1000 * seconds(every),
        "forward_and_decode": 1000 * seconds(lambda: transformer.run(inputs)),
        "one_by_one": 1000 * seconds(singly) * len(inputs) / len(one_by_one),
        "operations": len(program()),
        "parameters": len(transformer),
    }


def pipeline(mode: Mode) -> dict[str, float]:
    """Different programs a second of the whole pipeline in one process, and what they take on disk."""
    config = ProgramZooConfig(
        recipe="benchmark", distribution="typed", count=POPULATION, mode=mode, shard_size=max(10, POPULATION // 5)
    )
    gc.disable()  # as the workers do
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            zoo = make_program_zoo(config, Path(folder) / "zoo", 0, show=False)
            spent = time.perf_counter() - start
            size = sum(path.stat().st_size for path in zoo.folder.rglob("*") if path.is_file())
            drawn = POPULATION + sum(zoo.manifest["dropped"].values())
            return {"kept": POPULATION / spent, "drawn": drawn / spent, "bytes": size / POPULATION}
    finally:
        gc.enable()


def drawn(count: int) -> float:
    """Accepted draws a second of the sampler alone."""
    programs: Iterator[Program] = sample("typed", 77)
    list(itertools.islice(programs, count // 5))
    start = time.perf_counter()
    list(itertools.islice(programs, count))
    return count / (time.perf_counter() - start)


def main() -> None:
    fixed, compat = rates("fixed"), rates("tracr_compat")
    forward, made = forward_ms(), pipeline("tracr_compat")
    chained = chain(40)
    keep(
        "rasp",
        {
            "distribution": f"typed, at most {LARGEST:,} parameters",
            "programs": PROGRAMS * REPEATS,
            "fixed_dense_per_s": round(fixed["dense"]),
            "fixed_sparse_per_s": round(fixed["sparse"]),
            "compat_dense_per_s": round(compat["dense"]),
            "compat_sparse_per_s": round(compat["sparse"]),
            "compat_over_fixed": round(fixed["dense"] / compat["dense"], 2),
            "without_caches_per_s": round(fixed["cold"]),
            "ratio_to_no_caches": round(fixed["sparse"] / fixed["cold"], 1),
            "ratio_to_tracr_as_quoted": round(compat["dense"] / TRACR),
            "sampler_per_s": round(drawn(POPULATION)),
            "pipeline_kept_per_s": round(made["kept"]),
            "pipeline_drawn_per_s": round(made["drawn"]),
            "bytes_a_program": round(made["bytes"]),
            "chain_of_40_ms": round(1000 * seconds(lambda: compile_program(chained)), 2),
            "forward_3905_inputs_ms": round(forward["forward"], 1),
            "run_3905_inputs_ms": round(forward["forward_and_decode"], 1),
            "forward_one_by_one_ms": round(forward["one_by_one"]),
            "ratio_to_one_by_one": round(forward["one_by_one"] / forward["forward"], 1),
            "targets": "dense 2,500, sparse 5,000, compat at most 1.5x slower, pipeline 700 a core, forward 50 ms",
        },
    )


if __name__ == "__main__":
    main()
