"""Limits of time and memory around one reading, and what it took of both."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STUCK = 30.0
"""Seconds on the wall after which a reading counts as stuck."""
ADDRESSES = 12 * 2**30
"""Bytes of addresses beyond which an allocation fails: a bomb is reported and does not take the machine."""


class Stuck(BaseException):
    """No reading: it did not end. Not an `Exception`, which the reader may catch."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises `Stuck` when the time is up, where the interpreter gets to it."""

    def ring(*_: object) -> None:
        raise Stuck

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def limited(addresses: int = ADDRESSES) -> Iterator[None]:
    """Addresses limited, in bytes, so that a bomb fails to allocate."""
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (addresses, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def reset_peak() -> int:
    """Bytes in use now; the peak of the process begins anew where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Bytes at the peak, since the last reset on Linux."""
    try:
        with open("/proc/self/status", "rb") as status:  # noqa: PTH123 - this runs a million times
            for line in status:
                if line.startswith(b"VmHWM"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
