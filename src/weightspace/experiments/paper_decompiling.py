"""The paper's experiment asked of the whole decompiler: certificates, and the paper's metric for the program found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import numpy as np

from weightspace.decompiler.decompile import Attempt, Method, Problem, attempt, decompile
from weightspace.decompiler.distortion import permuted
from weightspace.decompiler.paper.ceiling import TwoStarts
from weightspace.decompiler.paper.graph_examples import HeldOut, held_out_programs
from weightspace.decompiler.paper.imprint import Order
from weightspace.decompiler.paper.likeliest import Likeliest, likeliest_listing, nearest_lines, numbering_of
from weightspace.decompiler.paper.listing import ListingScores, score_listings, target_lines
from weightspace.decompiler.proof.verify import Certificate, certify
from weightspace.decompiler.result import Decompilation
from weightspace.errors import NetworkError, RaspError, TaskError
from weightspace.evaluation.metrics import Interval, bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.files.atomic import write_atomically
from weightspace.files.progress import progress
from weightspace.files.workers import processes
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.train.checkpoint import bind

RESULTS = "results.jsonl"
ALONE: tuple[Method, ...] = ("lifter", "enumeration", "greedy")
"""Methods that are asked alone too; `greedy` is the network of the `typed` programs, which has few of these lambdas."""
ORDERS: tuple[Order, ...] = get_args(Order)
WEIGHTS: dict[Order, str] = {"kept": "weights as compiled", "lost": "permuted"}
PUBLISHED = {"tokens right": 0.735, "programs, at least 90% of tokens": 0.320, "programs, exact": 0.068}
"""The paper's, from the weights alone."""


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """What is decompiled, and how.

    Attributes:
        count: held-out programs.
        seed: of the programs and the permutations.
        budget: seconds for each program and method.
        alone: on how many of the programs, the first, methods other than the lifter are asked alone.
        alone_budget: seconds for each of them; enumeration takes all of them for what it does not find.
        printed: how many of the programs, the first, are printed in the paper's tokens.
        steps: of each chain by which a program is printed.
        chains: for each program and order.

    Raises:
        TaskError: if a field is out of its range.
    """

    count: int = 1_000
    seed: int = 1
    budget: float = 30.0
    alone: int = 100
    alone_budget: float = 5.0
    printed: int = 1_000
    steps: int = 4_000
    chains: int = 3

    def __post_init__(self) -> None:
        checks = {
            f"count {self.count}": (self.count >= 1, "at least 1"),
            f"seed {self.seed}": (self.seed >= 0, "0 or more"),
            f"budget {self.budget:g} s": (0 < self.budget < float("inf"), "a positive number of seconds"),
            f"alone {self.alone}": (self.alone >= 0, "0 or more"),
            f"printed {self.printed}": (self.printed >= 0, "0 or more"),
            f"budget {self.alone_budget:g} s of each method alone": (
                0 < self.alone_budget < float("inf"),
                "a positive number of seconds",
            ),
            f"steps {self.steps}": (self.steps >= 10, "at least 10"),
            f"chains {self.chains}": (self.chains >= 1, "at least 1"),
        }
        for what, (holds, allowed) in checks.items():
            if not holds:
                raise TaskError(f"{what} will not do: give {allowed}")


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """What came of one program.

    Attributes:
        number: of the program.
        program: a hash of its text.
        operations: of it, selectors included.
        parameters: of its weights.
        status, method, seconds: of `decompile` on permuted weights, inputs not tried where the lifter has a proof.
        alone: for methods that were asked alone, whether the program found is certified, and the seconds it took.
        listings: for each order in which the directions of an S-op may stand, the listing printed and what it promises.
        truth: the lines that were drawn.
    """

    number: int
    program: str
    operations: int
    parameters: int
    status: str
    method: str
    seconds: float
    alone: dict[str, tuple[bool, float]]
    listings: dict[str, dict[str, Any]]
    truth: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """All of it, None for what is not known."""
        known = asdict(self)
        for listing in known["listings"].values():
            listing |= {name: None for name in ("tokens", "exact") if np.isnan(listing[name])}
        return known


