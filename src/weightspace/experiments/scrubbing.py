"""Hypotheses about compiled programs, true ones and mutated ones: how many are accepted, and the power of judging."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from weightspace.circuits.interchanging import Tally
from weightspace.circuits.power import PowerRow, Trial, power
from weightspace.decompiler.scrub import INPUTS, PAIRS, Scrub, scrub
from weightspace.errors import PlaceError
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
        out: a file for the figures, JSON.
        show: whether progress is shown.
    Returns:
        figures, JSON-serialisable: true hypotheses accepted, faults of the others, and power.
    """
    start = perf_counter()
    if out is not None and not out.parent.is_dir():
        raise PlaceError(f"there is no folder {out.parent} to write {out.name} into: make it first")
    accepted, swapped, controls, scrubbed = 0, [0, 0], [0, 0], [0, 0]
    refused: list[dict[str, Any]] = []
    found: list[Trial] = []
    with progress("scrubbing", count, "programs", show) as advance:
        for number, (program, each) in enumerate(_scrubs(count, mutants, inputs, pairs, seed)):
            accepted += each.judgement.accepted
            if not each.judgement.accepted:
                refused.append({"number": number, "program": str(program), "faults": list(each.judgement.faults)})
            for interchange in each.judgement.interchanges.values():
                _add(swapped, interchange.changed)
                _add(controls, interchange.control)
            _add(scrubbed, each.judgement.scrubbing.agreement if each.judgement.scrubbing else None)
            found += each.trials
            advance(1)
    figures = {
        "programs": count,
        "seed": seed,
        "inputs": inputs,
        "pairs": pairs,
        "accepted": _record(Tally(accepted, count)),
        "refused": refused,
        "interchange": _record(Tally(*swapped)),
        "random subspace": _record(Tally(*controls)),
        "scrubbing": _record(Tally(*scrubbed)),
        "mutants": len(found),
        "power": [row.to_record() for row in power(found)],
        "escaped": [_escape(trial) for trial in found if trial.truth != "the same" and trial.fault is None],
        "seconds": round(perf_counter() - start, 1),
    }
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))
    return figures


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


def format_power(rows: list[PowerRow] | list[dict[str, Any]]) -> str:
    """Power as a table in text."""
    records = [row.to_record() if isinstance(row, PowerRow) else row for row in rows]
    width = max(len(record["what"]) for record in records)
    lines = [f"{'mutants':<{width}}  rejected       n    95% interval   by behaviour, interchange, scrubbing"]
    for record in records:
        share = f"{record['share']:.3f}" if record["share"] is not None else "-"
        bounds = f"{record['low']:.3f} - {record['high']:.3f}" if "low" in record else "-"
        by = ", ".join(str(record["by"].get(fault, 0)) for fault in ("behaviour", "interchange", "scrubbing"))
        lines.append(f"{record['what']:<{width}}  {share:>8}  {record['n']:>6,}   {bounds:>13}   {by}")
    return "\n".join(lines)


def format_scrubs(figures: dict[str, Any]) -> str:
    """The figures in text."""
    named = (
        ("true hypotheses accepted", "accepted"),
        ("pairs whose answer changes: as the program says", "interchange"),
        ("  the same with random subspaces", "random subspace"),
        ("inputs whose answer stays when scrubbed", "scrubbing"),
    )
    lines = [
        f"{figures['programs']:,} typed programs from seed {figures['seed']}, each on {figures['inputs']} inputs and up "
        f"to {figures['pairs']} pairs for each S-op"
    ]
    for text, name in named:
        each = figures[name]
        if each["n"]:
            lines.append(f"{text:<48}  {each['right']:,} of {each['n']:,}  ({each['low']:.4f} - {each['high']:.4f})")
    return "\n".join([*lines, "", format_power(figures["power"]) if figures["mutants"] else "no mutants"])
