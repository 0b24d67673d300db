"""What is known of given weights before anything is decompiled: anchors, and what each head and hidden unit touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from weightspace import clock
from weightspace.errors import RaspError
from weightspace.rasp.compiler.bare import MATRICES, POSITIONS, TOKENS, BareTransformer
from weightspace.rasp.language import BOS, PAD


class NotLiftable(RaspError):
    """Weights that are not a clean compiled program; the message names the first thing that could not be read."""


class Anchors(NamedTuple):
    """The directions of the residual stream that the embeddings give away.

    Attributes:
        tokens: the direction of each token of the vocabulary, in the order of `bare.vocab`.
        bos, pad: those of the compiler's own tokens.
        one: that which is 1 everywhere, or None if nothing reads it.
        indices: those of the places 0, 1, 2, ...
    """

    tokens: tuple[int, ...]
    bos: int
    pad: int
    one: int | None
    indices: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        own = (self.bos, self.pad) if self.one is None else (self.bos, self.pad, self.one)
        return (*self.tokens, *own, *self.indices)


def find_anchors(bare: BareTransformer) -> Anchors:
    """The directions of the tokens, of BOS and PAD, of `one` and of the places.

    Noise of less than half an entry does not matter.

    Raises:
        NotLiftable: if the embeddings are not one-hot.
    """
    set_, placed = bare.tokens > 0.5, bare.positions[1:] > 0.5
    everywhere = set_.all(0)
    ones = np.flatnonzero(everywhere)
    if len(ones) > 1 or (set_ & ~everywhere).sum(1).tolist() != [1] * len(set_):
        raise NotLiftable("the rows of the token embedding are not one direction each, besides one that all share")
    if placed.sum(1).tolist() != [1] * len(placed):
        raise NotLiftable("the rows of the position embedding are not one direction each")
    rows = dict(zip(bare.space, (set_ & ~everywhere).argmax(1).tolist(), strict=True))
    bos, pad = rows.pop(BOS), rows.pop(PAD)
    found = Anchors(
        tuple(rows[token] for token in bare.vocab),
        bos,
        pad,
        int(ones[0]) if len(ones) else None,
        tuple(placed.argmax(1).tolist()),
    )
    if len(set(found.all)) != len(found.all):
        raise NotLiftable("two rows of the embeddings share a direction")
    return found


class AttentionHead(NamedTuple):
    """What a head reads and writes.

    Attributes:
        layer, number: where it stands.
        keys: the directions that it has columns for, but BOS.
        chosen: (key, query) directions of which the query selects the key.
        moved: from each direction that it moves to the direction on which that arrives.
        strength: the score of what is selected.
        to_bos: the score by which every place looks to BOS.
    """

    layer: int
    number: int
    keys: tuple[int, ...]
    chosen: frozenset[tuple[int, int]]
    moved: Mapping[int, int]
    strength: float
    to_bos: float


class Units(NamedTuple):
    """What the hidden units of one layer read and write.

    Attributes:
        reads: for each unit the weight of each direction that it reads.
        writes: for each unit the weight of each direction that it writes.
    """

    reads: list[dict[int, float]]
    writes: list[dict[int, float]]


def read_heads(bare: BareTransformer, anchors: Anchors) -> list[list[AttentionHead]]:
    """The heads in use, layer by layer.

    Raises:
        NotLiftable: if a head does not compare directions with directions, or mixes what it moves.
    """
    return [
        [head for number in range(bare.num_heads) if (head := _head(bare, anchors, layer, number)) is not None]
        for layer in range(bare.num_layers)
    ]


def _head(bare: BareTransformer, anchors: Anchors, layer: int, number: int) -> AttentionHead | None:
    clock.look()
    columns = bare.head(number)
    query, key = bare.query[layer][:, columns], bare.key[layer][:, columns]
    value, out = bare.value[layer][:, columns], bare.linear[layer][columns]
    rows, places = np.nonzero(key)
    if not len(rows):
        if value.any() or out.any():
            raise NotLiftable(f"head {number} of layer {layer} moves something but compares nothing")
        return None
    key_of = dict(zip(places.tolist(), rows.tolist(), strict=True))
    if len(key_of) != len(rows) or len(set(key_of.values())) != len(rows):
        raise NotLiftable(f"head {number} of layer {layer} has a column that stands for several keys")
    strengths, chosen, to_bos = set(), set(), 0.0
    for row, place in zip(*(part.tolist() for part in np.nonzero(query)), strict=True):
        weight = float(query[row, place])
        if row == anchors.one and key_of.get(place) == anchors.bos:
            to_bos = weight
        elif place in key_of:
            strengths.add(weight)
            chosen.add((key_of[place], row))
        else:
            raise NotLiftable(f"head {number} of layer {layer} has a query without a key")
    if not to_bos or len(strengths) > 1:
        raise NotLiftable(f"the scores of head {number} of layer {layer} are not those of a selector")
    keys = tuple(direction for direction in key_of.values() if direction != anchors.bos)
    strength = strengths.pop() if strengths else 0.0
    return AttentionHead(layer, number, keys, frozenset(chosen), _moved(value, out, layer, number), strength, to_bos)


def _moved(value: np.ndarray, out: np.ndarray, layer: int, number: int) -> dict[int, int]:
    sources, columns = (part.tolist() for part in np.nonzero(value))
    rows, targets = (part.tolist() for part in np.nonzero(out))
    target = dict(zip(rows, targets, strict=True))
    moved = {source: target.get(column, -1) for source, column in zip(sources, columns, strict=True)}
    if not moved or len(target) != len(rows) or sorted(moved.values()) != sorted(targets) or -1 in moved.values():
        raise NotLiftable(f"head {number} of layer {layer} does not move each direction to one of its own")
    return moved


def read_units(bare: BareTransformer) -> list[Units]:
    """The hidden units, layer by layer; those out of use read and write nothing."""
    found = []
    for layer in range(bare.num_layers):
        clock.look()
        reads: list[dict[int, float]] = [{} for _ in range(bare.hidden_size)]
        writes: list[dict[int, float]] = [{} for _ in range(bare.hidden_size)]
        first, second = bare.first[layer], bare.second[layer]
        rows, units = np.nonzero(first)
        for row, unit, weight in zip(rows.tolist(), units.tolist(), first[rows, units].tolist(), strict=True):
            reads[unit][row] = weight
        units, rows = np.nonzero(second)
        for unit, row, weight in zip(units.tolist(), rows.tolist(), second[units, rows].tolist(), strict=True):
            writes[unit][row] = weight
        found.append(Units(reads, writes))
    return found


# -- a little noise --------------------------------------------------------------------------------------------------


def snapped(bare: BareTransformer, tolerance: float) -> BareTransformer:
    """The same weights, rounded: what is small becomes zero, what is nearly equal becomes equal.

    Args:
        tolerance: in units of each matrix's largest entry; entries below it become 0, and entries whose neighbours in
            size are nearer than it become their mean, or the multiple of 1/2 that is near that.
    """
    names = [TOKENS, POSITIONS]
    names += [f"transformer/layer_{i}/{matrix}/w" for i in range(bare.num_layers) for matrix in MATRICES]
    return replace(bare, params={**bare.params, **{name: _snapped(bare.params[name], tolerance) for name in names}})


def _snapped(matrix: np.ndarray, tolerance: float) -> np.ndarray:
    within = tolerance * float(np.abs(matrix).max(initial=0.0))
    places = np.nonzero(np.abs(matrix) > within)
    values = matrix[places].astype(np.float64)
    if not len(values):
        return np.zeros_like(matrix)
    order = np.argsort(values, kind="stable")
    group = np.concatenate([[0], np.cumsum(np.diff(values[order]) > within / 2)])
    means = np.bincount(group, values[order]) / np.bincount(group)
    halves = np.round(2 * means) / 2
    means = np.where((np.abs(means - halves) <= within) & (halves != 0), halves, means)
    rounded = np.zeros_like(matrix)
    rounded[places[0][order], places[1][order]] = means[group]
    return rounded
