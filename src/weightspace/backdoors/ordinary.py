"""What a file is that is no checkpoint: told by its first bytes, so that a folder's files can be counted by kind."""

from __future__ import annotations

import codecs
from pathlib import PurePath

from weightspace.files.checkpoints import SUFFIXES

LOOKED_AT = 4096
"""Bytes of a file by which its kind is told."""
CHECKPOINT_SUFFIXES = frozenset(SUFFIXES) | {".pkl", ".pickle", ".pt2", ".gguf", ".keras", ".npz"}
"""Names that promise weights: such a file is told of by its name, whatever it holds."""
_MAGIC: tuple[tuple[bytes, int, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, "pictures"),
    (b"\xff\xd8\xff", 0, "pictures"),
    (b"GIF8", 0, "pictures"),
    (b"BM", 0, "pictures"),
    (b"II*\0", 0, "pictures"),
    (b"MM\0*", 0, "pictures"),
    (b"WEBP", 8, "pictures"),
    (b"\0\0\1\0", 0, "pictures"),
    (b"WAVE", 8, "sounds and films"),
    (b"AVI ", 8, "sounds and films"),
    (b"ftyp", 4, "sounds and films"),
    (b"OggS", 0, "sounds and films"),
    (b"fLaC", 0, "sounds and films"),
    (b"ID3", 0, "sounds and films"),
    (b"%PDF-", 0, "documents"),
    (b"PAR1", 0, "tables"),
    (b"ARROW1\0\0", 0, "tables"),
    (b"SQLite format 3\0", 0, "tables"),
    (b"\x7fELF", 0, "programs of a machine"),
    (b"wOF2", 0, "fonts"),
    (b"\0\1\0\0\0", 0, "fonts"),
)
_ARCHIVES: tuple[tuple[bytes, int, str], ...] = (
    (b"PK\3\4", 0, "zip"),
    (b"\x1f\x8b", 0, "gzip"),
    (b"BZh", 0, "bzip2"),
    (b"\xfd7zXZ\0", 0, "xz"),
    (b"7z\xbc\xaf\x27\x1c", 0, "7z"),
    (b"\x28\xb5\x2f\xfd", 0, "zstandard"),
    (b"ustar", 257, "tar"),
    (b"Rar!", 0, "rar"),
)
_CODE_NAMES = """.py .pyi .ipynb .sh .bash .c .cc .cpp .cu .h .hpp .rs .go .js .ts .java .m .r .jl .rasp .sql .toml .cfg
.ini .yaml .yml .mk"""
_CODE = frozenset(_CODE_NAMES.split())
_TEXT = {
    ".json": "JSON",
    ".jsonl": "JSON",
    ".html": "pages",
    ".htm": "pages",
    ".svg": "pictures",
    ".csv": "tables",
    ".tsv": "tables",
    ".sarif": "JSON",
}
LFS = b"version https://git-lfs.github.com/spec/"
"""How a text begins that stands where Git LFS has not put the file yet."""


def ordinary_kind(name: str, start: bytes) -> str | None:
    """What a file is, in the plural: pictures, text, code; None if it may hold anything.

    Args:
        name: of the file; it decides only what kind of text a text is.
        start: its first `LOOKED_AT` bytes, or all if it has less.
    """
    if not start:
        return "empty files"
    for magic, place, kind in _MAGIC:
        if start[place : place + len(magic)] == magic:
            return kind
    if not _is_text(start):
        return None
    suffix = PurePath(name).suffix.lower()
    return "code" if suffix in _CODE else _TEXT.get(suffix, "text")


def archive_kind(start: bytes) -> str | None:
    """Of an archive its kind, such as zip."""
    for magic, place, kind in _ARCHIVES:
        if start[place : place + len(magic)] == magic:
            return kind
    return None


def promises_weights(name: str) -> bool:
    """Whether a file's name says that it holds weights."""
    return PurePath(name).suffix.lower() in CHECKPOINT_SUFFIXES


def _is_text(start: bytes) -> bool:
    if b"\0" in start:
        return False
    try:
        # a letter of several bytes may be cut at the end of what was read
        codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) < LOOKED_AT)
    except UnicodeDecodeError:
        return False
    return True
