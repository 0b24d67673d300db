"""The paper's decompiling task: a program as fifteen lines of five fields, its weights as chunks; and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from weightspace.errors import TaskError
from weightspace.rasp.canonical import canonical_key
from weightspace.rasp.compiler.assemble import assemble
from weightspace.rasp.compiler.transformer import Layout
from weightspace.rasp.language import fused
from weightspace.rasp.program import Program
from weightspace.rasp.sampler import attempts
from weightspace.rasp.tokens import END, MOST_LINES, PADDING, PAPER, START
from weightspace.rasp.validate import NotCompilable, analyse, settings
from weightspace.zoo.programs.program_zoo import ProgramZoo
from weightspace.zoo.programs.splits import split_of

FIELDS = 5
"""Operation, three arguments, variable."""
CLASSES = tuple(map(len, PAPER.names))
"""How many tokens each field has."""
END_ID, START_ID = PAPER.ids[0][END], PAPER.ids[0][START]
assert PAPER.ids[0][PADDING] == 0

MATRICES = ("pos_embed", "token_embed", "key", "linear", "query", "value", "linear_1", "linear_2")
"""The kinds of matrices, in the order in which those of a layer stand."""
MOST_LAYERS = 32
"""Layers that have an encoding of their own, the embeddings' first; deeper ones share the last."""


# -- weights as chunks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How weights are cut into tokens. The paper: 512 chunks of 128 (appendix B.3).

    Every matrix is cut by itself and its last chunk filled up with zeros, so that a chunk is of one kind of matrix and
    of one layer, which its encoding tells. Biases are left out: Tracr's are all zero.

    Raises:
        TaskError: if a field is out of its range.
    """

    size: int = 128
    """Weights a chunk, 8 to 1024."""

    most: int = 512
    """Chunks of a transformer at most; larger ones cannot be read."""

    zeros: bool = True
    """Whether chunks that are all zero are kept, as in the paper. Left out, two thirds of the tokens of Tracr's weights
    fall away, and no information: the place of each chunk in its matrix is encoded."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 1024:
            raise TaskError(f"chunks of {self.size} weights will not do: choose 8 to 1024")
        if not 1 <= self.most <= 100_000:
            raise TaskError(f"at most {self.most} chunks will not do: choose 1 to 100,000")


@dataclass(frozen=True, eq=False)
class Chunks:
    """The weights of one transformer as chunks, sparsely.

    Attributes:
        kinds: (t,) of each chunk's matrix, by its place in `MATRICES`.
        layers: (t,) 0 of the embeddings, 1 of the first layer, and so on, at most `MOST_LAYERS` - 1.
        places: (t,) of each chunk in its matrix, from 0.
        rows, columns, values: (n,) chunk, place in it and value of each weight that is not zero; values as they are.
    """

    kinds: np.ndarray
    layers: np.ndarray
    places: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def dense(self, size: int) -> np.ndarray:
        """(t, size) float32."""
        dense = np.zeros((len(self), size), dtype=np.float32)
        dense[self.rows, self.columns] = self.values
        return dense


