"""One run at a time writes into a zoo: a lock that falls with its process, and a note that other hosts see move."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from weightspace.errors import PlaceError

BEAT = 5.0
"""Seconds between two beats of a note."""
SILENCE = 20.0
"""Seconds without a beat after which the run that left a note is taken for dead."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@runtime_checkable
class Note(Protocol):
    """Where a run says that it writes; a place whose every reader sees what was written last."""

    def read(self) -> str:
        """What stands there; empty for nothing."""
        ...

    def write(self, text: str) -> None:
        """Say it; an empty text takes the note away."""
        ...


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Let one run at a time write into a zoo.

    Between runs on one host the lock of the file decides, and falls with its process. File systems that hosts share
    may not show a lock to other hosts, so what decides between hosts is the note in the file, see `noting`.

    Raises:
        PlaceError: if another run writes into it, naming its process and host, or if it cannot be written to.
    """
    path = folder / ".lock"
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            locked = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlaceError(_held(str(folder), FileNote(path).read())) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                locked = False
            with noting(FileNote(path), str(folder), locked=locked):
                yield


@contextmanager
def noting(note: Note, where: str, *, locked: bool) -> Iterator[None]:
    """Leave a note while a run writes: its process, host and start, and a count that goes up every BEAT seconds.

    A note that is found is that of a run that was killed, or of one on a host whose lock is not seen here. It is
    watched for SILENCE seconds, by this host's clock alone: if it moves, its run lives.

    Of runs that start together, and all find none, the last to write goes on: where there is no lock each looks again
    after a little more than a beat. Whoever writes then sees its note written over, by a run that beats already or by
    one that starts; only a write that took longer than BEAT / 5 on its way could escape both.

    Args:
        where: what is written into, for the sentence.
        locked: whether a lock shows already that no other run of this host holds it.
    Raises:
        PlaceError: if the note moves, or another run has left its own.
    """
    host = socket.gethostname()
    found = note.read()
    if found and not (locked and f" on {host} " in found):
        deadline = time.monotonic() + SILENCE
        while (now := note.read()) and time.monotonic() < deadline:
            if now != found:
                raise PlaceError(_held(where, now))
            time.sleep(BEAT / 5)
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())  # for the reader of the sentence alone
    # containers on two hosts may share the name of a host and a process's number
    ours = f"process {os.getpid()} on {host} since {started}, run {secrets.token_hex(4)}"
    note.write(f"{ours}, beat {0:010}")
    if not locked:
        time.sleep(BEAT * 1.2)
        if not (now := note.read()).startswith(ours):
            raise PlaceError(_held(where, now))
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(BEAT):
            count += 1
            with suppress(Exception):  # one beat may fail with the network; the run says what fails for good
                note.write(f"{ours}, beat {count:010}")

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(Exception):
            if note.read().startswith(ours):
                note.write("")


@dataclass(frozen=True)
class FileNote:
    """A note in a file, opened anew each time: only so does NFS give what another host wrote."""

    path: Path

    def read(self) -> str:
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def write(self, text: str) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            # a note of the same length is written over the last: truncated first, it would look like none for a moment
            os.pwrite(file, text.encode(), 0)
            os.ftruncate(file, len(text.encode()))
        finally:
            os.close(file)  # which is when NFS sends it; a note need not outlive the machine


def _held(where: str, note: str) -> str:
    holder = note.split(",")[0].strip() or "its note is empty yet"
    return f"another run is writing into {where} ({holder}): wait for it or end it"


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """What is not allowed in the folder as a sentence.

    Raises:
        PlaceError: if it cannot be written to.
    """
    try:
        yield
    except OSError as error:
        inside = error.filename and Path(error.filename).absolute().is_relative_to(folder.absolute())
        resolved = error.filename and Path(error.filename).absolute().is_relative_to(folder.resolve())
        above = error.filename and folder.absolute().is_relative_to(Path(error.filename).absolute())
        if error.errno not in _UNWRITABLE or not (inside or resolved or above):
            raise
        raise PlaceError(
            f"{folder} cannot be written to ({(error.strerror or str(error)).lower()}): make it writable, or choose "
            "another folder with --out; what was finished is kept, and the same command goes on from it"
        ) from error
