"""A folder as a place to publish in: the layout of a repository, without its history."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weightspace.files.atomic import file_hash, write_atomically
from weightspace.zoo.publishing.form import Content, Publishable, PublishingError, hidden
from weightspace.zoo.publishing.place import Place
from weightspace.zoo.store import MANIFEST

BLOCK = 2**20


class FolderPlace(Place):
    """A folder with the layout of a repository; it has no history."""

    def __init__(self, folder: Path, form: Publishable) -> None:
        self.folder, self.form = folder, form

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def address(self) -> str:
        return str(self.folder)

    @property
    def revision(self) -> str:
        return file_hash(self.folder / MANIFEST)

    def identity(self) -> dict[str, Any]:
        return {"from": str(self.folder.resolve())}

    def may_write(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise PublishingError(f"{self} is a file: choose a folder")

    def look(self, revision: str | None = None) -> dict[str, int]:
        # what we look for lies no deeper, and the folder may be somebody's whole disk
        files = [path for pattern in ("*", "*/*") for path in self.folder.glob(pattern) if path.is_file()]
        named = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        found = {name: size for name, size in named.items() if not hidden(name)}
        if revision is not None and (MANIFEST not in found or self.revision != revision):
            raise PublishingError(f"{self} has changed since the pull began: delete what was pulled and begin anew")
        return found

    def holds(self, name: str, content: Content) -> bool:
        return file_hash(self.folder / name) == content.sha256

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def fetch(self, name: str, folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(self.folder / name, folder / name)
        return folder / name

    def portion(self, total: int) -> int:
        del total  # file by file
        return 0

    def change(self, files: Mapping[str, Content], gone: Sequence[str], advance: Callable[[int], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # without a history the manifest goes first and comes last
        for name in (MANIFEST, *gone) if MANIFEST in files else gone:
            (self.folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            path = self.folder / name
            if isinstance(content.source, bytes):
                write_atomically(path, content.source)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                # of one name, so that the next push takes the place of what a killed one leaves
                temporary = path.with_name(f".{path.name}.tmp")
                _copy(content.source, temporary)
                if file_hash(temporary) != content.sha256:
                    temporary.unlink()
                    raise PublishingError(f"{content.source} changed while it was pushed: push it again")
                temporary.replace(path)
            advance(content.size)


def _copy(source: Path, target: Path) -> None:
    """Copy a file to the disk, past its caches.

    Raises:
        OSError: which names the target where the disk is full.
    """
    try:
        with source.open("rb") as read, target.open("wb") as write:
            shutil.copyfileobj(read, write, BLOCK)
            write.flush()
            os.fsync(write.fileno())
    except OSError as error:
        if error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
