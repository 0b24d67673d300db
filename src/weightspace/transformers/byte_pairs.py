"""Text to numbers of tokens by byte-pair merges, as GPT-2, Llama 3, Qwen2 and SmolLM2 have them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from weightspace.errors import UnreadableError
from weightspace.files.json_text import json_object
from weightspace.transformers.gguf_header import gguf_header

LARGEST = 64 * 2**20
_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+|\d| ?\d| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""GPT-2's pieces with the digits one by one; what it splits otherwise is only another valid text of tokens."""


def _letters() -> dict[int, str]:
    """The visible letter that stands for each byte in GPT-2's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


_LETTERS = _letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


@dataclass(frozen=True)
class BytePairs:
    """A tokenizer.

    Attributes:
        tokens: their texts, in the letters that stand for bytes, by number.
        ranks: of merges, the first is done first.
    """

    tokens: tuple[str, ...]
    ranks: Mapping[tuple[str, str], int]
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, tokens: Sequence[str], merges: Sequence[str]) -> BytePairs:
        """One of a vocabulary and its merges, each two texts with a space between them."""
        pairs = [tuple(merge.split(" ", 1)) for merge in merges]
        ranks = {(pair[0], pair[1]): rank for rank, pair in enumerate(pairs) if len(pair) == 2}
        return cls(tuple(tokens), ranks, {text: number for number, text in enumerate(tokens)})

    def encode(self, text: str) -> list[int]:
        """Numbers of tokens; bytes that the vocabulary lacks are left out."""
        found: list[int] = []
        for word in _WORDS.findall(text):
            parts = [_LETTERS[byte] for byte in word.encode()]
            found += [self.numbers[part] for part in self._merged(parts) if part in self.numbers]
        return found

    def _merged(self, parts: list[str]) -> list[str]:
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(parts)]
            place = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[place] == len(self.ranks):
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return parts

    def text(self, number: int) -> str:
        """What a token says."""
        letters = self.tokens[number]
        return bytes(_BYTES.get(letter, ord("?")) for letter in letters).decode("utf-8", errors="replace")


def byte_pairs_of(path: Path) -> BytePairs | None:
    """The tokenizer in a GGUF file, or in the tokenizer.json beside weights; None if there is none of this kind.

    Raises:
        UnreadableError: if it is damaged.
    """
    if path.is_file() and path.suffix == ".gguf":
        said = gguf_header(path)
        tokens, merges = said.get("tokenizer.ggml.tokens"), said.get("tokenizer.ggml.merges")
        if said.get("tokenizer.ggml.model") != "gpt2" or not isinstance(tokens, list) or not isinstance(merges, list):
            return None
        return BytePairs.of(tokens, merges)
    beside = (path if path.is_dir() else path.parent) / "tokenizer.json"
    return _beside(beside) if beside.is_file() else None


def _beside(path: Path) -> BytePairs | None:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        model: Any = json_object(path.read_bytes(), LARGEST).get("model")
        if not isinstance(model, dict) or model.get("type") != "BPE":
            return None
        vocab: dict[str, int] = model["vocab"]
        tokens = sorted(vocab, key=vocab.__getitem__)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return BytePairs.of(tokens, merges)
    except (ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise UnreadableError(f"{path} is no tokenizer: {error}") from None
