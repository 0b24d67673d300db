"""One case read in the cage, under limits of time and memory, and held against the usual loaders."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fuzz.canary import Canary
from fuzz.case import Case, clear, write_case
from fuzz.limits import STUCK, Stuck, alarm, limited, peak, reset_peak
from fuzz.loaders import Reading, equal, readings
from fuzz.scanning import wrong
from weightspace.errors import WeightspaceError
from weightspace.files import checkpoints

SECONDS, BYTES_PER_SECOND = 2.0, 20e6
"""A file may take so long, and a second more for each so many bytes; in seconds of the processor."""
SCANNED = 20
"""One case of so many is scanned too, and every one of the examples."""
ROOM, TIMES = 300 * 2**20, 4
"""Bytes of memory that a reading may take at most, and how often the file's size besides."""
THEIRS = 5 * 2**30
"""Bytes of addresses for the usual loaders, some of which fill as much memory as a pickle's memo says."""
UNREAD = re.compile(r"([\d,]+) arrays in it stand in no dictionary and were not read").match
"""A note of the reader's: what it leaves out it has to tell."""
Stage = Literal["ours", "theirs"]
Kind = Literal[
    "ran", "raised", "stuck", "slow", "memory", "expands", "other weights", "ambiguous", "left out", "would call"
]


@dataclass(frozen=True)
class Fault:
    """Something that a reader may not do."""

    kind: Kind | Literal["message", "pieces", "crash", "scan"]
    text: str


@dataclass
class Trial:
    """What came of one case.

    Attributes:
        accepted: whether the reader gave weights.
        compared: whether it gave weights that a usual loader reads too.
        stricter: whether it refused what every usual loader that takes the file reads alike.
        seconds: of the processor.
        memory: bytes at the peak beyond what was in use before.
    """

    accepted: bool = False
    reason: str = ""
    stricter: bool = False
    compared: bool = False
    seconds: float = 0.0
    memory: int = 0
    faults: list[Fault] = field(default_factory=list)

    def fault(self, kind: Any, text: object) -> None:
        """One more fault."""
        self.faults.append(Fault(kind, " ".join(str(text).split())[:500]))


@dataclass
class Read:
    """Arrays that the reader gave, by the keys that lead to each; every name that it knows at each place; and how many
    arrays it says that it did not read."""

    arrays: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)
    known: dict[tuple[str, ...], set[str]] = field(default_factory=dict)
    unread: int = 0


def attempt(case: Case, folder: Path, canary: Canary, stage: Callable[[Stage], None] = lambda _: None) -> Trial:
    """Write a case into a folder, read it, compare, and take it away.

    Args:
        stage: is told whose turn it is, so that a crash of a usual loader is not taken for one of ours.
    """
    stage("ours")
    path = write_case(case, folder)
    try:
        trial, read = _watched(case, path, canary)
        stuck = any(fault.kind == "stuck" for fault in trial.faults)
        if (
            trial.seconds > _seconds(case) and not stuck
        ):  # other work on the machine makes one measurement slow, not three
            again = [_watched(case, path, canary)[0].seconds for _ in range(2)]
            trial.seconds = min(trial.seconds, *again)
            if trial.seconds > _seconds(case):
                trial.fault("slow", f"{trial.seconds:.1f} s for {case.size} bytes")
        content = case.files.get(case.main)
        usual: list[Reading] = []
        if content is not None:
            stage("theirs")
            with limited(THEIRS):
                usual, calls = readings(path, content)
                _compare(trial, read, usual, calls)
            canary.sang()
            stage("ours")
        if not stuck and (case.format == "verdict" or case.number % SCANNED == 0):
            _scanned(trial, path, usual, canary)
            canary.sang()  # of the usual loaders, which is not ours to judge
        return trial
    finally:
        clear(folder)


def _seconds(case: Case) -> float:
    return SECONDS + case.size / BYTES_PER_SECOND


def _watched(case: Case, path: Path, canary: Canary) -> tuple[Trial, Read]:
    """The reader on one file, with everything that it may not do noticed."""
    trial, read = Trial(), Read()
    canary.sang()
    before, begun = reset_peak(), time.process_time()
    try:
        with limited(), warnings.catch_warnings(record=True) as warned, alarm(STUCK), canary.watch(path, _links(case)):
            warnings.simplefilter("always")
            _read(case, path, trial, read)
        if warned:
            trial.fault("message", f"a warning: {warned[0].message}")
    except WeightspaceError as error:
        trial.accepted, trial.reason = False, str(error)
        if not _printable(trial.reason):
            trial.fault("message", f"letters that are not printed in {trial.reason!r}")
    except Stuck:
        trial.fault("stuck", f"no end after {STUCK:g} s")
    except Exception as error:
        trial.fault("raised", f"{type(error).__name__}: {error}{_where(error)}")
    trial.seconds = time.process_time() - begun
    trial.memory = max(0, peak() - before)
    for what in canary.sang():
        trial.fault("ran", what)
    if trial.memory > TIMES * case.size + ROOM:
        trial.fault("memory", f"{trial.memory / 2**20:.0f} MiB for {case.size} bytes")
    return trial, read


