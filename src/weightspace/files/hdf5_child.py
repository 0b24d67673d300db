"""HDF5 read by a child process first: its library crashes on some damaged files, and takes the process along."""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

WALKER = "weightspace.files.hdf5_walker"
LONGEST, BYTES_PER_SECOND = 20.0, 10e6
"""Seconds that a child may take, and one more for each so many bytes of the file."""


class _Child:
    """A process that reads what it is told to, and answers with a line; it ends with this one."""

    def __init__(self) -> None:
        # -P: a module of the folder that is scanned is never imported
        own = os.pathsep.join(path for path in sys.path if path)
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", WALKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": own},
        )
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self.end)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.answers.put(line)
        self.answers.put(b"")

    def ask(self, question: bytes, seconds: float) -> bool | None:
        """Whether it answered in time; None if it cannot run at all."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(question + b"\n")
            self.process.stdin.flush()
            if self.answers.get(timeout=seconds):
                return True
        except (queue.Empty, OSError):
            self.process.kill()
        self.process.wait()
        # a process that ended by itself could not begin: a broken installation is not the file's fault
        return False if self.process.returncode < 0 else None

    def end(self) -> None:
        """End it."""
        atexit.unregister(self.end)
        if self.owner == os.getpid():
            with suppress(OSError):
                self.process.kill()
                self.process.communicate(timeout=1)


_lock = threading.Lock()
_child: _Child | None = None


def endures(path: Path, zipped: bool, name: str | None = None) -> bool:
    """Whether a process that looks at all objects of a file, or reads one of its arrays, comes through.

    An error that it meets is none of its business: whoever reads the file meets it again, and says it.

    Args:
        zipped: whether the HDF5 is inside a zip of Keras 3.
        name: path of the array; None for the objects.
    """
    global _child
    question = json.dumps([str(path.absolute()), zipped, name]).encode()
    with suppress(OSError):
        seconds = LONGEST + path.stat().st_size / BYTES_PER_SECOND
        with _lock:
            if _child is None or _child.owner != os.getpid():
                _child = _Child()
            answered = _child.ask(question, seconds)
            if answered is not True:
                _child.end()
                _child = None
            return answered is not False
    return True
