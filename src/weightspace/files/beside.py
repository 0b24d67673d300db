"""Files that another file names, such as shards and external data: looked for in its folder and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from weightspace.errors import UnreadableError
from weightspace.files.kinds import open_regular


def beside(path: Path, name: str, what: str) -> Path:
    """The file of a name in the folder of `path`.

    A symbolic link may lead to where `path` itself leads, as in the cache of the Hugging Face hub, and nowhere else.

    Args:
        what: the file is to `path`, for the message: a shard, external data.
    Raises:
        UnreadableError: if the name leads out of the folder.
    """
    shown = name[:100]
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or ".." in parts or Path(name).is_absolute() or parts[0].endswith(":"):
        raise UnreadableError(f"{path} is refused: it names {what} outside its folder ({shown!r})")
    found = path.parent / name
    try:
        real = found.resolve()
        homes = (path.parent.resolve(), path.resolve().parent)
    except (OSError, RuntimeError, ValueError):
        raise UnreadableError(f"{path} names {what} that leads nowhere ({shown!r})") from None
    if not any(real.is_relative_to(home) for home in homes):
        raise UnreadableError(f"{path} is refused: it names {what} outside its folder ({shown!r})")
    return found


def opened_beside(path: Path, found: Path, what: str) -> BinaryIO:
    """Such a file opened; an UnreadableError says that it is missing, or is no file, and who named it."""
    try:
        return open_regular(found)
    except UnreadableError as error:
        raise UnreadableError(f"{path} is not whole: of its {what}, {error}") from None