def _links(case: Case) -> bool:
    """Whether links out of the folder are followed: the hub's cache keeps shards so."""
    return case.format == "shards"


def _read(case: Case, path: Path, trial: Trial, read: Read) -> None:
    found = checkpoints.outlines(path)
    trial.accepted = True
    for one in found:
        read.known.setdefault(tuple(one.part), set()).update(one.shapes)
        told = [int(said[1].replace(",", "")) for said in map(UNREAD, one.notes) if said]
        read.unread = max([read.unread, *told])
    numbers = sum(prod(shape) for one in found for shape in one.floating.values())
    if 4 * numbers > TIMES * case.size + ROOM:  # a sparse file is as large as it says
        if not case.odds:
            trial.fault("expands", f"{numbers} numbers of {case.size} bytes")
        return
    for one in found:
        floating = one.floating
        for name, array in checkpoints.read(one, list(floating)).items():
            read.arrays[(*one.part, name)] = array
            if array.shape != tuple(floating[name]):
                trial.fault("pieces", f"{name!r} is said to be {floating[name]}, and is {array.shape}")
        for name in list(floating)[:2]:
            whole, place, same = read.arrays[(*one.part, name)].reshape(-1), 0, True
            for piece in checkpoints.pieces(one, name, max(5, prod(floating[name]) // 3)):  # never two arrays at once
                same = same and np.array_equal(piece, whole[place : place + len(piece)], equal_nan=True)
                place += len(piece)
            if not same or place != len(whole):
                trial.fault("pieces", f"{name!r} in pieces is not the array")


def _scanned(trial: Trial, path: Path, usual: list[Reading], canary: Canary) -> None:
    try:
        with limited(), alarm(STUCK):
            said = wrong(path, usual)
    except Stuck:
        said = f"no end of the scan after {STUCK:g} s"
    if said is not None:
        trial.fault("scan", said)
    for what in canary.sang():
        trial.fault("ran", f"in a scan: {what}")


def _compare(trial: Trial, read: Read, usual: list[Reading], calls: list[str]) -> None:
    """Hold what was read against the usual loaders."""
    trial.compared = trial.accepted and bool(usual) and bool(read.arrays)
    agree = all(usual[0].same(other) for other in usual[1:])
    if not trial.accepted:
        trial.stricter = bool(usual) and agree and not calls and not trial.faults
        return
    if not agree:
        trial.fault(
            "ambiguous", f"{', '.join(one.loader for one in usual)} read it in different ways, and it was accepted"
        )
    if calls and read.arrays:
        trial.fault("would call", f"accepted, and the plain unpickler calls {', '.join(calls)}")
    for reading in usual if agree else []:
        _against(trial, read, reading)


def _against(trial: Trial, read: Read, reading: Reading) -> None:
    flat = reading.flat()
    for keys, array in read.arrays.items():
        theirs = reading.arrays.get(keys) or flat.get(_joined(keys, reading))
        if theirs is None:
            trial.fault("other weights", f"{reading.loader} has no {'.'.join(keys)!r}")
        elif not all(equal(theirs[0], one) for one in theirs[1:]):
            trial.fault("ambiguous", f"{'.'.join(keys)!r} is several arrays for {reading.loader}")
        elif not equal(array, theirs[0]):
            trial.fault("other weights", f"{reading.loader} has other numbers in {'.'.join(keys)!r}")
    known = {_joined((*part, name), reading) for part, names in read.known.items() for name in names}
    missing = sorted(name for name in flat if name not in known)
    if len(missing) > read.unread:
        trial.fault("left out", f"{reading.loader} has {len(missing)} arrays more, such as {missing[0]!r}")


def _joined(keys: tuple[str, ...], reading: Reading) -> str:
    """Keys with dots between; a path inside HDF5 is keys too."""
    joined = ".".join(keys)
    return joined.replace("/", ".") if reading.loader.startswith("h5py") else joined


def _where(error: BaseException) -> str:
    """The line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def _printable(text: str) -> bool:
    return text.isprintable() and text.encode("utf-8", "replace").decode() == text