def run_paper(config: PaperConfig, out: Path, *, workers: int = 1, show: bool = True) -> list[PaperRow]:
    """Decompile held-out programs of the paper's distribution; killed and called again, it goes on.

    Args:
        out: folder of results.jsonl, a line for each program.
        workers: processes; 0 for this one.
    Raises:
        TaskError: if the folder holds what was asked otherwise.
    """
    if workers < 0:
        raise TaskError(f"{workers} workers cannot decompile: give 0 for none, 1 or more")
    out.mkdir(parents=True, exist_ok=True)
    asked = {name: value for name, value in asdict(config).items() if name not in ("count", "alone", "printed")}
    if not bind(out, json.dumps(asked, sort_keys=True).encode()):
        raise TaskError(f"{out} holds results of another seed, budget or other chains: choose another folder")
    known = {row.number: row for row in results(out) if row.number < config.count}
    missing = [n for n in range(config.count) if n not in known or not _whole(known[n], config)]
    path = out / RESULTS
    with (
        progress("decompiling", config.count, "programs", show, done=config.count - len(missing)) as advance,
        path.open("a") as file,
    ):

        def keep(row: PaperRow) -> None:
            known[row.number] = row
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            advance(1, row.status.replace("_", " "))

        if workers == 0:
            for number in missing:
                keep(one_program(config, number, known.get(number)))
        else:
            with processes(workers) as (pool, _):
                waiting: list[Future[PaperRow]] = [
                    pool.submit(one_program, config, number, known.get(number)) for number in missing
                ]
                for future in as_completed(waiting):
                    keep(future.result())
    rows = [known[number] for number in range(config.count)]
    write_atomically(
        path, "".join(json.dumps(asdict(row)) + "\n" for row in sorted(known.values(), key=_number)).encode()
    )
    return rows


def _number(row: PaperRow) -> int:
    return row.number


def _whole(row: PaperRow, config: PaperConfig) -> bool:
    asked = row.number >= config.alone or all(method in row.alone for method in ALONE)
    return asked and (row.number >= config.printed or bool(row.listings))


def results(out: Path) -> list[PaperRow]:
    """What has been written so far; a line torn by a kill is left out."""
    path = out / RESULTS
    rows: dict[int, PaperRow] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            found = PaperRow(**{**row, "alone": {name: tuple(pair) for name, pair in row["alone"].items()}})
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        rows[found.number] = found
    return list(rows.values())


@lru_cache(1)
def _held_out(count: int, seed: int) -> list[HeldOut]:
    """Drawn once in each process: nodes of programs that are sent are no longer those that the language knows."""
    return held_out_programs(count, seed)


def one_program(config: PaperConfig, number: int, known: PaperRow | None = None) -> PaperRow:
    """Decompile the weights of one program; the program itself is looked at to score, and for nothing else.

    Args:
        known: what is there of it already, and is not done again.
    """
    held = _held_out(config.count, config.seed)[number]
    weights = permuted(held.bare, config.seed * 1_000_003 + number)
    if known is None or (number < config.printed and not known.listings):
        known = _decompiled(config, number, held, weights)
    alone = dict(known.alone)
    for method in ALONE if number < config.alone else ():
        if method not in alone:
            alone[method] = _alone(Problem(weights, config.seed), method, config.alone_budget)
    return replace(known, alone=alone)


def _decompiled(config: PaperConfig, number: int, held: HeldOut, weights: BareTransformer) -> PaperRow:
    """What the whole decompiler makes of permuted weights; the lifter, unless it certified them, is asked alone too."""
    found = _found(weights, config)
    listings = {}
    for order in ORDERS if number < config.printed else ():
        started = time.process_time()
        printed = _printed(config, found, held.bare, order, number)
        listings[order] = {
            "lines": printed.lines.tolist(),
            "tokens": printed.tokens,
            "exact": printed.exact,
            "targets": printed.targets,
            "chains": printed.chains,
            "seconds": time.process_time() - started,
        }
    lifted = found.status == "certified" and found.method == "lifter"
    lifter = (True, found.seconds) if lifted else _alone(Problem(weights, config.seed), "lifter", config.budget)
    return PaperRow(
        number=number,
        program=blake2b(str(held.program).encode(), digest_size=8).hexdigest(),
        operations=len(held.program),
        parameters=sum(array.size for array in held.bare.params.values()),
        status=found.status,
        method=found.method,
        seconds=found.seconds,
        alone={"lifter": lifter},
        listings=listings,
        truth=target_lines(held.program).tolist(),
    )


def _found(weights: BareTransformer, config: PaperConfig) -> Decompilation:
    """What `decompile` finds; where the lifter, which it asks first, has a proof, inputs are not tried as well."""
    started = time.monotonic()
    lifted = attempt(Problem(weights, config.seed), "lifter", config.budget)
    certificate = _certificate(lifted, weights)
    if certificate is not None:
        seconds = time.monotonic() - started
        return Decompilation("certified", lifted.program, "lifter", certificate, seconds=seconds, tables=lifted.tables)
    return decompile(weights, config.budget)


def _certificate(found: Attempt, weights: BareTransformer) -> Certificate | None:
    return None if found.program is None else certify(found.program, weights, mode=found.mode)


def _alone(problem: Problem, method: Method, budget: float) -> tuple[bool, float]:
    started = time.monotonic()
    try:
        certified = _certificate(attempt(problem, method, budget), problem.bare) is not None
    except (RaspError, NetworkError):
        certified = False
    return certified, time.monotonic() - started