@lru_cache(4096)
def _cut(layout: Layout, size: int) -> tuple[np.ndarray, ...]:
    """Of each array of a layout: where it begins and its first chunk (-1 for a bias); of each chunk its encoding."""
    starts, firsts, encodings, count = [], [], [], 0
    for name, shape, offset in layout.leaves:
        starts.append(offset)
        if len(shape) == 1:
            firsts.append(-1)
            continue
        parts = name.split("/")
        embeds = parts[0] != "transformer"
        kind = MATRICES.index(parts[0] if embeds else parts[3])
        layer = 0 if embeds else min(int(parts[1].removeprefix("layer_")) + 1, MOST_LAYERS - 1)
        firsts.append(count)
        number = -(-shape[0] * shape[1] // size)
        encodings += [(kind, layer, place) for place in range(number)]
        count += number
    kinds, layers, places = np.array(encodings, dtype=np.int64).T
    return np.array(starts), np.array(firsts), kinds, layers, places


def chunks_of(layout: Layout, places: np.ndarray, values: np.ndarray, chunking: Chunking) -> Chunks:
    """Cut the weights of a transformer into chunks, matrix by matrix in the order of `layout`, row by row.

    Args:
        places, values: (n,) of the entries that are not zero, as a `CompiledTransformer` or a zoo's `Entry` has them.
    Raises:
        TaskError: if it has more chunks than `chunking` allows, or a bias that is not zero.
    """
    starts, firsts, kinds, layers, numbers = _cut(layout, chunking.size)
    if len(kinds) > chunking.most:
        raise TaskError(f"the weights are {len(kinds)} chunks of {chunking.size}, and at most {chunking.most} are read")
    leaf = np.searchsorted(starts, places, side="right") - 1
    if (firsts[leaf] < 0).any():
        raise TaskError("a bias is not zero: these are not weights that Tracr compiles")
    inside, columns = np.divmod(places - starts[leaf], chunking.size)
    rows = firsts[leaf] + inside
    if not chunking.zeros:
        kept, rows = np.unique(rows, return_inverse=True)
        kinds, layers, numbers = kinds[kept], layers[kept], numbers[kept]
    return Chunks(kinds, layers, numbers, rows, columns, np.asarray(values, dtype=np.float32))


# -- programs as lines -------------------------------------------------------------------------------------------------


def target_lines(program: Program) -> np.ndarray:
    """(15, 5) int64: the lines of a program as `PAPER` writes them, then END where there is room, then zeros.

    Raises:
        RaspError: if it has something for which there is no token.
    """
    return PAPER.encode(program)[1 : MOST_LINES + 1]


@dataclass(frozen=True, eq=False)
class Listing:
    """One example: what is to be written, and the weights that are read.

    Attributes:
        lines: (15, 5) int64, see `target_lines`.
        chunks: of the compiled transformer.
        key: the canonical form in 16 bytes.
    """

    lines: np.ndarray
    chunks: Chunks
    key: bytes

    @property
    def length(self) -> int:
        """Lines of the program, 1 to 15."""
        return int(length_of(self.lines[None])[0])


def listing_of(program: Program, chunking: Chunking, most_parameters: int, split: str | None = None) -> Listing | None:
    """A program compiled as Tracr compiles it, Maps of Maps fused; None if it cannot be, is too large, or of another
    split."""
    analysis = analyse(meant := fused(program), *settings(meant, None, None), "tracr_compat")
    if analysis.reasons:
        return None
    key = canonical_key(analysis)
    if split is not None and split_of(key) != split:
        return None
    try:
        transformer = assemble(analysis)
        if len(transformer) > most_parameters:
            return None
        chunks = chunks_of(transformer.layout, transformer.places, transformer.values, chunking)
    except (NotCompilable, TaskError):
        return None
    return Listing(target_lines(program), chunks, key)


def draw_listings(
    count: int,
    *,
    split: str,
    seed: int,
    number: int = 0,
    chunking: Chunking,
    most_parameters: int = 49_999,
    lengths: Sequence[int] | None = None,
) -> list[Listing]:
    """Programs of the `paper` distribution drawn on the fly: a pure function of the arguments.

    A program is on one side of the split wherever and whenever it is drawn, in a zoo too
    (`zoo.programs.splits.split_of`), so no training program is ever a test program. Copies within one call are left
    out.

    Args:
        number: of the call among those of one seed; each gives other programs.
        most_parameters: larger transformers are left out (section 4 of the paper: fewer than 50,000).
        lengths: instructions that are wanted; the distribution's own unless given.
    """
    digest = blake2b(f"listings {split} {seed} {number}".encode(), digest_size=8).digest()
    found: dict[bytes, Listing] = {}
    for draw in attempts("paper", int.from_bytes(digest, "big"), lengths):
        if isinstance(draw, str):
            continue
        listing = listing_of(draw, chunking, most_parameters, split)
        if listing is not None:
            found.setdefault(listing.key, listing)
            if len(found) == count:
                break
    return list(found.values())


def read_listings(zoo: ProgramZoo, split: str, chunking: Chunking, count: int | None = None) -> list[Listing]:
    """The first `count` programs of a split of a zoo of the paper's distribution, or all; those of too many chunks are
    left out.

    Raises:
        TaskError: if the zoo is of another distribution or mode, or too few programs can be read.
    """
    config = zoo.config
    if config.distribution != "paper" or config.mode != "tracr_compat":
        raise TaskError(
            f"a zoo of {config.distribution} programs compiled by {config.mode} will not do: make one with "
            "`weightspace zoo make rasp-paper`"
        )
    found: list[Listing] = []
    for entry in zoo.entries(split):
        try:
            chunks = chunks_of(entry.layout, entry.places, entry.values, chunking)
        except TaskError:
            continue
        found.append(Listing(target_lines(entry.program), chunks, entry.key))
        if len(found) == count:
            return found
    if not found or count is not None:
        raise TaskError(
            f"the zoo has {len(found):,} {split} programs of at most {chunking.most} chunks, and {count or 1:,} are "
            "wanted: make a larger one"
        )
    return found


# -- scores ------------------------------------------------------------------------------------------------------------


def length_of(lines: np.ndarray) -> np.ndarray:
    """(n,) lines before the first END or padding of programs (n, 15, 5)."""
    over = (lines[..., 0] == END_ID) | (lines[..., 0] == 0)
    return np.where(over.any(1), over.argmax(1), lines.shape[1])


def ended(lines: np.ndarray) -> np.ndarray:
    """Programs (n, 15, 5) of which everything behind the first END's operation is made padding.

    That is what END says; a model that has written it is not asked for more.
    """
    ends = lines[..., 0] == END_ID
    first = np.where(ends.any(1), ends.argmax(1), lines.shape[1])
    after = np.arange(lines.shape[1]) > first[:, None]
    after = np.repeat(after[..., None], FIELDS, axis=2)
    after[..., 1:] |= (np.arange(lines.shape[1]) == first[:, None])[..., None]
    return np.where(after, 0, lines)


def counted(truth: np.ndarray) -> np.ndarray:
    """Which fields of programs (n, 15, 5) are asked for: the five of every line, and that END follows.

    A program of n < 15 lines has 5 n + 1 such tokens; one of 15 lines has 75, and no END. NA counts as a token: that
    an operation has no third argument is part of its line. Padding does not count.
    """
    return truth != 0


@dataclass(frozen=True, eq=False)
class ListingScores:
    """How much of each of n programs was written rightly, 0 to 1.

    Attributes:
        tokens: (n,) share of the tokens that are asked for, see `counted`.
        padded: (n,) share of all 75 fields, padding among them: a flattering figure for short programs.
        instructions: (n,) share of the lines of which all five fields are right.
        exact: (n,) 1.0 where every token is right, END too.
    """

    tokens: np.ndarray
    padded: np.ndarray
    instructions: np.ndarray
    exact: np.ndarray

    def at_least(self, share: float, of: str = "tokens") -> np.ndarray:
        """(n,) 1.0 where at least `share` of a program's `tokens`, `padded` fields or `instructions` are right."""
        return (getattr(self, of) >= share - 1e-9).astype(float)


def score_listings(predicted: np.ndarray, truth: np.ndarray) -> ListingScores:
    """Compare programs (n, 15, 5) with the truth (n, 15, 5), field by field in place.

    A program written without its first line has every line in the wrong place; that is how the paper scores. What
    stands behind a predicted END counts as padding.

    Raises:
        TaskError: if the shapes differ or there is no program.
    """
    if predicted.shape != truth.shape or truth.shape[1:] != (MOST_LINES, FIELDS) or not len(truth):
        raise TaskError(f"programs of shape {predicted.shape} and {truth.shape}: give (n, {MOST_LINES}, {FIELDS}) each")
    right = ended(predicted) == truth
    asked = counted(truth)
    line = np.arange(MOST_LINES) < length_of(truth)[:, None]
    whole = right.all(2) & line
    tokens = (right & asked).sum((1, 2)) / asked.sum((1, 2))
    return ListingScores(
        tokens, right.mean((1, 2)), whole.sum(1) / line.sum(1), (right | ~asked).all((1, 2)).astype(float)
    )
