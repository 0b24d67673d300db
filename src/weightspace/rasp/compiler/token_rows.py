"""Which rows of a token embedding are BOS and PAD, whatever their names: told from what the weights read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from weightspace.errors import RaspError
from weightspace.rasp.functions import Value
from weightspace.rasp.language import BOS, PAD
from weightspace.rasp.values import token_space

USUAL_NAMES = (
    (BOS, PAD),
    ("BOS", "PAD"),
    ("BOS", PAD),
    ("bos", "pad"),
    ("<bos>", "<pad>"),
    ("<BOS>", "<PAD>"),
    ("[BOS]", "[PAD]"),
    ("<s>", "<pad>"),
)
"""What BOS and PAD are called, ours first: a name decides where a row is sorted."""
LOOKS, ALIKE = 0.3, 0.3
"""BOS is looked to with at least the first share of the largest score, and scores to it differ by less than the second:
what is selected scores at most twice as much."""
READ = 1e-3
"""A row that moves no column by more than this share of the column's largest entry is not read."""


class SpecialRows(NamedTuple):
    """The rows of BOS and PAD in a token embedding.

    Attributes:
        guessed: whether other rows would do as well, and these were taken by what BOS and PAD are usually called.
    """

    bos: int
    pad: int
    guessed: bool = False


def special_rows(
    tokens: np.ndarray,
    readers: Mapping[str, Sequence[np.ndarray]],
    vocab: Sequence[Value],
    *,
    bos: str | None = None,
    pad: str | None = None,
) -> SpecialRows:
    """Find the rows of BOS and PAD.

    Every head compares every query with BOS, by a score that is the same for all; nothing at all reads PAD. Where that
    leaves a choice, the rows are taken that fit to our own names for them, then to other usual ones.

    Args:
        tokens: (tokens + 2, width) the embedding.
        readers: (width, columns) of each layer: `query`, `key`, `value` and `first` of the MLP.
        vocab: the tokens without the two.
        bos, pad: what they are called, if that is known: rows are sorted by name.
    Raises:
        RaspError: if several rows could be either, or the names do not go with the weights.
    """
    count = len(tokens)
    looked, unread = _looked_at(tokens, readers), _unread(tokens, readers)
    pairs = [(b, p) for b, p in permutations(range(count), 2) if b in (looked or range(count)) and p in unread]
    if bos is not None or pad is not None:
        return _named(vocab, bos, pad, pairs, looked)
    usual = [_rows_of(vocab, *names) for names in USUAL_NAMES]
    fitting = [rows for rows in usual if rows in pairs]
    if usual[0] in pairs or (not pairs and not looked):
        return SpecialRows(*usual[0])
    if len(pairs) == 1:
        return SpecialRows(*pairs[0])
    if looked and len(looked) > 1:
        raise RaspError(
            f"the rows {_listed(looked)} of the token embedding could all be BOS: its heads look to each; say what BOS "
            "is called, such as bos='BOS'"
        )
    if fitting:
        return SpecialRows(*fitting[0], guessed=bool(looked))
    if not looked and len(unread) == 2:  # nothing looks to BOS, so that it is as good as PAD
        return SpecialRows(min(unread), max(unread))
    if not pairs:
        return SpecialRows(*usual[0])
    if looked:
        raise RaspError(
            f"row {looked[0]} of the token embedding is BOS, but the rows {_listed(unread)} could all be PAD, as "
            "nothing reads them: say what PAD is called, such as pad='PAD'"
        )
    raise RaspError(
        f"the rows {_listed(unread)} of the token embedding could all be BOS or PAD, as nothing reads them: say what "
        "they are called, such as bos='BOS', pad='PAD'"
    )


