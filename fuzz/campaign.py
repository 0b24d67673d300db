"""Hours of fuzzing: worker processes, what is done kept on disk, progress, and a table at the end."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from fuzz.case import SHARE, make_case
from fuzz.findings import keep
from fuzz.limits import STUCK
from fuzz.trial import Fault
from fuzz.worker import Batch, Tally, work

SIZE = 100
"""Cases of a batch."""
SILENT = 4 * STUCK
"""Seconds on one case after which a worker is taken for dead."""
SILENT_THEIRS = 20.0
"""The same, while a usual loader reads it."""
STATE = "state.json"


@dataclass
class State:
    """What a campaign has done, by format: how many cases were handed out, and what came of them."""

    seed: int
    next: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    seconds: float = 0.0

    @staticmethod
    def load(out: Path, seed: int) -> State:
        """The state of an earlier run in the same folder with the same seed, or a fresh one."""
        path = out / STATE
        if not path.exists():
            return State(seed)
        record = json.loads(path.read_text())
        if record["seed"] != seed:
            raise ValueError(f"{out} holds a run with seed {record['seed']}: give another folder, or that seed")
        tallies = {name: Tally(**tally) for name, tally in record["tallies"].items()}
        return State(seed, record["next"], tallies, record["seconds"])

    def save(self, out: Path) -> None:
        """Written beside and moved, so that a kill leaves the one before."""
        beside = out / f"{STATE}.new"
        beside.write_text(json.dumps(asdict(self), indent=1) + "\n")
        beside.replace(out / STATE)

    def batches(self, formats: tuple[str, ...], count: int | None) -> Iterator[Batch]:
        """Batches without end, or up to `count` cases of each format; each as often as its share says."""
        turns = [name for name in formats for _ in range(SHARE.get(name, 1))]
        while turns:
            for name in list(turns):
                first = self.next.get(name, 0)
                size = SIZE if count is None else min(SIZE, count - first)
                if size <= 0:
                    turns.remove(name)
                    continue
                self.next[name] = first + size
                yield Batch(name, self.seed, first, size)


class Worker:
    """One process, and the batch that it is on."""

    def __init__(self, number: int, root: Path, formats: tuple[str, ...], out: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.beat: Any = context.Array("q", [-1, 0], lock=False)
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, root / f"worker{number}", formats, out, self.beat)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.batch: Batch | None = None
        self.last, self.since = -1, time.monotonic()

    def give(self, batch: Batch | None) -> None:
        """Hand out a batch; None ends the process."""
        self.batch, self.last, self.since = batch, -1, time.monotonic()
        self.beat[:] = [-1, 0]
        self.pipe.send(batch)

    def lost(self) -> str | None:
        """Why the process has to be given up, if so."""
        if not self.process.is_alive():
            self.process.join()
            return f"crash: the process ended with {self.process.exitcode}"
        if self.batch is not None and self.beat[0] != self.last:
            self.last, self.since = self.beat[0], time.monotonic()
        silent = time.monotonic() - self.since
        theirs = bool(self.beat[1])
        return f"stuck: no word for {silent:.0f} s" if silent > (SILENT_THEIRS if theirs else SILENT) else None

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run(
    out: Path,
    *,
    seconds: float,
    seed: int,
    workers: int,
    formats: tuple[str, ...],
    count: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> State:
    """Fuzz for a time, or a number of cases of each format; what an earlier run in `out` did is not done again.

    Args:
        tell: is given lines of progress.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    state = State.load(out, seed)
    root = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_fast()))
    crew = [Worker(number, root, formats, out / "findings") for number in range(workers)]
    try:
        _drive(crew, state, out, root, seconds, formats, count, tell)
    finally:
        for worker in crew:
            worker.end()
        state.save(out)
        shutil.rmtree(root, ignore_errors=True)
    return state


def _fast() -> Path | None:
    """A folder in memory, where there is one."""
    memory = Path("/dev/shm")
    return memory if sys.platform == "linux" and memory.is_dir() else None


