"""The keys and values in the header of a GGUF file: settings, and the tokens and merges of its tokenizer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from weightspace.errors import UnreadableError
from weightspace.files.kinds import open_regular

LARGEST_HEADER = 256 * 2**20
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9
_DEEPEST = 4


def gguf_header(path: Path) -> dict[str, Any]:
    """Every key with its value, lists for arrays.

    Raises:
        UnreadableError: if the file is no GGUF of version 2 or 3, or its header is damaged.
    """
    with open_regular(path) as file:
        try:
            reader = _Reader(file, min(path.stat().st_size, LARGEST_HEADER))
            if reader.take(4) != b"GGUF" or reader.number("<I") not in (2, 3):
                raise ValueError("it is no GGUF of version 2 or 3")
            reader.number("<Q")  # tensors, which the reader of checkpoints lists
            return {reader.text(): reader.value(reader.number("<I")) for _ in range(reader.number("<Q"))}
        except (ValueError, struct.error, OSError) as error:
            raise UnreadableError(f"{path} is no whole GGUF file: {error}") from None


class _Reader:
    """Values one after another; a ValueError where the header ends too early."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.file = file
        self.left = most

    def take(self, length: int) -> bytes:
        self.left -= length
        if self.left < 0:
            raise ValueError("its header is torn")
        return self.file.read(length)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", errors="replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY or depth > _DEEPEST:
            raise ValueError(f"a value of the type {kind} is not known")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _NUMBERS:
            form = _NUMBERS[inner][1]
            return list(struct.unpack(f"<{count}{form}", self.take(count * struct.calcsize(f"<{form}"))))
        if count * 8 > self.left:
            raise ValueError("its header is torn")
        return [self.value(inner, depth + 1) for _ in range(count)]