def _printed(config: PaperConfig, found: Decompilation, bare: BareTransformer, order: Order, number: int) -> Likeliest:
    """The program found in the paper's tokens; the likeliest of its weights where these are certified.

    Args:
        bare: the weights as they were compiled.
        order: whether that is known, or permuted weights alone.
    """
    nothing = float("nan")
    if found.program is None:
        return Likeliest(np.zeros((15, 5), np.int64), nothing, nothing, 0, 0)
    if found.certificate is None or found.mode != "tracr_compat":
        return Likeliest(nearest_lines(found.program), nothing, nothing, 0, 0)
    numbering = None
    if order == "kept":
        certificate = certify(found.program, bare, mode="tracr_compat")
        assert certificate is not None  # permuted, they are certified
        numbering = numbering_of(found.program, certificate.columns)
    return likeliest_listing(
        found.program,
        order,
        numbering=numbering,
        steps=config.steps,
        chains=config.chains,
        seed=config.seed * 1_000_003 + number,
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def certificate_table(rows: Sequence[PaperRow]) -> str:
    """The share certified, of the whole decompiler and of each method alone, with 95% intervals over programs."""
    lines: list[list[Any]] = []
    whole = np.array([row.status == "certified" for row in rows], float)
    seconds = [row.seconds for row in rows]
    lines.append(["the whole decompiler", len(rows), _shown(bootstrap_interval(whole, seed=0)), *_times(seconds)])
    names = {"lifter": "the lifter alone", "enumeration": "enumeration alone", "greedy": "the network alone, greedy"}
    for method, name in names.items():
        some = [row.alone[method] for row in rows if method in row.alone]
        if some:
            share = bootstrap_interval(np.array([certified for certified, _ in some], float), seed=0)
            lines.append([name, len(some), _shown(share), *_times([seconds for _, seconds in some])])
    return markdown_table(["asked", "n", "certified", "median s", "slowest s"], lines)


def _times(seconds: Iterable[float]) -> list[str]:
    every = np.array(list(seconds))
    return [f"{np.median(every):.2f}", f"{every.max():.1f}"]


def measures_of(scores: ListingScores) -> dict[str, np.ndarray]:
    """The paper's figures, (n,) each."""
    return {
        "tokens right": scores.tokens,
        "programs, at least 70% of tokens": scores.at_least(0.7),
        "programs, at least 90% of tokens": scores.at_least(0.9),
        "programs, exact": scores.exact,
    }


def listing_table(columns: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """The paper's metric, with 95% intervals over programs, beside the paper's own.

    Args:
        columns: for each that is asked, programs (n, 15, 5) as it writes them, and as they were drawn.
    """
    scored = {name: measures_of(score_listings(given, truth)) for name, (given, truth) in columns.items()}
    lines: list[list[Any]] = [["n", *(len(truth) for _, truth in columns.values()), None]]
    for measure in next(iter(scored.values())):
        cells = [_shown(bootstrap_interval(own[measure], seed=0)) for own in scored.values()]
        published = PUBLISHED.get(measure)
        lines.append([measure, *cells, None if published is None else f"{published:.1%}"])
    return markdown_table(["", *scored, "the paper"], lines)


def columns_of(rows: Sequence[PaperRow]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The listings printed, for weights as they were compiled and for permuted ones; of none where none was."""
    rows = [row for row in rows if row.listings]
    truth = np.array([row.truth for row in rows])
    if not rows:
        return {}
    return {
        f"the decompiler, {WEIGHTS[order]}": (np.array([row.listings[order]["lines"] for row in rows]), truth)
        for order in WEIGHTS
    }


def promised_table(rows: Sequence[PaperRow]) -> str:
    """What the posterior says that the best answer gets, with 95% intervals over programs: a ceiling from above."""
    lines = []
    rows = [row for row in rows if row.listings]
    for order, name in WEIGHTS.items():
        cells: list[Any] = [name]
        for measure in ("tokens", "exact"):
            every = np.array([row.listings[order][measure] for row in rows], float)
            every = every[~np.isnan(every)]
            cells.append(_shown(bootstrap_interval(every, seed=0)) if len(every) else None)
        walked = sum(row.listings[order]["chains"] > 0 for row in rows)
        lines.append([*cells, f"{walked} of {len(rows)}"])
    return markdown_table(["weights", "tokens right, expected", "exact, expected", "printed by a chain"], lines)


def ceiling_table(found: Mapping[Order, Sequence[TwoStarts]]) -> str:
    """What the best answer promises and gets, from both starts of a chain, with 95% intervals over programs."""
    lines: list[list[Any]] = []
    for order, programs in found.items():
        starts = {
            "that was drawn": [one.truth for one in programs],
            "made for the weights": [one.made for one in programs if one.made is not None],
        }
        for start, answers in starts.items():
            cells = []
            for measure in ("tokens", "right", "exact", "whole"):
                every = np.array([getattr(answer, measure) for answer in answers], float)
                cells.append(_shown(bootstrap_interval(every, seed=0)) if len(every) else None)
            lines.append([WEIGHTS[order], start, f"{len(answers)} of {len(programs)}", *cells])
    return markdown_table(
        ["weights", "from the program", "n", "tokens promised", "tokens right", "exact promised", "exact"], lines
    )


def _shown(found: Interval) -> str:
    return f"{found.estimate:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
