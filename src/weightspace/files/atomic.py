"""Files that appear whole or not at all, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from weightspace.errors import PlaceError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a kill, a crash or a full disk leaves the old file or the new one, whole."""
    path = path.resolve()  # a link stays a link, and what it leads to is written
    if path.exists() and not path.is_file():
        raise PlaceError(f"{path} is no regular file, so it is not replaced: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself must reach the disk too
    finally:
        os.close(directory)


def file_hash(path: str | Path, kind: str = "sha256") -> str:
    """The hash of a file in hexadecimal, read piece by piece; `kind` is `md5` where somebody else chose it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
