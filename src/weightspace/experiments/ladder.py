"""The ladder: every method on every rung, for the same held-out programs, with what each got and what it took."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np

from weightspace.decompiler.decompile import METHODS, Attempt, Method, Problem, attempt, judge
from weightspace.decompiler.explained import Explained, explained
from weightspace.decompiler.ladder import make_ladder, rung_path
from weightspace.decompiler.network.pairs import split_of_program
from weightspace.decompiler.proof.verify import behaviour
from weightspace.decompiler.rung import load_rung
from weightspace.errors import NetworkError, RaspError
from weightspace.evaluation.metrics import bootstrap_interval
from weightspace.evaluation.tables import markdown_table
from weightspace.files.progress import progress
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import attempts

MOST_PARAMETERS = 65_536
RESULTS = "results.jsonl"
TOGETHER = "together"
"""The row of all methods together: of their programs that which is best proved on the weights given."""
TRUTH = "true program"
"""The row of the program of which the weights were made: nobody finds it, and interventions ask whether it is there."""


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """What is decompiled, and by whom.

    Attributes:
        count: held-out programs.
        rungs: of `decompiler.ladder.RUNGS`, or with other shares.
        methods: of `decompiler.decompile.METHODS`.
        budget: seconds each method has for each program.
        seed: of the programs, the rungs and the methods.
        lengths: of the programs in S-ops, inputs counted; empty for the published ones, 4 to 8.
        interventions: whether the S-ops of what is found, and of the true program, are looked for by interchanges in
            the weights given, which are then scrubbed.
    """

    count: int = 200
    rungs: tuple[str, ...] = ("clean", "permuted", "rotated", "noisy-0.01", "noisy-0.03", "noisy-0.1")
    methods: tuple[Method, ...] = METHODS
    budget: float = 10.0
    seed: int = 2024
    lengths: tuple[int, ...] = ()
    interventions: bool = False

    @property
    def rows(self) -> tuple[str, ...]:
        """Who has a row for each program and rung."""
        return (*self.methods, TRUTH) if self.interventions else self.methods


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one method made of one program's weights on one rung.

    Attributes:
        operations: of the true program, selectors included.
        right: share of inputs on which the weights themselves still do what the program does.
        certified: whether the program found compiles to the weights given, up to a permutation.
        equal: whether its compiled form answers as the *true* program's does, on every input.
        places: the share of places at which it does.
        status: what can be proved from the weights alone.
        longer: whether it has more operations than the true one.
        tables: functions printed as tables.
        rank: how `decompiler.decompile.judge` ranks it among others, on the weights given alone.
        budget: seconds that it had.
        program: a hash of the true program's text, so that rows of other programs are never taken for these.
        sops, located, scrubbed: as in `decompiler.explained.Explained`; None where interventions were not asked for, or
            there is no program.
    """

    rung: str
    number: int
    method: str
    operations: int
    right: float
    certified: bool
    equal: bool
    places: float
    status: str
    longer: bool
    tables: int
    seconds: float
    checked: int
    rank: tuple[int, float]
    budget: float
    program: str
    sops: int | None = None
    located: int | None = None
    scrubbed: float | None = None

    @property
    def explained(self) -> bool:
        """Whether interventions find every S-op of the program, and scrubbing leaves the answers as they are."""
        if self.sops is None or self.located is None or self.scrubbed is None:
            return False
        return Explained(self.sops, self.located, self.scrubbed).whole


