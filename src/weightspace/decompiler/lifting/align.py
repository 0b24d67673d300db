"""Linear algebra that undoes what was done to a residual stream: a rotation, or a compression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from weightspace import clock
from weightspace.decompiler.lifting.dictionary import CLOSE, find_dictionary
from weightspace.decompiler.lifting.rewrite import Rewrite, access, evened, straightened, unscaled
from weightspace.rasp.compiler.bare import BareTransformer

EXACT = 1e-3
"""Lengths and products of rows that are equal in the compiled weights differ by less than this after a rotation in
float32; what is different in them differs by much more."""
SNAP = 1e-4
"""Entries nearer than this (times the larger of 1 and a thousandth of the matrix's largest) to a half number are it."""
COMPILED = 0.4
"""Weights that are sums of images but for this share of their size have been compiled and compressed.

Most are but for a thousandth (98% of 200 programs at 0.9 of the width, 89% at 0.5); where a block was misread it is a
third. Drawn and shuffled weights are never so near."""
MOST_WRITTEN = 8
"""Directions that one hidden unit writes: a step two, a unit that cleans up after several SelectorWidths more."""

Kind = Literal["directions", "rotated", "compressed", "neither"]


@dataclass(frozen=True, eq=False)
class Aligned:
    """A transformer over the directions that its compiler had, as far as they were found.

    Attributes:
        bare: the transformer over the found directions; what can be is rounded to what a compiler writes.
        basis: (directions, width of what was given) the image of each direction in the stream that was given.
        residual: how far the rounded weights are from those given: the largest over all matrices of the root of the
            mean squared difference, in units of the matrix's own root mean square, both in the stream that was given.
        kind: what was done to the stream; `neither` if the directions were not found, and `bare` is what was given.
        rewrite: what leads from `bare` back to what was given, but for rounding; None if the kind is `neither`.
    """

    bare: BareTransformer
    basis: np.ndarray
    residual: float
    kind: Kind
    rewrite: Rewrite | None = None


def with_stream(bare: BareTransformer, basis: np.ndarray) -> BareTransformer:
    """The same transformer over another stream: stream @ basis.

    Every matrix W that reads the stream becomes basis^T W, every one that writes to it W basis, embeddings and readout
    too.

    Args:
        basis: (width, new width), its columns orthonormal; otherwise the new stream is not what the old one holds.
    """
    back = basis.T
    params = {}
    for name, array in bare.params.items():
        kind = access(name)
        changed = back @ array if kind == "read" else array @ basis if kind == "write" else array
        params[name] = np.ascontiguousarray(changed, np.float32)
    readout = bare.readout
    if readout is not None:
        none = None if readout.none is None else (back @ readout.none).astype(np.float32)
        readout = readout._replace(directions=(back @ readout.directions).astype(np.float32), none=none)
    return replace(bare, params=params, readout=readout)


# -- a rotation ------------------------------------------------------------------------------------------------------


class _Basis:
    """Orthonormal directions that are found one by one.

    Attributes:
        rows: (width, width) those found so far, then zeros.
        count: how many are found.
    """

    def __init__(self, width: int) -> None:
        self.rows = np.zeros((width, width))
        self.count = 0

    @property
    def known(self) -> np.ndarray:
        return self.rows[: self.count]

    def split(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, count) what vectors (n, width) have of each known direction, and (n, width) the rest of them."""
        parts = vectors @ self.known.T
        return parts, vectors - parts @ self.known

    def add(self, vector: np.ndarray) -> bool:
        """Take a vector for a new direction, if it is one and nearly orthogonal to those that are known."""
        length = np.linalg.norm(vector)
        if self.count == len(self.rows) or length < EXACT:
            return False
        vector = vector / length
        parts, rest = self.split(vector[None])
        if np.abs(parts).max(initial=0.0) > 10 * EXACT:
            return False
        self.rows[self.count] = rest[0] / np.linalg.norm(rest[0])
        self.count += 1
        return True


def undo_rotation(bare: BareTransformer) -> Aligned:
    """Find the compiler's directions in a stream that was multiplied by an unknown orthogonal matrix.

    A position's row is one direction, and so is each row behind a head. A token's row is one besides `one`, which they
    share and which alone a query reads for BOS. What an MLP writes is a direction, a multiple of one, or a difference
    of which one is known, beginning with those that are alone. Any order of the directions is as good as another; and
    so is the sign of a number that is computed from numbers and that only a LinearSequenceMap reads: then Tracr's order
    of hidden units is followed, in which the one that reads the negative stands first.

    Returns:
        of kind `rotated`, or `neither` if no basis was found in which the weights look compiled.
    """
    width = bare.width
    basis = _Basis(width)
    for row in bare.positions[1:].astype(float):
        basis.add(row)
    indices = basis.count
    out = bare.linear.reshape(-1, width).astype(float)
    for row in out[np.linalg.norm(out, axis=1) > EXACT]:
        basis.add(row)
    if indices < bare.max_seq_len:
        return _neither(bare)
    known_tokens = _tokens(bare, basis)
    written, first = _rows(bare.second), basis.count
    _add_written(basis, written)
    last = basis.count
    if not known_tokens and not _tokens(bare, basis, last=True):
        return _neither(bare)
    _add_read(basis, bare)
    rows = basis.known
    rows[first:last] *= _signs(bare, rows[first:last], written)[:, None]
    turned = _judged(bare, rows, "rotated")
    return turned if _looks_compiled(turned.bare) else _neither(bare)


def _rows(matrices: np.ndarray) -> np.ndarray:
    """(n, width) the rows of some matrices (layers, rows, width) that are not zero."""
    rows = matrices.reshape(-1, matrices.shape[-1]).astype(float)
    return rows[np.linalg.norm(rows, axis=1) > EXACT]


def _tokens(bare: BareTransformer, basis: _Basis, last: bool = False) -> bool:
    """Find the directions of the tokens and `one`; False if `one` is there but was not found yet.

    Args:
        last: whether all else is known, so that what is left over can be `one`.
    """
    rows = bare.tokens.astype(float)
    gram = rows @ rows.T
    shared = np.median(gram[~np.eye(len(rows), dtype=bool)])
    if abs(shared) < 0.5:
        return all(basis.add(row) for row in rows)
    one = _one_read(bare, rows)
    if one is None and last:
        one = _one_left(bare, basis, rows)
    if one is None or not basis.add(one):
        return False
    return all(basis.add(row - one) for row in rows)


def _one_read(bare: BareTransformer, rows: np.ndarray) -> np.ndarray | None:
    """The column that reads `one` alone: of length 1 where every token's row has a product of 1 with it."""
    columns = np.concatenate([*bare.query, *bare.first], axis=1).astype(float).T
    lengths = np.linalg.norm(columns, axis=1)
    columns = columns[lengths > EXACT] / lengths[lengths > EXACT, None]
    products = columns @ rows.T
    columns = columns * np.where(products[:, :1] < 0, -1, 1)
    errors = np.abs(np.abs(products) - 1).max(1, initial=0.0)
    if not len(errors) or errors.min() > 10 * EXACT:
        return None
    return columns[errors.argmin()]


def _one_left(bare: BareTransformer, basis: _Basis, rows: np.ndarray) -> np.ndarray | None:
    """`one` as the shortest vector with a product of 1 with each token's row, and what is missing of it.

    What is missing is orthogonal to all else that is known, and the only such thing that hidden units read. Its sign is
    that with which more of what is read is zero.
    """
    count = len(rows)
    shortest = np.linalg.pinv(rows) @ np.ones(count)
    _, _, across = np.linalg.svd(np.concatenate([basis.known, rows]))
    free = across[basis.count + count :]
    columns = bare.first.transpose(0, 2, 1).reshape(-1, bare.width).astype(float)
    _, sizes, ways = np.linalg.svd(columns @ free.T, full_matrices=False)
    if not len(sizes) or sizes[0] < EXACT or (len(sizes) > 1 and sizes[1] > 10 * EXACT * sizes[0]):
        return None
    missing = ways[0] @ free * np.sqrt(1 / (count + 1))
    choices = [shortest + missing, shortest - missing]
    reads = [columns @ np.concatenate([rows - one, one[None]]).T for one in choices]
    return choices[int(np.argmax([(np.abs(read) < EXACT).sum() for read in reads]))]


def _add_written(basis: _Basis, written: np.ndarray) -> None:
    """Find the directions that hidden units write, those first that stand alone."""
    while basis.count < len(basis.rows):
        clock.look()
        parts, rest = basis.split(written)
        lengths, held = np.linalg.norm(rest, axis=1), np.abs(parts).max(1, initial=0.0)
        new, alone, single = lengths > 10 * EXACT, held < EXACT, np.abs(lengths - 1) < EXACT
        if not new.any():
            return
        differences = np.zeros(len(written), bool)
        chosen = new & alone & single
        if not chosen.any():
            chosen = differences = new & single & _has_opposite(written)
        if not chosen.any():
            chosen = new & single
        if not chosen.any():
            chosen = new & alone
        if not chosen.any():
            chosen = new
        added = False
        for place in np.flatnonzero(chosen):
            vector = rest[place]
            if differences[place]:  # of a known direction and a new one, which have opposite signs
                vector = vector * -np.sign(parts[place, np.abs(parts[place]).argmax()])
            added |= basis.add(vector)
        if not added:
            return


def _has_opposite(rows: np.ndarray) -> np.ndarray:
    """(n,) whether the negative of a row is among them."""
    squares = (rows**2).sum(1)
    apart = squares[:, None] + squares[None] + 2 * rows @ rows.T
    return apart.min(1) < EXACT * np.maximum(1, squares)


def _add_read(basis: _Basis, bare: BareTransformer) -> None:
    """Complete a basis with what is read but never written, and then with anything."""
    columns = np.concatenate([*bare.query, *bare.key, *bare.value, *bare.first], axis=1).astype(float).T
    lengths = np.linalg.norm(columns, axis=1)
    columns = columns[lengths > EXACT] / lengths[lengths > EXACT, None]
    while basis.count < len(basis.rows) and len(columns):
        clock.look()
        parts, rest = basis.split(columns)
        new = np.linalg.norm(rest, axis=1) > 10 * EXACT
        columns = columns[new]
        if new.any():
            basis.add(rest[new][np.abs(parts[new]).max(1, initial=0.0).argmin()])
    if basis.count < len(basis.rows):
        _, _, across = np.linalg.svd(basis.known)
        for row in across[basis.count :]:
            basis.add(row)


def _signs(bare: BareTransformer, known: np.ndarray, written: np.ndarray) -> np.ndarray:
    """(n,) 1, or -1 where a direction (n, width) that hidden units write must be turned round."""
    signs = np.ones(len(known))
    attention = np.concatenate([*bare.query, *bare.key, *bare.value], axis=1).astype(float)
    read = (known @ attention).sum(1)
    ordered = np.concatenate([*(known @ bare.first.astype(float))], axis=1)
    stepped = ordered.sum(1)
    writes = written @ known.T
    writes = np.where(np.abs(writes) < EXACT, 0, writes)
    opposite = _has_opposite(written) if len(written) else np.zeros(0, bool)
    started = writes[~opposite].sum(0)
    chained = (np.abs(writes) > 0).sum(1) > 1
    answers = np.zeros(len(known)) if bare.readout is None else (known @ bare.readout.directions).sum(1)
    for place in range(len(known)):
        clock.look()
        own = writes[:, place]
        evidence = [answers[place], read[place]]
        if (own[chained] != 0).any():
            continue  # a difference has told it
        if (own >= 0).all() or (own <= 0).all():
            evidence.append(own.sum())
        reads = ordered[place][np.abs(ordered[place]) > 0.5]
        evidence += [stepped[place], -reads[0] if len(reads) else 0.0, started[place]]
        decided = [value for value in evidence if abs(value) > 100 * EXACT]
        signs[place] = np.sign(decided[0]) if decided else 1.0
    return signs


# -- a compression ---------------------------------------------------------------------------------------------------


def undo_compression(bare: BareTransformer, close: float = CLOSE) -> Aligned:
    """Find the compiler's directions in a stream that has fewer: V^T W and W V for an unknown V (directions, width).

    The weights that were given are exact sums of images of the directions, so that as long as nothing was trained or
    added to them, much of what a forward pass through the narrow stream would lose is still there.

    Args:
        close: how exact they are, as `dictionary.CLOSE`.
    Returns:
        of kind `compressed`, with the images as its basis; or `neither` if `one` was not found.
    """
    found = find_dictionary(bare, close)
    if found is None:
        return _neither(bare)
    readout = bare.readout
    if readout is not None:
        none = None if readout.none is None else _nearest_image(found.images, readout.none[:, None])[:, 0]
        readout = readout._replace(directions=_nearest_image(found.images, readout.directions), none=none)
    wide = replace(bare, params=found.params, readout=readout)
    rounded = snapped(wide, 10 * close)
    again = with_stream(rounded, found.images)
    return Aligned(rounded, found.images, _distance(bare, again), "compressed")


def _nearest_image(images: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n, k) one-hot columns, for each of (width, k) directions the image (n, width) that is nearest."""
    apart = ((images[:, :, None] - directions[None]) ** 2).sum(1)
    nearest = np.zeros((len(images), directions.shape[1]), np.float32)
    nearest[apart.argmin(0), np.arange(directions.shape[1])] = 1.0
    return nearest


# -- which of them ---------------------------------------------------------------------------------------------------


def align(bare: BareTransformer) -> Aligned:
    """Find the compiler's directions in a stream, whatever was done to it, and what was done inside heads and MLPs.

    The scale of the stream is undone first. Weights whose embeddings are one-hot, give or take a little noise, are of
    the kind `directions`. If the rows of the positions are orthonormal, a rotation is undone, and if nothing compiled
    comes out of that, a compression, first as exact as it is and then as if it had been trained a little since; of what
    remains the kind is `neither`. Where the residual is not nearly 0, the answers of what is given back may differ:
    compare them.
    """
    plain, scale = unscaled(bare)
    found = _stream_aligned(plain)
    if found.kind == "neither":
        return replace(found, bare=bare)
    straight, compared, moved = straightened(found.bare)
    even, units = evened(straight)
    if even is not found.bare:
        even = snapped(even)
    stream = None if found.kind == "directions" else found.basis
    return replace(found, bare=even, rewrite=Rewrite(stream, scale, units, compared, moved))


def _stream_aligned(bare: BareTransformer) -> Aligned:
    if _has_directions(bare):
        return Aligned(bare, np.eye(bare.width), 0.0, "directions")
    rows = bare.positions[1:].astype(float)
    if np.abs(rows @ rows.T - np.eye(len(rows))).max() < 10 * EXACT:
        turned = undo_rotation(bare)
        if turned.kind != "neither":
            return turned
    for close in (CLOSE, 100 * CLOSE, 500 * CLOSE):  # exact sums, or such as were trained a little since
        found = undo_compression(bare, close)
        if found.residual < COMPILED:
            return found
    return _neither(bare)


def _has_directions(bare: BareTransformer) -> bool:
    """Whether each row of the embeddings is one direction, besides `one`, which all tokens share."""
    tokens = bare.tokens - np.median(bare.tokens, axis=0).round() if len(bare.tokens) > 2 else bare.tokens
    rows = np.abs(np.concatenate([tokens, bare.positions[1:]]))
    largest = np.sort(rows, axis=1)[:, ::-1]
    others = largest[:, 1] if bare.width > 1 else 0.0
    places = rows.argmax(1)
    return bool((largest[:, 0] > 0.6).all() and np.all(others < 0.4) and len(set(places.tolist())) == len(places))


def _looks_compiled(bare: BareTransformer) -> bool:
    """Whether exact weights over directions are such as a compiler writes: embeddings and what heads write one-hot."""
    out = bare.linear.reshape(-1, bare.width)
    used = out[np.abs(out).max(1) > 10 * EXACT]
    single = np.sort(np.abs(used), axis=1)
    second = bare.second.reshape(-1, bare.width)
    few = (np.abs(second) > 10 * EXACT).sum(1).max(initial=0) <= MOST_WRITTEN
    alone = bare.width == 1 or bool(np.all(single[:, -2] < 10 * EXACT))
    return _has_directions(bare) and alone and bool(np.all(np.abs(single[:, -1] - 1) < 10 * EXACT)) and bool(few)


# -- how good it is --------------------------------------------------------------------------------------------------


def _neither(bare: BareTransformer) -> Aligned:
    return Aligned(bare, np.eye(bare.width), 1.0, "neither")


def _judged(bare: BareTransformer, rows: np.ndarray, kind: Kind) -> Aligned:
    """A transformer over found orthonormal directions (n, width), its weights rounded, and how far that is."""
    turned = with_stream(bare, rows.T)
    rounded = snapped(turned)
    return Aligned(rounded, rows, _distance(turned, rounded), kind)


def _distance(one: BareTransformer, other: BareTransformer) -> float:
    worst = 0.0
    for name, array in one.params.items():
        size = float(np.sqrt(np.mean(np.square(array, dtype=float))))
        if size > 0:
            apart = float(np.sqrt(np.mean(np.square(array - other.params[name], dtype=float))))
            worst = max(worst, apart / size)
    return worst


def snapped(bare: BareTransformer, within: float = SNAP) -> BareTransformer:
    """The same weights with every entry that is nearly a half number made it."""
    params = {name: _snapped(array, within) for name, array in bare.params.items()}
    readout = bare.readout
    if readout is not None:
        none = None if readout.none is None else _snapped(readout.none, 100 * within)
        readout = readout._replace(directions=_snapped(readout.directions, 100 * within), none=none)
    return replace(bare, params=params, readout=readout)


def _snapped(array: np.ndarray, within: float) -> np.ndarray:
    halves = np.round(2 * array) / 2
    near = np.abs(array - halves) < within * max(1.0, 1e-3 * float(np.abs(array).max(initial=0.0)))
    return np.where(near, halves, array).astype(np.float32) + np.float32(0)  # adding 0 turns -0 into 0
