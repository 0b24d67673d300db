"""What a push or a pull carries: megabytes while it runs, files and a revision when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from weightspace.files.progress import progress

MB = 10**6


@dataclass(frozen=True)
class Transfer:
    """What a push or a pull came to.

    Attributes:
        address: of the repository, or the folder it was pushed to or pulled from.
        revision: its commit; of a folder the SHA-256 of its manifest.
        files: how many there are.
        moved: how many of them had to be carried; the others were there.
        moved_bytes: of those.
    """

    address: str
    revision: str
    files: int
    moved: int
    moved_bytes: int

    def __str__(self) -> str:
        moved = f"{self.moved} of them carried ({self.moved_bytes / MB:,.1f} MB)" if self.moved else "all there already"
        return f"revision {self.revision}, {self.files} files, {moved}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def megabytes(description: str, total: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A progress line in MB; what it gives takes bytes."""
    moved = 0
    with progress(description, -(-total // MB), "MB", show) as advance:

        def more(count: int) -> None:
            nonlocal moved
            before, moved = moved // MB, moved + count
            advance(moved // MB - before)

        yield more
