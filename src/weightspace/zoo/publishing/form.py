"""What can be published, a zoo or a model: which files it has, and what each of them has to be."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from weightspace.errors import WeightspaceError
from weightspace.files.atomic import file_hash
from weightspace.files.hub import Kind
from weightspace.zoo.store import DESCRIPTION, FORMAT, INDEX, SHARDS, sealed

CARD = "README.md"
MODEL = "model.safetensors"


class PublishingError(WeightspaceError):
    """Something that cannot be pushed or pulled, or a place that it cannot go to or come from."""


@dataclass(frozen=True)
class Publishable:
    """What can be published.

    Attributes:
        word: for messages, and the group of its verbs.
        kind: of its repository.
        names: what its files may be called, as a regular expression; nothing else is ever written by a pull.
        needed: files without which it is none.
    """

    word: str
    kind: Kind
    names: str
    needed: tuple[str, ...]

    def owns(self, name: str) -> bool:
        return re.fullmatch(self.names, name) is not None


ZOO_FORM = Publishable(
    "zoo",
    "dataset",
    rf"{re.escape(DESCRIPTION)}|{re.escape(INDEX)}|{SHARDS}/[0-9]{{5,9}}\.(safetensors|parquet)",
    (DESCRIPTION, INDEX),
)
MODEL_FORM = Publishable("model", "model", re.escape(MODEL), (MODEL,))
FORMS = (ZOO_FORM, MODEL_FORM)


@dataclass(frozen=True)
class Content:
    """A file to be pushed.

    Attributes:
        source: a file, or its bytes.
        sha256: what they have to be, hexadecimal.
        size: bytes.
    """

    source: Path | bytes
    sha256: str
    size: int

    @staticmethod
    def of(source: Path | bytes, sha256: str | None = None) -> Content:
        """A file as it is now.

        Args:
            sha256: what it has to be, where that is known.
        Raises:
            PublishingError: if there is no such file.
        """
        if isinstance(source, bytes):
            return Content(source, hashlib.sha256(source).hexdigest(), len(source))
        if not source.is_file():
            raise PublishingError(f"{source} is missing: restore it first")
        return Content(source, sha256 or file_hash(source), source.stat().st_size)

    def check(self) -> None:
        """Raise a PublishingError unless the file is what it has to be."""
        if isinstance(self.source, Path) and file_hash(self.source) != self.sha256:
            raise PublishingError(f"{self.source} is damaged: nothing damaged is pushed; restore it first")


def model_manifest(model: Content) -> Content:
    """The manifest of a model's repository, which has the hash of its file as a zoo's has those of its own."""
    return Content.of(sealed({"format": FORMAT, "kind": MODEL_FORM.word, "sha256": {MODEL: model.sha256}}))


def hidden(name: str) -> bool:
    """Whether a file is none of what is published, such as .gitattributes."""
    return any(part.startswith(".") for part in name.split("/"))
