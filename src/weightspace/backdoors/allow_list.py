"""A list of files that are allowed, by their hash."""

from __future__ import annotations

import re
from pathlib import Path

from weightspace.errors import UnreadableError

LARGEST = 2**26
"""Bytes of the longest list that is read."""


def read_allow_list(path: str | Path) -> frozenset[str]:
    """SHA-256 hashes, one a line, as `sha256sum` prints them or alone; after # is comment, and empty lines are none.

    Raises:
        UnreadableError: if the file is missing, or a line holds something else; the message names the line.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UnreadableError(f"there is no file {path} with hashes that are allowed")
        if path.stat().st_size > LARGEST:
            raise UnreadableError(f"{path} has more than {LARGEST // 2**20} MiB, more than a list of hashes needs")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    hashes = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        match = re.fullmatch(r"\\?([0-9a-fA-F]{64})(\s+\*?.+)?", text)
        if match is not None:
            hashes.add(match[1].lower())
        elif text:
            raise UnreadableError(
                f"line {number} of {path} is no SHA-256 hash: give 64 hexadecimal digits a line, as sha256sum prints "
                "them, and comments after #"
            )
    return frozenset(hashes)
