"""Proof that nothing runs: a module that sings when it is touched, and a watch on what Python itself reports."""

from __future__ import annotations

import copyreg
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CAGE = Path(__file__).parent / "cage"
"""A folder on the path of modules, with `weightspace_canary` in it."""
NEST = "canary"
"""The file that every hostile payload makes in the working folder."""
EXTENSION = 240
"""The code under which pickle's EXT opcodes reach the canary."""
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "socket.connect", "pty.")
FORBIDDEN += ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")
FORBIDDEN += ("shutil.", "webbrowser.", "pickle.find_class", "ctypes.dlopen")
FORBIDDEN += ("os.putenv", "urllib.", "ftplib.", "smtplib.", "http.", "builtins.input")
"""Beginnings of the names of Python's audit events that no reading of weights may cause."""


def lay(secret: np.ndarray) -> None:
    """Lay weights beside the folder of cases, as files that no reader of a case may open."""
    Path("secret").write_bytes(secret.tobytes())
    header = b'{"0.weight":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (secret.size, secret.nbytes)
    Path("secret.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + secret.tobytes())


class Canary:
    """Watches one process by one of Python's audit hooks, which stay for good: it is armed while a file is read.

    Attributes:
        seen: what was reported while it was armed.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.armed = False
        self.folder, self.main, self.links = "", "", False
        if str(CAGE) not in sys.path:
            sys.path.insert(0, str(CAGE))
        key = ("weightspace_canary", "sing")
        if key not in copyreg._extension_registry:  # type: ignore[attr-defined]
            copyreg.add_extension(*key, EXTENSION)
        lay(np.full(64, 1e9, np.float32))
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "subprocess.Popen" and "weightspace.files.hdf5_walker" in arguments[1]:
            return  # which reads HDF5 first, and is started anew when it has crashed
        if event.startswith(FORBIDDEN):
            self.seen.append(f"{event}{arguments!r}"[:200])
        elif event == "import" and arguments[0] == "weightspace_canary":
            self.seen.append("import of the canary")
        elif event == "open":
            self._opened(*arguments)

    def _opened(self, path: Any, mode: Any, flags: int) -> None:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or (
            isinstance(mode, str) and set(mode) & set("wax+")
        ):
            self.seen.append(f"{path!r} opened to write")
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return
        named, led = os.path.abspath(path), os.path.realpath(path)  # noqa: PTH100 - links stay
        if named == self.main or (self.links and named.startswith(self.folder)):
            return
        outside = not led.startswith(self.folder)
        if (
            outside
            and not path.startswith((sys.prefix, sys.base_prefix, "/usr", "/proc", "/sys"))
            and ".py" not in path
        ):
            self.seen.append(f"{path!r} outside of its folder opened")

    @contextmanager
    def watch(self, main: Path, links: bool = False) -> Iterator[None]:
        """Armed; a file outside of the folder of `main` that is opened counts as seen.

        Args:
            main: the file that is read, which may itself be a link.
            links: whether other links may lead out of the folder, as those of the hub's cache do.
        """
        self.main, self.links = os.path.abspath(main), links  # noqa: PTH100
        self.folder, self.armed = os.path.realpath(main.parent) + os.sep, True
        try:
            yield
        finally:
            self.armed = False

    def sang(self) -> list[str]:
        """What ran since this was asked last; asking again gives nothing."""
        found = list(self.seen)
        self.seen.clear()
        if marks := sys.__dict__.pop("_weightspace_canary", None):
            found += [f"the canary was {mark}" for mark in marks]
            sys.modules.pop("weightspace_canary", None)
        if os.path.lexists(NEST):
            found.append("the canary's file was made")
            Path(NEST).unlink()
        return found