def _named(
    vocab: Sequence[Value], bos: str | None, pad: str | None, pairs: Sequence[tuple[int, int]], looked: Sequence[int]
) -> SpecialRows:
    bos_names = [bos] if bos is not None else [names[0] for names in USUAL_NAMES]
    pad_names = [pad] if pad is not None else [names[1] for names in USUAL_NAMES]
    known = {value for value in vocab if isinstance(value, str)}
    for name in (bos, pad):
        if name in known:
            raise RaspError(f"{name!r} is a token of the vocabulary, and cannot be BOS or PAD too")
    if bos is not None and bos == pad:
        raise RaspError(f"BOS and PAD cannot both be called {bos!r}")
    choices = [(b, p) for b in bos_names for p in pad_names if b != p and not {b, p} & known]
    rows = [_rows_of(vocab, b, p) for b, p in choices]
    fitting = [found for found in rows if found in pairs]
    if not fitting and looked:
        said = " and ".join(f"{what} {name!r}" for what, name in (("BOS", bos), ("PAD", pad)) if name is not None)
        raise RaspError(
            f"with {said} row {rows[0][0]} of the token embedding would be BOS and row {rows[0][1]} PAD, but the heads "
            f"look to row {looked[0]}: the names, or the vocabulary, are others"
        )
    return SpecialRows(*(fitting or rows)[0])


def row_order(vocab: Sequence[Value], found: SpecialRows) -> np.ndarray:
    """(rows,) which row of an embedding stands for each entry of `token_space(vocab)`."""
    others = iter(row for row in range(len(vocab) + 2) if row not in (found.bos, found.pad))
    special = {BOS: found.bos, PAD: found.pad}
    return np.array([special[value] if value in special else next(others) for value in token_space(vocab)])


def _rows_of(vocab: Sequence[Value], bos: str, pad: str) -> tuple[int, int]:
    """Where two names are sorted in a vocabulary: texts by their letters, numbers before all texts.

    Tracr compares a number and a text as texts, in which digits come before letters.
    """
    texts = sorted([*(value for value in vocab if isinstance(value, str)), bos, pad])
    numbers = len(vocab) + 2 - len(texts)
    return numbers + texts.index(bos), numbers + texts.index(pad)


def _listed(rows: Sequence[int]) -> str:
    return f"{', '.join(map(str, rows[:-1]))} and {rows[-1]}"


def _looked_at(tokens: np.ndarray, readers: Mapping[str, Sequence[np.ndarray]]) -> list[int]:
    """The rows that every row looks to alike; none where there is no attention.

    The products of queries and keys are summed over the heads of a layer, so that neither an order of columns nor an
    invertible map within a head matters, nor a rotation of the stream.
    """
    found: set[int] = set()
    rows = tokens.astype(float)
    for query, key in zip(readers["query"], readers["key"], strict=True):
        scores = (rows @ query) @ (rows @ key).T  # (queries, keys)
        size = float(np.abs(scores).max(initial=0.0))
        least = scores.min(0)
        found |= set(np.flatnonzero((least > LOOKS * size) & (np.ptp(scores, axis=0) < ALIKE * least)).tolist())
    return sorted(found)


def _unread(tokens: np.ndarray, readers: Mapping[str, Sequence[np.ndarray]]) -> list[int]:
    """The rows of which nothing is read but what all rows have; all rows where that cannot be told."""
    rows = tokens.astype(float)
    shared = np.where(np.ptp(rows, axis=0) <= READ * np.abs(rows).max(), rows.mean(0), 0.0)
    own = rows - shared
    gram = own @ own.T
    if np.abs(gram - np.diag(np.diagonal(gram))).max() > 0.1 * np.diagonal(gram).max():
        return list(range(len(rows)))  # what all rows share is no single direction: the stream was rotated
    moved = np.zeros(len(rows), bool)
    for matrix in (matrix for which in readers.values() for matrix in which):
        largest = np.abs(matrix).max(0)
        moved |= (np.abs(own @ matrix) > READ * np.maximum(largest, 1e-30)).any(1) if matrix.size else False
    unread = np.flatnonzero(~moved).tolist()
    return unread or list(range(len(rows)))
