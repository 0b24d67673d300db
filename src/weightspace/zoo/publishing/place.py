"""A place where something is published, whatever it is: files by their names, at a revision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weightspace.zoo.publishing.form import Content


class Place(ABC):
    """Where something is published: files by their names, at a revision."""

    @abstractmethod
    def __str__(self) -> str:
        """For messages."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where people find it."""

    @property
    @abstractmethod
    def revision(self) -> str:
        """At which it is read, or to which it was written last."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """`from` and whatever else tells one place from another, as JSON."""

    @abstractmethod
    def may_write(self) -> None:
        """Say that it is to be written to; raise an error if it is clear at once that this cannot be."""

    @abstractmethod
    def look(self, revision: str | None = None) -> dict[str, int]:
        """Sizes of all its files by their names; from now on they are read at that revision, or at the present one."""

    @abstractmethod
    def holds(self, name: str, content: Content) -> bool:
        """Whether a file that is there has this content."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A small file."""

    @abstractmethod
    def fetch(self, name: str, folder: Path) -> Path:
        """Bring a file into a folder, under its name; it may arrive damaged."""

    @abstractmethod
    def portion(self, total: int) -> int:
        """Bytes that one change may carry of so many."""

    @abstractmethod
    def change(self, files: Mapping[str, Content], gone: Sequence[str], advance: Callable[[int], None]) -> None:
        """Write files and delete others, in this order, and call `advance` with the bytes that were written."""
