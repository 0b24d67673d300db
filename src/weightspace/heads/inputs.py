"""The inputs on which behaviours are measured: passages of English, and random texts that are said twice."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import torch

from weightspace.heads.behaviour import HeadInputs, repeated_texts
from weightspace.transformers.byte_pairs import BytePairs, byte_pairs_of
from weightspace.transformers.trained import TrainedTransformer

PASSAGES = Path(__file__).parent / "passages.txt"
LENGTH, PERIOD, COUNT = 96, 64, 16


@cache
def passages() -> tuple[str, ...]:
    """Sixteen short texts: beginnings of well-known books and speeches, and some of our own."""
    return tuple(PASSAGES.read_text(encoding="utf-8").strip().split("\n"))


def inputs_of(transformer: TrainedTransformer, path: Path | None, *, seed: int = 0) -> HeadInputs:
    """Inputs for a model: the passages where its tokenizer is there, else random tokens in their place.

    Args:
        path: of the model's file or folder, where its tokenizer is looked for.
    """
    shape = transformer.shape
    period = min(PERIOD, shape.positions // 2)
    length = min(LENGTH, shape.positions)
    repeated = repeated_texts(shape.vocabulary, COUNT, period, seed)
    pairs = None if path is None else byte_pairs_of(path)
    said = f"{COUNT} random texts of {period} tokens, each said twice (seed {seed})"
    if pairs is None or len(pairs.tokens) > shape.vocabulary:
        texts = repeated_texts(shape.vocabulary, COUNT, (length + 1) // 2, seed + 1)[:, : (length + 1) // 2]
        return HeadInputs(texts, repeated, None, f"no tokenizer was found, so random tokens for texts; {said}")
    rows = [pairs.encode(passage)[:length] for passage in passages()]
    rows = [row for row in rows if len(row) == length]
    marks = torch.zeros(shape.vocabulary, dtype=torch.bool)
    marks[: len(pairs.tokens)] = torch.tensor([_is_punctuation(pairs, number) for number in range(len(pairs.tokens))])
    return HeadInputs(torch.tensor(rows), repeated, marks, f"{len(rows)} passages of {length} tokens; {said}")


def _is_punctuation(pairs: BytePairs, number: int) -> bool:
    text = pairs.text(number).strip()
    return bool(text) and all(unicodedata.category(letter).startswith("P") for letter in text)
