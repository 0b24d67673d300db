"""Decompilation: programs written by the network, batched against one by one; operations checked; time to a proof."""

import statistics
import time

from benchmarks.record import keep, paired
from weightspace.decompiler.decompile import decompile, pretrained
from weightspace.decompiler.network.grammar import Draft
from weightspace.decompiler.network.graph import graph_of
from weightspace.decompiler.proof.verify import certify, permuted
from weightspace.decompiler.search.enumeration import enumerate_program
from weightspace.experiments.ladder import held_out
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer

PROGRAMS, BATCH, REPEATS, SEED = 128, 64, 3, 11


def main() -> None:
    programs = held_out(PROGRAMS, SEED)
    bares = [permuted(BareTransformer.of(compile_program(p, mode="tracr_compat")), i) for i, p in enumerate(programs)]
    proposer = pretrained()
    bares.sort(key=lambda bare: graph_of(bare).nodes)

    def write(size: int, some: list[BareTransformer]) -> None:
        for start in range(0, len(some), size):
            part = some[start : start + size]
            drafts = [Draft(b.vocab, b.max_seq_len, "tracr_compat", 0, 2 * b.num_layers) for b in part]
            proposer.propose(proposer.read([graph_of(b) for b in part]), drafts)

    batched, single, ratio = paired(lambda: write(BATCH, bares), lambda: write(1, bares), REPEATS)
    found = [enumerate_program(bare, 10.0) for bare in bares]
    start = time.perf_counter()
    certified = sum(
        f.program is not None and certify(f.program, b) is not None for f, b in zip(found, bares, strict=True)
    )
    proof = (time.perf_counter() - start) / len(bares)
    times = []
    for bare in bares:
        start = time.perf_counter()
        certified += decompile(bare, 10.0).status == "certified"
        times.append(time.perf_counter() - start)
    keep(
        "decompile",
        {
            "programs": len(bares),
            "greedy_per_s": round(len(bares) / batched, 1),
            "greedy_one_by_one_per_s": round(len(bares) / single, 1),
            "ratio": round(ratio, 2),
            "operations_checked_per_s": round(sum(f.checked for f in found) / sum(f.seconds for f in found)),
            "certificate_ms": round(1000 * proof, 2),
            "certified_of_two_ways": certified,
            "median_s_to_certificate": round(statistics.median(times), 3),
            "targets": "100 programs/s on two cores, 1,000 operations/s and core, median under 1 s",
        },
    )


if __name__ == "__main__":
    main()