def held_out(count: int, seed: int, lengths: Sequence[int] = (), shape: tuple[int, int] | None = None) -> list[Program]:
    """Programs of the `typed` distribution that no training has seen, by their canonical form, no two of one text.

    Args:
        lengths: in S-ops, inputs counted; empty for the published 4 to 8.
        shape: tokens (numbers from 0) and longest input that the programs are meant for instead of the published 5 and
            5. Those that cannot be compiled for it are left out.
    Raises:
        ValueError: if `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"{count} programs cannot be drawn: ask for at least 1 with --count")
    found: dict[str, Program] = {}
    for program in attempts("typed", seed, lengths or None):
        if isinstance(program, str) or split_of_program(program) != "test":
            continue
        if shape is not None:
            program = program.meant_for(tuple(range(shape[0])), shape[1])
        try:
            if len(compile_program(program, mode="tracr_compat")) > MOST_PARAMETERS:
                continue
        except RaspError:
            continue
        found.setdefault(str(program), program)
        if len(found) == count:
            break
    return list(found.values())


def run_ladder(config: LadderConfig, out: str | Path, *, show: bool = True) -> list[Outcome]:
    """Decompile every program on every rung by every method; killed and called again, it goes on.

    One line of `OUT/results.jsonl` for each program on each rung and method; calls with other methods and rungs may add
    to the same file, side by side too; other seeds and lengths mean other programs, and need another folder.

    Returns:
        what was asked for: these programs, rungs, methods and this budget.
    Raises:
        RaspError: if the folder holds the ladder of other programs.
    """
    out = Path(out)
    programs = held_out(config.count, config.seed, config.lengths)
    make_ladder(programs, config.rungs, out, config.seed, show_progress=show)
    hashes = [_hash(program) for program in programs]

    def asked(row: Outcome) -> bool:
        own = row.number < len(hashes) and row.program == hashes[row.number]
        return own and row.budget == config.budget and row.rung in config.rungs and row.method in config.rows

    done = [row for row in outcomes(out) if asked(row)]
    known = {(row.rung, row.number, row.method) for row in done if not config.interventions or _intervened(row)}
    jobs = [(rung, number) for rung in dict.fromkeys(config.rungs) for number in range(len(programs))]
    missing = [job for job in jobs if any((*job, method) not in known for method in config.rows)]
    _end_torn_line(out / RESULTS)
    with (
        (out / RESULTS).open("a") as file,
        progress("decompiling", len(jobs), "networks", show, done=len(jobs) - len(missing)) as advance,
    ):
        for rung, number in missing:
            methods = [method for method in dict.fromkeys(config.rows) if (rung, number, method) not in known]
            rows = _decompiled(config, methods, programs[number], rung, number, out)
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
            file.flush()
            advance(1, rung)
    return [row for row in outcomes(out) if asked(row)]


def _hash(program: Program) -> str:
    return blake2b(str(program).encode(), digest_size=8).hexdigest()


def _end_torn_line(path: Path) -> None:
    """A kill, or a full disk, may have left half a line: what follows begins one of its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _intervened(row: Outcome) -> bool:
    """Whether interventions were asked for, or there is nothing to ask them of."""
    return row.sops is not None or row.status == "none"


def _decompiled(
    config: LadderConfig, methods: Sequence[str], program: Program, rung: str, number: int, out: Path
) -> list[Outcome]:
    loaded = load_rung(rung_path(out, rung, number))
    truth = BareTransformer.of(compile_program(program, mode="tracr_compat"))
    problem = Problem(loaded.bare, config.seed)
    rows, held = [], dict[str, dict[str, Any]]()
    for method in methods:
        started = time.perf_counter()
        found = Attempt(program, "tracr_compat") if method == TRUTH else _attempt(problem, method, config.budget)
        seconds = time.perf_counter() - started
        facts = _facts(problem, found, program, truth, method)
        if config.interventions and found.program is not None and facts["status"] != "none":
            text = str(found.program)
            if text not in held:
                held[text] = _held(loaded.bare, found.program, config.seed)
            facts |= held[text]
        rows.append(
            Outcome(
                rung=rung,
                number=number,
                method=method,
                operations=len(program),
                right=loaded.right,
                tables=found.tables,
                seconds=seconds,
                checked=found.checked,
                budget=config.budget,
                program=_hash(program),
                **facts,
            )
        )
    return rows


def _attempt(problem: Problem, method: str, budget: float) -> Attempt:
    try:
        return attempt(problem, cast(Method, method), budget)
    except RaspError:
        return Attempt(None)


