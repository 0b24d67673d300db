"""Hypotheses about compiled programs, true ones and mutated ones: how many are accepted, and the power of judging."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from weightspace.circuits.power import Trial, format_power, power
from weightspace.decompiler.scrub import INPUTS, PAIRS, Scrub, scrub
from weightspace.errors import PlaceError
from weightspace.evaluation.metrics import Tally
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import progress
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import sample


def scrub_many(
    count: int,
    *,
    mutants: int = 3,
    inputs: int = INPUTS,
    pairs: int = PAIRS,
    seed: int = 0,
    out: Path | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """Judge the true hypotheses of `typed` programs, and mutants of each.

    Args:
        count: programs, the first of the sampler's by `seed`.
        mutants: of each, of operations, edges and places in turn.
        inputs, pairs: as for `scrub`.
        out: a file for the figures, JSON; written every 50 programs.
        show: whether progress is shown.
    Returns:
        figures, JSON-serialisable: true hypotheses accepted, faults of the others, and power.
    """
    if count < 1 or mutants < 0:
        raise ValueError(f"{count} programs and {mutants} mutants of each: give at least 1 program")
    if out is not None and not out.parent.is_dir():
        raise PlaceError(f"there is no folder {out.parent} to write {out.name} into: make it first")
    start = perf_counter()
    sums = {name: [0, 0] for name in ("accepted", "interchange", "random subspace", "scrubbing")}
    figures: dict[str, Any] = {"programs": 0, "seed": seed, "inputs": inputs, "pairs": pairs, "refused": []}
    found: list[Trial] = []
    with progress("scrubbing", count, "programs", show) as advance:
        for number, (program, each) in enumerate(_scrubs(count, mutants, inputs, pairs, seed)):
            judgement = each.judgement
            _add(sums["accepted"], Tally(int(judgement.accepted), 1))
            if not judgement.accepted:
                refused = {"number": number, "program": str(program), "faults": list(judgement.faults)}
                figures["refused"].append(refused)
            for interchange in judgement.interchanges.values():
                _add(sums["interchange"], interchange.changed)
                _add(sums["random subspace"], interchange.control)
            _add(sums["scrubbing"], judgement.scrubbing.agreement if judgement.scrubbing else None)
            found += each.trials
            figures["programs"] = number + 1
            advance(1)
            if out is not None and (number % 50 == 49 or number + 1 == count):
                write_atomically(out, json.dumps(_whole(figures, sums, found, start), indent=1).encode())
    return _whole(figures, sums, found, start)


def _whole(figures: dict[str, Any], sums: dict[str, list[int]], found: list[Trial], start: float) -> dict[str, Any]:
    return {
        **figures,
        **{name: _record(Tally(*sum_)) for name, sum_ in sums.items()},
        "mutants": len(found),
        "power": [row.to_record() for row in power(found)],
        "escaped": [_escape(trial) for trial in found if trial.truth != "the same" and trial.fault is None],
        "seconds": round(perf_counter() - start, 1),
    }


def _scrubs(count: int, mutants: int, inputs: int, pairs: int, seed: int) -> Iterator[tuple[Program, Scrub]]:
    for number, program in enumerate(islice(sample("typed", seed), count)):
        transformer = compile_program(program)
        yield program, scrub(program, transformer, inputs=inputs, pairs=pairs, mutants=mutants, seed=seed + number)


def _add(sums: list[int], tally: Tally | None) -> None:
    if tally is not None:
        sums[0] += tally.right
        sums[1] += tally.n


def _record(tally: Tally) -> dict[str, Any]:
    found = tally.interval
    bounds = {} if found is None else {"low": found.low, "high": found.high}
    return {"right": tally.right, "n": tally.n, "share": tally.share, **bounds}


def _escape(trial: Trial) -> dict[str, Any]:
    return {
        "change": trial.mutant.change,
        "what": trial.mutant.what,
        "truth": trial.truth,
        "differing": trial.differing,
        "of": trial.inputs,
    }


def format_scrubs(figures: dict[str, Any]) -> str:
    """The figures in text."""
    named = (
        ("true hypotheses accepted", "accepted"),
        ("pairs whose answer changes: as the program says", "interchange"),
        ("  the same with random subspaces", "random subspace"),
        ("inputs whose answer stays when scrubbed", "scrubbing"),
    )
    lines = [
        f"{figures['programs']:,} typed programs from seed {figures['seed']}, each on {figures['inputs']} inputs and "
        f"up to {figures['pairs']} pairs for each S-op"
    ]
    for text, name in named:
        each = figures[name]
        if each["n"]:
            lines.append(f"{text:<48}  {each['right']:,} of {each['n']:,}  ({each['low']:.4f} - {each['high']:.4f})")
    return "\n".join([*lines, "", format_power(figures["power"]) if figures["mutants"] else "no mutants"])