def _drive(
    crew: list[Worker],
    state: State,
    out: Path,
    root: Path,
    seconds: float,
    formats: tuple[str, ...],
    count: int | None,
    tell: Callable[[str], None],
) -> None:
    again: list[Batch] = []
    batches = state.batches(formats, count)
    start, told, before, made = time.monotonic(), 0.0, state.seconds, len(crew)
    ending: set[int] = set()
    while len(ending) < len(crew):
        over = time.monotonic() - start > seconds
        ready = wait([worker.pipe for worker in crew if id(worker) not in ending], timeout=0.5)
        for place, worker in enumerate(crew):
            if id(worker) in ending:
                continue
            answer, answered = None, False
            if worker.pipe in ready:
                with suppress(EOFError, OSError):  # of one that died, which is seen below
                    answer, answered = worker.pipe.recv(), True
            if answered:
                if answer is not None:
                    batch, tally, _ = answer
                    state.tallies.setdefault(batch.format, Tally()).add(tally)
                given = None if over else again.pop() if again else next(batches, None)
                worker.give(given)
                if given is None:
                    ending.add(id(worker))
            elif (why := worker.lost()) is not None:
                again += _given_up(worker, why, state, out)
                worker.end()
                made += 1
                crew[place] = Worker(made, root, formats, out / "findings")
        state.seconds = before + time.monotonic() - start
        if time.monotonic() - told > 10:
            told = time.monotonic()
            tell(_line(state, told - start, seconds))
            state.save(out)


def _given_up(worker: Worker, why: str, state: State, out: Path) -> list[Batch]:
    """Keep the case that a worker died on; what is left of its batch."""
    batch, number = worker.batch, int(worker.beat[0])
    if batch is None or number < batch.first:
        return [] if batch is None else [batch]
    tally = Tally(files=number + 1 - batch.first)
    if worker.beat[1]:
        tally.theirs = 1
    else:
        kind, _, text = why.partition(": ")
        found = Fault("crash" if kind == "crash" else "stuck", text)
        keep(make_case(batch.format, batch.seed, number), [found], out / "findings")
        tally.faults = {f"{batch.format}: {kind}: {text}": 1}
    state.tallies.setdefault(batch.format, Tally()).add(tally)
    left = batch.first + batch.count - number - 1
    return [Batch(batch.format, batch.seed, number + 1, left)] if left else []


def _line(state: State, gone: float, seconds: float) -> str:
    files = sum(tally.files for tally in state.tallies.values())
    found = len({what for tally in state.tallies.values() for what in tally.faults})
    rate = files / max(state.seconds, 1e-9)
    return f"{files:,} files, {rate:.0f}/s, {found} kinds of finding, {max(0.0, seconds - gone):.0f} s left"


def table(state: State) -> str:
    """Files, how many were taken and refused, and the worst time and memory, by format; then the findings."""
    columns = ("files", "accepted", "compared", "refused", "stricter", "worst s", "worst MiB")
    head = f"{'format':12}" + "".join(f"{column:>10}" for column in columns)
    rows, total = [head], Tally()
    for name, tally in [*state.tallies.items(), ("all", total)]:
        rows.append(
            f"{name:12}{tally.files:10,}{tally.accepted:10,}{tally.compared:10,}{tally.refused:10,}{tally.stricter:10,}"
            f"{tally.seconds:10.2f}{tally.memory / 2**20:10.0f}"
        )
        if tally is not total:
            total.add(tally)
    rows.append(
        f"{state.seconds:.0f} s; compared: a usual loader reads it too; stricter: refused, though those that do agree"
    )
    if total.theirs:
        rows.append(f"{total.theirs} of them end a process that reads them with a usual loader")
    rows += [f"FINDING x{count}: {what}" for what, count in sorted(total.faults.items())]
    return "\n".join(rows if total.faults else [*rows, "no finding"])
