"""A process that tries batches of cases, one after another, and tells what came of each batch."""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fuzz.canary import Canary
from fuzz.case import make_case
from fuzz.findings import EXAMPLES, keep, signature, smaller
from fuzz.trial import Stage, attempt

WARM = 10
"""Cases of each format that are read before any counts: what is imported late is imported then."""


@dataclass(frozen=True)
class Batch:
    """Cases of one format with numbers from `first` on."""

    format: str
    seed: int
    first: int
    count: int


@dataclass
class Tally:
    """What came of cases: how many, and the worst of them.

    Attributes:
        theirs: how often a usual loader took the process with it.
        seconds, memory: the worst of one case, in seconds of the processor and bytes, and the numbers of those cases.
        faults: how often each signature was seen.
    """

    files: int = 0
    accepted: int = 0
    refused: int = 0
    compared: int = 0
    stricter: int = 0
    theirs: int = 0
    seconds: float = 0.0
    slowest: int = 0
    memory: int = 0
    largest: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Put another tally to this one."""
        for name in ("files", "accepted", "refused", "compared", "stricter", "theirs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.seconds > self.seconds:
            self.seconds, self.slowest = other.seconds, other.slowest
        if other.memory > self.memory:
            self.memory, self.largest = other.memory, other.largest
        for what, count in other.faults.items():
            self.faults[what] = self.faults.get(what, 0) + count


def try_batch(batch: Batch, folder: Path, canary: Canary, out: Path | None, beat: Any = None) -> Tally:
    """Try a batch in a folder that is empty after it; findings are kept below `out` as they come.

    Args:
        beat: two shared numbers: the case that is being tried, and 1 while the usual loaders read it, else 0.
    """
    tally = Tally()
    for number in range(batch.first, batch.first + batch.count):
        case = make_case(batch.format, batch.seed, number)
        if beat is not None:
            beat[0] = number
        trial = attempt(case, folder, canary, partial(_at, beat) if beat is not None else _nowhere)
        tally.files += 1
        tally.accepted += trial.accepted
        tally.refused += not trial.accepted
        tally.compared += trial.compared
        tally.stricter += trial.stricter
        if trial.seconds > tally.seconds:
            tally.seconds, tally.slowest = trial.seconds, number
        if trial.memory > tally.memory:
            tally.memory, tally.largest = trial.memory, number
        for what in sorted({signature(case, fault) for fault in trial.faults}):
            tally.faults[what] = tally.faults.get(what, 0) + 1
            if out is not None and _is_new(what, out):
                keep(smaller(case, trial, folder, canary), trial.faults, out)
    return tally


def _at(beat: Any, stage: Stage) -> None:
    beat[1] = int(stage == "theirs")


def _nowhere(_: Stage) -> None:
    return


_kept: dict[str, int] = {}


def _is_new(what: str, out: Path) -> bool:
    """Whether fewer than `EXAMPLES` of a fault are kept by this process."""
    seen = _kept.get(f"{out}/{what}", 0)
    _kept[f"{out}/{what}"] = seen + 1
    return seen < EXAMPLES


def warm(formats: tuple[str, ...], folder: Path, canary: Canary) -> None:
    """Read a few files of each format, so that modules that are imported late are there."""
    for package in (
        "h5py",
        "gguf",
        "onnx",
    ):  # h5py asks the system for its processor, by a process, when it is imported
        with suppress(ImportError):
            importlib.import_module(package)
    for name in formats:
        for number in range(WARM):
            attempt(make_case(name, -1, number), folder, canary)


def work(pipe: Connection, cage: Path, formats: tuple[str, ...], out: Path, beat: Any) -> None:
    """Try the batches that come through a pipe until None comes; the main function of a process."""
    import torch

    torch.set_num_threads(1)
    cage.mkdir(parents=True, exist_ok=True)
    os.chdir(cage)
    _die_with_parent()
    canary, files = Canary(), Path("files")
    warm(formats, files, canary)
    pipe.send(None)
    while (batch := pipe.recv()) is not None:
        started = time.monotonic()
        tally = try_batch(batch, files, canary, out, beat)
        pipe.send((batch, tally, time.monotonic() - started))


def _die_with_parent() -> None:
    """On Linux, end when the parent does, also where it is killed."""
    try:
        ctypes.CDLL(None).prctl(1, 15)
    except (OSError, AttributeError):
        return
