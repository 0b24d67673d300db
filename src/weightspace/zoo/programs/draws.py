"""The programs of a shard: drawn, compiled, and kept unless they are too large or come twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.compiler.transformer import CompiledTransformer
from weightspace.rasp.language import fused
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import attempts
from weightspace.rasp.validate import NotCompilable, analyse, settings
from weightspace.zoo.programs.config import ProgramZooConfig


def accepted_draws(config: ProgramZooConfig, number: int, reasons: Counter[str]) -> Iterator[Program]:
    """As many accepted draws as a shard wants; the others are counted."""
    digest = hashlib.blake2b(f"{config.seed} {number}".encode(), digest_size=8).digest()
    drawn = 0
    for draw in attempts(config.distribution, int.from_bytes(digest, "big"), config.lengths or None):
        if isinstance(draw, str):
            reasons[draw] += 1
            continue
        yield draw
        drawn += 1
        if drawn == config.shard_size:
            return


@dataclass(frozen=True, eq=False)
class ProgramRow:
    """A program as it goes into a shard."""

    program: Program
    transformer: CompiledTransformer
    key: bytes


def compiled_rows(
    config: ProgramZooConfig, programs: Iterator[Program | str], reasons: Counter[str]
) -> list[ProgramRow]:
    """The programs that can be compiled, are small enough, and do not come twice; the others are counted."""
    rows: dict[bytes, ProgramRow] = {}
    for program in programs:
        if isinstance(program, str):
            continue
        meant = fused(program) if config.distribution == "paper" else program
        try:
            vocab, length = settings(meant, None, None)
            analysis = analyse(meant, vocab, length, config.mode)
            if analysis.reasons:
                raise NotCompilable(analysis.reasons)
            key = canonical_key(analysis)
            if key in rows:
                reasons["the same program stands in this shard"] += 1
                continue
            transformer = assemble(analysis)
        except NotCompilable as error:
            reasons[f"cannot be compiled: {error.reasons[0].kind}"] += 1
            continue
        if len(transformer) > config.most_parameters:
            reasons[f"more than {config.most_parameters:,} parameters"] += 1
            continue
        rows[key] = ProgramRow(program, transformer, key)
    return list(rows.values())
