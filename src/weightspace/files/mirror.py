"""A zoo's copy in an object store or on whatever else fsspec knows: put there and fetched, file by file."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightspace.errors import PlaceError
from weightspace.files.atomic import write_atomically
from weightspace.files.lock import noting

_LEFT = re.compile(r"(shards/)?\.[^/]+\.\d+\.tmp")
"""Names under which a run that was killed left files half put; nobody else's are touched."""


@dataclass(frozen=True)
class Mirror:
    """Where the files of a zoo are copied to, under the names that they have in its folder.

    A file appears there whole or not at all: it is put under another name, its size is compared, and it is renamed.
    What is fetched is held against the checksums of the store by whoever reads it, as any shard is.

    Attributes:
        url: such as s3://bucket/zoo, gs://bucket/zoo or file:///mnt/zoo.
    """

    url: str

    @property
    def name(self) -> str:
        """What the zoo is called: the last part of the URL.

        Raises:
            PlaceError: if there is none, or it is no URL.
        """
        scheme, _, path = self.url.partition("://")
        name = path.rstrip("/").rpartition("/")[2]
        if not re.fullmatch(r"[a-z][a-z0-9+.-]+", scheme) or name in ("", ".", ".."):
            raise PlaceError(
                f"{self.url!r} is no place for a zoo: give a URL that ends in its name, such as s3://BUCKET/NAME or "
                "file:///FOLDER/NAME, or a folder"
            )
        return name

    def writing(self) -> AbstractContextManager[None]:
        """Let one run at a time write there, see `lock.noting`; object stores know no locks.

        Raises:
            PlaceError: if another run does.
        """
        return noting(self, self.url, locked=False)

    def sizes(self) -> dict[str, int]:
        """The bytes of each file that is there, by name, without what runs that were killed left half put."""
        return {name: size for name, size in self._found().items() if name != ".lock" and not _LEFT.fullmatch(name)}

    def clear(self) -> None:
        """Take away what runs that were killed left half put; for a place that is known to be a zoo's."""
        for name in self._found():
            if _LEFT.fullmatch(name):
                self.remove(name)

    def _found(self) -> dict[str, int]:
        with self._sentences():
            system, root = self._place()
            system.invalidate_cache()  # other processes put files too
            return {path[len(root) :].lstrip("/"): facts["size"] for path, facts in _files(system, root).items()}

    def get(self, name: str) -> bytes | None:
        """The bytes of a file, or None if it is not there."""
        with self._sentences():
            system, root = self._place()
            try:
                return system.cat_file(f"{root}/{name}")
            except FileNotFoundError:
                return None

    def fetch(self, name: str, folder: Path) -> None:
        """Copy a file that is there into the zoo's folder."""
        content = self.get(name)
        if content is not None:
            write_atomically(folder / name, content)

    def put(self, name: str, folder: Path) -> None:
        """Copy a file of the zoo's folder there."""
        with self._sentences():
            system, root = self._place()
            target, source = f"{root}/{name}", folder / name
            parent, _, last = target.rpartition("/")
            temporary = f"{parent}/.{last}.{socket.gethostname()}.{os.getpid()}.tmp"
            system.makedirs(parent, exist_ok=True)
            system.put_file(str(source), temporary)
            if system.size(temporary) != source.stat().st_size:
                raise OSError(f"{name} arrived with {system.size(temporary)} of {source.stat().st_size} bytes")
            system.mv(temporary, target)

    def put_missing(self, names: Sequence[str], folder: Path, last: str) -> None:
        """Copy there what is missing or of another size, and at the very end `last`, which vouches for all.

        Files of the same size are the same where `last` is.
        """
        there = self.sizes()
        vouched = self.get(last) == (folder / last).read_bytes()
        if not vouched:
            self.remove(last)
        for name in names:
            shard = "/" in name  # a shard is made from the same plans everywhere, so it is known by its size
            if there.get(name) != (folder / name).stat().st_size or not (vouched or shard):
                self.put(name, folder)
        if not vouched:
            self.put(last, folder)

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        with self._sentences():
            system, root = self._place()
            if system.exists(f"{root}/{name}"):
                system.rm_file(f"{root}/{name}")

    # -- its note -----------------------------------------------------------------------------------------------------

    def read(self) -> str:
        return (self.get(".lock") or b"").decode(errors="replace")

    def write(self, text: str) -> None:
        if not text:
            return self.remove(".lock")
        with self._sentences():
            system, root = self._place()
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/.lock", text.encode())
            return None

    def _place(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(self.url)
        return system, root.rstrip("/")

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """What goes wrong there as one sentence.

        Raises:
            PlaceError: whatever it is.
        """
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # which has a sentence of its own
                raise
            raise self._unusable(error) from error
        except ImportError as error:
            raise PlaceError(f"{self.url} needs a package of its own ({error}): install it first") from error
        except Exception as error:  # each store's library has errors of its own
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> PlaceError:
        why = " ".join(str(error).split()) or type(error).__name__
        return PlaceError(
            f"{self.url} cannot be used ({why}): see that it can be written to from here, then run the same command "
            "again; what was finished is kept in the zoo's own folder"
        )


def _files(system: Any, root: str) -> dict[str, dict[str, Any]]:
    try:
        return system.find(root, detail=True)
    except FileNotFoundError:
        return {}
