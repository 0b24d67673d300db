"""Readers of weights compared under one budget: the graph, rows of its matrices, flat chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from weightspace.decompiler.network.config import DecompilerConfig
from weightspace.decompiler.network.pairs import drawn
from weightspace.decompiler.network.proposer import Proposer, batch_of, fit, forced
from weightspace.decompiler.proof.verify import permuted
from weightspace.evaluation.metrics import Interval, bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.experiments.decompilers import greedy_certified, rasp_typed_small
from weightspace.experiments.ladder import held_out
from weightspace.files.atomic import write_atomically
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer

BUDGET = {
    "graph": ("graph", False, 1_200),
    "chunks, names shuffled": ("chunks", True, 700),
    "chunks, the compiler's names": ("chunks", False, 700),
    "rows, names shuffled": ("rows", True, 220),
}
"""What is compared: reader, whether names are shuffled in training, and steps, some 25 minutes of one core for each."""


@dataclass(frozen=True)
class ReaderRow:
    """What one reader came to.

    Attributes:
        parameters: of the whole network, decoder included.
        programs: seen in training.
        seconds: of training.
        tokens: share right on held-out weights with shuffled names, each given the true ones before it.
        named_tokens: the same where the compiler's own order of names is left.
        certified: share of permuted held-out weights of which one greedy program is certified, 95% over programs.
        named_certified: the same where the compiler's own order is left.
    """

    reader: str
    parameters: int
    programs: int
    seconds: float
    tokens: float
    named_tokens: float
    certified: Interval
    named_certified: Interval

    def to_json(self) -> dict[str, Any]:
        shares = {
            name: [found.estimate, found.low, found.high]
            for name, found in (("certified", self.certified), ("named_certified", self.named_certified))
        }
        return {**self.__dict__, **shares}


def reader_config(name: str, share: float = 1.0, base: DecompilerConfig | None = None) -> DecompilerConfig:
    """The configuration of one of `BUDGET`, with `share` of its steps."""
    reader, shuffled, steps = BUDGET[name]
    base = base or rasp_typed_small()
    steps = max(1, round(share * steps))
    training = replace(base.training, steps=steps, evaluate_every=max(1, steps // 4), checkpoint_every=50)
    return replace(base, reader=reader, renamed=shuffled, training=training)


def compare_readers(
    folder: Path,
    names: Sequence[str] = tuple(BUDGET),
    *,
    share: float = 1.0,
    base: DecompilerConfig | None = None,
    programs: int = 1_000,
    workers: int = 1,
    show: bool = True,
) -> list[ReaderRow]:
    """Train a decompiler with each reader for the same time; killed and called again with the same folder, it goes on.

    The decoder, the data, the learning rate and its schedule are one for all; learning rates were not tuned, for none
    of them.

    Args:
        folder: where the trainings go, and `readers.json`.
        share: of the budget.
        base: all but the reader and the number of steps; `rasp_typed_small` unless given.
        programs: held out, on which they are scored.
    Raises:
        ValueError: if `share` is not above 0, or `workers` is negative.
    """
    if not 0 < share < float("inf") or workers < 0:
        raise ValueError(f"share {share} and {workers} workers: give a share above 0, and 0 or more workers")
    targets = [
        BareTransformer.of(compile_program(program, mode="tracr_compat")) for program in held_out(programs, 2024)
    ]
    shuffled = [permuted(target, seed) for seed, target in enumerate(targets)]
    rows = []
    for name in names:
        config = reader_config(name, share, base)
        proposer = fit(
            config,
            folder / name.replace(",", "").replace("'", "").replace(" ", "-"),
            workers=workers,
            validation=min(512, programs),
            show=show,
        )
        rows.append(
            ReaderRow(
                name,
                proposer.parameters,
                proposer.history.steps * config.training.batch_size,
                round(proposer.history.seconds, 1),
                _tokens(proposer, True, programs),
                _tokens(proposer, False, programs),
                bootstrap_interval(greedy_certified(proposer, shuffled, 16)[0], seed=0),
                bootstrap_interval(greedy_certified(proposer, targets, 16)[0], seed=0),
            )
        )
        _keep(folder / "readers.json", rows[-1])
    return rows


def _keep(path: Path, row: ReaderRow) -> None:
    """Write a row beside those of the other readers that are there."""
    found = json.loads(path.read_text()) if path.exists() else []
    others = [other for other in found if other["reader"] != row.reader]
    write_atomically(path, json.dumps([*others, row.to_json()], indent=1).encode())


def _tokens(proposer: Proposer, shuffled: bool, count: int) -> float:
    """Share of tokens right on test programs as the distribution has them: Tracr's own clean weights."""
    plain = replace(proposer.config, other_shapes=0.0, fixed=0.0, noisy=0.0, squeezed=0.0, renamed=shuffled)
    pairs = sorted(drawn(plain, "test", 0, 0, count), key=lambda pair: pair.graph.nodes)
    proposer.network.eval()
    with torch.inference_mode():
        return forced(proposer.network, [batch_of(pairs[first : first + 16]) for first in range(0, count, 16)])[
            "accuracy"
        ]


def table(rows: Sequence[ReaderRow]) -> str:
    """The comparison as a Markdown table."""
    header = ("reader", "parameters", "programs", "minutes", "tokens", "tokens, own order", "certified")
    lines = []
    for row in rows:
        size = (f"{row.parameters:,}", f"{row.programs:,}", f"{row.seconds / 60:.0f}")
        shares = [
            f"{100 * found.estimate:.1f}% [{100 * found.low:.1f}, {100 * found.high:.1f}]"
            for found in (row.certified, row.named_certified)
        ]
        lines.append([row.reader, *size, f"{row.tokens:.1%}", f"{row.named_tokens:.1%}", *shares])
    return markdown_table((*header, "certified, own order"), lines)
