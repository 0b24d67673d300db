"""A limit of time that long work looks at: whoever sets it is heard by all that runs inside, however deep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ends: ContextVar[float] = ContextVar("_ends", default=math.inf)
now: Callable[[], float] = time.monotonic
"""Seconds, from any beginning. Tests put another clock in its place, which moves only when it is looked at."""


class OutOfTime(Exception):
    """The time that was set is over. Whoever has found something by then catches it and gives that."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Set a limit for what runs inside; one that was set outside and is shorter stays."""
    token = _ends.set(min(_ends.get(), now() + seconds))
    try:
        yield
    finally:
        _ends.reset(token)


def look() -> None:
    """Look at the clock.

    Raises:
        OutOfTime: if the time that was set is over.
    """
    if now() > _ends.get():
        raise OutOfTime


def left() -> float:
    """Seconds that are left; infinity where no limit is set."""
    return _ends.get() - now()
