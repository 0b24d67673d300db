"""A progress line with rate and time left, for anything longer than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Any, TextIO

PATIENCE = 2.0
"""Seconds of work before anything is shown."""
REDRAW = 0.1
"""Seconds between two drawings on a terminal."""
REPEAT = 10.0
"""Seconds between two plain lines elsewhere, so that a log of CI stays readable."""

QUIET, VERBOSE = 0, 2
"""How much is shown: nothing; what is long (1); and also what is short, from its start."""
_LOUDNESS: ContextVar[int] = ContextVar("loudness", default=1)


@contextmanager
def loudness(level: int) -> Iterator[None]:
    """While it lasts progress is shown as `QUIET` or `VERBOSE` says, or as it is without (1)."""
    token = _LOUDNESS.set(level)
    try:
        yield
    finally:
        _LOUDNESS.reset(token)


@dataclass(frozen=True)
class Stage:
    """One part of longer work.

    Attributes:
        name: such as `stage 2 of 5`, said before what is counted.
        ends: when it should be over, on the clock of `monotonic`.
        later: seconds that the stages behind it should take.
    """

    name: str
    ends: float
    later: float


_STAGE: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def stage(name: str, seconds: float, later: float) -> Iterator[None]:
    """While it lasts every progress line says the stage, and one time left: that of all the work to its end.

    Args:
        name: such as `stage 2 of 5`.
        seconds, later: what this stage and all those behind it should take; what is measured takes over.
    """
    token = _STAGE.set(Stage(name, monotonic() + seconds, later))
    try:
        yield
    finally:
        _STAGE.reset(token)


@contextmanager
def progress(
    description: str, total: int, unit: str = "steps", enabled: bool = True, *, done: int = 0, expected: float = 0.0
) -> Iterator[Callable[..., None]]:
    """Show on stderr how far a loop is: `with progress("training", 400, "networks") as advance: advance(1)`.

    A bar on a terminal; elsewhere a plain line at most every ten seconds and one at the end. Nothing at all is shown
    of what takes less than two seconds. A stderr that is closed or broken is left alone. Starts no thread, so it
    is safe around forks, and draws only inside `advance`.

    Args:
        description: what is being done.
        total: how many units make the whole.
        unit: what is counted, in the plural.
        enabled: False shows nothing.
        done: units that an earlier run did; they do not count towards the rate.
        expected: seconds that the rest should take, if that is known; it counts as much as a tenth of the units.
    Returns:
        advance(count=1, note=""): say that `count` more units are done; `note` replaces the last note.
    """
    line = _Line(description, total, unit, enabled, done, expected)
    try:
        yield line.advance
    finally:
        line.close()


class _Line:
    def __init__(self, description: str, total: int, unit: str, enabled: bool, done: int, expected: float) -> None:
        self.stage = _STAGE.get()
        self.description = description if self.stage is None else f"{self.stage.name}, {description}"
        self.total, self.unit = total, unit
        self.done = self.start = done
        self.expected = expected
        self.first: tuple[int, float] | None = None  # what was done, and when, at the first word of progress
        self.note = ""
        self.started = monotonic()
        self.bar: Any = None
        # Nothing may fail for want of a stderr: a daemon has none, a closed one raises ValueError.
        self.stream: TextIO | None = sys.stderr
        loud = _LOUDNESS.get()
        self.patience = 0.0 if loud == VERBOSE else PATIENCE
        self.shown = enabled and self.stream is not None and loud != QUIET
        self.terminal = False
        with suppress(OSError, ValueError):
            self.terminal = self.stream is not None and self.stream.isatty()
        self.next = self.started + (self.patience if self.terminal or loud == VERBOSE else REPEAT)

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.note = note or self.note
        now = monotonic()
        if self.first is None and self.done > self.start:
            self.first = (self.done, now - self.started)
        if self.shown and now >= self.next:
            self.next = now + (REDRAW if self.terminal else REPEAT)
            self._draw(self.text(now - self.started))

    def close(self) -> None:
        elapsed = monotonic() - self.started
        if self.shown and (self.bar is not None or elapsed > self.patience):
            self._draw(self.text(elapsed, closing=True))
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.stop()

    def text(self, elapsed: float, closing: bool = False) -> str:
        """Such as `400/1,000 networks, 35.2 networks/s, loss 0.31, 17 s left`."""
        rate = (self.done - self.start) / elapsed if elapsed > 0 else 0.0
        speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        parts = [f"{self.done:,}/{self.total:,} {self.unit}", f"{speed} {self.unit}/s"]
        if self.note:
            parts.append(self.note)
        if closing:
            parts.append(f"in {duration(elapsed)}")
        elif rate > 0 or self.expected:
            parts.append(f"{duration(self.left(elapsed))} left")
        return ", ".join(parts)

    def left(self, elapsed: float) -> float:
        """Seconds to the end, of this line or of all the stages.

        Workers that start before anything is done say nothing of the rate: where something was expected only what comes
        behind the first word of progress is measured, and the expectation counts as a tenth of the units.
        """
        units = max(1, self.total - self.start)
        if self.expected:
            share, prior = units / 10, self.expected / units
            done, since = self.first or (self.done, elapsed)
            each = (share * prior + elapsed - since) / (share + self.done - done)
            slower = min(10.0, max(0.1, each / prior))
        else:
            each, slower = elapsed / max(1, self.done - self.start), 1.0
        own = (self.total - self.done) * each
        if self.stage is None:
            return own
        rest = self.stage.ends - self.started - elapsed
        return max(own, rest) + self.stage.later * slower

    def _draw(self, text: str) -> None:
        try:
            if not self.terminal:
                print(f"{self.description}: {text}", file=self.stream, flush=True)
                return
            if self.bar is None:
                self.bar = _bar(self.description, self.total, self.stream)
                self.bar.start()
            self.bar.update(0, completed=self.done, text=text)
            self.bar.refresh()
        except (OSError, ValueError):
            self.shown = False


def _bar(description: str, total: int, stream: Any) -> Any:
    """A bar of rich with one task, of number 0, whose text is its field `text`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(file=stream),
        auto_refresh=False,  # otherwise rich starts a thread
    )
    bar.add_task(description, total=total, text="")
    return bar


def duration(seconds: float) -> str:
    """Such as `7 s`, `3 min 05 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