def _held(bare: BareTransformer, program: Program, seed: int) -> dict[str, Any]:
    """What interventions say; nothing is located of a program that has no answer on some input."""
    try:
        return explained(bare, program, seed)._asdict()
    except (RaspError, NetworkError):
        return Explained(len(program), 0, 0.0)._asdict()


def _facts(problem: Problem, found: Attempt, program: Program, truth: BareTransformer, method: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"certified": False, "equal": False, "places": 0.0, "status": "none", "longer": False}
    facts["rank"] = (-1, 0.0)
    if found.program is None:
        return facts
    try:
        judged = judge(problem, found, method, measure=False)
        same = behaviour(found.program, truth, mode=found.mode)
    except RaspError:
        return facts
    facts |= {"certified": judged.found.certificate is not None, "status": judged.found.status, "rank": judged.rank}
    if same is not None and same.places:
        facts |= {"equal": same.equal, "places": 1 - same.differing_places / same.places}
    return facts | {"longer": len(found.program) > len(program)}


def outcomes(out: str | Path) -> list[Outcome]:
    """What has been written so far, each row once; a line torn by a kill is left out."""
    path = Path(out) / RESULTS
    rows: dict[tuple[object, ...], Outcome] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
            outcome = Outcome(**{**row, "rank": tuple(row["rank"])})
        except (ValueError, TypeError, KeyError):
            continue
        key = (outcome.rung, outcome.number, outcome.method, outcome.budget, outcome.program)
        if key not in rows or (rows[key].sops is None and outcome.sops is not None):  # two runs may have done one twice
            rows[key] = outcome
    return list(rows.values())


def together(rows: Iterable[Outcome]) -> list[Outcome]:
    """For each program on each rung, of all methods' programs that which is best proved on the weights given.

    The truth has no say in it. Of equals the quickest is taken; seconds are those of all methods.
    """
    by_weights: dict[tuple[str, int], list[Outcome]] = {}
    for row in rows:
        if row.method != TRUTH:
            by_weights.setdefault((row.rung, row.number), []).append(row)
    found = []
    for some in by_weights.values():
        best = max(some, key=lambda row: (row.rank, -row.seconds))
        found.append(replace(best, method=TOGETHER, seconds=sum(row.seconds for row in some)))
    return found


def table(rows: Iterable[Outcome]) -> str:
    """A Markdown table: for each rung and method the share certified, the share that does what the program does, with
    95% intervals by bootstrap over programs, and the seconds it took; and what interventions say, where asked for."""
    rows = list(rows)
    rows += together(rows)
    asked = any(row.sops is not None for row in rows)
    lines = []
    for rung in dict.fromkeys(row.rung for row in rows):
        for method in dict.fromkeys(row.method for row in rows):
            some = [row for row in rows if row.rung == rung and row.method == method]
            if not some:
                continue
            shares = [_share(np.array([getattr(row, name) for row in some], float)) for name in ("certified", "equal")]
            longer, seconds = sum(row.longer for row in some), float(np.median([row.seconds for row in some]))
            lines.append([rung, method, len(some), *shares, longer, f"{seconds:.2f}"])
            if asked:
                lines[-1] += _interventions(some)
    columns = ["rung", "method", "n", "certified", "behaviour equal", "longer", "median s"]
    return markdown_table([*columns, "S-ops located", "equal and explained"] if asked else columns, lines)


def _interventions(rows: Sequence[Outcome]) -> list[str]:
    """Of the S-ops of all programs the share that is located, and of the networks that whose program is equal, with
    every S-op located and scrubbing passed."""
    sops = sum(row.sops or 0 for row in rows)
    located = sum(row.located or 0 for row in rows)
    return [
        f"{located / sops:.1%} of {sops:,}" if sops else "",
        _share(np.array([row.equal and row.explained for row in rows], float)),
    ]


def _share(values: np.ndarray) -> str:
    found = bootstrap_interval(values, seed=0)
    return f"{found.estimate:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
